import { join } from 'node:path';
import { Keyv } from 'keyv';
import t from 'tap';
import { createStrictSpace, forgiving } from '../../src/cache/record-space.ts';
import type { RecordSpace, Shape, StrictSpace } from '../../src/cache/record-space.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

interface Size {
  readonly size: number;
}

interface Stage {
  readonly strict: StrictSpace<Size>;
  readonly space: RecordSpace<Size>;
  readonly trouble: unknown[];
  /** Puts something there past the space. */
  write(key: string, value: unknown): Promise<unknown>;
  /** From here on the store fails at everything. */
  break(): void;
}

function isSize({ size }: Shape): boolean {
  return typeof size === 'number';
}

async function prepare(t: Teardown): Promise<Stage> {
  const path = join(await temporaryFolder(t), 'records.sqlite');
  const database = openSqliteRecords(path, 2 ** 20);
  t.teardown(() => database.close());
  const open = () => new Keyv<unknown>({ store: database.adapter(), namespace: 'sizes', throwOnErrors: true });
  const strict = createStrictSpace(open() as Keyv<Size>, isSize);
  const trouble: unknown[] = [];
  return {
    strict,
    space: forgiving(strict, (error) => trouble.push(error)),
    trouble,
    write: (key, value) => open().set(key, value),
    break: () => database.close(),
  };
}

async function keysOf(space: { keys(): AsyncIterable<string> }): Promise<string[]> {
  const keys: string[] = [];
  for await (const key of space.keys()) keys.push(key);
  return keys;
}

void t.test('strict: what was set is got, listed and deleted', async (t) => {
  const { strict } = await prepare(t);
  t.equal(await strict.get('a'), undefined);
  await strict.set('a', { size: 0 });
  await strict.setMany([
    { key: 'b', value: { size: 1 } },
    { key: 'c', value: { size: 2 } },
  ]);
  t.same(await strict.get('a'), { size: 0 });
  t.same(await strict.get('c'), { size: 2 });
  t.same(await keysOf(strict), ['a', 'b', 'c']);
  await strict.delete('b');
  await strict.delete('none');
  t.equal(await strict.get('b'), undefined);
  t.same(await keysOf(strict), ['a', 'c']);
});

void t.test('strict: a time to live, for one and for many', async (t) => {
  const { strict } = await prepare(t);
  await strict.set('short', { size: 1 }, 1000);
  await strict.setMany([{ key: 'shorts', value: { size: 1 } }], 1000);
  await strict.setMany([{ key: 'long', value: { size: 1 } }]);
  const now = Date.now.bind(Date);
  t.intercept(Date, 'now', { value: () => now() + 1001 });
  t.equal(await strict.get('short'), undefined);
  t.equal(await strict.get('shorts'), undefined);
  t.ok(await strict.get('long'));
});

void t.test('strict: what has not the shape of its kind is no record', async (t) => {
  const { strict, write } = await prepare(t);
  for (const value of [7, 'text', '', false, null, [], {}, { size: '7' }, [{ size: 7 }]]) {
    await write('a', value);
    t.equal(await strict.get('a'), undefined, JSON.stringify(value));
  }
  await write('a', { size: 7, more: true });
  t.match(await strict.get('a'), { size: 7 }, 'a later version may say more');
});

void t.test('strict: what is wrong with the store is thrown', async (t) => {
  const { strict, break: breakStore } = await prepare(t);
  await strict.set('a', { size: 1 });
  breakStore();
  await t.rejects(strict.get('a'), Error);
  await t.rejects(strict.set('a', { size: 1 }), Error);
  await t.rejects(strict.setMany([{ key: 'a', value: { size: 1 } }]), Error);
  await t.rejects(strict.delete('a'), Error);
  await t.rejects(keysOf(strict), Error);
});

void t.test('strict: what cannot be read is not "not there"', async (t) => {
  const store = new Map([['keyv:a', '{"value":{"si']]);
  await t.rejects(createStrictSpace(new Keyv<Size>({ store }), () => true).get('a'), SyntaxError);
});

void t.test('strict: a store that did not keep what it was given has failed', async (t) => {
  const keyv = new Keyv<Size>();
  keyv.set = () => Promise.resolve(false);
  await t.rejects(createStrictSpace(keyv, () => true).set('a', { size: 1 }), /a was not kept/);
});

void t.test('forgiving: a store that works is as it is', async (t) => {
  const { space, trouble } = await prepare(t);
  t.equal(await space.set('a', { size: 1 }), true);
  await space.setMany([{ key: 'b', value: { size: 2 } }]);
  await space.setMany([]);
  t.same(await space.get('a'), { size: 1 });
  t.same(await space.mustGet('b'), { size: 2 });
  t.same(await keysOf(space), ['a', 'b']);
  await space.delete('a');
  t.equal(await space.get('a'), undefined);
  t.same(trouble, []);
});

void t.test('forgiving: a store that fails is an empty one, and each failure is told once', async (t) => {
  const { space, trouble, break: breakStore } = await prepare(t);
  await space.set('a', { size: 1 });
  breakStore();
  t.equal(await space.get('a'), undefined);
  t.equal(await space.set('a', { size: 2 }), false);
  await t.resolves(space.setMany([{ key: 'a', value: { size: 2 } }]));
  await t.resolves(space.delete('a'));
  t.same(await keysOf(space), []);
  t.equal(trouble.length, 5);
  await t.rejects(space.mustGet('a'), Error, 'where "not there" has to be told from "cannot be read"');
  t.equal(trouble.length, 5, 'and whoever asks that way tells it');
});
