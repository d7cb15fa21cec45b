import type { Redis } from './redis.ts';
import type { StrictSpace } from './record-space.ts';

/** Names that replicas have in common, as one set: listing them must not mean walking over everything in Redis. */
export function createRedisNames(redis: Redis, name: string): StrictSpace<true> {
  const set = `${redis.prefix}${name}`;
  return {
    async get(key) {
      return (await redis.command(set, 'SISMEMBER', set, key)) === 1 ? true : undefined;
    },
    async set(key) {
      await redis.command(set, 'SADD', set, key);
    },
    async setMany(entries) {
      if (entries.length > 0) await redis.command(set, 'SADD', set, ...entries.map(({ key }) => key));
    },
    async delete(key) {
      await redis.command(set, 'SREM', set, key);
    },
    async *keys() {
      let cursor = '0';
      do {
        const page = await redis.command(set, 'SSCAN', set, cursor, 'COUNT', '1000');
        const [next, members] = Array.isArray(page) ? page : [];
        cursor = String(next ?? '0');
        for (const member of Array.isArray(members) ? members : []) yield String(member);
      } while (cursor !== '0');
    },
  };
}
