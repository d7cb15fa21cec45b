import { spawn } from 'node:child_process';
import { hasProgram, startDockerRegistry, startNarrows, startNginx, startWorker, usageOf } from './processes.ts';
import type { Server } from './processes.ts';
import type { UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface CachedFigures {
  readonly load: string;
  readonly server: string;
  /** Medians of the rounds. */
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly cpuSecondsPerGb: number;
  readonly cpuMsPerRequest: number;
  readonly peakMiB: number;
  /** Answers that were refusals, of all rounds. */
  readonly refused: number;
  /** The smallest and the largest round, by requests. */
  readonly spread: readonly [number, number];
  /** To what the peers do at it. */
  readonly ratios: Readonly<Record<string, number>>;
}

interface Load {
  readonly name: string;
  readonly clients: number;
  path(server: Server, digest: string): string;
}

const seconds = 5;
/** As fast as it can; what is sent to another process has no infinity. */
const fast = 1e15;
const accept =
  'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json';

const manifests: Load[] = [
  { name: 'manifest by tag', clients: 16, path: () => '/v2/library/x/manifests/1' },
  {
    name: 'the same, narrowed to a platform',
    clients: 16,
    path: ({ name }) => `${name === 'narrows' ? '/p/linux-arm64' : ''}/v2/library/x/manifests/1`,
  },
];

function blobLoads(clients: readonly number[]): Load[] {
  return clients.map((count) => ({
    name: `${count} clients of a blob`,
    clients: count,
    path: (_, digest) => `/v2/library/x/blobs/${digest}`,
  }));
}

const sizes: [name: string, bytes: number, clients: number[]][] = [
  ['64 MiB', 64 * 2 ** 20, [1, 16]],
  ['1 MiB', 2 ** 20, [16]],
  ['4 KiB', 4096, [16]],
];

/** What is cached, from narrows and from what people would take instead, by turns. Undefined where wrk is missing. */
export async function benchCached(
  rounds: number,
  onStep: (text: string) => void,
): Promise<CachedFigures[] | undefined> {
  if (!hasProgram('wrk')) return undefined;
  const found: CachedFigures[] = [];
  for (const [size, bytes, clients] of sizes) {
    const upstream = startWorker<UpstreamOrder, UpstreamReady>('upstream.ts');
    const { url, digest } = await upstream.ask({ bytes, bytesPerSecond: fast });
    const servers = [await startNarrows(url)];
    try {
      if (hasProgram('nginx')) servers.push(await startNginx(url));
      if (hasProgram('docker-registry')) servers.push(await startDockerRegistry(url));
      const loads = [...(size === '64 MiB' ? manifests : []), ...blobLoads(clients)];
      for (const load of loads) {
        const name = load.name.endsWith('blob') ? `${load.name} of ${size}` : load.name;
        onStep(`${name} …`);
        found.push(...(await byTurns({ ...load, name }, servers, digest, rounds)));
      }
    } finally {
      for (const server of servers) await server.stop();
      upstream.stop();
    }
  }
  return found;
}

async function byTurns(
  load: Load,
  servers: readonly Server[],
  digest: string,
  rounds: number,
): Promise<CachedFigures[]> {
  const measured = new Map(servers.map((server) => [server, [] as Round[]]));
  for (const server of servers) await run(server, load, digest, 1);
  for (let round = 0; round < rounds; round++) {
    for (const server of servers) measured.get(server)!.push(await run(server, load, digest, seconds));
  }
  const figures = servers.map((server) => summary(load, server, measured.get(server)!));
  return figures.map((one) => ({
    ...one,
    ratios: Object.fromEntries(
      figures
        .filter((other) => other !== one)
        .map((other) => [other.server, one.requestsPerSecond / other.requestsPerSecond]),
    ),
  }));
}

interface Round {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly cpuSeconds: number;
  readonly seconds: number;
  readonly refused: number;
}

async function run(server: Server, load: Load, digest: string, forSeconds: number): Promise<Round> {
  const before = usageOf(server.pid).cpuSeconds;
  const url = server.url + load.path(server, digest);
  const args = ['-t1', `-c${load.clients}`, `-d${forSeconds}s`, '--timeout', '60s', '-H', `Accept: ${accept}`, url];
  const child = spawn('wrk', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  await new Promise((resolve) => child.once('exit', resolve));
  const [, requests = '0', took = '1'] = /(\d+) requests in ([\d.]+)(?:s|m)/.exec(out) ?? [];
  const [, amount = '0', unit = 'B'] = /Transfer\/sec:\s+([\d.]+)(B|KB|MB|GB)/.exec(out) ?? [];
  const scale = { B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 }[unit as 'B'];
  return {
    requestsPerSecond: Number(requests) / Number(took),
    bytesPerSecond: Number(amount) * scale,
    cpuSeconds: usageOf(server.pid).cpuSeconds - before,
    seconds: Number(took),
    refused: Number(/Non-2xx or 3xx responses: (\d+)/.exec(out)?.[1] ?? 0),
  };
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
}

function summary({ name }: Load, server: Server, rounds: readonly Round[]): Omit<CachedFigures, 'ratios'> {
  const rates = rounds.map((round) => round.requestsPerSecond).toSorted((a, b) => a - b);
  return {
    load: name,
    server: server.name,
    requestsPerSecond: median(rates),
    bytesPerSecond: median(rounds.map((round) => round.bytesPerSecond)),
    cpuSecondsPerGb: median(rounds.map((round) => round.cpuSeconds / ((round.bytesPerSecond * round.seconds) / 1e9))),
    cpuMsPerRequest: median(
      rounds.map((round) => (1000 * round.cpuSeconds) / (round.requestsPerSecond * round.seconds)),
    ),
    peakMiB: usageOf(server.pid).peakMiB,
    refused: rounds.reduce((sum, round) => sum + round.refused, 0),
    spread: [rates[0] ?? 0, rates.at(-1) ?? 0],
  };
}
