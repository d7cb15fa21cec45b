import { join } from 'node:path';
import t from 'tap';
import { TierAway } from '../../src/cache/breaker.ts';
import { createRecords } from '../../src/cache/records.ts';
import type { Records } from '../../src/cache/records.ts';
import type { RecordSpace } from '../../src/cache/record-space.ts';
import { createRedisNames } from '../../src/cache/redis-names.ts';
import { isNews } from '../../src/cache/shared-records.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const digest = digestOf(Buffer.from('content'));
const other = digestOf(Buffer.from('other'));
const ttlMs = 600_000;
const tag = 'docker.io/library/nginx:1.27';

interface Replica {
  readonly records: Records;
  /** What went wrong, beside Redis being left alone. */
  readonly trouble: unknown[];
  readonly changes: unknown[];
  isAway(): boolean;
  /** From here on its own store fails at everything. */
  breakStore(): void;
}

/** Records of a process of its own, over one Redis. */
async function openReplica(t: Teardown, server: TestRedis): Promise<Replica> {
  const { redis, changes } = await openTestRedis(t, server.port, { stallMs: 300 });
  const database = openSqliteRecords(join(await temporaryFolder(t), 'records.sqlite'), 2 ** 20);
  t.teardown(() => database.close());
  const trouble: unknown[] = [];
  const records = createRecords({
    local: database.adapter,
    shared: { open: redis.records, repositories: createRedisNames(redis, 'repositories'), guard: redis.guard, ttlMs },
    onTrouble: (error) => void (isNews(error) && trouble.push(error)),
  });
  return { records, trouble, changes, isAway: () => redis.isAway, breakStore: () => database.close() };
}

interface Stage {
  readonly server: TestRedis;
  readonly a: Replica;
  readonly b: Replica;
}

async function prepare(t: Teardown): Promise<Stage> {
  const server = await startRedis(t);
  return { server, a: await openReplica(t, server), b: await openReplica(t, server) };
}

/** Redis stands still until the test lets it go on, and a replica has noticed. */
async function sendAway({ server }: Stage, ...replicas: Replica[]): Promise<void> {
  server.signal('SIGSTOP');
  await Promise.all(replicas.map(({ records }) => records.tags.get('anything')));
  if (!replicas.every(({ isAway }) => isAway())) throw new Error('Redis is not away');
}

async function bringBack({ server }: Stage, ...replicas: Replica[]): Promise<void> {
  server.signal('SIGCONT');
  await until(() => replicas.every(({ isAway }) => !isAway()), 'Redis');
}

async function keysOf<T>(space: RecordSpace<T>): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of space.keys()) keys.push(key);
  return keys.toSorted();
}

void t.test('facts: what one replica learnt is found by the other, of every kind', { skip }, async (t) => {
  const { a, b } = await prepare(t);
  await a.records.manifests.set('x', { mediaType: 'a/b' });
  await a.records.blobs.setMany([
    { key: 'x', value: { size: 7 } },
    { key: 'y', value: {} },
  ]);
  await a.records.narrowed.set('x', { index: digest, kept: [0, 2] });
  await a.records.platformChecks.set('x', { truthful: false });
  await a.records.repositories.set('x', true);
  await a.records.tags.set('x', { digest, checkedAtMs: 5 });
  t.same(await b.records.manifests.get('x'), { mediaType: 'a/b' });
  t.same(await b.records.blobs.get('x'), { size: 7 });
  t.same(await b.records.blobs.get('y'), {});
  t.same(await b.records.narrowed.mustGet('x'), { index: digest, kept: [0, 2] });
  t.same(await b.records.platformChecks.get('x'), { truthful: false });
  t.equal(await b.records.repositories.get('x'), true);
  t.same(await b.records.tags.get('x'), { digest, checkedAtMs: 5 });
  t.equal(await b.records.manifests.get('y'), undefined);
  t.same([...a.trouble, ...b.trouble], []);
});

