import { connect } from 'node:net';
import type { Socket } from 'node:net';
import t from 'tap';
import { TierAway } from '../../src/cache/breaker.ts';
import { script } from '../../src/cache/redis.ts';
import type { Redis } from '../../src/cache/redis.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import { closedPort, failureOf, serveSockets, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const large = noise('large', 1024 * 1024);

/** One question of each kind. */
function askAll(redis: Redis): Promise<unknown>[] {
  return [
    redis.command('a', 'GET', 'a'),
    redis.transfer('a', 'SET', 'a', large),
    redis.run(script('return 1'), ['a']),
    redis.guard(() => redis.records('tags').get('a')),
    redis.publish('news', 'none'),
  ];
}

function areAway(failures: readonly Error[]): boolean {
  return failures.every((error) => error instanceof TierAway);
}

void t.test(
  '51. silent: whoever asked is sent away after the stall, whoever asks then at once',
  { skip },
  async (t) => {
    const stallMs = 300;
    const server = await startRedis(t);
    const { redis, changes } = await openTestRedis(t, server.port, { stallMs });
    await redis.command('a', 'SET', 'a', 'before');
    server.signal('SIGSTOP');
    const start = performance.now();
    const failures = await within(5000, 'being sent away', Promise.all(askAll(redis).map(failureOf)));
    const ms = performance.now() - start;
    t.ok(areAway(failures));
    t.ok(ms >= stallMs - 1 && ms < 3 * stallMs, `after ${ms} ms`);
    t.match(failures[0], { cause: { message: `nothing came for ${stallMs} ms` } });
    const later = performance.now();
    for (let at = 0; at < 20; at++) t.ok(areAway(await Promise.all(askAll(redis).map(failureOf))));
    t.ok(performance.now() - later < stallMs, 'nobody waits any more');
    t.equal(changes.length, 1);
    server.signal('SIGCONT');
    await until(() => !redis.isAway, 'the server');
    t.equal(String(await redis.command('b', 'SET', 'b', 'after')), 'OK');
    t.equal(server.cli('GET', 'b'), 'after');
    t.equal(changes.length, 2);
  },
);

void t.test('18. killed: whoever waits is sent away, and the one that comes again is used', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis, changes } = await openTestRedis(t, server.port, { stallMs: 10_000 });
  const news: string[] = [];
  await redis.subscribe('news', (message) => news.push(message));
  for (let round = 1; round <= 2; round++) {
    const waiting = failureOf(redis.command('none', 'BLPOP', 'none', '0'));
    await server.kill();
    t.ok((await within(1000, 'being sent away', waiting)) instanceof TierAway, 'long before the stall');
    t.ok(areAway(await Promise.all(askAll(redis).map(failureOf))));
    await server.restart();
    await until(() => !redis.isAway, 'the server');
    await t.resolves(Promise.all(askAll(redis)));
    news.length = 0;
    // The connection for messages is another one, and may come a little later.
    await until(async () => (await redis.publish('news', `back ${round}`), news.length > 0), 'the subscription');
    t.equal(news[0], `back ${round}`);
    t.equal(changes.length, 2 * round);
  }
});

void t.test('killed connections: are made again, with the subscriptions', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const news: string[] = [];
  await redis.subscribe('news', (message) => news.push(message));
  server.cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
  server.cli('CLIENT', 'KILL', 'TYPE', 'pubsub');
  await until(async () => (await failureOf(redis.command('a', 'GET', 'a'))).message === 'it did not fail', 'commands');
  await until(async () => (await redis.publish('news', 'back').catch(() => undefined), news.length > 0), 'messages');
  t.equal(server.cli('PUBSUB', 'NUMSUB', 'news'), 'news\n1');
});

/** Passes connections on to a port, until it forgets those that it has without a word, as a firewall does. */
async function startForgetful(t: Teardown, to: number): Promise<{ port: number; forget(): void }> {
  const pairs: Socket[] = [];
  const { port } = await serveSockets(t, (client) => {
    const server = connect(to, '127.0.0.1').on('error', () => undefined);
    client.pipe(server).pipe(client);
    pairs.push(client, server);
  });
  t.teardown(() => {
    for (const socket of pairs) socket.destroy();
  });
  return {
    port,
    forget() {
      for (const socket of pairs) socket.unpipe().pause();
    },
  };
}

void t.test('forgotten connections: are made again, though nothing ever ended them', { skip }, async (t) => {
  const server = await startRedis(t);
  const { port, forget } = await startForgetful(t, server.port);
  const { redis, changes } = await openTestRedis(t, port, { connectMs: 500 });
  const news: string[] = [];
  await redis.subscribe('news', (message) => news.push(message));
  forget();
  t.ok(areAway(await Promise.all(askAll(redis).map(failureOf))));
  await until(() => !redis.isAway, 'other connections');
  await t.resolves(Promise.all(askAll(redis)));
  await redis.publish('news', 'back');
  await until(() => news.length === 1, 'the subscription');
  t.match(changes, [Error, undefined]);
});

