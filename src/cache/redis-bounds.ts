import { isDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { blobKeys, chunkCount, parseCopy, removeCopy } from './redis-copies.ts';
import type { Redis } from './redis.ts';
import { script } from './redis.ts';

export interface RedisBoundsOptions {
  readonly redis: Redis;
  /** For the blobs of the whole fleet together. */
  readonly maxBytes: number;
  now(): number;
}

/** What is taken away for want of room stays this long, for those who are in the middle of it. */
const evictionGraceMs = 1000;

/** Which blobs Redis holds, how large they are and when they were last used; what is too much goes. */
export interface RedisBounds {
  added(digest: Digest, bytes: number): Promise<void>;
  used(digest: Digest): Promise<void>;
  removed(digest: Digest): Promise<void>;
}

// Redis may have lost one of the books alone: the total is then what the sizes say.
const recount = `
  local function recount()
    local sum = 0
    for _, bytes in ipairs(redis.call('HVALS', KEYS[1])) do sum = sum + (tonumber(bytes) or 0) end
    redis.call('SET', KEYS[3], sum)
  end
  if redis.call('EXISTS', KEYS[3]) == 0 then recount() end
`;

// KEYS: sizes, order, total. ARGV: digest, bytes, now. Answers the new total.
const add = script(`${recount}
  local before = (tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0)
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
  return redis.call('INCRBY', KEYS[3], tonumber(ARGV[2]) - before)
`);

// KEYS: sizes, order, total. ARGV: digest.
const remove = script(`${recount}
  local bytes = (tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0)
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return redis.call('DECRBY', KEYS[3], bytes)
`);

// KEYS: sizes, order, total. ARGV: bytes. Takes the least recently used out of the books while there is more than
// that; each replica that evicts at the same time gets others. Where Redis has lost the books, they start over.
const takeOldest = script(`${recount}
  if tonumber(redis.call('GET', KEYS[3]) or '0') <= tonumber(ARGV[1]) then return false end
  local oldest = redis.call('ZPOPMIN', KEYS[2])[1]
  if not oldest then
    redis.call('DEL', KEYS[1], KEYS[3])
    return false
  end
  local bytes = redis.call('HGET', KEYS[1], oldest)
  redis.call('HDEL', KEYS[1], oldest)
  if tonumber(bytes) then redis.call('DECRBY', KEYS[3], bytes) else recount() end
  return oldest
`);

/** Down to this share of the bound, so that not every blob that comes makes another go. */
const lowWater = 0.9;

export function createRedisBounds({ redis, maxBytes, now }: RedisBoundsOptions): RedisBounds {
  const books = ['sizes', 'order', 'total'].map((name) => `${redis.prefix}{books}:${name}`);
  let evicting: Promise<void> | undefined;

  async function evict(): Promise<void> {
    for (;;) {
      const oldest = await redis.run(takeOldest, books, String(Math.floor(maxBytes * lowWater)));
      if (!Buffer.isBuffer(oldest)) return;
      const digest = oldest.toString();
      if (isDigest(digest)) await drop(digest);
    }
  }

  async function drop(digest: Digest): Promise<void> {
    const keys = blobKeys(redis, digest);
    const text = await redis.command(keys.meta, 'GET', keys.meta);
    const copy = Buffer.isBuffer(text) ? parseCopy(text) : undefined;
    if (!copy || !Buffer.isBuffer(text)) return;
    await redis.run(removeCopy, [keys.meta], text);
    // Soon, not at once: someone may be in the middle of it, and goes on to the upstream if it takes longer.
    for (let index = 0; index < chunkCount(copy.size); index++) {
      const key = keys.chunk(copy.generation, index);
      await redis.command(key, 'PEXPIRE', key, String(evictionGraceMs));
    }
  }

  return {
    async added(digest, bytes) {
      const total = await redis.run(add, books, digest, String(bytes), String(now()));
      if (typeof total !== 'number' || total <= maxBytes) return;
      evicting ??= evict().finally(() => (evicting = undefined));
      await evicting;
    },
    async used(digest) {
      // Only what is in the books: a blob that is just being taken away must not come back as a name without content.
      await redis.command(books[1]!, 'ZADD', books[1]!, 'XX', String(now()), digest);
    },
    async removed(digest) {
      await redis.run(remove, books, digest);
    },
  };
}

/** For what is not to be evicted. */
export const unbounded: RedisBounds = {
  added: () => Promise.resolve(),
  used: () => Promise.resolve(),
  removed: () => Promise.resolve(),
};