void t.test('facts: one that is here is not asked for, and one that was found stays here', { skip }, async (t) => {
  const stage = await prepare(t);
  const { server, a, b } = stage;
  await a.records.manifests.set('x', { mediaType: 'a/b' });
  t.ok(await b.records.manifests.get('x'));
  server.cli('CONFIG', 'RESETSTAT');
  for (const { records } of [a, b]) t.ok(await records.manifests.get('x'));
  t.notMatch(server.cli('INFO', 'commandstats'), /cmdstat_get:/);
  await server.kill();
  for (const { records } of [a, b]) t.same(await records.manifests.get('x'), { mediaType: 'a/b' });
});

void t.test('keys: names that say what they are, under the prefix, with a time to live', { skip }, async (t) => {
  const { server, a } = await prepare(t);
  await a.records.tags.set(tag, { digest, checkedAtMs: 5 });
  await a.records.manifests.set(`docker.io/library/nginx@${digest}`, { mediaType: 'a/b' });
  await a.records.blobs.setMany([{ key: `docker.io/library/nginx@${other}`, value: { size: 1 } }]);
  await a.records.platformChecks.set('c', { truthful: true });
  await a.records.narrowed.set('n', { index: digest, kept: [] });
  await a.records.repositories.set('docker.io/library/nginx', true);
  const timed = [
    `narrows:blobs:docker.io/library/nginx@${other}`,
    `narrows:manifests:docker.io/library/nginx@${digest}`,
    'narrows:narrowed:n',
    'narrows:platform-checks:c',
    `narrows:tags:${tag}`,
  ];
  const keys = server.cli('--raw', 'KEYS', '*').split('\n').toSorted();
  t.same(keys, [...timed, 'narrows:repositories'].toSorted());
  for (const key of timed) {
    const ms = Number(server.cli('PTTL', key));
    t.ok(ms > ttlMs - 60_000 && ms <= ttlMs, `${key}: ${ms} ms`);
  }
  t.equal(server.cli('SMEMBERS', 'narrows:repositories'), 'docker.io/library/nginx');
});

void t.test('tags: the later word counts, whoever said it', { skip }, async (t) => {
  const { a, b } = await prepare(t);
  const both = async () => [await a.records.tags.get(tag), await b.records.tags.get(tag)];
  const words = [
    { digest, checkedAtMs: 10 },
    { digest: other, checkedAtMs: 20 },
    { checkedAtMs: 30 },
    { digest, checkedAtMs: 20, troubledAtMs: 40 },
    { digest, checkedAtMs: 41 },
  ];
  for (const [at, word] of words.entries()) {
    await (at % 2 === 0 ? a : b).records.tags.set(tag, word);
    t.same(await both(), [word, word]);
  }
  await b.records.tags.delete(tag);
  t.equal(await b.records.tags.get(tag), undefined);
  t.same((await both())[0], words.at(-1), 'what a replica knows itself it goes on knowing');
});

void t.test('53. tags: "no such tag" lives as long as it was said to, for all', { skip }, async (t) => {
  const { server, a, b } = await prepare(t);
  await a.records.tags.set(tag, { checkedAtMs: 5 }, 700);
  t.same(await b.records.tags.get(tag), { checkedAtMs: 5 });
  const ms = Number(server.cli('PTTL', `narrows:tags:${tag}`));
  t.ok(ms > 0 && ms <= 700, `${ms} ms`);
  await until(() => server.cli('EXISTS', `narrows:tags:${tag}`) === '0', 'the end of it');
  t.equal(await b.records.tags.get(tag), undefined);
  await until(async () => (await a.records.tags.get(tag)) === undefined, 'the end of it where it was said');
});

