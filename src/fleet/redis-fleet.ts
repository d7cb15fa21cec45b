import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { chunks } from '../cache/bytes.ts';
import { chunkBytes, chunkCount, chunkLength, newGeneration } from '../cache/redis-copies.ts';
import type { Copy } from '../cache/redis-copies.ts';
import type { RedisBounds } from '../cache/redis-bounds.ts';
import type { Redis } from '../cache/redis.ts';
import type { Blob } from '../cache/tier.ts';
import { FleetStalled } from './fleet.ts';
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
  /** How long a leader that is there may bring nothing. */
  readonly stallMs: number;
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
  const closing = new AbortController();

  async function release(lease: Lease): Promise<void> {
    await lease.release().catch((error: unknown) => {
      onTrouble(error);
      void releaseLater(lease);
    });
  }

  /** What Redis was asked before it fell silent, it may still do when it wakes: others would wait for us in vain. */
  async function releaseLater(lease: Lease): Promise<void> {
    try {
      while (redis.isAway) await delay(lookMs, undefined, { ref: false, signal: closing.signal });
      await lease.release();
    } catch {
      // It runs out by itself.
    }
  }

  return {
    sharesStore: false,
    async join(key) {
      const keys = flightKeys(redis, key);
      const token = randomUUID();
      const lease = createLease(redis, keys, token, leaseMs);
      const wasAway = redis.isAway;
      try {
        const state = await lease.take();
        if (state.holder !== token)
          return createFollower({ redis, keys, lease, news, stallMs: options.stallMs, onTrouble });
        const leader: Leader = createLeader({
          ...options,
          key,
          lease,
          state,
          tell: () => tell(keys),
          release: () => release(lease),
          onLeft: () => void leading.delete(leader),
        });
        leading.add(leader);
        return leader;
      } catch (error) {
        onTrouble(error);
        if (!wasAway) void releaseLater(lease);
        return undefined;
      }
    },
    async close() {
      closing.abort();
      await Promise.all([...leading].map((leader) => leader.leave()));
    },
  };
}

interface LeaderOptions extends RedisFleetOptions {
  readonly key: FleetKey;
  readonly lease: Lease;
  /** What was there when the lease was taken. */
  readonly state: FlightState;
  tell(): void;
  release(): Promise<void>;
  onLeft(): void;
}

function createLeader(options: LeaderOptions): Leader {
  const { key, lease, state, leaseMs, maxBlobBytes, ttlMs, bounds, tell, release, onLeft, onTrouble } = options;
  let isOver = false;
  let leaving: Promise<void> | undefined;
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

  /** Once, for everyone who wants it: the end of the program has to wait for it, too. */
  function leave(): Promise<void> {
    return (leaving ??= leaveOnce());
  }

  async function leaveOnce(): Promise<void> {
    if (!isOver) {
      end();
      await release();
      tell();
    }
    onLeft();
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

/** What there is to follow. */
interface Head {
  readonly copy: Copy;
  readonly chunks: number;
  readonly repository: string | undefined;
}

interface FollowerOptions extends Pick<RedisFleetOptions, 'redis' | 'stallMs' | 'onTrouble'> {
  readonly keys: FlightKeys;
  readonly lease: Lease;
  readonly news: News;
}

function createFollower({ redis, keys, lease, news, stallMs, onTrouble }: FollowerOptions): Follower {
  /** Waits until there is something to read from `index` on, or nobody who could bring it. */
  async function waitForHead(index: number): Promise<Head | undefined> {
    for (const since = performance.now(); performance.now() - since < stallMs;) {
      const next = news.next(keys.growing);
      const { holder, growing, whole } = await lease.look();
      const head = whole ? { copy: whole, chunks: chunkCount(whole.size), repository: growing?.repository } : growing;
      if (!whole && !holder) return undefined;
      if (head) return (await isHole(head, index)) ? undefined : head;
      await next;
    }
    throw new FleetStalled('the replica');
  }

  /** How many chunks are there, as soon as it is more than `index`. */
  async function waitForChunk(copy: Copy, index: number, isLeft: () => boolean): Promise<number> {
    for (const since = performance.now(); performance.now() - since < stallMs;) {
      if (isLeft()) throw new Error('nobody reads it any more');
      const next = news.next(keys.growing);
      const { holder, growing, whole } = await lease.look();
      if (whole?.generation === copy.generation) return chunkCount(copy.size);
      const count = growing?.copy.generation === copy.generation ? growing.chunks : 0;
      if (count > index) return count;
      const isOther = growing !== undefined && growing.copy.generation !== copy.generation;
      if (!holder || isOther) throw new Error('the replica that downloads it has gone');
      await next;
    }
    throw new FleetStalled('the replica');
  }

  async function* read(copy: Copy, from: number, isLeft: () => boolean): AsyncGenerator<Buffer> {
    let there = 0;
    for (let position = from; position < copy.size;) {
      const index = Math.floor(position / chunkBytes);
      if (index >= there) there = await waitForChunk(copy, index, isLeft);
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

  /** What was there and is gone does not come again, however long its leader goes on. */
  async function isHole({ copy, chunks: count }: Head, index: number): Promise<boolean> {
    const name = keys.chunk(copy.generation, index);
    return index < count && (await redis.command(name, 'EXISTS', name)) === 0;
  }

  return {
    role: 'follower',
    async follow(from, mayRead): Promise<Followed | undefined> {
      const head = await waitForHead(Math.floor(from / chunkBytes)).catch((error: unknown) => {
        if (error instanceof FleetStalled) throw error;
        onTrouble(error);
        return undefined;
      });
      if (!head) return undefined;
      await mayRead(head.repository ?? '');
      let isLeft = false;
      const body = read(head.copy, from, () => isLeft);
      return { size: head.copy.size, body, cancel: () => void (isLeft = true) };
    },
  };
}
