import { Command } from 'commander';
import { createLog } from '../log.ts';
import { startMirror } from '../mirror.ts';
import type { Mirror } from '../mirror.ts';
import type { Config } from '../config.ts';
import { parseAddress } from '../config.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { loadConfig } from './load-config.ts';

interface ServeFlags {
  config?: string;
  listen?: string[];
  admin?: string;
  upstream?: string[];
  defaultUpstream?: string;
  store?: string;
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

async function serve(flags: ServeFlags, io: Io): Promise<void> {
  const { config } = await loadConfig(
    flags.config,
    {
      ...(flags.listen && { listen: flags.listen }),
      ...(flags.admin !== undefined && { admin: flags.admin }),
      ...(flags.upstream && { upstreams: flags.upstream }),
      ...(flags.defaultUpstream !== undefined && { defaultUpstream: flags.defaultUpstream }),
      ...(flags.store !== undefined && { store: flags.store }),
    },
    io,
  );
  const log = createLog(config.log.level, { isTerminal: io.isTerminal, write: io.out });
  const mirror = await start(config, log);
  const places = config.listen.map(({ address, tls }, index) =>
    placeOf(address, mirror.ports[index]!, tls !== undefined),
  );
  if (io.isTerminal) io.out(greeting(places, config));
  const admin = config.admin.address === null ? undefined : placeOf(config.admin.address, mirror.adminPort!, false);
  log.info({ listen: places, admin, store: config.cache.disk.path }, 'serving');
  const stopped = Promise.withResolvers<void>();
  let isStopping = false;
  io.onStop(() => {
    // Whoever asks twice does not want to wait.
    if (isStopping) return stopped.resolve();
    isStopping = true;
    log.info('stopping: running answers may finish');
    mirror.stop().then(stopped.resolve, stopped.reject);
  });
  await stopped.promise;
}

async function start(config: Config, log: ReturnType<typeof createLog>): Promise<Mirror> {
  try {
    return await startMirror(config, log);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException & { address?: string; port?: number };
    if (code === 'EADDRINUSE' || code === 'EACCES' || code === 'EADDRNOTAVAIL') {
      throw new CommandError(1, `Cannot listen (${message}); choose another address with --listen and --admin.`, {
        cause: error,
      });
    }
    throw new CommandError(1, `Cannot start: ${message}`, { cause: error });
  }
}

function placeOf(address: string, port: number, isTls: boolean): string {
  const { host } = parseAddress(address)!;
  const shown = host === '::' || host === '0.0.0.0' ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  return `${isTls ? 'https' : 'http'}://${shown}:${port}`;
}

function greeting(places: readonly string[], config: Config): string {
  const upstreams = Object.keys(config.upstreams);
  const place = places[0] ?? '';
  return [
    '',
    `  narrows serves ${upstreams.length} registries at ${places.join(', ')}`,
    `  store ${config.cache.disk.path}   default registry ${config.defaultUpstream}`,
    '',
    `  for arm64 nodes:  ${place}/p/linux-arm64   (narrows client containerd --platform linux/arm64)`,
    `  try:              curl ${place}/p/linux-arm64/v2/library/alpine/manifests/latest`,
    '',
    '',
  ].join('\n');
}
