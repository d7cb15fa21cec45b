import { readFile, readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { createRecords } from '../../src/cache/records.ts';
import type { Records } from '../../src/cache/records.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import type { SqliteRecords } from '../../src/cache/sqlite.ts';
import { until } from '../fixtures/downloads.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { recordsEach, startStoreProcess } from '../fixtures/store-process.ts';

interface Opened {
  readonly database: SqliteRecords;
  readonly records: Records;
  readonly trouble: unknown[];
}

function open(t: Teardown, path: string): Opened {
  const database = openSqliteRecords(path, 2 ** 20);
  t.teardown(() => database.close());
  const trouble: unknown[] = [];
  return {
    database,
    records: createRecords({ local: database.adapter, onTrouble: (error) => trouble.push(error) }),
    trouble,
  };
}

async function newPath(t: Teardown): Promise<string> {
  return join(await temporaryFolder(t), 'records.sqlite');
}

void t.test('sqlite: records survive a close', async (t) => {
  const path = await newPath(t);
  const { database, records } = open(t, path);
  await records.tags.set('a', { checkedAtMs: 1 });
  await records.tags.setMany([{ key: 'b', value: { checkedAtMs: 2 } }]);
  database.close();
  database.close();
  const again = open(t, path);
  t.same(await again.records.tags.get('a'), { checkedAtMs: 1 });
  t.same(await again.records.tags.get('b'), { checkedAtMs: 2 });
});

void t.test('sqlite: records survive the kill of their process', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'records.sqlite');
  const { records } = open(t, path);
  await records.tags.set('a', { checkedAtMs: 1 });
  // What is on the disk now is what a kill would leave: the database, and a log that nobody has put into it.
  const left = join(await temporaryFolder(t), 'records.sqlite');
  for (const suffix of ['', '-wal']) await writeFile(left + suffix, await readFile(path + suffix));
  t.same(await open(t, left).records.tags.get('a'), { checkedAtMs: 1 });
});

void t.test('sqlite: what was read a moment ago is read again once anyone has written it', async (t) => {
  const path = await newPath(t);
  const [one, other] = [open(t, path).records.tags, open(t, path).records.tags];
  const seen = async () => (await one.get('a'))?.checkedAtMs;
  for (const writer of [one, other]) {
    t.equal(await seen(), undefined);
    t.equal(await seen(), undefined, 'nor the second time');
    await writer.set('a', { checkedAtMs: 1 });
    t.equal(await seen(), 1);
    t.equal(await seen(), 1);
    await writer.setMany([{ key: 'a', value: { checkedAtMs: 2 } }]);
    t.equal(await seen(), 2);
    await writer.set('a', { checkedAtMs: 3 }, 1);
    await until(async () => (await seen()) === undefined, 'the end of what was kept for a moment');
    await writer.set('a', { checkedAtMs: 4 });
    t.equal(await seen(), 4);
    await writer.delete('a');
  }
});

void t.test('sqlite: with room for nothing, nothing is remembered', async (t) => {
  const path = await newPath(t);
  const database = openSqliteRecords(path, 0);
  t.teardown(() => database.close());
  const { tags } = createRecords({ local: database.adapter, onTrouble: (error) => t.fail(String(error)) });
  await tags.set('a', { checkedAtMs: 1 });
  t.same(await tags.get('a'), { checkedAtMs: 1 });
});

void t.test('sqlite: what one writes the other reads at once', async (t) => {
  const path = await newPath(t);
  const [one, other] = [open(t, path), open(t, path)];
  await one.records.tags.set('a', { checkedAtMs: 1 });
  t.same(await other.records.tags.get('a'), { checkedAtMs: 1 });
  await other.records.tags.delete('a');
  t.equal(await one.records.tags.get('a'), undefined);
});

void t.test('83. sqlite: processes that write at the same time lose nothing', async (t) => {
  const folder = await temporaryFolder(t);
  const own = open(t, join(folder, 'records.sqlite'));
  const names = ['a', 'b', 'c'];
  const processes = names.map((name) => startStoreProcess(t, 'records', folder, { name }));
  await Promise.all(processes.map((one) => one.said('ready')));
  for (const { child } of processes) child.stdin?.write('go');
  for (let at = 0; at < recordsEach; at++) await own.records.tags.set(`own ${at}`, { checkedAtMs: at });
  await Promise.all(processes.map((one) => one.said('written')));
  t.same(await Promise.all(processes.map((one) => one.ended)), [0, 0, 0]);
  const keys: string[] = [];
  for await (const key of own.records.tags.keys()) keys.push(key);
  t.equal(keys.length, (names.length + 1) * recordsEach);
  t.same(own.trouble, []);
});

