import { resolve } from 'node:path';
import { Command } from 'commander';
import { createLog } from '../log.ts';
import type { Log } from '../log.ts';
import { startMirror } from '../mirror.ts';
import { openTracing } from '../trace.ts';
import type { Mirror } from '../mirror.ts';
import { ConfigError } from '../config.ts';
import type { Config } from '../config.ts';
import { parseAddress } from '../config-values.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { startFailure } from './start-failure.ts';
import { loadConfig } from './load-config.ts';
import type { Loaded } from './load-config.ts';
import { connectWorker } from './worker-link.ts';
import type { WorkerLink } from './worker-link.ts';
import { startWorkers } from './workers.ts';

interface ServeFlags {
  config?: string;
  listen?: string[];
  admin?: string;
  upstream?: string[];
  defaultUpstream?: string;
  store?: string;
  redis?: string;
  workers?: string;
  offline?: true;
}

export function serveCommand(io: Io): Command {
  return new Command('serve')
    .description('runs the mirror')
    .option('--config <file>', 'configuration in YAML')
    .option('--listen <address>', 'where clients are served, as 127.0.0.1:5000; repeatable', collect)
    .option('--admin <address>', 'where health and metrics are served')
    .option('--upstream <NAME=URL>', 'a registry to mirror; repeatable; plain http only when the URL says so', collect)
    .option('--default-upstream <name>', 'the registry of references that name none')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share, as redis://10.0.0.9:6379')
    .option('--workers <count>', 'processes that serve together, on one store')
    .option('--offline', 'never ask an upstream: what is here is all there is')
    .addHelpText(
      'after',
      '\nExample:\n  narrows serve --listen :5000 --store /var/lib/narrows --upstream lab=http://10.0.0.5:5000',
    )
    .action((flags: ServeFlags) => serve(flags, io));
}

/** For options that may be given several times. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function load(flags: ServeFlags, io: Io): Promise<Loaded> {
  return loadConfig(
    flags.config,
    {
      ...(flags.listen && { listen: flags.listen }),
      ...(flags.admin !== undefined && { admin: flags.admin }),
      ...(flags.upstream && { upstreams: flags.upstream }),
      ...(flags.defaultUpstream !== undefined && { defaultUpstream: flags.defaultUpstream }),
      ...(flags.store !== undefined && { store: flags.store }),
      ...(flags.redis !== undefined && { redis: flags.redis }),
      ...(flags.workers !== undefined && { workers: flags.workers }),
      ...(flags.offline && { offline: flags.offline }),
    },
    io,
  );
}

async function serve(flags: ServeFlags, io: Io): Promise<void> {
  const { config } = await load(flags, io);
  const isTraced = await openTracing();
  const log = createLog(config.log.level, { isTerminal: io.isTerminal, write: io.out });
  if (isTraced) log.debug('spans are made through the API of OpenTelemetry');
  const link = connectWorker(io.env);
  if (link) return serveAsWorker(config, log, link, io);
  const serving = await start(config, log);
  const places = config.listen.map(({ address, tls }, index) =>
    placeOf(address, serving.ports[index]!, tls !== undefined),
  );
  const admin = config.admin.address === null ? undefined : placeOf(config.admin.address, serving.adminPort!, false);
  if (io.isTerminal) io.out(greeting(places, admin, config));
  const workers = config.workers > 1 ? config.workers : undefined;
  log.info(
    { listen: places, admin, store: config.cache.disk.path, workers, offline: config.offline || undefined },
    'serving',
  );
  io.onReload(() => void reload(serving, flags, log, io));
  const stopped = Promise.withResolvers<void>();
  serving.failed?.catch((error: unknown) => void serving.stop().finally(() => stopped.reject(error)));
  let isStopping = false;
  io.onStop(() => {
    // Whoever asks twice does not want to wait.
    if (isStopping) {
      log.warn('stopping at once: answers that run are cut off');
      return stopped.resolve();
    }
    isStopping = true;
    log.info(
      `stopping: running answers may finish, up to ${config.limits.stopGrace / 1000}s; ask again to cut them off`,
    );
    serving.stop().then(stopped.resolve, stopped.reject);
  });
  await stopped.promise;
  log.info('stopped');
}

/** All of it or nothing: with a single mistake the old configuration stays in force. */
async function reload(serving: Serving, flags: ServeFlags, log: Log, io: Io): Promise<void> {
  try {
    const { config } = await load(flags, io);
    await serving.reload(config);
    log.info('the configuration was read again, and is in force');
  } catch (error) {
    const isMistake = error instanceof CommandError || error instanceof ConfigError;
    const mistakes = (error as Error).message.split('\n').map((line) => line.trim());
    log.error(isMistake ? { mistakes } : { err: error }, 'the configuration was refused; the last one stays in force');
  }
}

/** One of several: the process that started it speaks for all of them, and says when to stop. */
async function serveAsWorker(config: Config, log: Log, link: WorkerLink, io: Io): Promise<void> {
  // A Ctrl-C, and a terminal that closes, reach the workers as well.
  io.onStop(() => undefined);
  io.onReload(() => undefined);
  const stopped = Promise.withResolvers<void>();
  link.onStop(stopped.resolve);
  let mirror: Mirror | undefined;
  try {
    mirror = await startOne(config, log, link);
    link.onReport(mirror.report);
    link.onLevel((level) => void (log.level = level));
    link.serving(mirror.ports);
  } catch (error) {
    link.failed((error as Error).message);
  }
  await stopped.promise;
  await mirror?.stop();
}

interface Serving {
  readonly ports: readonly number[];
  readonly adminPort: number | undefined;
  readonly failed?: Promise<never>;
  reload(config: Config): Promise<void>;
  stop(): Promise<void>;
}

async function start(config: Config, log: Log): Promise<Serving> {
  if (config.workers === 1) return startOne(config, log);
  try {
    return await startWorkers(config.workers, config, log);
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(1, startFailure(error as Error, resolve(config.cache.disk.path)), { cause: error });
  }
}

async function startOne(config: Config, log: Log, link?: WorkerLink): Promise<Mirror> {
  try {
    return await startMirror(config, log, Date.now, link);
  } catch (error) {
    throw new CommandError(1, startFailure(error as Error, resolve(config.cache.disk.path)), { cause: error });
  }
}

function placeOf(address: string, port: number, isTls: boolean): string {
  const { host } = parseAddress(address)!;
  const shown = host === '::' || host === '0.0.0.0' ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  return `${isTls ? 'https' : 'http'}://${shown}:${port}`;
}

function greeting(places: readonly string[], admin: string | undefined, config: Config): string {
  const upstreams = Object.keys(config.upstreams);
  const place = places[0] ?? '';
  const isLocal =
    /\/\/(?:127\.|localhost|\[::1\])/.test(place) && !/^(?:0\.0\.0\.0|\[?::\]?)?:/.test(config.listen[0]!.address);
  return [
    '',
    `  narrows serves ${upstreams.length} registries at ${places.join(', ')}${isLocal ? ', to this machine alone' : ''}`,
    ...(config.offline
      ? ['  offline           what is in the store is all there is: narrows check tells what that is']
      : []),
    `  store             ${resolve(config.cache.disk.path)}`,
    `  default registry  ${config.defaultUpstream}`,
    ...(admin === undefined ? [] : [`  what goes on      ${admin}/`]),
    '',
    `  nodes             npx narrows client containerd --platform linux/arm64 --mirror http://THIS-HOST:${new URL(place).port}`,
    `  try               curl ${place}/p/linux-arm64/v2/library/alpine/manifests/latest`,
    '',
    '',
  ].join('\n');
}
