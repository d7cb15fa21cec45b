import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createFileReaders } from '../../src/cache/file-readers.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const bytes = noise('a file', 3_000_000);

void t.test('a few read in large strides, many in small ones, within the budget', async (t) => {
  const path = join(await temporaryFolder(t), 'file');
  await writeFile(path, bytes);
  const file = await open(path);
  t.teardown(() => file.close());
  const budget = 4 * 1024 * 1024;
  const readers = createFileReaders(budget);
  const first = readers.open(file);
  t.equal((await first.read(0, bytes.length)).length, 1024 * 1024);
  const others = Array.from({ length: 63 }, () => readers.open(file));
  for (const reader of others) await reader.read(0, bytes.length);
  const small = await first.read(100, bytes.length);
  t.equal(small.length * 2 * 64, budget);
  t.ok(small.equals(bytes.subarray(100, 100 + small.length)));
  for (const reader of others) reader.close();
  t.equal((await first.read(0, bytes.length)).length, 1024 * 1024, 'what is given back is used again');
});

void t.test('a buffer stays as it is until the second read after it', async (t) => {
  const path = join(await temporaryFolder(t), 'file');
  await writeFile(path, bytes);
  const file = await open(path);
  t.teardown(() => file.close());
  const reader = createFileReaders(1024 * 1024).open(file);
  const one = await reader.read(0, 1000);
  const two = await reader.read(1000, 1000);
  t.ok(one.equals(bytes.subarray(0, 1000)) && two.equals(bytes.subarray(1000, 2000)));
  await reader.read(2000, 1000);
  t.ok(two.equals(bytes.subarray(1000, 2000)));
});

void t.test('a file that ends too early, or a reader that is closed: an error, not silence', async (t) => {
  const path = join(await temporaryFolder(t), 'file');
  await writeFile(path, 'short');
  const file = await open(path);
  t.teardown(() => file.close());
  const reader = createFileReaders(1024 * 1024).open(file);
  await t.rejects(reader.read(5, 10), /ends at 5/);
  reader.close();
  await t.rejects(reader.read(0, 1), /closed/);
});
