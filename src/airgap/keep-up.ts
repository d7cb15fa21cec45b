import { setTimeout as delay } from 'node:timers/promises';
import { endOf, nextWithin } from './schedule.ts';
import type { Hours } from './schedule.ts';

export interface KeepUpOptions {
  /** When it was last done, by whomever; by default now. */
  readonly lastMs?: number;
  readonly everyMs: number;
  readonly hours: readonly Hours[];
  readonly signal: AbortSignal;
  now(): number;
  /** Told when the next round is. */
  onWait(untilMs: number): void;
  /** One round; `signal` is raised when the hours end, or nobody wants it any more. What is left comes the next time. */
  round(signal: AbortSignal): Promise<void>;
}

/** The runtime's timers end at once beyond 24 days. */
const maxWaitMs = 2 ** 31 - 1;

/** Does the same again and again, so often and in the hours that it may. Resolves when the signal is raised. */
export async function keepUp({
  lastMs: beganMs,
  everyMs,
  hours,
  signal,
  now,
  onWait,
  round,
}: KeepUpOptions): Promise<void> {
  for (let lastMs = beganMs ?? now(); ; lastMs = now()) {
    const dueMs = nextWithin(Math.max(now(), lastMs + everyMs), hours);
    onWait(dueMs);
    try {
      for (let leftMs; (leftMs = dueMs - now()) > 0;) await delay(Math.min(leftMs, maxWaitMs), undefined, { signal });
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    // A round that was due at once has not waited, so nothing has looked at the signal yet.
    if (signal.aborted) return;
    const ending = new AbortController();
    const end = endOf(now(), hours);
    const timer =
      end === Infinity ? undefined : setTimeout(() => ending.abort(), Math.min(end - now(), maxWaitMs)).unref();
    try {
      await round(AbortSignal.any([signal, ending.signal]));
    } finally {
      clearTimeout(timer);
    }
    if (signal.aborted) return;
  }
}