void t.test('sqlite: a write that fails in the middle of many leaves none of them', async (t) => {
  const path = await newPath(t);
  const { records, trouble } = open(t, path);
  const raw = new DatabaseSync(path);
  t.teardown(() => raw.close());
  raw.exec(
    "CREATE TRIGGER no_thirds BEFORE INSERT ON records WHEN NEW.key LIKE '%third' BEGIN SELECT RAISE(ABORT, 'no'); END",
  );
  await records.tags.setMany(['first', 'second', 'third'].map((key) => ({ key, value: { checkedAtMs: 1 } })));
  t.equal(trouble.length, 1);
  t.equal(await records.tags.get('first'), undefined);
  t.equal(await records.tags.set('first', { checkedAtMs: 2 }), true, 'and the next write works');
});

void t.test('84. sqlite: a file that is no database is replaced, its companions too', async (t) => {
  for (const bytes of [
    Buffer.from('this is no database\n'.repeat(500)),
    Buffer.alloc(8192, 0xff),
    Buffer.alloc(4096),
  ]) {
    const path = await newPath(t);
    for (const suffix of ['', '-wal', '-shm']) await writeFile(path + suffix, bytes);
    const { records, trouble } = open(t, path);
    t.equal(await records.tags.set('a', { checkedAtMs: 1 }), true);
    t.same(await records.tags.get('a'), { checkedAtMs: 1 });
    t.same(trouble, []);
    t.equal((await readFile(path)).subarray(0, 15).toString(), 'SQLite format 3');
  }
});

void t.test('sqlite: a database that was cut off is replaced, or reads as empty; it stops nobody', async (t) => {
  for (const share of [0, 0.1, 0.5, 0.9]) {
    const path = await newPath(t);
    const { database, records } = open(t, path);
    const entries = Array.from({ length: 2000 }, (_, at) => ({ key: `key ${at}`, value: { checkedAtMs: at } }));
    await records.tags.setMany(entries);
    database.close();
    await truncate(path, Math.floor((await stat(path)).size * share));
    const again = open(t, path);
    const got = await again.records.tags.get('key 1999');
    t.ok(got === undefined || got.checkedAtMs === 1999, `${share} of it`);
    await t.resolves(again.records.tags.set('new', { checkedAtMs: 1 }));
  }
});

void t.test('sqlite: what cannot be opened for another reason is left as it is, and told', async (t) => {
  const folder = await temporaryFolder(t);
  t.throws(() => openSqliteRecords(folder, 2 ** 20), /unable to open/);
  t.same(await readdir(folder), []);
  t.throws(() => openSqliteRecords(join(folder, 'none', 'records.sqlite'), 2 ** 20), /unable to open/);
});

void t.test('sqlite: a database of another program with the same table name is not harmed', async (t) => {
  const path = await newPath(t);
  const foreign = new DatabaseSync(path);
  foreign.exec('CREATE TABLE other (x); INSERT INTO other VALUES (42)');
  foreign.close();
  const { records } = open(t, path);
  await records.tags.set('a', { checkedAtMs: 1 });
  const raw = new DatabaseSync(path);
  t.teardown(() => raw.close());
  t.equal(raw.prepare('SELECT x FROM other').get()?.['x'], 42);
});

void t.test('purge: takes the rows that have run out, and no others', async (t) => {
  const path = await newPath(t);
  const { database, records } = open(t, path);
  await records.tags.set('short', { checkedAtMs: 1 }, 1000);
  await records.tags.set('long', { checkedAtMs: 1 }, 100_000);
  await records.tags.set('forever', { checkedAtMs: 1 });
  await records.tags.setMany([{ key: 'many', value: { checkedAtMs: 1 } }]);
  const raw = new DatabaseSync(path);
  t.teardown(() => raw.close());
  const rows = () =>
    raw
      .prepare('SELECT key FROM records ORDER BY key')
      .all()
      .map((row) => row['key']);
  database.purge(Date.now());
  t.equal(rows().length, 4, 'not before their time');
  database.purge(Date.now() + 50_000);
  t.same(rows(), ['tags:forever', 'tags:long', 'tags:many']);
});

void t.test('clear: takes one kind alone', async (t) => {
  const path = await newPath(t);
  const { database, records } = open(t, path);
  await records.tags.set('a', { checkedAtMs: 1 });
  await records.manifests.set('a', { mediaType: 'x/y' });
  const adapter = database.adapter();
  adapter.namespace = 'tags';
  await adapter.clear();
  t.equal(await records.tags.get('a'), undefined);
  t.same(await records.manifests.get('a'), { mediaType: 'x/y' });
});

void t.test('sqlite: a namespace that begins like another is another', async (t) => {
  const { database } = open(t, await newPath(t));
  const adapter = database.adapter();
  for (const key of ['tags:a', 'tags:', 'tagsx:a', 'tag:a', 'tags;a', 'tags', 'TAGS:a'])
    await adapter.set(key, '{"value":1}');
  const keys: unknown[] = [];
  for await (const [key] of adapter.iterator!('tags')) keys.push(key);
  t.same(keys, ['tags:', 'tags:a']);
});
