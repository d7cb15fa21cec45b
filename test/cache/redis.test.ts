import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { openRedis, script } from '../../src/cache/redis.ts';
import type { RedisOptions } from '../../src/cache/redis.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis, startTlsRedis } from '../fixtures/redis.ts';
import { closedPort, failureOf, makeCertificate, serveSockets, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

/** Fails to connect, and says why. */
function reasonOf(t: Teardown, url: string, over: Partial<RedisOptions> = {}): Promise<Error> {
  const { redis, ready } = openRedis({
    place: { kind: 'single', url: new URL(url) },
    prefix: 'narrows:',
    connectMs: 500,
    stallMs: 500,
    maxQueue: 100,
    onChange: () => undefined,
    ...over,
  });
  t.teardown(() => redis.close());
  return within(5000, 'saying why', failureOf(ready));
}

function placeAt(url: string): Pick<RedisOptions, 'place'> {
  return { place: { kind: 'single', url: new URL(url) } };
}

void t.test('redis: commands are answered, on both connections', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis, changes } = await openTestRedis(t, server.port);
  t.equal(String(await redis.command('a', 'SET', 'a', '1')), 'OK');
  t.equal(String(await redis.transfer('a', 'GET', 'a')), '1');
  t.equal(await redis.command('a', 'INCR', 'a'), 2);
  t.equal(await redis.command('none', 'GET', 'none'), null);
  t.equal(redis.isAway, false);
  t.same(changes, []);
});

void t.test('redis: the URL says the database', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port, placeAt(`${server.url}/3`));
  for (const send of [redis.command, redis.transfer]) await send('a', 'INCR', 'a');
  await redis.run(script("return redis.call('INCR', KEYS[1])"), ['a']);
  t.equal(server.cli('-n', '3', 'GET', 'a'), '3');
  t.equal(server.cli('DBSIZE'), '0');
});

void t.test('redis: values of any bytes come back as they are', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const every = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
  const values = [Buffer.alloc(0), every, Buffer.from('\r\n$-1\r\n'), noise('value', 1024 * 1024 + 1)];
  for (const value of values) {
    await redis.transfer('a', 'SET', 'a', value);
    for (const send of [redis.command, redis.transfer]) {
      const got = await send('a', 'GET', 'a');
      t.ok(Buffer.isBuffer(got) && got.equals(value), `${value.length} bytes`);
    }
    const echoed = await redis.run(script('return {ARGV[1], KEYS[1]}'), ['a'], value);
    t.same(echoed, [value, Buffer.from('a')]);
  }
});

void t.test('redis: a script runs, with its keys and arguments, whatever Redis has forgotten', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis, changes } = await openTestRedis(t, server.port);
  const join = script("return #KEYS .. ' ' .. KEYS[1] .. KEYS[2] .. ARGV[1]");
  for (let at = 0; at < 3; at++) {
    t.equal(String(await redis.run(join, ['a', 'b'], 'c')), '2 abc');
    server.cli('SCRIPT', 'FLUSH');
  }
  t.equal(String(await redis.run(join, ['a', 'b'], 'c')), '2 abc');
  t.equal(server.cli('SCRIPT', 'EXISTS', join.sha1), '1');
  await t.rejects(redis.run(script("return redis.call('NONE')"), []), /Unknown Redis command/);
  t.same(changes, []);
});

void t.test('redis: messages reach who subscribed, with their channel alone', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const { redis: other } = await openTestRedis(t, server.port);
  const [news, gossip]: [string[], string[]] = [[], []];
  await Promise.all([
    redis.subscribe('news', (message) => news.push(message)),
    redis.subscribe('gossip', (message) => gossip.push(message)),
  ]);
  await other.publish('gossip', 'psst');
  for (const message of ['one', 'ünï', '']) await other.publish('news', message);
  await until(() => news.length === 3, 'the messages');
  t.same(news, ['one', 'ünï', '']);
  t.same(gossip, ['psst']);
});

void t.test('redis: records are kept under the prefix and their namespace', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port, { prefix: 'mine:' });
  const records = redis.records('tags');
  t.equal(await records.set('docker.io/library/x:1', { a: 1 }, 60_000), true);
  t.same(await records.get('docker.io/library/x:1'), { a: 1 });
  t.equal(server.cli('KEYS', '*'), 'mine:tags:docker.io/library/x:1');
  const ms = Number(server.cli('PTTL', 'mine:tags:docker.io/library/x:1'));
  t.ok(ms > 50_000 && ms <= 60_000);
});

void t.test('login: a password, in the URL or beside it', { skip }, async (t) => {
  const server = await startRedis(t, '--requirepass', 'p@ss:word/');
  const inUrl = placeAt(`redis://:${encodeURIComponent('p@ss:word/')}@127.0.0.1:${server.port}`);
  for (const over of [inUrl, { password: 'p@ss:word/' }]) {
    const { redis } = await openTestRedis(t, server.port, over);
    t.equal(await redis.command('a', 'EXISTS', 'a'), 0);
    await t.resolves(redis.subscribe('news', () => undefined));
  }
});

