import type { Keyv } from 'keyv';

/** One kind of record, as a store has it. @throws what is wrong with the store */
export interface StrictSpace<T> {
  get(key: string): Promise<T | undefined>;
  set(key: string, value: T, ttlMs?: number): Promise<void>;
  setMany(entries: readonly { key: string; value: T }[], ttlMs?: number): Promise<void>;
  delete(key: string): Promise<void>;
  keys(): AsyncIterable<string>;
}

/** One kind of record. A broken store reads as empty and answers a write with false: records can be learnt again. */
export interface RecordSpace<T> {
  get(key: string): Promise<T | undefined>;
  /** The same, where "not there" must be told from "cannot be read". @throws what is wrong with the store */
  mustGet(key: string): Promise<T | undefined>;
  set(key: string, value: T, ttlMs?: number): Promise<boolean>;
  setMany(entries: readonly { key: string; value: T }[]): Promise<boolean>;
  delete(key: string): Promise<void>;
  keys(): AsyncIterable<string>;
}

export type Shape = Readonly<Record<string, unknown>>;

/** @param isRecord does a value have the shape of this kind? Without it, the records say no more than that they are. */
export function createStrictSpace<T>(keyv: Keyv<T>, isRecord?: (value: Shape) => boolean): StrictSpace<T> {
  // Keyv swallows a failing read unless it throws them all; its events tell the same again.
  keyv.on('error', () => undefined);
  return {
    /** What others can write to is looked at before it is believed: a digest of it becomes a file's name. */
    async get(key) {
      const value = await keyv.get(key);
      if (!isRecord) return value === true ? value : undefined;
      return typeof value === 'object' && value !== null && !Array.isArray(value) && isRecord(value as Shape)
        ? value
        : undefined;
    },
    async set(key, value, ttlMs) {
      if (!(await keyv.set(key, value, ttlMs))) throw new Error(`${key} was not kept`);
    },
    async setMany(entries, ttlMs) {
      const rows = entries.map(({ key, value }) => ({ key, value, ...(ttlMs !== undefined && { ttl: ttlMs }) }));
      await keyv.setMany(rows);
    },
    async delete(key) {
      await keyv.delete(key);
    },
    async *keys() {
      for await (const [key] of keyv.iterator?.({}) ?? []) yield key as string;
    },
  };
}

/** The same where trouble is no more than a miss. */
export function forgiving<T>(space: StrictSpace<T>, onTrouble: (error: unknown) => void): RecordSpace<T> {
  async function attempt<R>(action: () => Promise<R>, fallback: R): Promise<R> {
    try {
      return await action();
    } catch (error) {
      onTrouble(error);
      return fallback;
    }
  }
  return {
    get: (key) => attempt(() => space.get(key), undefined),
    mustGet: (key) => space.get(key),
    set: (key, value, ttlMs) => attempt(async () => (await space.set(key, value, ttlMs), true), false),
    async setMany(entries) {
      return entries.length === 0 || attempt(async () => (await space.setMany(entries), true), false);
    },
    delete: (key) => attempt(() => space.delete(key), undefined),
    async *keys() {
      try {
        yield* space.keys();
      } catch (error) {
        onTrouble(error);
      }
    },
  };
}
