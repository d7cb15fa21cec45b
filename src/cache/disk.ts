import { constants } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import { basename, join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { algorithmOf, finish, hexOf, isDigest, parseDigest, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { pieces, verify } from './bytes.ts';
import { claimFolder } from './claim.ts';
import { createFileReaders } from './file-readers.ts';
import { openLeftovers } from './leftovers.ts';
import { partialFile } from './partial-file.ts';
import type { Blob, GrowingTier, Partial, PartialReader } from './tier.ts';
import { wholeOf } from './whole-file.ts';
import type { WholeFile } from './whole-file.ts';

export interface DiskOptions {
  /** The store's folder; `blobs/` in it is that of an OCI image layout. */
  readonly path: string;
  /** How many digests are remembered as verified by this process. */
  readonly maxVerified: number;
  /** For the read buffers of all readers together. */
  readonly maxBufferBytes: number;
  /** For what downloads leave behind that broke off. */
  readonly maxLeftoverBytes: number;
  /** Told of what comes, is used and goes. */
  readonly books?: DiskBooks;
}

export interface DiskBooks {
  /** Right before content gets its name. A throw keeps it from getting one. */
  adding(digest: Digest, bytes: number): void;
  /** It has its name; who took away what was there before may have struck it off. */
  added(digest: Digest, bytes: number): void;
  used(digest: Digest): void;
  removed(digest: Digest): void;
  /** There is no room left on the device. */
  full(): void;
}

export interface DiskTier extends GrowingTier {
  /** Takes a file's bytes over as the content of a digest; the file is gone then. */
  adopt(from: string, digest: Digest): Promise<void>;
  /**
   * Gives a file its name in the store. The caller made it, has read it to the digest and brought it to the disk, and
   * nobody else knows of it.
   */
  install(from: string, digest: Digest): Promise<void>;
  close(): Promise<void>;
}

/**
 * Blobs as files, `blobs/sha256/<hex>`. A file gets its name when it is whole, verified and on the disk, in that
 * order (fsync, rename, fsync of the folder), so a kill leaves the whole blob or nothing. What another process or an
 * earlier life wrote is hashed again before its last byte leaves.
 */
export async function createDiskTier(options: DiskOptions): Promise<DiskTier> {
  const { path, maxVerified, maxBufferBytes, maxLeftoverBytes, books } = options;
  for (const algorithm of ['sha256', 'sha512']) await mkdir(join(path, 'blobs', algorithm), { recursive: true });
  const leftovers = await openLeftovers(join(path, 'leftovers'), maxLeftoverBytes, Date.now);
  const claim = await claimFolder(join(path, 'tmp'), async (file) => {
    const digest = digestIn(basename(file));
    if (digest) await leftovers.keep(file, digest);
  });
  // Each is one of that size: by `max` room for all of them would be made at each start.
  const verified = new LRUCache<Digest, string>({ maxSize: maxVerified, sizeCalculation: () => 1 });
  const verifying = new Map<string, Promise<void>>();
  const readers = createFileReaders(maxBufferBytes);

  const folderOf = (digest: Digest) => join(path, 'blobs', algorithmOf(digest));
  const fileOf = (digest: Digest) => join(folderOf(digest), hexOf(parseDigest(digest)));

  const tier: DiskTier = {
    name: 'disk',

    async open(digest) {
      const file = await openIfThere(fileOf(digest));
      if (!file) return undefined;
      const whole = await closingOnError(file, wholeOf);
      // A file of no bytes is what a full disk or a power cut leaves of a name; the empty blob costs a download.
      if (whole.size === 0) {
        await file.close();
        await tier.delete(digest);
        return undefined;
      }
      books?.used(digest);
      if (verified.get(digest) === whole.identity) {
        return fileBlob(file, readers.open(file, { ...whole, digest }), whole.size, undefined);
      }
      // Opened now: a file that is taken away meanwhile must not look like a wrong one to who is reading it.
      const again = await closingOnError(file, () => openIfThere(fileOf(digest)));
      if (!again) {
        await file.close();
        return undefined;
      }
      return fileBlob(file, readers.open(file, { ...whole, digest }), whole.size, verifyOnce(digest, whole, again));
    },

    async has(digest) {
      const file = await stat(fileOf(digest)).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      });
      return file?.isFile() && file.size > 0 ? file.size : undefined;
    },

    async put(digest, blob) {
      let partial: Partial | undefined;
      try {
        partial = await tier.begin(digest);
        const running = startHash(digest);
        for await (const piece of pieces(blob)) {
          running.update(piece);
          await partial.append([piece]);
        }
        await blob.verified;
        if (!finish(running, digest)) throw new Error(`content does not hash to ${digest}`);
        await partial.commit(digest);
      } finally {
        await partial?.close();
        await blob.close();
      }
    },

    async delete(digest) {
      verified.delete(digest);
      await rm(fileOf(digest), { force: true });
      books?.removed(digest);
      // It may have come again meanwhile: what is in the books and not there does no harm, the other way round it stays.
      const again = await stat(fileOf(digest)).catch(() => undefined);
      if (again) books?.adding(digest, again.size);
    },

    async begin(digest) {
      const temporary = temporaryOf(digest);
      return partialOf(digest, temporary, await open(temporary, 'wx+', 0o644), 0);
    },

    async takeUp(digest) {
      const temporary = temporaryOf(digest);
      if (!(await leftovers.take(digest, temporary))) return undefined;
      // No link that somebody put there is followed: what is appended would go to wherever it leads.
      const file = await open(temporary, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
        () => undefined,
      );
      const about = file && (await closingOnError(file, () => file.stat()));
      if (file && about?.isFile() && about.nlink === 1) return partialOf(digest, temporary, file, about.size);
      await file?.close();
      await rm(temporary, { force: true });
      return undefined;
    },

    async adopt(from, digest) {
      const file = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW);
      const { size } = await closingOnError(file, wholeOf);
      // Another process may have it open and write to it: what is kept is a copy that nobody else knows.
      await tier.put(digest, fileBlob(file, readers.open(file), size, undefined));
      await rm(from, { force: true });
    },

    async install(from, digest) {
      const file = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW);
      try {
        await publish(file, from, digest);
      } finally {
        await file.close();
      }
    },

    close: () => claim.release(),
  };

  /** Whoever finds it after this process is gone has to know what it was to become. */
  function temporaryOf(digest: Digest): string {
    return join(claim.folder, `${digest.replace(':', '-')}.${randomUUID()}`);
  }

  function partialOf(digest: Digest, temporary: string, file: FileHandle, startBytes: number): Partial {
    let isFull = false;
    return partialFile(file, {
      startBytes,
      reader: () => readers.open(file),
      onFull() {
        isFull = true;
        books?.full();
        void leftovers.clear().catch(() => undefined);
      },
      publish: (committed) => publish(file, temporary, committed),
      drop: (isForLater) =>
        isForLater && !isFull ? leftovers.keep(temporary, digest) : rm(temporary, { force: true }),
    });
  }

  /** A file whose bytes are on the disk gets its name. */
  async function publish(file: FileHandle, temporary: string, digest: Digest): Promise<void> {
    const { size, identity } = await wholeOf(file);
    books?.adding(digest, size);
    verified.set(digest, identity);
    await rename(temporary, fileOf(digest));
    // A name that may not outlast a power cut is none.
    await syncFolder(folderOf(digest)).catch(async (error: unknown) => {
      await tier.delete(digest);
      throw error;
    });
    books?.added(digest, size);
  }

  /** One pass over the file, however many readers wait for its verdict; a wrong file is removed. */
  function verifyOnce(digest: Digest, whole: WholeFile, file: FileHandle): Promise<void> {
    const key = `${digest} ${whole.identity}`;
    const joined = verifying.get(key);
    if (joined) void file.close().catch(() => undefined);
    const running = joined ?? verifyFile(digest, whole, file).finally(() => verifying.delete(key));
    verifying.set(key, running);
    running.catch(() => undefined);
    return running;
  }

  async function verifyFile(digest: Digest, whole: WholeFile, file: FileHandle): Promise<void> {
    const blob = fileBlob(file, readers.open(file, { ...whole, digest }), whole.size, undefined);
    try {
      // Someone may have put another file there meanwhile: its being right would say nothing of the one that is read.
      const { identity } = await wholeOf(file);
      if (identity !== whole.identity) throw new Error(`${digest} was replaced while it was read`);
      if (await verify(blob, digest)) {
        verified.set(digest, whole.identity);
        return;
      }
      await tier.delete(digest);
      throw new Error(`stored content does not hash to ${digest}`);
    } finally {
      await blob.close();
    }
  }

  return tier;
}

/** Links are not followed: a store that others can write to must not become a way to read the machine's files. */
async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** A handle that nobody closes ends the process when it is collected. */
async function closingOnError<T>(file: FileHandle, task: (file: FileHandle) => Promise<T>): Promise<T> {
  try {
    return await task(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function fileBlob(file: FileHandle, reader: PartialReader, size: number, verified: Promise<void> | undefined): Blob {
  let closed: Promise<void> | undefined;
  return {
    size,
    state: 'hit-disk',
    verified,
    read: (position, maxBytes) => reader.read(position, maxBytes),
    close() {
      reader.close();
      // Nothing was written: a failing close loses nothing.
      return (closed ??= file.close().catch(() => undefined));
    },
  };
}

/** `sha256-<hex>.<anything>`. */
function digestIn(name: string): Digest | undefined {
  const [text = ''] = name.replace('-', ':').split('.', 1);
  return isDigest(text) ? text : undefined;
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