/** Answers every command with one line, but PING as if all were well. */
async function answering(t: Teardown, line: string): Promise<number> {
  const { port } = await serveSockets(t, (socket) => {
    socket.on('data', (chunk) => {
      for (const command of chunk.toString().split(/(?=\*\d+\r\n\$)/)) {
        socket.write(command.includes('PING') ? '+PONG\r\n' : `${line}\r\n`);
      }
    });
  });
  return port;
}

void t.test('answers: those of a server that cannot do its work count as away', async (t) => {
  const lines = [
    '-LOADING Redis is loading the dataset in memory',
    "-READONLY You can't write against a read only replica.",
    "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    '-CLUSTERDOWN The cluster is down',
    '-TRYAGAIN Multiple keys request during rehashing of slot',
    '-NOAUTH Authentication required.',
    '-NOPERM this user has no permissions to run this command',
  ];
  for (const line of lines) {
    const { redis, changes } = await openTestRedis(t, await answering(t, line));
    const error = await failureOf(redis.command('a', 'GET', 'a'));
    t.ok(error instanceof TierAway, line);
    t.match(error, { cause: { message: line.slice(1) } });
    t.equal(redis.isAway, true);
    t.equal(changes.length, 1);
  }
});

void t.test('answers: a refusal is a refusal, and everything else goes on', async (t) => {
  const lines = [
    "-OOM command not allowed when used memory > 'maxmemory'.",
    '-MISCONF Redis is configured to save RDB snapshots',
    '-WRONGTYPE Operation against a key holding the wrong kind of value',
    '-BUSY Redis is busy running a script',
    "-ERR unknown command 'GETEX'",
  ];
  for (const line of lines) {
    const { redis, changes } = await openTestRedis(t, await answering(t, line));
    for (let at = 0; at < 3; at++) await t.rejects(redis.command('a', 'GET', 'a'), { message: line.slice(1) });
    t.equal(redis.isAway, false);
    t.same(changes, []);
  }
});

void t.test('52. a full server refuses what is written, and can be read', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis, changes } = await openTestRedis(t, server.port);
  await redis.command('a', 'SET', 'a', '1');
  server.cli('CONFIG', 'SET', 'maxmemory', '1');
  await t.rejects(redis.command('a', 'SET', 'a', '2'), /^OOM/);
  await t.rejects(redis.run(script("return redis.call('SET', KEYS[1], '2')"), ['a']), /OOM/);
  t.equal(String(await redis.command('a', 'GET', 'a')), '1');
  t.equal(redis.isAway, false);
  t.same(changes, []);
});

void t.test('52. a replica that takes no writes is away until it does', { skip }, async (t) => {
  const server = await startRedis(t, '--replicaof', '127.0.0.1', String(await closedPort()));
  const { redis, changes } = await openTestRedis(t, server.port);
  t.match(await failureOf(redis.command('a', 'SET', 'a', '1')), { name: 'TierAway', cause: { message: /^READONLY/ } });
  // Answers to PING do not bring it back, only to be away again with the next write.
  const pings = () => Number(/cmdstat_ping:calls=(\d+)/.exec(server.cli('INFO', 'commandstats'))?.[1]);
  const before = pings();
  await until(() => pings() >= before + 6, 'three probes');
  t.equal(redis.isAway, true);
  t.equal(changes.length, 1);
  server.cli('REPLICAOF', 'NO', 'ONE');
  await until(() => !redis.isAway, 'the server');
  t.equal(String(await redis.command('a', 'SET', 'a', '1')), 'OK');
  t.equal(changes.length, 2);
});

void t.test('52. a full server that comes back is used, though it refuses what is written', { skip }, async (t) => {
  const server = await startRedis(t, '--maxmemory', '1');
  const { redis, changes } = await openTestRedis(t, server.port);
  await server.kill();
  t.match(await failureOf(redis.command('a', 'GET', 'a')), TierAway);
  await server.restart();
  await until(() => changes.length === 2, 'the server');
  t.equal(await redis.command('a', 'GET', 'a'), null);
});

void t.test('this process was busy itself: nobody is judged by that', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis, changes } = await openTestRedis(t, server.port, { stallMs: 100 });
  await redis.transfer('a', 'SET', 'a', large);
  for (let round = 0; round < 4; round++) {
    const asked = [...askAll(redis), redis.transfer('a', 'GET', 'a')];
    if (round % 2 === 1) await new Promise(setImmediate);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    await t.resolves(Promise.all(asked), round % 2 === 1 ? 'answers unread' : 'questions not even written');
  }
  t.same(changes, []);
});

void t.test('large values do not hold up small questions', { skip }, async (t) => {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port, { stallMs: 10_000 });
  await redis.transfer('a', 'SET', 'a', large);
  let left = 200;
  const transfers = Array.from({ length: left }, () => redis.transfer('a', 'GET', 'a').then(() => left--));
  const all = Promise.all(transfers);
  await redis.command('b', 'GET', 'b');
  t.ok(left > 100, `answered before ${left} of 200`);
  await t.resolves(all);
});
