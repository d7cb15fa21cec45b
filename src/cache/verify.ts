import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
import type { Catalog } from './catalog.ts';
import type { Tier } from './tier.ts';

export interface VerifyOptions {
  readonly catalog: Pick<Catalog, 'entries' | 'remove'>;
  readonly disk: Pick<Tier, 'open' | 'has'>;
  /** After each blob: what was read of it. */
  onRead(bytes: number): void;
}

export interface Verdict {
  readonly blobs: number;
  readonly bytes: number;
  /** What was not what its name says; it is gone from the store. */
  readonly wrong: readonly Digest[];
  /** What was in the books alone; struck off now. */
  readonly lost: readonly Digest[];
  /** What could not be read to its end. It stays: that says nothing of its content. */
  readonly unreadable: readonly Digest[];
}

const page = 1000;

/** Reads all that the store holds. What does not hash to its name is removed by the reading. */
export async function verifyStore({ catalog, disk, onRead }: VerifyOptions): Promise<Verdict> {
  const wrong: Digest[] = [];
  const lost: Digest[] = [];
  const unreadable: Digest[] = [];
  let blobs = 0;
  let bytes = 0;
  for (let after = ''; ;) {
    const entries = catalog.entries(after, page);
    for (const entry of entries) {
      const blob = await disk.open(entry.digest).catch(() => 'unreadable' as const);
      if (blob === 'unreadable') {
        unreadable.push(entry.digest);
      } else if (blob) {
        const isRight = await (blob.verified ?? Promise.resolve()).then(
          () => true,
          () => false,
        );
        await blob.close();
        // What could not be read to its end is still there, and may be right.
        if (!isRight) ((await disk.has(entry.digest)) === undefined ? wrong : unreadable).push(entry.digest);
        blobs++;
        bytes += blob.size;
      } else {
        catalog.remove(entry.digest);
        lost.push(entry.digest);
      }
      onRead(entry.bytes);
      await nextTurn();
    }
    const last = entries.at(-1);
    if (!last) return { blobs, bytes, wrong, lost, unreadable };
    after = last.digest;
  }
}
