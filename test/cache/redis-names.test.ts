import t from 'tap';
import { createRedisNames } from '../../src/cache/redis-names.ts';
import type { StrictSpace } from '../../src/cache/record-space.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

async function prepare(
  t: Teardown,
): Promise<{ server: TestRedis; names: StrictSpace<true>; open(): Promise<StrictSpace<true>> }> {
  const server = await startRedis(t);
  const open = async () => createRedisNames((await openTestRedis(t, server.port)).redis, 'repositories');
  return { server, names: await open(), open };
}

async function listed(names: StrictSpace<true>): Promise<string[]> {
  const all: string[] = [];
  for await (const name of names.keys()) all.push(name);
  return all.toSorted();
}

void t.test('names: are there once they are set, for all replicas, until they are deleted', { skip }, async (t) => {
  const { server, names, open } = await prepare(t);
  const other = await open();
  t.equal(await names.get('a'), undefined);
  t.same(await listed(names), []);
  await names.set('a', true);
  await names.set('a', true);
  await other.setMany(['b', 'c'].map((key) => ({ key, value: true as const })));
  await names.setMany([]);
  for (const space of [names, other]) {
    t.equal(await space.get('a'), true);
    t.equal(await space.get('b'), true);
    t.same(await listed(space), ['a', 'b', 'c']);
  }
  await names.delete('b');
  await names.delete('none');
  t.equal(await other.get('b'), undefined);
  t.same(await listed(other), ['a', 'c']);
  t.equal(server.cli('KEYS', '*'), 'narrows:repositories');
});

void t.test('names: of any form', { skip }, async (t) => {
  const { names } = await prepare(t);
  const odd = ['', ' ', '*', '[a]', 'a\nb', '{x}', 'docker.io/library/nginx', 'ünïcode/☃', '0', 'x'.repeat(5000)];
  for (const name of odd) await names.set(name, true);
  for (const name of odd) t.equal(await names.get(name), true);
  t.same(await listed(names), odd.toSorted());
});

void t.test('names: many are listed whole, without a walk over everything else in Redis', { skip }, async (t) => {
  const { server, names } = await prepare(t);
  const all = Array.from({ length: 5000 }, (_, at) => `docker.io/library/name-${at}`);
  await names.setMany(all.map((key) => ({ key, value: true as const })));
  server.cli('CONFIG', 'RESETSTAT');
  t.same(await listed(names), all.toSorted());
  const stats = server.cli('INFO', 'commandstats');
  t.notMatch(stats, /cmdstat_(?:scan|keys|smembers):/);
  t.ok(Number(/cmdstat_sscan:calls=(\d+)/.exec(stats)?.[1]) >= 5, 'and in pages');
});

void t.test('names: a listing may be broken off, and written to on its way', { skip }, async (t) => {
  const { names } = await prepare(t);
  const all = Array.from({ length: 3000 }, (_, at) => `name-${at}`);
  await names.setMany(all.map((key) => ({ key, value: true as const })));
  const first = names.keys()[Symbol.asyncIterator]();
  t.ok((await first.next()).value);
  await first.return?.();
  const seen = new Set<string>();
  for await (const name of names.keys()) {
    if (seen.size % 100 === 0) await names.set(`new-${seen.size}`, true);
    seen.add(name);
  }
  t.ok(all.every((name) => seen.has(name)));
});

void t.test('names: what is wrong is thrown', { skip }, async (t) => {
  const { server, names } = await prepare(t);
  server.cli('SET', 'narrows:repositories', 'no set');
  await t.rejects(names.get('a'), /^WRONGTYPE/);
  await t.rejects(names.set('a', true), /^WRONGTYPE/);
  await t.rejects(names.setMany([{ key: 'a', value: true }]), /^WRONGTYPE/);
  await t.rejects(names.delete('a'), /^WRONGTYPE/);
  await t.rejects(listed(names), /^WRONGTYPE/);
  await server.kill();
  await t.rejects(names.get('a'), { name: 'TierAway' });
  await t.rejects(listed(names), { name: 'TierAway' });
});
