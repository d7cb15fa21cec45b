import { LRUCache } from 'lru-cache';
import type { Source } from '../upstream/registries.ts';
import type { PullParts } from './parts.ts';

/** Which platforms of a repository are really asked for: what is warmed when a tag moves need not be guessed. */
export interface Demand {
  /** Somebody was answered. Nothing waits for it to be written down. */
  note(source: Source, platforms: readonly string[]): void;
}

/** Written again after this time: days are what counts. */
const againMs = 3_600_000;
const maxNoted = 10_000;
/** Of one repository; there are not as many that anything runs on. */
const maxPlatforms = 32;

export function createDemand({ records, now }: Pick<PullParts, 'records' | 'now'>): Demand {
  const noted = new LRUCache<string, true>({ max: maxNoted, ttl: againMs });

  async function write({ key }: Source, platform: string): Promise<void> {
    const { platforms = {} } = (await records.demand.get(key)) ?? {};
    const latest = Object.entries({ ...platforms, [platform]: now() }).toSorted(([, one], [, other]) => other - one);
    const kept = Object.fromEntries(latest.slice(0, maxPlatforms));
    await records.demand.set(key, { platforms: kept, notedAtMs: now() });
  }

  return {
    note(source, platforms) {
      if (source.isHosted) return;
      for (const platform of platforms) {
        const key = `${source.key} ${platform}`;
        if (noted.has(key)) continue;
        noted.set(key, true);
        // Trouble with records is told where they are kept.
        void write(source, platform);
      }
    },
  };
}
