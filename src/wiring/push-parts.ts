import { createPush } from '../push/push.ts';
import type { Push } from '../push/push.ts';
import type { PushParts } from '../push/parts.ts';
import { createSweeper } from '../push/sweep.ts';
import type { Sweeper } from '../push/sweep.ts';
import { refusePushes } from '../push/push.ts';
import type { Context } from './context.ts';
import type { HostedParts } from './hosted-parts.ts';
import { repositoryRules } from './repository-rules.ts';
import type { Storage } from './storage.ts';

const sweepEveryMs = 3_600_000;

/** Takes pushes, and takes away what nothing refers to any more. */
export function openPush(context: Context, storage: Storage): Push {
  const { hosted, records } = storage;
  if (!hosted) return refusePushes;
  const { log, closers } = context;
  const sweeper = openSweeper(context, hosted);
  let sweeping: Promise<unknown> = Promise.resolve();
  const timer = setInterval(
    () => {
      sweeping = sweeper.sweep().catch((error: unknown) => {
        log.warn({ err: error }, 'what nothing refers to could not be looked for; trying again later');
      });
    },
    sweepEveryMs * (0.75 + Math.random() / 2),
  ).unref();
  closers.push(() => {
    clearInterval(timer);
    return sweeping;
  });
  return createPush({
    ...pushParts(context, hosted),
    onPushed: async (repository) => void (await records.repositories.set(repository, true)),
  });
}

export function pushParts(
  { config, now }: Pick<Context, 'config' | 'now'>,
  { ledger, content, uploads }: HostedParts,
): PushParts {
  const { hostedOf, pullersOf } = repositoryRules(config);
  const rules = { hosted: hostedOf, pullersOf, maxManifestBytes: config.limits.manifestSize };
  return { ledger, content, uploads, rules, now, onPushed: () => Promise.resolve() };
}

export function openSweeper(context: Pick<Context, 'config' | 'now'>, hosted: HostedParts): Sweeper {
  const { unused, untagged } = context.config.hosting;
  return createSweeper(pushParts(context, hosted), { unusedMs: unused, untaggedMs: untagged ?? Infinity });
}