void t.test('away: each replica goes on with its own, and nobody waits', { skip }, async (t) => {
  const stage = await prepare(t);
  const { a, b } = stage;
  await a.records.manifests.set('before', { mediaType: 'a/b' });
  await a.records.tags.set(tag, { digest, checkedAtMs: 5 });
  await sendAway(stage, a, b);
  const start = performance.now();
  t.same(await a.records.manifests.get('before'), { mediaType: 'a/b' });
  t.same(await a.records.tags.get(tag), { digest, checkedAtMs: 5 });
  t.equal(await b.records.tags.get(tag), undefined, 'a tag that is not known can be asked for elsewhere');
  t.equal(await b.records.manifests.get('before'), undefined);
  await t.rejects(b.records.manifests.mustGet('before'), TierAway, '"not here" would be a guess');
  t.equal(await b.records.manifests.set('during', { mediaType: 'c/d' }), true);
  t.same(await b.records.manifests.get('during'), { mediaType: 'c/d' });
  await b.records.repositories.set('during', true);
  t.same(await keysOf(b.records.repositories), ['during']);
  await t.resolves(b.records.manifests.delete('during'));
  t.ok(performance.now() - start < 300);
  t.same([...a.trouble, ...b.trouble], [], 'which was told once, and not by everyone');
  t.equal(b.changes.length, 1);
});

void t.test('away: what was learnt meanwhile is told afterwards', { skip }, async (t) => {
  const stage = await prepare(t);
  const { server, a, b } = stage;
  await a.records.manifests.set('deleted', { mediaType: 'a/b' });
  await sendAway(stage, a, b);
  await a.records.manifests.set('x', { mediaType: 'c/d' });
  await a.records.blobs.setMany(Array.from({ length: 50 }, (_, at) => ({ key: `x${at}`, value: { size: at } })));
  await a.records.tags.set(tag, { digest, checkedAtMs: 5 });
  await a.records.repositories.set('x', true);
  await a.records.manifests.delete('deleted');
  t.equal(await b.records.manifests.get('x'), undefined);
  await bringBack(stage, a, b);
  await a.records.catchUp();
  t.same(await b.records.manifests.get('x'), { mediaType: 'c/d' });
  for (let at = 0; at < 50; at++) t.same(await b.records.blobs.get(`x${at}`), { size: at });
  t.same(await b.records.tags.get(tag), { digest, checkedAtMs: 5 });
  t.same(await keysOf(b.records.repositories), ['x']);
  t.equal(await b.records.manifests.get('deleted'), undefined);
  const ms = Number(server.cli('PTTL', 'narrows:manifests:x'));
  t.ok(ms > 0 && ms <= ttlMs);
  server.cli('CONFIG', 'RESETSTAT');
  await a.records.catchUp();
  t.notMatch(server.cli('INFO', 'commandstats'), /cmdstat_(?:set|del|unlink):/, 'and told once');
});

void t.test('away: an older word does not come over a later one of somebody else', { skip }, async (t) => {
  const stage = await prepare(t);
  const { server, a, b } = stage;
  await sendAway(stage, a);
  await a.records.tags.set(tag, { digest, checkedAtMs: 10 });
  await a.records.tags.set('later', { digest, checkedAtMs: 30 });
  await a.records.tags.set('torn', { digest, checkedAtMs: 30 });
  await bringBack(stage, a);
  // Between the two of them, b was heard.
  await b.records.tags.set(tag, { digest: other, checkedAtMs: 20 });
  await b.records.tags.set('later', { digest: other, checkedAtMs: 20 });
  server.cli('SET', 'narrows:tags:torn', '{"value":{"dig');
  await a.records.catchUp();
  const c = await openReplica(t, server);
  for (const { records } of [a, b, c]) {
    t.same(await records.tags.get(tag), { digest: other, checkedAtMs: 20 });
    for (const key of ['later', 'torn']) t.same(await records.tags.get(key), { digest, checkedAtMs: 30 }, key);
  }
});

