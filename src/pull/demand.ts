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
  /** When it was last written down. */
  const noted = new LRUCache<string, number>({ max: maxNoted });
  /** One after the other for each repository: what is added to must have been read after the last addition. */
  const writing = new Map<string, Promise<void>>();

  async function write(key: string, platforms: readonly string[]): Promise<void> {
    const known = (await records.demand.get(key))?.platforms ?? {};
    const fresh = Object.fromEntries(platforms.map((platform) => [platform, now()]));
    const latest = Object.entries({ ...known, ...fresh }).toSorted(([, one], [, other]) => other - one);
    await records.demand.set(key, {
      platforms: Object.fromEntries(latest.slice(0, maxPlatforms)),
      notedAtMs: now(),
    });
  }

  return {
    note(source, platforms) {
      if (source.isHosted) return;
      const { key } = source;
      const due = platforms.filter((platform) => now() - (noted.get(`${key} ${platform}`) ?? -Infinity) >= againMs);
      if (due.length === 0) return;
      for (const platform of due) noted.set(`${key} ${platform}`, now());
      // Trouble with records is told where they are kept.
      const written = (writing.get(key) ?? Promise.resolve()).then(() => write(key, due));
      const settled = written.finally(() => writing.get(key) === settled && writing.delete(key));
      writing.set(key, settled);
    },
  };
}
