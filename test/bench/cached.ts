import { load } from './load.ts';
import type { Round } from './load.ts';
import { median, startWorker } from './processes.ts';
import type { Server } from './processes.ts';
import type { Starter } from './servers.ts';
import type { UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface CachedFigures extends Round {
  readonly load: string;
  readonly server: string;
  /** The smallest and the largest round, by bytes. */
  readonly spread: readonly [number, number];
  /** Bytes in a second, over those of each of the others. */
  readonly ratios: Readonly<Record<string, number>>;
}

export interface CachedOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly servers: readonly Starter[];
  /** The loads whose names it fits. */
  readonly which: RegExp;
  onStep(text: string): void;
}

interface Load {
  readonly name: string;
  readonly bytes: number;
  readonly clients: number;
  readonly range?: string;
  /** Header lines beside what all send. */
  readonly headers?: readonly string[];
  path(server: Server, ready: UpstreamReady): string;
}

const accept =
  'Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json';
const MiB = 2 ** 20;

function manifest(name: string, path: Load['path'], headers: readonly string[] = []): Load {
  return { name, bytes: 4096, clients: 16, path, headers };
}

function blob(size: string, bytes: number, clients: number, range?: string): Load {
  const who = clients === 1 ? '1 client' : `${clients} clients`;
  const name = `${range ? `${range} of a` : 'a'} blob of ${size}, ${who}`;
  return {
    name,
    bytes,
    clients,
    path: (_, { digests }) => `/v2/library/x/blobs/${digests[0]}`,
    ...(range && { range }),
  };
}

const loads: Load[] = [
  manifest('a manifest by tag', () => '/v2/library/x/manifests/1'),
  // What was said to others is not said again to who shows a credential, here one that nobody asked for.
  manifest('the same, with a credential', () => '/v2/library/x/manifests/1', ['Authorization: Basic bWU6bWU=']),
  manifest(
    'the same, narrowed',
    ({ name }) => `${name.startsWith('narrows') ? '/p/linux-arm64' : ''}/v2/library/x/manifests/1`,
  ),
  manifest('a manifest by digest', (_, { image }) => `/v2/library/x/manifests/${image}`),
  blob('4 KiB', 4096, 1),
  blob('4 KiB', 4096, 16),
  blob('4 KiB', 4096, 256),
  blob('1 MiB', MiB, 1),
  blob('1 MiB', MiB, 16),
  blob('1 MiB', MiB, 256),
  blob('64 MiB', 64 * MiB, 1),
  blob('64 MiB', 64 * MiB, 16),
  blob('64 MiB', 64 * MiB, 256),
  blob('64 MiB', 64 * MiB, 16, '1 MiB'),
];

/** What is cached, from narrows and from what people would take instead, by turns. */
export async function benchCached(options: CachedOptions): Promise<CachedFigures[]> {
  const found: CachedFigures[] = [];
  const wanted = loads.filter(({ name }) => options.which.test(name));
  if (wanted.length === 0) throw new Error(`no load fits: ${loads.map(({ name }) => name).join('; ')}`);
  for (const bytes of new Set(wanted.map((one) => one.bytes))) {
    const upstream = startWorker<UpstreamOrder, UpstreamReady>('upstream.ts');
    const ready = await upstream.ask({ bytes, blobs: 1, bytesPerSecond: 0 });
    const servers: Server[] = [];
    try {
      for (const start of options.servers) servers.push(await start(ready.url));
      for (const one of wanted.filter((other) => other.bytes === bytes)) {
        options.onStep(`${one.name} …`);
        found.push(...(await byTurns(one, servers, ready, options)));
      }
    } finally {
      for (const server of servers) await server.stop();
      upstream.stop();
    }
  }
  return found;
}

async function byTurns(
  one: Load,
  servers: readonly Server[],
  ready: UpstreamReady,
  { rounds, seconds }: CachedOptions,
): Promise<CachedFigures[]> {
  // A MiB out of the middle.
  const range = one.range ? [`Range: bytes=${32 * MiB}-${33 * MiB - 1}`] : [];
  const headers = [accept, ...range, ...(one.headers ?? [])];
  const run = (server: Server, forSeconds: number) =>
    load(server, one.path(server, ready), { clients: one.clients, seconds: forSeconds, headers });
  const measured = new Map(servers.map((server) => [server, [] as Round[]]));
  for (const server of servers) await run(server, 2);
  for (let round = 0; round < rounds; round++) {
    for (const server of servers) measured.get(server)!.push(await run(server, seconds));
  }
  const figures = servers.map((server) => summary(one.name, server, measured.get(server)!));
  return figures.map((figure) => ({ ...figure, ratios: ratiosOf(figure, figures) }));
}

function ratiosOf(figure: Omit<CachedFigures, 'ratios'>, all: readonly Omit<CachedFigures, 'ratios'>[]) {
  const others = all.filter((other) => other !== figure);
  // Of small answers the requests are what counts: heads differ in length.
  const by = figure.bytesPerSecond / figure.requestsPerSecond < MiB / 2 ? 'requestsPerSecond' : 'bytesPerSecond';
  return Object.fromEntries(others.map((other) => [other.server, figure[by] / other[by]]));
}

function summary(name: string, server: Server, rounds: readonly Round[]): Omit<CachedFigures, 'ratios'> {
  const middle = (of: (round: Round) => number) => median(rounds.map(of));
  const rates = rounds.map((round) => round.bytesPerSecond).toSorted((one, other) => one - other);
  return {
    load: name,
    server: server.name,
    requestsPerSecond: middle((round) => round.requestsPerSecond),
    bytesPerSecond: middle((round) => round.bytesPerSecond),
    cpuSecondsPerGb: middle((round) => round.cpuSecondsPerGb),
    cpuMsPerRequest: middle((round) => round.cpuMsPerRequest),
    rssMiB: Math.max(...rounds.map((round) => round.rssMiB)),
    refused: rounds.reduce((sum, round) => sum + round.refused, 0),
    spread: [rates[0] ?? 0, rates.at(-1) ?? 0],
  };
}
