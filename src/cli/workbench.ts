import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Config } from '../config.ts';
import { createLog } from '../log.ts';
import { createMetrics } from '../metrics/metrics.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { platformsOf } from '../wiring/admin-api.ts';
import { openPullWork } from '../wiring/pull-parts.ts';
import type { PullWork } from '../wiring/pull-parts.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { loadConfig } from './load-config.ts';
import { startFailure } from './start-failure.ts';

/** What those options say. */
export interface StoreFlags {
  readonly config?: string;
  readonly store?: string;
  readonly redis?: string;
  readonly json?: boolean;
  /** Asks the store alone, whatever the configuration says. */
  readonly offline?: boolean;
}

/** The options of every command that works on a store. */
export function withStoreOptions(command: Command): Command {
  return command
    .option('--config <file>', 'configuration in YAML')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share')
    .option('--json', 'print JSON');
}

/** What a command works on: the store, beside a server that may be running on it. */
export interface Workbench extends PullWork {
  readonly config: Config;
}

/** Opens the store, runs `work`, and closes everything whatever comes of it. */
export async function withWorkbench<T>(flags: StoreFlags, io: Io, work: (bench: Workbench) => Promise<T>): Promise<T> {
  const { config } = await loadConfig(
    flags.config,
    {
      ...(flags.store !== undefined && { store: flags.store }),
      ...(flags.redis !== undefined && { redis: flags.redis }),
      ...(flags.offline && { offline: true }),
    },
    io,
  );
  // What a command has to say of its work is its own; this is for trouble on the way.
  const log = createLog('warn', { isTerminal: true, write: io.err });
  const closers: (() => unknown)[] = [];
  try {
    const context = { config, log, metrics: createMetrics(), now: Date.now, isCommand: true, closers };
    const opened = await openPullWork(context).catch((error: NodeJS.ErrnoException) => {
      throw new CommandError(1, startFailure(error, resolve(config.cache.disk.path)), { cause: error });
    });
    return await work({ ...opened, config });
  } finally {
    for (const close of closers.splice(0).toReversed()) await close();
  }
}

/** `--platform`, which takes platforms, lists of them and named sets; none is any. */
export function readPlatforms(values: readonly string[] | undefined, sets: PullWork['sets']): PlatformSet {
  try {
    return platformsOf(values ?? [], sets);
  } catch (error) {
    throw new CommandError(2, (error as Error).message, { cause: error });
  }
}
