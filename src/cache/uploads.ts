import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { finish, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';

/** Uploads that are not whole yet: a file each, so that they outlive the process, and all processes of a store share them. */
export interface Uploads {
  /** The id of a new one. @throws TooManyUploads */
  begin(repository: string): Promise<string>;
  /** The bytes that are here; undefined for what is no upload of the repository. */
  size(repository: string, id: string): Promise<number | undefined>;
  /**
   * Adds to the end of what is here, and keeps what came where the body breaks off.
   *
   * @param from where the body belongs; undefined for the end, wherever that is
   * @throws UploadGone, OutOfOrder, UploadTooLarge, and what the body breaks off with
   */
  append(repository: string, id: string, from: number | undefined, body: AsyncIterable<Buffer>): Promise<number>;
  /**
   * Ends it: a file that hashes to the digest is handed on, any other is removed.
   *
   * @returns false where the bytes are not those of the digest
   * @throws UploadGone, and what `take` fails with
   */
  finish(
    repository: string,
    id: string,
    digest: Digest,
    take: (path: string, bytes: number) => Promise<void>,
  ): Promise<boolean>;
  /** False for what is no upload of the repository. */
  cancel(repository: string, id: string): Promise<boolean>;
  /** Removes those that nobody has added to for a while. */
  sweep(): Promise<void>;
}

export class TooManyUploads extends Error {}
export class UploadGone extends Error {}
export class UploadTooLarge extends Error {}
export class OutOfOrder extends Error {
  readonly size: number;

  constructor(size: number) {
    super(`the upload has ${size} bytes`);
    this.size = size;
  }
}

export interface UploadsOptions {
  readonly folder: string;
  readonly maxUploads: number;
  readonly maxBytes: number;
  readonly idleMs: number;
  now(): number;
  /** There is no room left on the device. */
  onFull(): void;
}

interface Running {
  readonly ended: Promise<void>;
  stop(): void;
}

const grammar = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const hashBytes = 1024 * 1024;

export async function openUploads(options: UploadsOptions): Promise<Uploads> {
  const { folder, maxUploads, maxBytes, idleMs, now, onFull } = options;
  await mkdir(folder, { recursive: true });
  const running = new Map<string, Running>();

  /** The repository is part of the name: what one began, another does not find. */
  function pathOf(repository: string, id: string): string {
    if (!grammar.test(id)) throw new UploadGone('this is no upload');
    return join(folder, `${createHash('sha256').update(repository).digest('hex').slice(0, 32)}-${id}`);
  }

  /**
   * A client whose connection was cut comes back before its end was noticed here: the new request goes before the
   * old one, which ends where it is.
   */
  async function alone<T>(repository: string, id: string, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const path = pathOf(repository, id);
    for (let before; (before = running.get(path));) {
      before.stop();
      await before.ended;
    }
    const stopping = new AbortController();
    const ended = Promise.withResolvers<void>();
    running.set(path, { ended: ended.promise, stop: () => stopping.abort() });
    try {
      return await action(stopping.signal);
    } finally {
      running.delete(path);
      ended.resolve();
    }
  }

  async function write(file: FileHandle, start: number, body: AsyncIterable<Buffer>, signal: AbortSignal) {
    let end = start;
    for await (const chunk of stoppable(body, signal)) {
      if (end + chunk.length > maxBytes) throw new UploadTooLarge(`an upload may have ${maxBytes} bytes`);
      for (let at = 0; at < chunk.length;) {
        at += (await file.write(chunk, at, chunk.length - at, end + at)).bytesWritten;
      }
      end += chunk.length;
    }
    return end;
  }

  return {
    async begin(repository) {
      if ((await readdir(folder)).length >= maxUploads) throw new TooManyUploads(`${maxUploads} uploads are open`);
      const id = randomUUID();
      await (await open(pathOf(repository, id), 'wx', 0o644)).close();
      return id;
    },

    async size(repository, id) {
      if (!grammar.test(id)) return undefined;
      return (await statIfThere(pathOf(repository, id)))?.size;
    },

    append: (repository, id, from, body) =>
      alone(repository, id, async (signal) => {
        const file = await openIfThere(pathOf(repository, id), 'r+');
        try {
          const { size } = await file.stat();
          if (from !== undefined && from !== size) throw new OutOfOrder(size);
          return await write(file, size, body, signal);
        } catch (error) {
          if (['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')) onFull();
          throw error;
        } finally {
          await file.close();
        }
      }),

    finish: (repository, id, digest, take) =>
      alone(repository, id, async () => {
        // Under a name that nobody adds to: what is hashed is what is kept.
        const closing = join(folder, `closing-${randomUUID()}`);
        await renameIfThere(pathOf(repository, id), closing);
        try {
          const bytes = await hashesTo(closing, digest);
          if (bytes === undefined) return false;
          await take(closing, bytes).catch(async (error: unknown) => {
            // Where it was not taken, whoever asks again need not send it again.
            await rename(closing, pathOf(repository, id)).catch(() => undefined);
            throw error;
          });
          return true;
        } finally {
          await rm(closing, { force: true });
        }
      }),

    async cancel(repository, id) {
      if (!grammar.test(id)) return false;
      return alone(repository, id, async () => {
        if (!(await statIfThere(pathOf(repository, id)))) return false;
        await rm(pathOf(repository, id), { force: true });
        return true;
      });
    },

    async sweep() {
      for (const name of await readdir(folder)) {
        const found = await statIfThere(join(folder, name));
        if (found && now() - found.mtimeMs > idleMs) await rm(join(folder, name), { force: true });
      }
    },
  };
}

/** Ends between two chunks, even while it waits for one that never comes. */
async function* stoppable(body: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  const stopped = Promise.withResolvers<never>();
  stopped.promise.catch(() => undefined);
  const stop = () => stopped.reject(new UploadGone('another request went on with this upload'));
  signal.addEventListener('abort', stop, { once: true });
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await Promise.race([chunks.next(), stopped.promise]);
      if (done) return;
      yield value;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    void chunks.return?.(undefined)?.catch(() => undefined);
  }
}

/** How long the file is, if it hashes to the digest. */
async function hashesTo(path: string, digest: Digest): Promise<number | undefined> {
  const file = await open(path, 'r');
  try {
    const running = startHash(digest);
    const buffer = Buffer.allocUnsafeSlow(hashBytes);
    let position = 0;
    for (let read; (read = (await file.read(buffer, 0, hashBytes, position)).bytesRead) > 0; position += read) {
      running.update(buffer.subarray(0, read));
    }
    return finish(running, digest) ? position : undefined;
  } finally {
    await file.close();
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

async function statIfThere(path: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

async function openIfThere(path: string, flags: string): Promise<FileHandle> {
  try {
    return await open(path, flags);
  } catch (error) {
    throw isMissing(error) ? new UploadGone('there is no such upload') : error;
  }
}

async function renameIfThere(path: string, to: string): Promise<void> {
  try {
    await rename(path, to);
  } catch (error) {
    throw isMissing(error) ? new UploadGone('there is no such upload') : error;
  }
}