void t.test('login: a user, in the URL or beside it', { skip }, async (t) => {
  const rules = ['on', '>s3cret', '~narrows:*', '&narrows:*', '+@all', '-@dangerous'];
  const server = await startRedis(t, '--user', 'mirror', ...rules, '--user', 'default', 'off');
  const inUrl = placeAt(`redis://mirror:s3cret@127.0.0.1:${server.port}`);
  for (const over of [inUrl, { username: 'mirror', password: 's3cret' }]) {
    const { redis } = await openTestRedis(t, server.port, over);
    t.equal(String(await redis.command('narrows:a', 'SET', 'narrows:a', '1')), 'OK');
    t.equal(await redis.run(script("return redis.call('EXISTS', KEYS[1])"), ['narrows:a']), 1);
    await t.resolves(redis.subscribe('narrows:news', () => undefined));
  }
});

void t.test('login: what is wrong with it is said, without the password', { skip }, async (t) => {
  const server = await startRedis(t, '--requirepass', 'right');
  const url = `redis://127.0.0.1:${server.port}`;
  const wrong = await reasonOf(t, url, { password: 'hunter2' });
  t.match(wrong, { message: /WRONGPASS/ });
  t.notMatch(wrong.message, /hunter2/);
  t.match(await reasonOf(t, url), { message: /NOAUTH/ });
  t.match(await reasonOf(t, `redis://nobody:right@127.0.0.1:${server.port}`), { message: /WRONGPASS/ });
});

void t.test('tls: with the authority that the configuration names, in the URL and without', { skip }, async (t) => {
  const { port, ca } = await startTlsRedis(t);
  for (const start of ['rediss://127.0.0.1', 'rediss://localhost', 'redis://127.0.0.1']) {
    const { redis } = await openTestRedis(t, port, { ...placeAt(`${start}:${port}`), tls: { ca } });
    const large = noise('over tls', 3_000_000);
    await redis.transfer('a', 'SET', 'a', large);
    t.ok(large.equals((await redis.transfer('a', 'GET', 'a')) as Buffer));
    await t.resolves(redis.subscribe('news', () => undefined));
  }
});

void t.test('tls: a server whose certificate is not to be believed is not used', { skip }, async (t) => {
  const { port, ca } = await startTlsRedis(t);
  const { cert: other } = await makeCertificate('127.0.0.1');
  const url = `rediss://127.0.0.1:${port}`;
  t.match(await reasonOf(t, url, { tls: {} }), { message: /self-signed certificate/ });
  t.match(await reasonOf(t, url, { tls: { ca: other } }), { message: /certificate/ });
  t.match(await reasonOf(t, `redis://127.0.0.1:${port}`), { message: /closed unexpectedly|ECONNRESET/ });
  const plain = await startRedis(t);
  t.match(await reasonOf(t, `rediss://127.0.0.1:${plain.port}`, { tls: { ca } }), Error);
});

void t.test('reasons: nobody listens, nobody answers, something else answers', async (t) => {
  t.match(await reasonOf(t, `redis://127.0.0.1:${await closedPort()}`), { message: /ECONNREFUSED/ });
  t.match(await reasonOf(t, `redis://localhost:${await closedPort()}`), { message: /ECONNREFUSED/ });
  const silent = await serveSockets(t, () => undefined);
  t.match(await reasonOf(t, `redis://127.0.0.1:${silent.port}`), { message: /no answer within 500 ms/ });
  const web = await serveSockets(t, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  t.match(await reasonOf(t, `redis://127.0.0.1:${web.port}`), Error);
});

void t.test('ready: a server that comes later is used when it does', { skip }, async (t) => {
  const server = await startRedis(t);
  await server.kill();
  const changes: unknown[] = [];
  const { redis, ready } = openRedis({
    ...placeAt(server.url),
    prefix: 'narrows:',
    connectMs: 300,
    stallMs: 300,
    maxQueue: 100,
    onChange: (error) => changes.push(error),
  });
  t.teardown(() => redis.close());
  await t.rejects(ready, /ECONNREFUSED/);
  await t.rejects(redis.command('a', 'GET', 'a'), { name: 'TierAway' });
  const news: string[] = [];
  await redis.subscribe('news', (message) => news.push(message));
  t.equal(redis.isAway, true);
  await server.restart();
  await until(() => !redis.isAway, 'the server');
  t.equal(String(await redis.command('a', 'SET', 'a', '1')), 'OK');
  await redis.publish('news', 'back');
  await until(() => news.length > 0, 'what was subscribed to meanwhile');
  t.match(changes, [{ message: /ECONNREFUSED/ }, undefined]);
});

void t.test(
  'close: ends the connections and all that waits, and may come before they are there',
  { skip },
  async (t) => {
    const server = await startRedis(t);
    const { redis } = await openTestRedis(t, server.port);
    const connected = () =>
      server
        .cli('CLIENT', 'LIST')
        .split('\n')
        .filter((line) => !line.includes('cmd=client')).length;
    t.equal(connected(), 3);
    const waiting = failureOf(redis.command('a', 'BLPOP', 'a', '0'));
    await redis.close();
    await within(1000, 'the end of what waits', waiting);
    await until(() => connected() === 0, 'the end of the connections');
    await t.rejects(redis.command('a', 'GET', 'a'));
    const { redis: early, ready } = openRedis({
      ...placeAt(`redis://127.0.0.1:${await closedPort()}`),
      prefix: '',
      connectMs: 300,
      stallMs: 300,
      maxQueue: 100,
      onChange: () => t.fail('nobody is told of what was closed'),
    });
    await early.close();
    await t.rejects(within(2000, 'giving up', ready));
    await delay(0);
  },
);
