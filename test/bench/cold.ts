import type { HerdOrder, HerdResult } from './herd-clients.ts';
import { median, settleDisk, settleMemory, startWorker } from './processes.ts';
import type { Server } from './processes.ts';
import { direct } from './servers.ts';
import type { Starter } from './servers.ts';
import type { UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface ColdFigures {
  readonly load: string;
  readonly server: string;
  readonly firstByteMs: number;
  readonly seconds: number;
  readonly spread: readonly [number, number];
  /** Throughput, over that of each of the others. */
  readonly ratios: Readonly<Record<string, number>>;
}

interface Load {
  readonly name: string;
  readonly bytes: number;
  /** Of the upstream; 0 for as fast as it can. */
  readonly bytesPerSecond: number;
  /** So many times as many rounds as were asked for. */
  readonly times: number;
  /** It takes memory as fast as there is some. */
  readonly isHungry?: boolean;
}

const MiB = 2 ** 20;
const loads: Load[] = [
  { name: '1 MiB', bytes: MiB, bytesPerSecond: 0, times: 10 },
  { name: '64 MiB, upstream at 50 MB/s', bytes: 64 * MiB, bytesPerSecond: 50_000_000, times: 1 },
  { name: '64 MiB, upstream as fast as it can', bytes: 64 * MiB, bytesPerSecond: 0, times: 1, isHungry: true },
];
/** What each server has passed on before: a runtime compiles what it has run many times, and one that serves has. */
const before: UpstreamOrder = { bytes: MiB / 2, blobs: 100, bytesPerSecond: 0 };
/** Of the load itself, rounds that are not counted. */
const firstRounds = 3;

/** One client of a blob that is not here, beside the same from the upstream itself. Each round has a blob of its own. */
export async function benchCold(
  rounds: number,
  starts: readonly Starter[],
  onStep: (text: string) => void,
): Promise<ColdFigures[]> {
  const figures: ColdFigures[] = [];
  for (const { name, bytes, bytesPerSecond, times, isHungry } of loads) {
    onStep(`a blob that is not here, ${name} …`);
    const upstream = startWorker<UpstreamOrder, UpstreamReady>('upstream.ts');
    const { url, digests: warmUps } = await upstream.ask(before);
    const servers: Server[] = [];
    const client = startWorker<HerdOrder, HerdResult>('herd-clients.ts');
    const found = new Map<Server, HerdResult[]>();
    try {
      for (const start of [direct, ...starts]) servers.push(await start(url));
      for (const digest of warmUps) for (const server of servers) await client.ask(orderOf(server, digest));
      const { digests } = await upstream.ask({ bytes, blobs: rounds * times + firstRounds, bytesPerSecond });
      for (const [round, digest] of digests.entries()) {
        for (const server of servers) {
          settleDisk();
          if (isHungry) settleMemory();
          const result = await client.ask(orderOf(server, digest));
          if (round >= firstRounds) found.set(server, [...(found.get(server) ?? []), result]);
        }
      }
    } finally {
      client.stop();
      for (const server of servers) await server.stop();
      upstream.stop();
    }
    figures.push(...summary(name, found));
  }
  return figures;
}

function orderOf({ url, isHashedByClients }: Server, digest: string): HerdOrder {
  return { url: `${url}/v2/library/x/blobs/${digest}`, digest, clients: 1, hashing: isHashedByClients ? 1 : 0 };
}

function summary(load: string, found: ReadonlyMap<Server, readonly HerdResult[]>): ColdFigures[] {
  const all = [...found].map(([server, results]) => {
    const took = results.map(({ seconds }) => seconds).toSorted((one, other) => one - other);
    if (results.some(({ right }) => right !== 1)) throw new Error(`${server.name} did not answer whole`);
    return {
      load,
      server: server.name,
      firstByteMs: median(results.map(({ lastFirstByteMs }) => lastFirstByteMs)),
      seconds: median(took),
      spread: [took[0] ?? 0, took.at(-1) ?? 0] as const,
    };
  });
  return all.map((one) => ({
    ...one,
    ratios: Object.fromEntries(
      all.filter((other) => other !== one).map((other) => [other.server, other.seconds / one.seconds]),
    ),
  }));
}
