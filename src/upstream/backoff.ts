import { NarrowsError } from '../errors.ts';

/** When someone who limits the rate of requests may be asked again. */
export interface Backoff {
  /**
   * Before each question. After a wait one question goes first, to find out whether there has to be another wait.
   *
   * @returns to be called when the question is answered, however
   * @throws NarrowsError rateLimited
   */
  enter(): () => void;
  /** It limited the rate. @param retryAfterS as it said itself @returns what whoever asked is told */
  limited(retryAfterS: number | undefined): NarrowsError;
  /** It answered, with anything else. */
  answered(): void;
  /** How long it is left alone yet. */
  waitMs(): number;
}

export interface BackoffOptions {
  /** Who that is, for messages. */
  readonly who: string;
  now(): number;
  /** From 0 to 1. */
  random?(): number;
}

/** What is waited where nobody says how long; it doubles each time. */
const firstMs = 10_000;
const maxMs = 300_000;
/** Replicas that were told to wait at the same moment must not all come back at the same moment. */
const jitter = 0.1;
const probeRetryAfterS = 1;

export function createBackoff({ who, now, random = Math.random }: BackoffOptions): Backoff {
  let untilMs = 0;
  let longestMs = 0;
  /** Waits in a row. */
  let waits = 0;
  let isProbing = false;

  function waitMs(): number {
    // A clock that was set back makes no wait longer than it was.
    untilMs = Math.min(untilMs, now() + longestMs);
    return Math.max(0, untilMs - now());
  }

  function limit(retryAfterS: number): NarrowsError {
    return new NarrowsError('rateLimited', `${who} limits the rate of requests.`, { retryAfterS });
  }

  return {
    waitMs,

    enter() {
      if (waitMs() > 0) throw limit(Math.ceil(waitMs() / 1000));
      if (isProbing) throw limit(probeRetryAfterS);
      if (waits === 0) return () => undefined;
      isProbing = true;
      return () => void (isProbing = false);
    },

    limited(retryAfterS = 0) {
      // Of many that were under way, only the first begins another wait.
      const isNew = waitMs() === 0;
      if (isNew) waits++;
      const patienceMs = retryAfterS > 0 ? 0 : Math.min(firstMs * 2 ** (waits - 1), maxMs);
      const lengthMs = Math.max(retryAfterS * 1000, patienceMs);
      longestMs = Math.max(waitMs(), lengthMs * (1 + jitter * random()));
      untilMs = now() + longestMs;
      return limit(Math.ceil(lengthMs / 1000));
    },

    answered() {
      if (waitMs() === 0) waits = 0;
    },
  };
}
