import type { Digest } from '../oci/digest.ts';
import { bytesBlob, readAll } from './bytes.ts';
import type { Blob, GrowingTier, Store, Tier } from './tier.ts';

export interface TiersOptions {
  readonly memory: Tier;
  readonly disk: GrowingTier;
  /** Blobs up to this size are brought up into memory when they are read. */
  readonly maxMemoryBlobBytes: number;
  onTrouble(tier: Tier['name'], error: unknown): void;
}

/** Memory, then disk. What is small comes up when it is asked for. */
export function createStore({ memory, disk, maxMemoryBlobBytes, onTrouble }: TiersOptions): Store {
  async function attempt<T>(tier: Tier, action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      onTrouble(tier.name, error);
      return undefined;
    }
  }

  /** A small blob is verified whole before it is answered, so a rotten copy is a miss that no client sees. */
  async function bringUp(digest: Digest, blob: Blob): Promise<Blob> {
    const bytes = await readAll(blob);
    await attempt(memory, () => memory.put(digest, bytesBlob(bytes, blob.state)));
    return bytesBlob(bytes, blob.state);
  }

  return {
    async open(digest) {
      const near = await attempt(memory, () => memory.open(digest));
      if (near) return near;
      return attempt(disk, async () => {
        const blob = await disk.open(digest);
        return blob && blob.size <= maxMemoryBlobBytes ? bringUp(digest, blob) : blob;
      });
    },

    async put(digest, bytes) {
      for (const tier of [memory, disk]) {
        await attempt(tier, () => tier.put(digest, bytesBlob(bytes, 'miss')));
      }
    },

    begin: () => attempt(disk, () => disk.begin()),
  };
}
