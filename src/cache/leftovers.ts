import { lstat, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';

/** What downloads left behind that broke off: the next one of the same digest goes on from there. */
export interface Leftovers {
  /** Takes a file over; a small one is not worth it, and goes. Never rejects: it is a saving, no promise. */
  keep(from: string, digest: Digest): Promise<void>;
  /** Gives one back under another name, to one taker alone; false where there is none. */
  take(digest: Digest, to: string): Promise<boolean>;
  /** There is no room for savings. */
  clear(): Promise<void>;
}

/** Less is as soon fetched again as looked for. */
const minBytes = 256 * 1024;
const maxAgeMs = 7 * 86_400_000;

/** @param maxBytes for all of them together; the oldest go */
export async function openLeftovers(folder: string, maxBytes: number, now: () => number): Promise<Leftovers> {
  await mkdir(folder, { recursive: true });
  const pathOf = (digest: Digest) => join(folder, digest.replace(':', '-'));

  async function prune(): Promise<void> {
    const names = (await readdir(folder)).filter((name) => isDigest(name.replace('-', ':')));
    const files = await Promise.all(
      names.map(async (name) => ({
        path: join(folder, name),
        file: await lstat(join(folder, name)).catch(() => undefined),
      })),
    );
    let total = 0;
    for (const { path, file } of files.toSorted(
      (one, other) => (other.file?.mtimeMs ?? 0) - (one.file?.mtimeMs ?? 0),
    )) {
      if (!file) continue;
      const isTooMuch = total + file.size > maxBytes || now() - file.mtimeMs > maxAgeMs;
      if (isTooMuch || !file.isFile()) await rm(path, { force: true });
      else total += file.size;
    }
  }

  const leftovers: Leftovers = {
    async keep(from, digest) {
      try {
        const [file, before] = await Promise.all([lstat(from), lstat(pathOf(digest)).catch(() => undefined)]);
        // Of two that broke off, the one that came farther saves more.
        if (file.size < Math.max(minBytes, before?.size ?? 0)) return await rm(from, { force: true });
        await rename(from, pathOf(digest));
        await prune();
      } catch {
        await rm(from, { force: true }).catch(() => undefined);
      }
    },

    async take(digest, to) {
      try {
        await rename(pathOf(digest), to);
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
        throw error;
      }
    },

    async clear() {
      for (const name of await readdir(folder)) await rm(join(folder, name), { force: true });
    },
  };
  await prune();
  return leftovers;
}
