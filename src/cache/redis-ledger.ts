import type { Ledger } from './ledger.ts';
import { script } from './redis.ts';
import type { Redis, RedisReply } from './redis.ts';

// KEYS: entries, order. ARGV: for each change its key, what must be there ('=' and a text, '-' for nothing, '' for
// anything), and what comes there ('=' and a text, '-' for nothing, '' for no change).
const commit = script(`
  for i = 1, #ARGV, 3 do
    if ARGV[i + 1] ~= '' then
      local now = redis.call('HGET', KEYS[1], ARGV[i])
      if (now and '=' .. now or '-') ~= ARGV[i + 1] then return 0 end
    end
  end
  for i = 1, #ARGV, 3 do
    if ARGV[i + 2] == '-' then
      redis.call('HDEL', KEYS[1], ARGV[i])
      redis.call('ZREM', KEYS[2], ARGV[i])
    elseif ARGV[i + 2] ~= '' then
      redis.call('HSET', KEYS[1], ARGV[i], string.sub(ARGV[i + 2], 2))
      redis.call('ZADD', KEYS[2], 0, ARGV[i])
    end
  end
  return 1
`);

// KEYS: entries, order. ARGV: after which, up to which, how many.
const list = script(`
  local found = {}
  for _, key in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], '(' .. ARGV[1], '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])) do
    local value = redis.call('HGET', KEYS[1], key)
    if value then found[#found + 1] = key; found[#found + 1] = value end
  end
  return found
`);

/**
 * A ledger that all replicas share. Redis compares and writes in one step; its keys have no end, so it must be a
 * Redis that keeps what it is given: one that persists, and evicts nothing without a time to live.
 */
export function createRedisLedger(redis: Redis): Ledger {
  const names = `${redis.prefix}hosted`;
  const keysOf = (repository: string) =>
    ['entries', 'order'].map((what) => `${redis.prefix}{hosted:${repository}}:${what}`);

  return {
    async get(repository, keys) {
      if (keys.length === 0) return [];
      const [entries = ''] = keysOf(repository);
      const values = await redis.command(entries, 'HMGET', entries, ...keys);
      return asList(values).map((value) => (value === null ? undefined : String(value)));
    },

    async list(repository, prefix, after, count) {
      // No text has such a byte: everything that begins with the prefix is before it.
      const end = Buffer.concat([Buffer.from(prefix), Buffer.from([0xff])]);
      const found = asList(await redis.run(list, keysOf(repository), prefix + after, end, String(count))).map(String);
      return found.flatMap((key, at) => (at % 2 === 0 ? [{ key, value: found[at + 1]! }] : []));
    },

    async commit(repository, changes) {
      // Before the first entry: a name without entries does no harm, entries without a name would be lost.
      await redis.command(names, 'SADD', names, repository);
      const args = changes.flatMap(({ key, before, after }) => [key, sign(before), sign(after)]);
      return (await redis.run(commit, keysOf(repository), ...args)) === 1;
    },

    async repositories() {
      return asList(await redis.command(names, 'SMEMBERS', names))
        .map(String)
        .toSorted();
    },
  };
}

function sign(value: string | null | undefined): string {
  if (value === undefined) return '';
  return value === null ? '-' : `=${value}`;
}

function asList(reply: RedisReply): RedisReply[] {
  return Array.isArray(reply) ? (reply as RedisReply[]) : [];
}
