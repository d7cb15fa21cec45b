import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
import type { Tier } from './tier.ts';

export interface SpreaderOptions {
  readonly disk: Tier;
  /** Those that are to have a copy of what lands on the disk. */
  readonly tiers: readonly Tier[];
  /** Runs what a tier may fail at. */
  attempt<T>(tier: Tier, action: () => Promise<T>): Promise<T | undefined>;
}

export interface Spreader {
  spread(digest: Digest): void;
  /** Forgets what has not begun; resolves when the rest is done. */
  close(): Promise<void>;
}

/** Copies at once: they share the line with what clients wait for. */
const maxRunning = 2;
/** How long those that run may take when everything ends. */
const maxCloseMs = 5000;
/** What waits beyond this is let go: a copy less, as after an eviction. */
const maxWaiting = 1000;

/** Copies what has landed to the tiers that are farther away, behind the answers. */
export function createSpreader({ disk, tiers, attempt }: SpreaderOptions): Spreader {
  const waiting = new Set<Digest>();
  const running = new Set<Promise<void>>();

  async function copy(digest: Digest): Promise<void> {
    for (const tier of tiers) {
      await attempt(tier, async () => {
        if ((await tier.has(digest)) !== undefined) return;
        const here = await disk.open(digest);
        if (here) await tier.put(digest, here);
      });
    }
  }

  function next(): void {
    const [digest] = waiting;
    if (digest === undefined || running.size >= maxRunning) return;
    waiting.delete(digest);
    const copying = copy(digest).finally(() => {
      running.delete(copying);
      next();
    });
    running.add(copying);
  }

  return {
    spread(digest) {
      if (tiers.length === 0 || waiting.size >= maxWaiting) return;
      waiting.add(digest);
      next();
    },
    async close() {
      waiting.clear();
      // A copy less is no loss: nobody waits for one that does not end.
      await Promise.race([Promise.all(running), delay(maxCloseMs, undefined, { ref: false })]);
    },
  };
}
