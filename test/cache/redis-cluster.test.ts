import t from 'tap';
import { TierAway } from '../../src/cache/breaker.ts';
import { createRedisBounds } from '../../src/cache/redis-bounds.ts';
import { createRedisNames } from '../../src/cache/redis-names.ts';
import { createRedisTier } from '../../src/cache/redis-tier.ts';
import { script } from '../../src/cache/redis.ts';
import { tierContract } from '../contracts/tier.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { hasRedis, openTestRedis, startCluster } from '../fixtures/redis.ts';
import { failureOf } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const large = noise('large', 1024 * 1024);

void t.test('cluster: three servers that share the keys between them', { skip }, async (t) => {
  const { place, nodes } = await startCluster(t);
  let prefixes = 0;
  const open = (t: Parameters<typeof openTestRedis>[0]) =>
    openTestRedis(t, 0, { place, prefix: `narrows-${prefixes++}:` });
  /** How many keys each server has. */
  const sizes = () => nodes.map(({ cli }) => Number(cli('DBSIZE')));

  await t.test('commands and large values go to the server that has the key', async (t) => {
    const { redis, changes } = await open(t);
    const keys = Array.from({ length: 60 }, (_, at) => `key ${at}`);
    await Promise.all(keys.map((key) => redis.command(key, 'SET', key, key)));
    t.same((await Promise.all(keys.map((key) => redis.transfer(key, 'GET', key)))).map(String), keys);
    t.ok(
      sizes().every((size) => size > 5),
      `all have some: ${sizes().join(', ')}`,
    );
    await redis.transfer('large', 'SET', 'large', large);
    t.ok(large.equals((await redis.transfer('large', 'GET', 'large')) as Buffer));
    t.same(changes, []);
  });

  await t.test('scripts have several keys, of one hash tag', async (t) => {
    const { redis, changes } = await open(t);
    const add = script("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])");
    for (const tag of ['a', 'b', 'c', 'd', 'e', 'f']) {
      for (const total of [2, 4]) t.equal(await redis.run(add, [`x{${tag}}`, `y{${tag}}`]), total);
    }
    for (const { cli } of nodes) cli('SCRIPT', 'FLUSH');
    for (const tag of ['a', 'b', 'c', 'd', 'e', 'f']) t.equal(await redis.run(add, [`x{${tag}}`, `y{${tag}}`]), 6);
    await t.rejects(redis.run(add, ['x{a}', 'y{b}']), /CROSSSLOT/);
    t.same(changes, []);
  });

  await t.test('records are spread, and listed whole', async (t) => {
    const { redis } = await open(t);
    const records = redis.records('tags');
    const rows = Array.from({ length: 100 }, (_, at) => ({ key: `x:${at}`, value: { at }, ttl: 60_000 }));
    await records.setMany(rows);
    await records.set('one', { at: 1 }, 60_000);
    for (const { key, value } of rows) t.same(await records.get(key), value, key);
    const found: string[] = [];
    for await (const [key] of records.iterator?.({}) ?? []) found.push(key as string);
    t.same(found.toSorted(), [...rows.map(({ key }) => key), 'one'].toSorted());
    t.equal(await records.delete('one'), true);
    t.equal(await records.get('one'), undefined);
  });

  await t.test('names that replicas have in common', async (t) => {
    const { redis } = await open(t);
    const names = createRedisNames(redis, 'repositories');
    await names.setMany(['a', 'b', 'c'].map((key) => ({ key, value: true as const })));
    const found: string[] = [];
    for await (const name of names.keys()) found.push(name);
    t.same(found.toSorted(), ['a', 'b', 'c']);
  });

  await t.test('messages reach who subscribed, through whichever server', async (t) => {
    const { redis } = await open(t);
    const { redis: other } = await open(t);
    const [news, more]: [string[], string[]] = [[], []];
    await redis.subscribe('news', (message) => news.push(message));
    await other.subscribe('news', (message) => more.push(message));
    const sent = Array.from({ length: 20 }, (_, at) => `message ${at}`);
    for (const message of sent) await redis.publish('news', message);
    await until(() => news.length >= 20 && more.length >= 20, 'the messages');
    t.same([news.toSorted(), more.toSorted()], [sent.toSorted(), sent.toSorted()]);
  });

  await t.test('the redis tier keeps the contract', async (t) => {
    await tierContract(t, async (t) => {
      const { redis } = await open(t);
      const bounds = createRedisBounds({ redis, maxBytes: 1e9, now: Date.now });
      const tier = createRedisTier({ redis, bounds, maxBlobBytes: 1e9, ttlMs: 600_000, maxBufferBytes: 16e6 });
      return { tier, litter: () => Promise.resolve([]) };
    });
  });

  await t.test('one server is killed: the cluster is away, and used again when it is whole', async (t) => {
    const { redis, changes } = await open(t);
    const news: string[] = [];
    await redis.subscribe('news', (message) => news.push(message));
    const keys = Array.from({ length: 30 }, (_, at) => `again ${at}`);
    const setAll = () => Promise.all(keys.map((key) => redis.command(key, 'SET', key, '1')));
    await setAll();
    await nodes[1]!.kill();
    t.ok((await failureOf(setAll())) instanceof TierAway);
    t.equal(redis.isAway, true);
    await nodes[1]!.restart();
    await until(
      () =>
        setAll().then(
          () => true,
          () => false,
        ),
      'the cluster',
    );
    await until(async () => (await redis.publish('news', 'back').catch(() => undefined), news.length > 0), 'messages');
    t.equal(changes.at(-1), undefined);
  });
});
