import t from 'tap';
import { script } from '../../src/cache/redis.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { cli, hasRedis, openTestRedis, startSentinels } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const large = noise('large', 1024 * 1024);

void t.test('sentinel: all goes to the server that the sentinels name', { skip }, async (t) => {
  const { place, master } = await startSentinels(t);
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
});
