import { Worker } from 'node:worker_threads';
import { NarrowsError } from '../errors.ts';
import type { Compared, Comparison } from './bcrypt-thread.ts';

export interface Bcrypt {
  /** @throws NarrowsError overloaded where too many comparisons wait */
  compare(password: string, hash: string): Promise<boolean>;
  close(): Promise<void>;
}

/** Compares off the event loop, in a thread that starts with the first comparison. */
export function createBcrypt(maxWaiting: number): Bcrypt {
  const waiting = new Map<number, PromiseWithResolvers<boolean>>();
  let next = 0;
  let isClosed = false;
  let thread: Worker | undefined;

  function start(): Worker {
    const started = new Worker(new URL('./bcrypt-thread.ts', import.meta.url));
    started.on('message', ({ id, fits }: Compared) => {
      waiting.get(id)?.resolve(fits);
      waiting.delete(id);
      if (waiting.size === 0) started.unref();
    });
    started.on('error', fail);
    started.on('exit', () => fail(new Error('the thread that checks passwords has ended')));
    return started;
  }

  function fail(error: Error): void {
    thread = undefined;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  }

  return {
    compare(password, hash) {
      if (isClosed) return Promise.reject(new Error('no password is checked any more'));
      if (waiting.size >= maxWaiting) {
        const message = 'Too many passwords wait to be checked.';
        return Promise.reject(new NarrowsError('overloaded', message, { retryAfterS: 2 }));
      }
      const answer = Promise.withResolvers<boolean>();
      const id = next++;
      waiting.set(id, answer);
      thread ??= start();
      thread.ref();
      thread.postMessage({ id, password, hash } satisfies Comparison);
      return answer.promise;
    },
    async close() {
      isClosed = true;
      await thread?.terminate();
      for (const { reject } of waiting.values()) reject(new Error('no password is checked any more'));
      waiting.clear();
    },
  };
}
