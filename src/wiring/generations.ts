import { isDeepStrictEqual } from 'node:util';
import { ConfigError } from '../config.ts';
import type { Config, Mistake } from '../config.ts';
import type { Context } from './context.ts';
import { gaugesOf } from './gauges.ts';
import { openGeneration } from './generation.ts';
import type { Generation } from './generation.ts';

/** What answers now, and what did before and has not finished yet. */
export interface Generations {
  now(): Generation;
  config(): Config;
  /** @throws ConfigError for what only a start can change, and what makes the configuration unusable */
  replace(config: Config): Promise<void>;
  /** The same for what differs from the one that is in force when its turn comes. */
  change(by: (config: Config) => Config): Promise<void>;
  close(): Promise<void>;
}

export async function createGenerations(context: Context): Promise<Generations> {
  let { config } = context;
  let current = await openGeneration(context);
  context.metrics.observe(() => gaugesOf({ ...context, config }, current.work));
  const retiring = new Set<Promise<void>>();
  let replacing: Promise<unknown> = Promise.resolve();

  function retire(generation: Generation): void {
    const end = generation
      .retire(config.limits.stopGrace)
      .catch((error: unknown) => context.log.warn({ err: error }, 'something of the old configuration was not closed'))
      .finally(() => retiring.delete(end));
    retiring.add(end);
  }

  async function replace(next: Config): Promise<void> {
    const mistakes = fixedChanges(config, next);
    if (mistakes.length > 0) throw new ConfigError(mistakes);
    const opened = await openGeneration({ ...context, config: next }).catch((cause: unknown) => {
      throw new ConfigError([{ path: 'configuration', message: (cause as Error).message }]);
    });
    const before = current;
    [current, config] = [opened, next];
    context.log.level = next.log.level;
    retire(before);
  }

  async function change(by: (config: Config) => Config): Promise<void> {
    // One after the other: each is compared with the one before.
    const before = replacing;
    const { promise, resolve } = Promise.withResolvers<void>();
    replacing = promise;
    await before;
    try {
      await replace(by(config));
    } finally {
      resolve();
    }
  }

  return {
    now: () => current,
    config: () => config,
    replace: (next) => change(() => next),
    change,
    async close() {
      await replacing;
      await current.retire(0);
      await Promise.all(retiring);
    },
  };
}

/** Sockets are not opened again. */
const fixedLimits = [
  'connections',
  'connectionsPerAddress',
  'requestsPerAddress',
  'knownAddresses',
  'headerSize',
  'headersTimeout',
  'requestStall',
  'keepAlive',
  'sendStall',
] as const;

function socketsOf({ listen }: Config): unknown[] {
  return listen.map(({ address, tls }) => ({ address, tls }));
}

/** Everything that differs and that only a start can change. */
export function fixedChanges(before: Config, after: Config): Mistake[] {
  const pairs: [path: string, before: unknown, after: unknown][] = [
    ['listen', socketsOf(before), socketsOf(after)],
    ['admin', before.admin, after.admin],
    ['workers', before.workers, after.workers],
    ...fixedLimits.map((key): [string, unknown, unknown] => [`limits.${key}`, before.limits[key], after.limits[key]]),
  ];
  return pairs
    .filter(([, one, other]) => !isDeepStrictEqual(one, other))
    .map(([path]) => ({ path, message: 'this takes effect at a start alone: restart, or put it back' }));
}
