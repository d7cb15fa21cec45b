import type { Digest } from '../oci/digest.ts';
import type { Catalog, Entry } from './catalog.ts';
import type { Tier } from './tier.ts';

export interface EvictorOptions {
  readonly catalog: Pick<Catalog, 'totalBytes' | 'oldest' | 'has'>;
  readonly disk: Pick<Tier, 'delete'>;
  readonly maxBytes: number;
  onEvicted(bytes: number): void;
  /** Nothing that may go is left, and there is still too much. */
  onFull(totalBytes: number): void;
  onTrouble(error: unknown): void;
}

export interface Evictor {
  /** Something has come: is it too much now? */
  check(): void;
  /** There is no room left, whatever the bound says. */
  relieve(): void;
  /** Brings the store down to `targetBytes` now; resolves with what that took away. */
  run(targetBytes: number): Promise<number>;
  /** Resolves when nothing is being taken away any more. */
  settled(): Promise<void>;
}

/** Down to this share of the bound, so that not every blob that comes makes another go. */
const lowWater = 0.9;
/** At once: blobs come many at a time, and what goes has to keep up with them. */
const batch = 16;

/** With more than these that cannot be taken away, it is the disk that is in trouble. */
const maxStuck = 100;

/** Keeps the disk within its bound: what was least recently used goes, what is pinned stays. */
export function createEvictor({ catalog, disk, maxBytes, onEvicted, onFull, onTrouble }: EvictorOptions): Evictor {
  let running: Promise<void> | undefined;

  async function run(targetBytes: number): Promise<number> {
    let evicted = 0;
    const stuck = new Set<Digest>();
    for (let over; (over = catalog.totalBytes() - targetBytes) > 0;) {
      const [first, ...others] = enough(catalog.oldest(batch + stuck.size).filter(isFree), over);
      if (!first) {
        if (stuck.size === 0) onFull(catalog.totalBytes());
        break;
      }
      await take(first);
      await Promise.all(others.map(take));
    }
    return evicted;

    function isFree({ digest }: Entry): boolean {
      return !stuck.has(digest);
    }

    async function take({ digest, bytes }: Entry): Promise<void> {
      try {
        // Whoever is reading it reads on: a file lives as long as it is open.
        await disk.delete(digest);
      } catch (error) {
        // One that cannot be taken away must not keep all others.
        stuck.add(digest);
        if (stuck.size > maxStuck) throw error;
        return onTrouble(error);
      }
      // Books that are not written to would have everything go, for the total never falls.
      if (catalog.has(digest)) throw new Error(`${digest} went, and could not be struck off the books`);
      evicted += bytes;
      onEvicted(bytes);
    }
  }

  async function attempt(target: (totalBytes: number) => number | undefined): Promise<void> {
    try {
      const targetBytes = target(catalog.totalBytes());
      if (targetBytes !== undefined) await run(targetBytes);
    } catch (error) {
      onTrouble(error);
    }
  }

  function start(target: (totalBytes: number) => number | undefined): void {
    running ??= attempt(target).finally(() => (running = undefined));
  }

  return {
    check: () => start((totalBytes) => (totalBytes > maxBytes ? maxBytes * lowWater : undefined)),
    relieve: () => start((totalBytes) => totalBytes * lowWater),
    run,
    settled: () => running ?? Promise.resolve(),
  };
}

/** The first of them that make up so much. */
function enough(entries: readonly Entry[], bytes: number): Entry[] {
  let sum = 0;
  return entries.filter((entry) => sum < bytes && (sum += entry.bytes) >= 0);
}
