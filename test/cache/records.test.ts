import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { contentKey, createRecords } from '../../src/cache/records.ts';
import type { RecordSpace } from '../../src/cache/record-space.ts';
import type { Records } from '../../src/cache/records.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const digest = digestOf(Buffer.from('content'));

interface Stage {
  readonly records: Records;
  readonly trouble: unknown[];
  /** From here on the store fails at everything. */
  break(): void;
  /** The same rows, past the records. */
  raw(): DatabaseSync;
}

async function prepare(t: Teardown): Promise<Stage> {
  const path = join(await temporaryFolder(t), 'records.sqlite');
  const database = openSqliteRecords(path, 2 ** 20);
  const trouble: unknown[] = [];
  t.teardown(() => database.close());
  return {
    records: createRecords({ local: database.adapter, onTrouble: (error) => trouble.push(error) }),
    trouble,
    break: () => database.close(),
    raw() {
      const raw = new DatabaseSync(path);
      t.teardown(() => raw.close());
      return raw;
    },
  };
}

async function keysOf<T>(space: RecordSpace<T>): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of space.keys()) keys.push(key);
  return keys;
}

void t.test('records: what was set is got back as it was, of every kind', async (t) => {
  const { records, trouble } = await prepare(t);
  t.equal(await records.tags.set('a', { digest, checkedAtMs: 5, troubledAtMs: 7 }), true);
  t.equal(await records.blobs.set('a', { size: 0 }), true);
  t.equal(await records.narrowed.set('a', { index: digest, kept: [0, 2] }), true);
  t.equal(await records.platformChecks.set('a', { truthful: false }), true);
  t.equal(await records.repositories.set('a', true), true);
  t.same(await records.tags.get('a'), { digest, checkedAtMs: 5, troubledAtMs: 7 });
  t.same(await records.blobs.get('a'), { size: 0 });
  t.same(await records.narrowed.get('a'), { index: digest, kept: [0, 2] });
  t.same(await records.platformChecks.get('a'), { truthful: false });
  t.equal(await records.repositories.get('a'), true);
  t.same(trouble, []);
});

void t.test('records: what was never set is undefined', async (t) => {
  const { records } = await prepare(t);
  t.equal(await records.tags.get('none'), undefined);
  await t.resolves(records.tags.delete('none'));
});

void t.test('records: a later one replaces the one before, deleting one deletes no other', async (t) => {
  const { records } = await prepare(t);
  await records.tags.set('a', { checkedAtMs: 1 });
  await records.tags.set('a', { checkedAtMs: 2 });
  await records.tags.set('a2', { checkedAtMs: 3 });
  t.same(await records.tags.get('a'), { checkedAtMs: 2 });
  await records.tags.delete('a');
  t.equal(await records.tags.get('a'), undefined);
  t.same(await records.tags.get('a2'), { checkedAtMs: 3 });
});

void t.test('records: many at once', async (t) => {
  const { records, trouble } = await prepare(t);
  const entries = Array.from({ length: 500 }, (_, at) => ({ key: `key ${at}`, value: { checkedAtMs: at } }));
  await records.tags.setMany(entries);
  await records.tags.setMany([]);
  t.equal((await keysOf(records.tags)).length, 500);
  for (const { key, value } of [entries[0]!, entries[499]!]) t.same(await records.tags.get(key), value);
  t.same(trouble, []);
});

const oddKeys = [
  'docker.io/library/nginx:1.27',
  'registry.example:5000/team/app:latest',
  `docker.io/library/nginx@${digest}`,
  'tags',
  'manifests:x',
  ':',
  '::a::',
  '',
  '__proto__',
  'constructor',
  "'; DROP TABLE records; --",
  '%_',
  'ünïcode/☃',
  'x'.repeat(4000),
];

void t.test('records: a key is a key, whatever stands in it', async (t) => {
  const { records, trouble } = await prepare(t);
  for (const [at, key] of oddKeys.entries()) t.equal(await records.tags.set(key, { checkedAtMs: at }), true);
  for (const [at, key] of oddKeys.entries()) t.same(await records.tags.get(key), { checkedAtMs: at }, key.slice(0, 60));
  t.same((await keysOf(records.tags)).toSorted(), oddKeys.toSorted());
  t.same(trouble, []);
});

void t.test('records: one kind knows nothing of another', async (t) => {
  const { records } = await prepare(t);
  await records.tags.set('shared', { checkedAtMs: 1 });
  await records.tags.set('tag only', { checkedAtMs: 1 });
  await records.manifests.set('shared', { mediaType: 'x/y' });
  await records.repositories.set('repository only', true);
  t.same(await keysOf(records.tags), ['shared', 'tag only']);
  t.same(await keysOf(records.manifests), ['shared']);
  t.same(await keysOf(records.repositories), ['repository only']);
  t.same(await keysOf(records.platformChecks), []);
  t.equal(await records.manifests.get('tag only'), undefined);
  await records.tags.delete('shared');
  t.same(await records.manifests.get('shared'), { mediaType: 'x/y' });
});

