import type { Catalog } from './catalog.ts';
import type { Tier } from './tier.ts';

export interface EvictorOptions {
  readonly catalog: Pick<Catalog, 'totalBytes' | 'oldest'>;
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
const batch = 200;

/** Keeps the disk within its bound: what was least recently used goes, what is pinned stays. */
export function createEvictor({ catalog, disk, maxBytes, onEvicted, onFull, onTrouble }: EvictorOptions): Evictor {
  let running: Promise<void> | undefined;

  async function run(targetBytes: number): Promise<number> {
    let evicted = 0;
    while (catalog.totalBytes() > targetBytes) {
      const entries = catalog.oldest(batch);
      if (entries.length === 0) {
        onFull(catalog.totalBytes());
        break;
      }
      for (const { digest, bytes } of entries) {
        if (catalog.totalBytes() <= targetBytes) break;
        // Whoever is reading it reads on: a file lives as long as it is open.
        await disk.delete(digest);
        evicted += bytes;
        onEvicted(bytes);
      }
    }
    return evicted;
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
