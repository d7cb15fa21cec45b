import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
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

/** All of them at once: the slowest decides. */
export function together(paces: readonly Pace[]): Pace | undefined {
  if (paces.length <= 1) return paces[0];
  return {
    async pass(bytes) {
      await Promise.all(paces.map((pace) => pace.pass(bytes)));
    },
  };
}

/** A registry whose blobs come no faster than their pace lets them. @param paceOf undefined for as fast as they can */
export function createPaced(upstream: Upstream, paceOf: (digest: Digest) => Pace | undefined): Upstream {
  return {
    ...upstream,
    async blob(repository, digest, from) {
      const answer = await upstream.blob(repository, digest, from);
      const pace = answer && paceOf(digest);
      return pace ? paced(answer, pace) : answer;
    },
  };
}

function paced(answer: BlobAnswer, pace: Pace): BlobAnswer {
  async function* body() {
    for await (const chunk of answer.body) {
      await pace.pass(chunk.length);
      yield chunk;
    }
  }
  return { ...answer, body: body() };
}
