import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDigest } from '../oci/digest.ts';
import type { Catalog } from './catalog.ts';

/**
 * Puts into the books what lies in a store and is in none: copied in by hand, or kept since before there were books.
 * What is in the books and not on the disk goes out of them when its turn to be evicted comes.
 *
 * @returns how many were found
 */
export async function reconcile(path: string, catalog: Catalog, signal: AbortSignal): Promise<number> {
  let found = 0;
  for (const algorithm of ['sha256', 'sha512']) {
    const folder = join(path, 'blobs', algorithm);
    for await (const { name } of await opendir(folder, { bufferSize: 256 })) {
      if (signal.aborted) return found;
      const digest = `${algorithm}:${name}`;
      if (!isDigest(digest) || catalog.has(digest)) continue;
      const file = await lstat(join(folder, name)).catch(() => undefined);
      if (!file?.isFile()) continue;
      catalog.add(digest, file.size);
      found++;
      await nextTurn();
    }
  }
  return found;
}