void t.test('away again while it is told: the rest is told the next time', { skip }, async (t) => {
  const stage = await prepare(t);
  const { server, a, b } = stage;
  await sendAway(stage, a);
  for (let at = 0; at < 20; at++) await a.records.manifests.set(`x${at}`, { mediaType: 'a/b' });
  await a.records.catchUp();
  t.same(a.trouble, []);
  await bringBack(stage, a, b);
  server.cli('CONFIG', 'SET', 'maxmemory', '1');
  await a.records.catchUp();
  t.match(a.trouble, [{ message: /OOM/ }], 'one that is refused ends it');
  server.cli('CONFIG', 'SET', 'maxmemory', '0');
  await a.records.catchUp();
  for (let at = 0; at < 20; at++) t.ok(await b.records.manifests.get(`x${at}`));
});

void t.test(
  '20. forged and torn: is no record, harms no other, and Redis is not blamed for it',
  { skip },
  async (t) => {
    const { server, a, b } = await prepare(t);
    await a.records.manifests.set('good', { mediaType: 'a/b' });
    const values = [
      '',
      'x',
      '7',
      'null',
      '[]',
      '"text"',
      '{}',
      '{"value":',
      '{"value":7}',
      '{"value":{"mediaType":7}}',
      '{"value":{"mediaType":"no type"}}',
      '{"value":{"mediaType":":base64:AAAA"}}',
      '{"value":[{"mediaType":"a/b"}]}',
      '{"value":{"mediaType":"a/b"},"expires":1}',
    ];
    for (const value of values) {
      server.cli('SET', 'narrows:manifests:bad', value);
      t.equal(await b.records.manifests.get('bad'), undefined, value);
      t.equal(b.isAway(), false, value);
    }
    server.cli('DEL', 'narrows:manifests:bad');
    server.cli('LPUSH', 'narrows:manifests:bad', 'x');
    t.equal(await b.records.manifests.get('bad'), undefined, 'a list');
    t.same(b.changes, []);
    t.ok(await b.records.manifests.get('good'));
    for (const forged of [{ digest: '../../etc/passwd' }, { digest, checkedAtMs: 'now' }, { checkedAtMs: -1 }]) {
      server.cli('SET', `narrows:tags:${tag}`, JSON.stringify({ value: { checkedAtMs: 9, ...forged } }));
      t.equal(await b.records.tags.get(tag), undefined, JSON.stringify(forged));
    }
    await b.records.tags.set(tag, { digest, checkedAtMs: 5 });
    t.same(await a.records.tags.get(tag), { digest, checkedAtMs: 5 }, 'and is written over');
  },
);

void t.test('a store of its own that fails: Redis is read and written all the same', { skip }, async (t) => {
  const { a, b } = await prepare(t);
  await b.records.manifests.set('x', { mediaType: 'a/b' });
  a.breakStore();
  t.same(await a.records.manifests.get('x'), { mediaType: 'a/b' });
  t.equal(await a.records.tags.set(tag, { digest, checkedAtMs: 5 }), true);
  t.same(await a.records.tags.get(tag), { digest, checkedAtMs: 5 });
  t.same(await b.records.tags.get(tag), { digest, checkedAtMs: 5 });
  t.ok(a.trouble.length > 0);
});

void t.test('both fail: a write is answered with false, a read with nothing', { skip }, async (t) => {
  const stage = await prepare(t);
  await sendAway(stage, stage.a);
  stage.a.breakStore();
  t.equal(await stage.a.records.tags.set(tag, { digest, checkedAtMs: 5 }), false);
  t.equal(await stage.a.records.tags.get(tag), undefined);
});

void t.test(
  'lists: of repositories those of all replicas, each once; of other records a replica’s own',
  { skip },
  async (t) => {
    const { a, b } = await prepare(t);
    for (const name of ['x', 'both']) await a.records.repositories.set(name, true);
    for (const name of ['y', 'both']) await b.records.repositories.set(name, true);
    for (const { records } of [a, b]) t.same(await keysOf(records.repositories), ['both', 'x', 'y']);
    await a.records.manifests.set('one', { mediaType: 'a/b' });
    t.same(await keysOf(a.records.manifests), ['one']);
    t.same(await keysOf(b.records.manifests), []);
    t.match(await b.records.manifests.get('one'), { mediaType: 'a/b' });
  },
);
