import { startRedis } from '../fixtures/redis.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { startWorker } from './processes.ts';
import type { ReadOrder, ReadResult } from './redis-reader.ts';

export interface RedisFigures {
  readonly readers: number;
  readonly raw: ReadResult;
  readonly tier: ReadResult;
  /** The tier's throughput over that of the bare client library. */
  readonly ratio: number;
}

const blobs = 12;
const blobBytes = 32 * 1024 * 1024;

/** Hits in Redis, hashed as every download is, beside what its client library reads with chunks of the same size. */
export async function benchRedis(rounds: number, onStep: (text: string) => void): Promise<RedisFigures[]> {
  const ends: (() => unknown)[] = [];
  const server = await startRedis({ teardown: (end) => void ends.push(end) });
  const empty: ReadOrder = { how: 'fill', url: server.url, blobs, blobBytes, readers: 1, digests: [] };
  const order = { ...empty, digests: await inProcess<Digest[]>(empty) };
  const figures: RedisFigures[] = [];
  for (const readers of [1, 4]) {
    onStep(`Redis: ${blobs} blobs of 32 MiB, ${readers} at once, ${rounds} rounds of both …`);
    const raw: ReadResult[] = [];
    const tier: ReadResult[] = [];
    for (let round = 0; round < rounds; round++) {
      raw.push(await inProcess({ ...order, how: 'raw', readers }));
      tier.push(await inProcess({ ...order, how: 'tier', readers }));
    }
    const both = { raw: median(raw), tier: median(tier) };
    figures.push({ readers, ...both, ratio: both.tier.megabytesPerSecond / both.raw.megabytesPerSecond });
  }
  for (const end of ends.toReversed()) await end();
  return figures;
}

async function inProcess<Result = ReadResult>(order: ReadOrder): Promise<Result> {
  const worker = startWorker<ReadOrder, Result>('redis-reader.ts');
  try {
    return await worker.ask(order);
  } finally {
    worker.stop();
  }
}

const middle = (values: number[]) => values.toSorted((one, other) => one - other)[values.length >> 1]!;

/** Of each figure its own, but for the stalls, of which the worst counts. */
function median(results: readonly ReadResult[]): ReadResult {
  return {
    megabytesPerSecond: middle(results.map((one) => one.megabytesPerSecond)),
    cpuMsPerMegabyte: middle(results.map((one) => one.cpuMsPerMegabyte)),
    longestStallMs: Math.max(...results.map((one) => one.longestStallMs)),
  };
}
