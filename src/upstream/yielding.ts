import { setTimeout as delay } from 'node:timers/promises';
import type { BlobAnswer, Upstream } from './upstream.ts';

/** Which registries clients are being sent blobs from. */
export interface Traffic {
  /** @returns to be called at its end */
  begin(upstream: string): () => void;
  /** Resolves when no client waits for anything of this registry, and after `maxMs` in any case. */
  quiet(upstream: string, maxMs: number): Promise<void>;
}

export function createTraffic(): Traffic {
  const running = new Map<string, number>();
  const waiting = new Map<string, PromiseWithResolvers<void>>();
  return {
    begin(upstream) {
      running.set(upstream, (running.get(upstream) ?? 0) + 1);
      return () => {
        const left = running.get(upstream)! - 1;
        running.set(upstream, left);
        if (left > 0) return;
        waiting.get(upstream)?.resolve();
        waiting.delete(upstream);
      };
    },
    async quiet(upstream, maxMs) {
      if (!running.get(upstream)) return;
      const turn = waiting.get(upstream) ?? Promise.withResolvers<void>();
      waiting.set(upstream, turn);
      const enough = new AbortController();
      await Promise.race([turn.promise, delay(maxMs, undefined, { signal: enough.signal }).catch(() => undefined)]);
      enough.abort();
    },
  };
}

/** The registry as clients are served from it: others see that it is in use. */
export function createPreferred(upstream: Upstream, traffic: Traffic): Upstream {
  return onBodies(upstream, async function* (body) {
    const end = traffic.begin(upstream.name);
    try {
      yield* body;
    } finally {
      end();
    }
  });
}

/** So slow, and no slower, is what yields: a connection on which nothing comes for long is cut by the other side. */
const pieceEveryMs = 1000;

/** The registry for work in the background: while clients are served from it, a piece comes now and then. */
export function createYielding(upstream: Upstream, traffic: Traffic): Upstream {
  return onBodies(upstream, async function* (body) {
    for await (const piece of body) {
      await traffic.quiet(upstream.name, pieceEveryMs);
      yield piece;
    }
  });
}

function onBodies(upstream: Upstream, change: (body: BlobAnswer['body']) => AsyncGenerator<Buffer>): Upstream {
  return {
    ...upstream,
    async blob(repository, digest, from) {
      const answer = await upstream.blob(repository, digest, from);
      return answer && { ...answer, body: change(answer.body) };
    },
  };
}
