import t from 'tap';
import { createRedisBounds } from '../../src/cache/redis-bounds.ts';
import { createRedisTier } from '../../src/cache/redis-tier.ts';
import { tierContract } from '../contracts/tier.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

void t.test('redis tier: keeps the contract', { skip }, async (t) => {
  const server = await startRedis(t);
  let at = 0;
  await tierContract(t, async (t) => {
    const prefix = `contract-${at++}:`;
    const { redis } = await openTestRedis(t, server.port, { prefix });
    const bounds = createRedisBounds({ redis, maxBytes: 1e9, now: Date.now });
    const tier = createRedisTier({ redis, bounds, maxBlobBytes: 1e9, ttlMs: 60_000, maxBufferBytes: 16e6 });
    return {
      tier,
      // What is on its way out has at most a minute to live.
      litter: async () => {
        const keys = server
          .cli('--raw', 'KEYS', `${prefix}*`)
          .split('\n')
          .filter((key) => /:\d+$/.test(key));
        const metas = server.cli('--raw', 'KEYS', `${prefix}*:blob`).split('\n').filter(Boolean);
        const named = metas.map((key) => (JSON.parse(server.cli('GET', key)) as { generation: string }).generation);
        const orphans = keys.filter((key) => !named.some((generation) => key.includes(generation)));
        return orphans.filter((key) => Number(server.cli('PTTL', key)) > 60_000);
      },
    };
  });
});