void t.test('keys: two who list at once both get all', async (t) => {
  const { records } = await prepare(t);
  const keys = Array.from({ length: 50 }, (_, at) => `key ${String(at).padStart(2, '0')}`);
  await records.repositories.setMany(keys.map((key) => ({ key, value: true as const })));
  const both = await Promise.all([keysOf(records.repositories), keysOf(records.repositories)]);
  t.same(both, [keys, keys]);
});

void t.test('keys: a listing that is broken off, or written to on its way, harms nothing', async (t) => {
  const { records, trouble } = await prepare(t);
  const keys = Array.from({ length: 50 }, (_, at) => `key ${String(at).padStart(2, '0')}`);
  await records.repositories.setMany(keys.map((key) => ({ key, value: true as const })));
  const first = records.repositories.keys()[Symbol.asyncIterator]();
  t.equal((await first.next()).value, 'key 00');
  await first.return?.();
  for await (const key of records.repositories.keys()) {
    await records.tags.set(key, { checkedAtMs: 1 });
    await records.repositories.delete(key);
  }
  t.same(await keysOf(records.repositories), []);
  t.same(await keysOf(records.tags), keys);
  t.same(trouble, []);
});

void t.test('time to live: what has run out is not there, and in no list', async (t) => {
  const { records } = await prepare(t);
  await records.tags.set('short', { checkedAtMs: 1 }, 1000);
  await records.tags.set('long', { checkedAtMs: 1 }, 100_000);
  await records.tags.set('forever', { checkedAtMs: 1 });
  t.ok(await records.tags.get('short'));
  const now = Date.now.bind(Date);
  t.intercept(Date, 'now', { value: () => now() + 1001 });
  t.equal(await records.tags.get('short'), undefined);
  t.ok(await records.tags.get('long'));
  t.same(await keysOf(records.tags), ['forever', 'long']);
});

void t.test('time to live: what runs out during a listing ends neither the listing nor the others', async (t) => {
  const { records, trouble } = await prepare(t);
  for (let at = 0; at < 20; at++) await records.tags.set(`${at % 2} ${at}`, { checkedAtMs: at }, at % 2 ? 10 : 100_000);
  const now = Date.now.bind(Date);
  t.intercept(Date, 'now', { value: () => now() + 1000 });
  t.equal((await keysOf(records.tags)).length, 10);
  t.same(trouble, []);
});

void t.test('broken store: reads as empty, answers a write with false, and says so', async (t) => {
  const { records, trouble, break: breakStore } = await prepare(t);
  await records.tags.set('a', { checkedAtMs: 1 });
  breakStore();
  t.equal(await records.tags.get('a'), undefined, 'get');
  t.equal(trouble.length, 1, 'a read that fails is told');
  trouble.length = 0;
  t.equal(await records.tags.set('a', { checkedAtMs: 2 }), false, 'set');
  t.equal(trouble.length, 1, 'a write that fails is told');
  trouble.length = 0;
  await t.resolves(records.tags.setMany([{ key: 'a', value: { checkedAtMs: 2 } }]), 'setMany');
  t.equal(trouble.length, 1);
  await t.resolves(records.tags.delete('a'), 'delete');
  t.equal(trouble.length, 2);
});

void t.test('broken store: lists nothing', async (t) => {
  const { records, break: breakStore } = await prepare(t);
  await records.tags.set('a', { checkedAtMs: 1 });
  breakStore();
  t.same(await keysOf(records.tags), []);
});

void t.test('broken row: reads as "not there", can be set again, and hides no other from a list', async (t) => {
  const { records, raw } = await prepare(t);
  for (const key of ['a', 'b', 'c']) await records.tags.set(key, { checkedAtMs: 1 });
  for (const value of ['{"value":', 'null', '7', '', 'x', null]) {
    raw().prepare("UPDATE records SET value = ? WHERE key = 'tags:b'").run(value);
    const got = await records.tags.get('b').catch((error: unknown) => error);
    t.equal(got, undefined, `${value} is no record`);
    const keys = await keysOf(records.tags).catch((error: unknown) => error);
    t.match(keys, { length: /[23]/ }, `${value} is in the way of no other`);
  }
  t.equal(await records.tags.set('b', { checkedAtMs: 2 }), true);
  t.same(await records.tags.get('b'), { checkedAtMs: 2 });
});

void t.test('contentKey: a digest counts in its own repository alone', (t) => {
  t.equal(contentKey({ key: 'docker.io/library/nginx' }, digest), `docker.io/library/nginx@${digest}`);
  t.not(contentKey({ key: 'a/b' }, digest), contentKey({ key: 'a/c' }, digest));
  t.end();
});
