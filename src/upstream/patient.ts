import { setTimeout as delay } from 'node:timers/promises';
import { NarrowsError, isKind } from '../errors.ts';
import type { Budget, Upstream } from './upstream.ts';

export interface Patience {
  /** How long one question may wait altogether for a registry that limits its rate. */
  readonly maxWaitMs: number;
  /** The share of a pull quota, from 0 to 1, that is left to those who cannot wait. */
  readonly spare: number;
  /** How often a question is asked again that met with trouble, the wait doubling from the first. */
  readonly retries: number;
  readonly retryDelayMs: number;
  readonly signal: AbortSignal;
  now(): number;
  /** Told before each wait. */
  onWait(upstream: string, waitMs: number, why: string): void;
}

/** How often a registry is asked whether its quota has grown again, where it does not say when it will. */
const pollMs = 60_000;

/**
 * A registry that is asked by someone who has time: told to wait, it waits, and it leaves what is left of a quota to
 * clients. For work in the background; a client would rather be told.
 */
export function createPatient(upstream: Upstream, patience: Patience): Upstream {
  const { maxWaitMs, retries, retryDelayMs, signal, now, onWait } = patience;

  async function ask<T>(question: () => Promise<T>): Promise<T> {
    let waitedMs = 0;
    for (let tries = 0; ;) {
      try {
        return await question();
      } catch (error) {
        if (signal.aborted || !(error instanceof NarrowsError)) throw error;
        const isLimit = isKind(error, 'rateLimited', 'overloaded');
        const isTrouble = isKind(error, 'upstreamUnavailable', 'upstreamTimeout', 'upstreamUnusable');
        if (!isLimit && (!isTrouble || tries++ >= retries)) throw error;
        const waitMs = Math.max((error.retryAfterS ?? 0) * 1000, retryDelayMs * 2 ** tries * (0.5 + Math.random() / 2));
        waitedMs += waitMs;
        if (waitedMs > maxWaitMs) throw error;
        await wait(waitMs, error.message);
      }
    }
  }

  async function wait(waitMs: number, why: string): Promise<void> {
    onWait(upstream.name, waitMs, why);
    await delay(waitMs, undefined, { signal });
  }

  /** A manifest costs of the quota: what is not to spare is waited for. HEADs are free, and say what is left. */
  async function spend(probe: () => Promise<unknown>): Promise<void> {
    const sinceMs = now();
    for (let budget; (budget = upstream.budget?.()) && isSpent(budget);) {
      const leftMs = sinceMs + maxWaitMs - now();
      const why = `${upstream.name} has ${budget.remaining} of ${budget.limit} pulls left, which are kept for clients`;
      if (leftMs <= 0) throw new NarrowsError('rateLimited', `${why}.`);
      await wait(Math.min(leftMs, Math.max(1000, (budget.resetsAtMs ?? now() + pollMs) - now())), why);
      await ask(probe);
    }
  }

  function isSpent({ remaining, limit, resetsAtMs = Infinity }: Budget): boolean {
    // What was to grow by now has grown, as far as anyone has said.
    return remaining <= limit * patience.spare && now() < resetsAtMs;
  }

  return {
    name: upstream.name,
    head: (repository, reference) => ask(() => upstream.head(repository, reference)),
    async manifest(repository, reference) {
      await spend(() => upstream.head(repository, reference));
      return ask(() => upstream.manifest(repository, reference));
    },
    blobHead: (repository, digest) => ask(() => upstream.blobHead(repository, digest)),
    blob: (repository, digest, from) => ask(() => upstream.blob(repository, digest, from)),
    list: (repository, path, query) => ask(() => upstream.list(repository, path, query)),
    budget: () => upstream.budget?.(),
  };
}
