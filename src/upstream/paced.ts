import { setTimeout as delay } from 'node:timers/promises';
import type { BlobAnswer, Upstream } from './upstream.ts';

/** So many bytes a second for all who share it. */
export interface Pace {
  /** Resolves when so many bytes may go on. */
  pass(bytes: number): Promise<void>;
}

/** What may go at once after a pause: a second's worth. */
const burstMs = 1000;

export function createPace(
  bytesPerSecond: number,
  signal: AbortSignal,
  now: () => number = performance.now.bind(performance),
): Pace {
  /** When all that has passed is paid for. */
  let paidAtMs = -Infinity;
  return {
    async pass(bytes) {
      paidAtMs = Math.max(paidAtMs, now() - burstMs) + (bytes / bytesPerSecond) * 1000;
      const aheadMs = paidAtMs - now();
      if (aheadMs > 0) await delay(aheadMs, undefined, { signal });
    },
  };
}

/** A registry whose blobs come no faster than the pace lets them. */
export function createPaced(upstream: Upstream, pace: Pace): Upstream {
  function paced(answer: BlobAnswer): BlobAnswer {
    async function* body() {
      for await (const chunk of answer.body) {
        await pace.pass(chunk.length);
        yield chunk;
      }
    }
    return { ...answer, body: body() };
  }
  return {
    ...upstream,
    async blob(repository, digest, from) {
      const answer = await upstream.blob(repository, digest, from);
      return answer && paced(answer);
    },
  };
}
