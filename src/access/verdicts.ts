import { createHmac, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { NarrowsError, isKind } from '../errors.ts';
import type { Guesses } from './guesses.ts';
import type { Login } from './identity.ts';

/** What is asked to find out what a caller may. */
export interface Question {
  /** Who is asked: each has its own limit, so that one who does not answer keeps nobody from asking another. */
  readonly of: string;
  readonly text: string;
}

/** What others have said that callers may, for a while. */
export interface Verdicts {
  /**
   * One question for all who wait for the same answer, and none while the last answer counts.
   *
   * @param subject what the answer is about
   * @param question several questions can be about one subject
   * @param ask passes where the caller may; a NarrowsError `denied` is a refusal
   * @returns false for a refusal
   * @throws NarrowsError overloaded, rateLimited, and what else `ask` throws: that is no answer, and not remembered
   */
  find(login: Login | undefined, subject: string, question: Question, ask: () => Promise<void>): Promise<boolean>;
  /** Undefined where nothing is remembered. */
  last(login: Login | undefined, subject: string): boolean | undefined;
}

export interface VerdictsOptions {
  readonly grantedMs: number;
  readonly refusedMs: number;
  /** What is remembered of all callers together; the longest unused goes. */
  readonly maxVerdicts: number;
  /** Questions at once, of each who is asked. */
  readonly maxQuestions: number;
  /** A password that is tried here is tried elsewhere, where this mirror is seen and not whoever guesses. */
  readonly guesses: Guesses;
  now(): number;
}

export function createVerdicts(options: VerdictsOptions): Verdicts {
  const { maxQuestions, guesses, now } = options;
  const verdicts = new LRUCache<string, { isGranted: boolean; atMs: number }>({ max: options.maxVerdicts });
  const asking = new Map<string, Promise<boolean>>();
  /** How many questions wait, of each who is asked. */
  const waiting = new Map<string, number>();
  const secret = randomBytes(32);

  /** Passwords are not kept: what is remembered is what this process alone can make of one. */
  function markOf(login: Login | undefined, subject: string): string {
    const parts = login ? [login.username, login.password] : [];
    const text = [...parts, subject].map((part) => `${Buffer.byteLength(part)}:${part}`).join();
    return createHmac('sha256', secret).update(text).digest('base64');
  }

  function lastOf(mark: string): boolean | undefined {
    const verdict = verdicts.get(mark);
    if (!verdict) return undefined;
    const { isGranted, atMs } = verdict;
    // A clock that was set back makes no right last longer.
    return Math.abs(now() - atMs) < (isGranted ? options.grantedMs : options.refusedMs) ? isGranted : undefined;
  }

  /** @throws NarrowsError overloaded */
  async function inLine<T>(of: string, run: () => Promise<T>): Promise<T> {
    const before = waiting.get(of) ?? 0;
    if (before >= maxQuestions) {
      const message = `${before} questions for the rights of callers are waiting for ${of} already.`;
      throw new NarrowsError('overloaded', message, { retryAfterS: 5 });
    }
    waiting.set(of, before + 1);
    try {
      return await run();
    } finally {
      const left = waiting.get(of)! - 1;
      if (left > 0) waiting.set(of, left);
      else waiting.delete(of);
    }
  }

  async function put(login: Login | undefined, mark: string, ask: () => Promise<void>): Promise<boolean> {
    const takeBack = login ? guesses.begin(login.address) : () => undefined;
    try {
      await ask();
      takeBack();
      verdicts.set(mark, { isGranted: true, atMs: now() });
      return true;
    } catch (error) {
      if (!isKind(error, 'denied')) {
        takeBack();
        throw error;
      }
      verdicts.set(mark, { isGranted: false, atMs: now() });
      return false;
    }
  }

  return {
    find(login, subject, question, ask) {
      const mark = markOf(login, subject);
      const known = lastOf(mark);
      if (known !== undefined) return Promise.resolve(known);
      const { of, text } = question;
      const key = `${mark} ${of} ${text}`;
      const running = asking.get(key) ?? inLine(of, () => put(login, mark, ask)).finally(() => asking.delete(key));
      asking.set(key, running);
      return running;
    },
    last: (login, subject) => lastOf(markOf(login, subject)),
  };
}
