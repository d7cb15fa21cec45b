import type { Gauges } from '../metrics/metrics.ts';
import { servedLabel } from '../metrics/labels.ts';
import type { Context } from './context.ts';
import type { Storage } from './storage.ts';
import type { Upstreams } from './upstreams.ts';

export interface Looked {
  readonly storage: Pick<Storage, 'memory' | 'catalog' | 'uses'>;
  readonly upstreams: Upstreams;
  /** A look at what runs, which tells of what came since the last one. */
  downloads(): unknown;
}

/** What metrics look up when someone asks for them. */
export function gaugesOf({ config, log }: Pick<Context, 'config' | 'log'>, looked: Looked): Gauges {
  const { storage, downloads, upstreams } = looked;
  const { memory, disk } = config.cache;
  downloads();
  return {
    stores: [
      { tier: 'memory', bytes: storage.memory.heldBytes(), maxBytes: memory.maxSize },
      { tier: 'disk', bytes: totalBytes(), maxBytes: disk.maxSize },
    ],
    platforms: sums(storage.uses.last().map(({ platform, bytes }) => [labelOf(platform), bytes])),
    upstreams: [...upstreams.all].map(([name, upstream]) => ({
      name,
      ...pick(upstream.budget?.()),
      backoffMs: upstream.backoffMs?.() ?? 0,
    })),
  };

  function totalBytes(): number {
    try {
      return storage.catalog.totalBytes();
    } catch (error) {
      log.debug({ err: error }, 'how much there is on the disk could not be looked up');
      return 0;
    }
  }
}

function pick(budget: { remaining: number; limit: number } | undefined): { remaining?: number; limit?: number } {
  return budget ? { remaining: budget.remaining, limit: budget.limit } : {};
}

function labelOf(platform: string): string {
  return platform === 'several' || platform === 'unknown' ? platform : servedLabel([platform]);
}

function sums(entries: readonly (readonly [platform: string, bytes: number])[]): Gauges['platforms'] {
  const totals = new Map<string, number>();
  for (const [platform, bytes] of entries) totals.set(platform, (totals.get(platform) ?? 0) + bytes);
  return [...totals].map(([platform, bytes]) => ({ platform, bytes }));
}
