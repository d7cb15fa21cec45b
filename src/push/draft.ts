import { setTimeout as delay } from 'node:timers/promises';
import { NarrowsError } from '../errors.ts';
import type { Ledger } from '../cache/ledger.ts';

/** What one step reads and writes in the books of a repository: done at once, if nothing that it read has changed. */
export interface Draft {
  readonly repository: string;
  get<T>(key: string): Promise<T | undefined>;
  /** Several in one question. */
  getMany<T>(keys: readonly string[]): Promise<(T | undefined)[]>;
  /** Entries by prefix, in order of what follows it, as they are now: the commit does not depend on them. */
  list<T>(prefix: string, after: string, count: number): Promise<Listed<T>[]>;
  set(key: string, value: unknown): void;
  delete(key: string): void;
}

/** Someone wins each round, so that many at one tag come to an end; this is for a ledger that never agrees. */
const maxRounds = 200;
const maxPauseMs = 20;

/**
 * Runs `action` until what it read is still so when what it writes is written.
 *
 * @throws NarrowsError storeUnavailable for trouble with the ledger, overloaded, and what `action` throws
 */
export async function transact<T>(
  ledger: Ledger,
  repository: string,
  action: (draft: Draft) => Promise<T>,
): Promise<T> {
  for (let round = 0; round < maxRounds; round++) {
    const { draft, commit } = createDraft(ledger, repository);
    const result = await action(draft);
    if (await commit()) return result;
    // Those who met would meet again.
    if (round > 0) await delay(Math.random() * maxPauseMs);
  }
  throw new NarrowsError('overloaded', `Too many write to ${repository} at once.`, { retryAfterS: 1 });
}

function createDraft(ledger: Ledger, repository: string): { draft: Draft; commit(): Promise<boolean> } {
  const read = new Map<string, string | null>();
  const written = new Map<string, string | null>();

  async function load(keys: readonly string[]): Promise<void> {
    const unread = keys.filter((key) => !read.has(key));
    if (unread.length === 0) return;
    const values = await reachable(() => ledger.get(repository, unread));
    for (const [at, key] of unread.entries()) read.set(key, values[at] ?? null);
  }

  function valueOf<T>(key: string): T | undefined {
    const text = written.has(key) ? written.get(key) : read.get(key);
    return typeof text === 'string' ? parseEntry<T>(text) : undefined;
  }

  const draft: Draft = {
    repository,
    async get(key) {
      await load([key]);
      return valueOf(key);
    },
    async getMany<T>(keys: readonly string[]) {
      await load(keys);
      return keys.map((key) => valueOf<T>(key));
    },
    list: (prefix, after, count) => list(ledger, repository, prefix, after, count),
    set: (key, value) => void written.set(key, JSON.stringify(value)),
    delete: (key) => void written.set(key, null),
  };

  return {
    draft,
    async commit() {
      if (written.size === 0) return true;
      const changes = [...new Set([...read.keys(), ...written.keys()])].map((key) => ({
        key,
        ...(read.has(key) && { before: read.get(key)! }),
        ...(written.has(key) && { after: written.get(key)! }),
      }));
      return reachable(() => ledger.commit(repository, changes));
    },
  };
}

export interface Listed<T> {
  /** What follows the prefix. */
  readonly name: string;
  readonly value: T;
}

/** Entries by prefix, in order. @throws NarrowsError storeUnavailable */
export async function list<T>(
  ledger: Ledger,
  repository: string,
  prefix: string,
  after: string,
  count: number,
): Promise<Listed<T>[]> {
  const entries = await reachable(() => ledger.list(repository, prefix, after, count));
  return entries.map(({ key, value }) => ({ name: key.slice(prefix.length), value: parseEntry<T>(value) }));
}

/** @throws NarrowsError storeUnavailable for what nobody here has written */
export function parseEntry<T>(text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new NarrowsError('storeUnavailable', 'The books of what is hosted here are damaged.', { cause });
  }
}

/** Books that cannot be reached say nothing about what stands in them. @throws NarrowsError storeUnavailable */
export async function reachable<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof NarrowsError) throw cause;
    const message = 'The books of the repositories that are hosted here cannot be reached now.';
    throw new NarrowsError('storeUnavailable', message, { cause, retryAfterS: 2 });
  }
}
