import { LRUCache } from 'lru-cache';
import { TierAway } from './breaker.ts';
import type { Keyv } from 'keyv';
import type { StrictSpace } from './record-space.ts';
import type { Seal } from './seal.ts';

/** Records that replicas have in common, over those of their own. */
export interface SharedRecords {
  /** Throws what fails. */
  open(namespace: string): Keyv;
  readonly repositories: StrictSpace<true>;
  /** Where others can write as well. */
  readonly seal?: Seal | undefined;
  /** Runs what asks Redis, unless Redis is being left alone. @throws TierAway */
  guard<T>(action: () => Promise<T>): Promise<T>;
  /** How long a record lives that nobody writes again. */
  readonly ttlMs: number;
}

export interface SharedSpaceOptions<T> {
  readonly own: StrictSpace<T>;
  readonly all: StrictSpace<T>;
  readonly shared: Pick<SharedRecords, 'guard' | 'ttlMs'>;
  /** For records that change: is the first one the later word? Without it a record that is here need not be asked for. */
  readonly isNewer?: ((one: T, other: T) => boolean) | undefined;
  /** Can those of all be listed at little cost? To find them among everything in Redis would be a walk through it. */
  readonly isListed?: boolean;
  onTrouble(error: unknown): void;
}

export interface SharedSpace<T> extends StrictSpace<T> {
  catchUp(): Promise<void>;
}

/** How many keys are remembered that the others could not be told of. */
const maxUntold = 10_000;

/**
 * Records of one replica over those of all. Facts are read here first; what moves is asked of all, and the later word
 * counts. While Redis is away, this replica goes on with its own, and tells the others afterwards.
 */
export function createSharedSpace<T>(options: SharedSpaceOptions<T>): SharedSpace<T> {
  const { own, all, shared, isNewer, isListed = false, onTrouble } = options;
  const untold = new LRUCache<string, true>({ max: maxUntold });

  /** A key is untold until it is told: what fails midway is told again. */
  async function tell(keys: readonly string[], action: () => Promise<void>): Promise<boolean> {
    for (const key of keys) untold.set(key, true);
    try {
      await shared.guard(action);
      for (const key of keys) untold.delete(key);
      return true;
    } catch (error) {
      onTrouble(error);
      return false;
    }
  }

  async function getOwn(key: string): Promise<T | undefined> {
    try {
      return await own.get(key);
    } catch (error) {
      onTrouble(error);
      return undefined;
    }
  }

  return {
    async get(key) {
      const mine = await getOwn(key);
      if (mine !== undefined && !isNewer) return mine;
      const theirs = await shared
        .guard(() => all.get(key))
        .catch((error: unknown) => {
          onTrouble(error);
          // With nothing here, "not there" would be a guess.
          if (mine === undefined && !isNewer) throw error;
          return undefined;
        });
      if (theirs === undefined) return mine;
      if (mine !== undefined && isNewer?.(mine, theirs)) return mine;
      if (!isNewer) await own.set(key, theirs).catch(onTrouble);
      return theirs;
    },

    async set(key, value, ttlMs) {
      const failure = await own.set(key, value, ttlMs).then(
        () => undefined,
        (error: Error) => error,
      );
      const isTold = await tell([key], () => all.set(key, value, ttlMs ?? shared.ttlMs));
      if (failure && !isTold) throw failure;
    },

    async setMany(entries) {
      await own.setMany(entries);
      await tell(
        entries.map(({ key }) => key),
        () => all.setMany(entries, shared.ttlMs),
      );
    },

    async delete(key) {
      await own.delete(key);
      await tell([key], () => all.delete(key));
    },

    async *keys() {
      const seen = new Set<string>();
      for (const space of isListed ? [own, all] : [own]) {
        for await (const key of space.keys()) {
          if (!seen.has(key)) yield key;
          seen.add(key);
        }
      }
    },

    async catchUp() {
      for (const key of Array.from(untold.keys())) {
        // Tried again the next time: what cannot be read here is not gone.
        const value = await own.get(key);
        await tell([key], async () => {
          if (value === undefined) return all.delete(key);
          const theirs = isNewer && (await all.get(key).catch(() => undefined));
          if (theirs === undefined || !isNewer?.(theirs, value)) await all.set(key, value, shared.ttlMs);
        });
        if (untold.has(key)) return;
      }
    },
  };
}

/** Told once, when it goes away; not by everyone who goes on without it. */
export function isNews(error: unknown): boolean {
  return !(error instanceof TierAway);
}
