import t from 'tap';
import { TierAway } from '../../src/cache/breaker.ts';
import { script } from '../../src/cache/redis.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { cli, hasRedis, openTestRedis, startSentinels } from '../fixtures/redis.ts';
import { failureOf, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const large = noise('large', 1024 * 1024);

void t.test(
  '50. sentinel: all goes to the server that the sentinels name, and over to the next',
  { skip },
  async (t) => {
    const { place, master, killMaster } = await startSentinels(t);
    const { redis, changes } = await openTestRedis(t, 0, { place });
    const first = master();
    const news: string[] = [];
    await redis.subscribe('news', (message) => news.push(message));

    await t.test('commands, large values, scripts, records, messages', async (t) => {
      t.equal(String(await redis.command('a', 'SET', 'a', '1')), 'OK');
      t.equal(cli(first, ['GET', 'a']), '1');
      await redis.transfer('b', 'SET', 'b', large);
      t.ok(large.equals((await redis.transfer('b', 'GET', 'b')) as Buffer));
      t.equal(await redis.run(script("return redis.call('INCR', KEYS[1])"), ['a']), 2);
      const records = redis.records('tags');
      await records.setMany([{ key: 'x', value: { a: 1 }, ttl: 60_000 }]);
      t.same(await records.get('x'), { a: 1 });
      await redis.publish('news', 'hello');
      await until(() => news.length === 1, 'the message');
      t.same(news, ['hello']);
      t.same(changes, []);
    });

    await t.test('the server is killed: sent away at once, and back with the next one', async (t) => {
      const start = performance.now();
      const waiting = failureOf(redis.command('none', 'BLPOP', 'none', '0'));
      await killMaster();
      t.ok((await within(2000, 'being sent away', waiting)) instanceof TierAway);
      t.ok(performance.now() - start < 2000);
      await until(() => !redis.isAway, 'the next server');
      t.comment(`back after ${Math.round(performance.now() - start)} ms`);
      t.not(master(), first);
      t.equal(String(await redis.command('c', 'SET', 'c', 'after')), 'OK');
      t.equal(cli(master(), ['GET', 'c']), 'after');
      await redis.transfer('b', 'SET', 'b', large);
      t.equal(await redis.run(script("return redis.call('STRLEN', KEYS[1])"), ['b']), large.length);
      news.length = 0;
      await until(async () => (await redis.publish('news', 'back'), news.length > 0), 'the subscription');
      t.match(changes, [Error, undefined]);
    });
  },
);
