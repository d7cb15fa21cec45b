import { resolveSet } from '../config.ts';
import { createRepeats } from '../http/repeats.ts';
import type { EndpointRules, Serving } from '../http/serving.ts';
import { openAccessParts } from './access-parts.ts';
import type { Context } from './context.ts';
import { startKeeper } from './keeper.ts';
import { openPullWork } from './pull-parts.ts';
import type { PullWork } from './pull-parts.ts';
import { openPush } from './push-parts.ts';

/** All that a configuration makes, but for the sockets: it can be replaced while these stay open. */
export interface Generation {
  readonly work: PullWork;
  readonly serving: Serving;
  /** No new requests come: those that run may finish within `graceMs`, then everything of it is closed. */
  retire(graceMs: number): Promise<void>;
}

/** @throws what makes the configuration unusable; then nothing of it is left open */
export async function openGeneration(context: Omit<Context, 'closers'>): Promise<Generation> {
  const closers: (() => unknown)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).toReversed()) await closer();
  };
  try {
    const { work, serving } = await open({ ...context, closers });
    const running = countRunning();
    return {
      work,
      serving: { ...serving, begin: running.begin },
      async retire(graceMs) {
        await running.ended(graceMs);
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function open(context: Context): Promise<{ work: PullWork; serving: Omit<Serving, 'begin'> }> {
  const { config, team } = context;
  const work = await openPullWork(context);
  const { access, tokens } = await openAccessParts(context, work.keyOf);
  const endpoints = config.listen.map(({ platforms, view = 'image', upstream }): EndpointRules => ({
    set: platforms === undefined ? undefined : resolveSet(platforms, work.sets),
    view,
    upstream,
  }));
  const push = openPush(context, work.storage);
  // Of several workers, the process that started them does it for all.
  if (!team) startKeeper(context, work);
  const repeats = createRepeats({
    maxBytes: config.cache.memory.maxAnswers,
    isByAddress: Object.keys(config.platforms.addresses).length > 0,
    now: context.now,
  });
  return { work, serving: { endpoints, access, tokens, pull: work.pull, push, repeats } };
}

function countRunning() {
  let running = 0;
  let onNone: (() => void) | undefined;
  return {
    begin() {
      running++;
      return () => {
        running--;
        if (running === 0) onNone?.();
      };
    },
    async ended(graceMs: number): Promise<void> {
      if (running === 0) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      onNone = resolve;
      const timer = setTimeout(resolve, graceMs);
      await promise;
      clearTimeout(timer);
    },
  };
}
