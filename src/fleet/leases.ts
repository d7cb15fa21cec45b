import { createHash } from 'node:crypto';
import { formatCopy, graceMs, parseCopy } from '../cache/redis-copies.ts';
import type { BlobKeys, Copy } from '../cache/redis-copies.ts';
import { blobKeys } from '../cache/redis-copies.ts';
import { script } from '../cache/redis.ts';
import type { Redis, RedisReply } from '../cache/redis.ts';
import type { FleetKey } from './fleet.ts';

/** What Redis knows of one download. */
export interface FlightState {
  /** The token of the one that leads now; undefined when nobody does. */
  readonly holder: string | undefined;
  /** The copy that grows, and how many of its chunks are there; undefined before its size is known. */
  readonly growing: { readonly copy: Copy; readonly chunks: number; readonly repository: string } | undefined;
  /** The copy that is whole. */
  readonly whole: Copy | undefined;
}

/** The keys of one download; all in one slot of a cluster, for the scripts below change them together. */
export interface FlightKeys extends BlobKeys {
  readonly lease: string;
  readonly growing: string;
}

export function flightKeys(redis: Redis, { upstream, digest }: FleetKey): FlightKeys {
  const keys = blobKeys(redis, digest);
  const name = createHash('sha256').update(upstream).digest('hex').slice(0, 16);
  return { ...keys, lease: keys.of(`lease:${name}`), growing: keys.of(`growing:${name}`) };
}

/** How long a copy that grows outlives its leader's last word, for another to go on with. */
export const growingMs = 600_000;

// The fence of everything below: a token that is not the lease's writes nothing. It is Redis that compares, so a
// leader that slept through the end of its lease is refused, whatever its clock says.
const fence = `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n`;

// KEYS: lease, growing, meta. ARGV: token ('' only looks), lease ms. Where a copy has just become whole, nobody leads.
const take = script(`
  if ARGV[1] ~= '' and redis.call('EXISTS', KEYS[3]) == 0 then redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) end
  local growing = redis.call('HMGET', KEYS[2], 'copy', 'chunks', 'repository')
  return {redis.call('GET', KEYS[1]), growing[1], growing[2], growing[3], redis.call('GET', KEYS[3])}
`);

// KEYS: lease. ARGV: token, lease ms.
const renew = script(`${fence} return redis.call('PEXPIRE', KEYS[1], ARGV[2])`);

// KEYS: lease, growing, the chunk where there is one. ARGV: token, lease ms, growing ms, copy, repository, number of
// chunks that are there then, the chunk.
const append = script(`${fence}
  if #KEYS == 3 then redis.call('SET', KEYS[3], ARGV[7], 'PX', ARGV[3]) end
  redis.call('HSET', KEYS[2], 'copy', ARGV[4], 'repository', ARGV[5], 'chunks', ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
`);

// KEYS: lease, growing, meta, all chunks. ARGV: token, the copy, its time to live in ms. 2: a chunk is missing. A
// text: the copy that was there, for whoever writes without a lease may have been faster.
const finish = script(`${fence}
  for i = 4, #KEYS do if redis.call('PEXPIRE', KEYS[i], ARGV[3]) == 0 then return 2 end end
  local before = redis.call('GET', KEYS[3])
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
  redis.call('DEL', KEYS[1], KEYS[2])
  return before or 1
`);

// KEYS: lease, growing. ARGV: token. What came of it may be wrong: only a leader that died is taken over from.
const release = script(`${fence} return redis.call('DEL', KEYS[1], KEYS[2])`);

/** The lease on one download, and what grows under it. Every method throws what is wrong with Redis. */
export interface Lease {
  look(): Promise<FlightState>;
  /** Takes the lease if nobody has it; `holder` says who does then. */
  take(): Promise<FlightState>;
  /** The following answer false where someone else has the lease by now. */
  renew(): Promise<boolean>;
  grow(copy: Copy, chunks: number, repository: string, chunk?: Buffer): Promise<boolean>;
  finish(copy: Copy, chunks: number, ttlMs: number): Promise<'done' | 'lost' | 'incomplete'>;
  release(): Promise<void>;
}

export function createLease(redis: Redis, keys: FlightKeys, token: string, leaseMs: number): Lease {
  const ms = String(leaseMs);
  const state = async (withToken: string) =>
    readState(await redis.run(take, [keys.lease, keys.growing, keys.meta], withToken, ms));
  /** Who reads that copy may come to its end. */
  async function fade(generation: string, chunks: number): Promise<void> {
    const all = Array.from({ length: chunks }, (_, index) => keys.chunk(generation, index));
    await Promise.all(all.map((key) => redis.command(key, 'PEXPIRE', key, String(graceMs))));
  }

  return {
    look: () => state(''),
    take: () => state(token),
    renew: async () => (await redis.run(renew, [keys.lease], token, ms)) === 1,
    async grow(copy, chunks, repository, chunk) {
      const touched = [keys.lease, keys.growing];
      if (chunk) touched.push(keys.chunk(copy.generation, chunks - 1));
      const rest = [token, ms, String(growingMs), formatCopy(copy), repository, String(chunks)];
      return (await redis.run(append, touched, ...rest, ...(chunk ? [chunk] : []))) === 1;
    },
    async finish(copy, chunks, ttlMs) {
      const all = Array.from({ length: chunks }, (_, index) => keys.chunk(copy.generation, index));
      const touched = [keys.lease, keys.growing, keys.meta, ...all];
      const answer = await redis.run(finish, touched, token, formatCopy(copy), String(ttlMs));
      if (answer === 0) return 'lost';
      if (answer === 2) return 'incomplete';
      const before = Buffer.isBuffer(answer) ? parseCopy(answer) : undefined;
      // Of another size it is not a copy of this content, and not worth counting its chunks.
      if (before?.size === copy.size) await fade(before.generation, chunks);
      return 'done';
    },
    async release() {
      await redis.run(release, [keys.lease, keys.growing], token);
    },
  };
}

function readState(reply: RedisReply): FlightState {
  const [holder, copy, chunks, repository, whole] = Array.isArray(reply) ? (reply as RedisReply[]) : [];
  const growing = Buffer.isBuffer(copy) ? parseCopy(copy) : undefined;
  const count = Buffer.isBuffer(chunks) ? Number(chunks.toString()) : Number.NaN;
  return {
    holder: Buffer.isBuffer(holder) ? holder.toString() : undefined,
    growing:
      growing && Number.isSafeInteger(count) && count >= 0 && Buffer.isBuffer(repository)
        ? { copy: growing, chunks: count, repository: repository.toString() }
        : undefined,
    whole: Buffer.isBuffer(whole) ? parseCopy(whole) : undefined,
  };
}
