import { LRUCache } from 'lru-cache';
import { matches } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { bytesBlob, readAll } from './bytes.ts';
import type { Blob, Tier } from './tier.ts';

export interface MemoryOptions {
  readonly maxBytes: number;
  /** Larger blobs are declined: they would push out thousands of manifests. */
  readonly maxBlobBytes: number;
}

/** What an entry costs beside its bytes: the key, the map's node, the buffer's head. */
const entryOverheadBytes = 512;

export interface MemoryTier extends Tier {
  /** What its entries cost. */
  heldBytes(): number;
}

/** Manifests, configs and small layers, by bytes and least recent use. */
export function createMemoryTier({ maxBytes, maxBlobBytes }: MemoryOptions): MemoryTier {
  const entries =
    maxBytes > 0
      ? new LRUCache<Digest, Buffer>({
          maxSize: maxBytes,
          maxEntrySize: maxBlobBytes + entryOverheadBytes,
          sizeCalculation: (bytes) => bytes.length + entryOverheadBytes,
        })
      : undefined;
  return {
    name: 'memory',
    heldBytes: () => entries?.calculatedSize ?? 0,
    open(digest): Promise<Blob | undefined> {
      const bytes = entries?.get(digest);
      return Promise.resolve(bytes && bytesBlob(bytes, 'hit-memory'));
    },
    has: (digest) => Promise.resolve(entries?.peek(digest)?.length),
    async put(digest, blob) {
      if (!entries || blob.size > maxBlobBytes) return blob.close();
      const bytes = await readAll(blob);
      if (!matches(bytes, digest)) throw new Error(`content does not hash to ${digest}`);
      entries.set(digest, bytes);
    },
    delete(digest) {
      entries?.delete(digest);
      return Promise.resolve();
    },
  };
}
