/** Reads blobs out of Redis, one way or another, in a process of its own; says how fast, and how long its loop stood. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { RESP_TYPES, createClient } from '@redis/client';
import { bytesBlob, pieces } from '../../src/cache/bytes.ts';
import { createRedisBounds } from '../../src/cache/redis-bounds.ts';
import { chunkBytes } from '../../src/cache/redis-copies.ts';
import { createRedisTier } from '../../src/cache/redis-tier.ts';
import { openRedis } from '../../src/cache/redis.ts';
import type { Tier } from '../../src/cache/tier.ts';
import { digestOf, finish, startHash } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';

export interface ReadOrder {
  readonly how: 'fill' | 'raw' | 'tier';
  readonly url: string;
  readonly blobs: number;
  readonly blobBytes: number;
  readonly readers: number;
  /** What was filled in. */
  readonly digests: readonly Digest[];
}

export interface ReadResult {
  readonly megabytesPerSecond: number;
  readonly cpuMsPerMegabyte: number;
  /** The longest that nothing else could have run in this process. */
  readonly longestStallMs: number;
}

function contents({ blobs, blobBytes }: ReadOrder): Buffer[] {
  return Array.from({ length: blobs }, (_, at) => noise(`redis bench ${at}`, blobBytes));
}

async function openTier(url: string): Promise<{ tier: Tier; close(): Promise<void> }> {
  const { redis, ready } = openRedis({
    place: { kind: 'single', url: new URL(url) },
    prefix: 'bench:',
    connectMs: 2000,
    stallMs: 1000,
    maxQueue: 10_000,
    onChange: () => undefined,
  });
  await ready;
  const bounds = createRedisBounds({ redis, maxBytes: 2 ** 40, now: Date.now });
  const options = { redis, bounds, maxBlobBytes: 2 ** 40, ttlMs: 3_600_000, maxBufferBytes: 32 * 2 ** 20 };
  return { tier: createRedisTier(options), close: () => redis.close() };
}

/** As a download reads it: every byte, hashed. */
async function readTier(tier: Tier, digest: Digest): Promise<number> {
  const blob = (await tier.open(digest))!;
  const hash = startHash(digest);
  for await (const piece of pieces(blob)) hash.update(piece);
  await blob.close();
  if (!finish(hash, digest)) throw new Error('wrong bytes');
  return blob.size;
}

/** What the same client library can do with chunks of the same size, one after the other. */
async function rawReader(url: string): Promise<{ read(name: string, chunks: number): Promise<number>; close(): void }> {
  const client = createClient({ url }).withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  await client.connect();
  return {
    async read(name, chunks) {
      let bytes = 0;
      for (let at = 0; at < chunks; at++) bytes += (await client.get(`${name}:${at}`))!.length;
      return bytes;
    },
    close: () => client.destroy(),
  };
}

async function fill(order: ReadOrder): Promise<Digest[]> {
  const digests: Digest[] = [];
  const { tier, close } = await openTier(order.url);
  const client = createClient({ url: order.url });
  await client.connect();
  for (const [at, bytes] of contents(order).entries()) {
    digests.push(digestOf(bytes));
    await tier.put(digests[at]!, bytesBlob(bytes, 'miss'));
    for (let chunk = 0; chunk * chunkBytes < bytes.length; chunk++) {
      await client.set(`raw ${at}:${chunk}`, bytes.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes));
    }
  }
  client.destroy();
  await close();
  return digests;
}

async function measure(order: ReadOrder): Promise<ReadResult> {
  const { tier, close } = await openTier(order.url);
  const raw = await rawReader(order.url);
  const readOne = (at: number) =>
    order.how === 'raw'
      ? raw.read(`raw ${at}`, Math.ceil(order.blobBytes / chunkBytes))
      : readTier(tier, order.digests[at]!);
  await readOne(0);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const started = performance.now();
  let bytes = 0;
  const waiting = order.digests.map((_, at) => at);
  const reader = async () => {
    for (let at; (at = waiting.pop()) !== undefined;) bytes += await readOne(at);
  };
  await Promise.all(Array.from({ length: order.readers }, reader));
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  delay.disable();
  raw.close();
  await close();
  const megabytes = bytes / 1e6;
  return {
    megabytesPerSecond: megabytes / seconds,
    cpuMsPerMegabyte: (user + system) / 1000 / megabytes,
    longestStallMs: delay.max / 1e6,
  };
}

process.on('message', (order: ReadOrder) => {
  void (async () => {
    process.send!(order.how === 'fill' ? await fill(order) : await measure(order));
  })();
});
