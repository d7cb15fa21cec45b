import { randomUUID } from 'node:crypto';
import { chunks } from '../cache/bytes.ts';
import { chunkBytes, chunkCount, chunkLength, newGeneration } from '../cache/redis-copies.ts';
import type { Copy } from '../cache/redis-copies.ts';
import type { RedisBounds } from '../cache/redis-bounds.ts';
import type { Redis } from '../cache/redis.ts';
import type { Blob } from '../cache/tier.ts';
import type { Fleet, FleetKey, Followed, Follower, Leader } from './fleet.ts';
import { createLease, flightKeys } from './leases.ts';
import type { FlightKeys, FlightState, Lease } from './leases.ts';
import { createNews } from './news.ts';
import type { News } from './news.ts';

export interface RedisFleetOptions {
  readonly redis: Redis;
  readonly bounds: RedisBounds;
  /** What a leader that says nothing may still take until another takes over. */
  readonly leaseMs: number;
  /** Larger blobs are downloaded by each for itself. */
  readonly maxBlobBytes: number;
  /** How long a copy lives that nobody reads. */
  readonly ttlMs: number;
  onTrouble(error: unknown): void;
}

/** How often a follower looks by itself: a message can be lost, and a leader that died sends none. */
const lookMs = 250;

/**
 * Replicas around one Redis. The leader of a download has its lease and puts chunks there as they come, each of them
 * under the fence of the lease; the others read them, and verify for themselves what they make up together.
 */
export async function createRedisFleet(options: RedisFleetOptions): Promise<Fleet> {
  const { redis, leaseMs, onTrouble } = options;
  const news = createNews(lookMs);
  const channel = `${redis.prefix}flights`;
  const leading = new Set<Leader>();
  await redis.subscribe(channel, news.told).catch(onTrouble);
  const tell = (keys: FlightKeys) => void redis.publish(channel, keys.growing).catch(() => undefined);

  return {
    sharesStore: false,
    async join(key) {
      const keys = flightKeys(redis, key);
      const token = randomUUID();
      const lease = createLease(redis, keys, token, leaseMs);
      try {
        const state = await lease.take();
        if (state.holder !== token) return createFollower(redis, keys, lease, news);
        const leader = createLeader({ ...options, key, keys, lease, state, tell: () => tell(keys) });
        leading.add(leader);
        return { ...leader, leave: () => leader.leave().finally(() => leading.delete(leader)) };
      } catch (error) {
        onTrouble(error);
        return undefined;
      }
    },
    async close() {
      await Promise.all([...leading].map((leader) => leader.leave()));
    },
  };
}

interface LeaderOptions extends RedisFleetOptions {
  readonly key: FleetKey;
  readonly keys: FlightKeys;
  readonly lease: Lease;
  /** What was there when the lease was taken. */
  readonly state: FlightState;
  tell(): void;
}

function createLeader(options: LeaderOptions): Leader {
  const { key, lease, state, leaseMs, maxBlobBytes, ttlMs, bounds, tell, onTrouble } = options;
  let isOver = false;
  const renewing = setInterval(() => {
    lease.renew().then(
      (isOurs) => void (isOurs || end()),
      // Redis is away: whether the lease is still ours, the next word to it will tell.
      () => undefined,
    );
  }, leaseMs / 3).unref();

  function end(): void {
    isOver = true;
    clearInterval(renewing);
  }

  async function leave(): Promise<void> {
    if (isOver) return;
    end();
    await lease.release().catch(onTrouble);
    tell();
  }

  /** Puts in what is missing of the copy; false when the lease is someone else's by now. */
  async function pass(blob: Blob): Promise<boolean> {
    const before = state.growing?.copy.size === blob.size ? state.growing : undefined;
    const copy: Copy = before?.copy ?? { size: blob.size, generation: newGeneration() };
    let count = before?.chunks ?? 0;
    if (!(await lease.grow(copy, count, key.repository))) return false;
    tell();
    for await (const chunk of chunks(blob, Math.min(count * chunkBytes, blob.size), chunkBytes)) {
      if (isOver || !(await lease.grow(copy, ++count, key.repository, chunk))) return false;
      tell();
    }
    await blob.verified;
    if ((await lease.finish(copy, count, ttlMs)) !== 'done') return false;
    await bounds.added(key.digest, copy.size);
    tell();
    return true;
  }

  return {
    role: 'leader',
    get isLost() {
      return isOver;
    },
    async share(blob) {
      try {
        if (blob.size <= maxBlobBytes && (await pass(blob))) end();
      } catch (error) {
        onTrouble(error);
      } finally {
        await blob.close();
        await leave();
      }
    },
    leave,
  };
}

function createFollower(redis: Redis, keys: FlightKeys, lease: Lease, news: News): Follower {
  /** Waits until there is something to read, or nobody who could bring it. */
  async function waitForHead(): Promise<{ copy: Copy; repository: string | undefined } | undefined> {
    for (;;) {
      const next = news.next(keys.growing);
      const { holder, growing, whole } = await lease.look();
      if (whole) return { copy: whole, repository: growing?.repository };
      if (!holder) return undefined;
      if (growing) return { copy: growing.copy, repository: growing.repository };
      await next;
    }
  }

  /** How many chunks are there, as soon as it is more than `index`. */
  async function waitForChunk(copy: Copy, index: number): Promise<number> {
    for (;;) {
      const next = news.next(keys.growing);
      const { holder, growing, whole } = await lease.look();
      if (whole?.generation === copy.generation) return chunkCount(copy.size);
      const count = growing?.copy.generation === copy.generation ? growing.chunks : 0;
      if (count > index) return count;
      const isOther = growing !== undefined && growing.copy.generation !== copy.generation;
      if (!holder || isOther) throw new Error('the replica that downloads it has gone');
      await next;
    }
  }

  async function* read(copy: Copy, from: number): AsyncGenerator<Buffer> {
    let there = 0;
    for (let position = from; position < copy.size;) {
      const index = Math.floor(position / chunkBytes);
      if (index >= there) there = await waitForChunk(copy, index);
      const name = keys.chunk(copy.generation, index);
      const chunk = await redis.transfer(name, 'GET', name);
      if (!Buffer.isBuffer(chunk) || chunk.length !== chunkLength(copy.size, index)) {
        throw new Error(`chunk ${index} is not in Redis any more`);
      }
      const fresh = chunk.subarray(position - index * chunkBytes);
      yield fresh;
      position += fresh.length;
    }
  }

  return {
    role: 'follower',
    async follow(from, mayRead): Promise<Followed | undefined> {
      const head = await waitForHead();
      if (!head) return undefined;
      await mayRead(head.repository ?? '');
      return { size: head.copy.size, body: read(head.copy, from), cancel: () => undefined };
    },
  };
}
