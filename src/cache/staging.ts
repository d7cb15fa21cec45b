import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { finish, isDigest, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { tryLock } from './claim.ts';

/** Content that is not in the store yet, because not all has been seen that it came with. */
export interface Staging {
  /** The size of what is staged. */
  has(digest: Digest): Promise<number | undefined>;
  /**
   * Takes content in. Nothing is left behind of what is not that of the digest.
   *
   * @returns did it hash to the digest, in that many bytes?
   */
  put(digest: Digest, bytes: number, content: AsyncIterable<Buffer>): Promise<boolean>;
  /** Is it staged, and still what it was when it came? Others can write to a disk. */
  isRight(digest: Digest, bytes: number): Promise<boolean>;
  /** As `put`, without keeping it. */
  check(digest: Digest, bytes: number, content: AsyncIterable<Buffer>): Promise<boolean>;
  /** The whole of what is small; undefined for what is not here, or larger. */
  read(digest: Digest, maxBytes: number): Promise<Buffer | undefined>;
  pathOf(digest: Digest): string;
  all(): Promise<Digest[]>;
  /** It was not right: nothing of it stays. */
  discard(digests: Iterable<Digest>): Promise<void>;
  /** Everything is where it belongs. */
  clear(): Promise<void>;
  close(): void;
}

/** What an import left behind that nobody went on with. */
const maxAgeMs = 7 * 86_400_000;

/**
 * A folder beside the store, for one import at a time: what it holds when a process dies is what the next import need
 * not read again. A lock says who is at it, which the kernel drops with its process.
 *
 * @returns undefined where another import is at it
 */
export async function openStaging(store: string, now: () => number): Promise<Staging | undefined> {
  const folder = join(store, 'imports');
  await mkdir(folder, { recursive: true });
  const lock = tryLock(join(folder, 'lock'));
  if (!lock) return undefined;
  await sweep(folder, now() - maxAgeMs);
  const pathOf = (digest: Digest) => join(folder, digest.replace(':', '-'));

  const staging: Staging = {
    pathOf,

    async has(digest) {
      const file = await stat(pathOf(digest)).catch(() => undefined);
      return file?.isFile() ? file.size : undefined;
    },

    async put(digest, bytes, content) {
      const path = pathOf(digest);
      const unfinished = `${path}.part`;
      const running = startHash(digest);
      const file = await open(unfinished, 'w');
      let length = 0;
      try {
        for await (const piece of content) {
          running.update(piece);
          for (let at = 0; at < piece.length;) at += (await file.write(piece, at)).bytesWritten;
          length += piece.length;
        }
        if (length !== bytes || !finish(running, digest)) return false;
        await file.sync();
        await rename(unfinished, path);
        return true;
      } finally {
        await file.close();
        await rm(unfinished, { force: true });
      }
    },

    async isRight(digest, bytes) {
      const file = await open(pathOf(digest), constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined);
      if (!file) return false;
      try {
        return await staging.check(digest, bytes, file.createReadStream({ autoClose: false }));
      } finally {
        await file.close();
      }
    },

    async check(digest, bytes, content) {
      const running = startHash(digest);
      let length = 0;
      for await (const piece of content) {
        running.update(piece);
        length += piece.length;
      }
      return length === bytes && finish(running, digest);
    },

    async read(digest, maxBytes) {
      const file = await open(pathOf(digest), constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined);
      if (!file) return undefined;
      try {
        return (await file.stat()).size <= maxBytes ? await file.readFile() : undefined;
      } finally {
        await file.close();
      }
    },

    async all() {
      const names = await readdir(folder);
      return names.map((name) => name.replace('-', ':')).filter(isDigest);
    },

    async discard(digests) {
      for (const digest of digests) await rm(pathOf(digest), { force: true });
    },

    async clear() {
      for (const name of await readdir(folder)) if (name !== 'lock') await rm(join(folder, name), { force: true });
    },

    close: () => lock.close(),
  };
  return staging;
}

async function sweep(folder: string, beforeMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const file = await stat(path).catch(() => undefined);
    const isOld = file !== undefined && file.mtimeMs < beforeMs;
    if (name !== 'lock' && (isOld || name.endsWith('.part'))) await rm(path, { force: true });
  }
}
