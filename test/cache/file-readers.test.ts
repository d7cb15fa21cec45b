import { open, utimes, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { createFileReaders } from '../../src/cache/file-readers.ts';
import type { SharedFile } from '../../src/cache/file-readers.ts';
import type { PartialReader } from '../../src/cache/tier.ts';
import { wholeOf } from '../../src/cache/whole-file.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const MiB = 1024 * 1024;
const bytes = noise('a file', 3_000_000);

async function fileOf(t: Test, content: Buffer | string = bytes): Promise<FileHandle> {
  const path = join(await temporaryFolder(t), 'file');
  await writeFile(path, content);
  return openAt(t, path);
}

async function openAt(t: Test, path: string): Promise<FileHandle> {
  const file = await open(path);
  t.teardown(() => file.close().catch(() => undefined));
  return file;
}

/** @param of whose content it is taken for */
async function wholeAs(of: string, file: FileHandle): Promise<SharedFile> {
  return { ...(await wholeOf(file)), digest: digestOf(Buffer.from(of)) };
}

/** A handle that says how much was read through it. */
function counted(file: FileHandle) {
  let readBytes = 0;
  const counting = new Proxy(file, {
    get(target, name) {
      if (name !== 'read') return Reflect.get(target, name) as unknown;
      return async (buffer: Buffer, at: number, length: number, position: number) => {
        const result = await target.read(buffer, at, length, position);
        readBytes += result.bytesRead;
        return result;
      };
    },
  });
  return { file: counting, readBytes: () => readBytes };
}

async function whole(reader: PartialReader, from = 0, maxBytes = 100_000): Promise<Buffer> {
  const found: Buffer[] = [];
  for (let position = from; position < bytes.length;) {
    const piece = await reader.read(position, maxBytes);
    found.push(Buffer.from(piece));
    position += piece.length;
  }
  return Buffer.concat(found);
}

void t.test('one alone reads in large strides', async (t) => {
  const file = await fileOf(t);
  const reader = createFileReaders(32 * MiB).open(file, await wholeAs('a', file));
  t.equal((await reader.read(0, bytes.length)).length, MiB);
});

void t.test('a thousand, of as many files, have no more than the budget but for their smallest buffers', async (t) => {
  const file = await fileOf(t);
  const budget = 8 * MiB;
  const readers = createFileReaders(budget);
  /** Slices of the one budget, and those beyond it. */
  const held = new Set<ArrayBufferLike>();
  for (const isGrowing of [false, true]) {
    for (let at = 0; at < 500; at++) {
      const reader = readers.open(file, isGrowing ? undefined : await wholeAs(`${at}`, file));
      for (const position of [0, MiB]) {
        const piece = await reader.read(position, bytes.length);
        held.add(piece.buffer);
        t.ok(piece.equals(bytes.subarray(position, position + piece.length)));
      }
    }
  }
  const heldBytes = [...held].reduce((sum, { byteLength }) => sum + byteLength, 0);
  t.ok(heldBytes <= budget + 2 * 16 * 1024 * 1000, `${heldBytes} bytes`);
});

void t.test('what is given back is used again, and large once more', async (t) => {
  const file = await fileOf(t);
  const readers = createFileReaders(4 * MiB);
  const some = await Promise.all(
    Array.from({ length: 100 }, async (_, at) => readers.open(file, await wholeAs(`${at}`, file))),
  );
  for (const reader of some) await reader.read(0, bytes.length);
  const small = await readers.open(file).read(0, bytes.length);
  t.ok(small.length < 100_000, `${small.length} bytes`);
  for (const reader of some) reader.close();
  const large = await readers.open(file).read(0, bytes.length);
  t.ok(large.length >= 256 * 1024, `${large.length} bytes`);
});

void t.test('a crowd has the disk read a file once, wherever each of them begins', async (t) => {
  const { file, readBytes } = counted(await fileOf(t));
  const readers = createFileReaders(32 * MiB);
  const shared = await wholeAs('a', file);
  const crowd = Array.from({ length: 50 }, () => readers.open(file, shared));
  const read = await Promise.all(crowd.map((reader, at) => whole(reader, at * 1000, 70_000 + at)));
  for (const [at, found] of read.entries()) t.ok(found.equals(bytes.subarray(at * 1000)));
  t.equal(readBytes(), bytes.length);
  for (const reader of crowd) reader.close();
  const next = readers.open(file, shared);
  t.ok((await whole(next)).equals(bytes));
  t.equal(readBytes(), 2 * bytes.length, 'nothing is kept of it when nobody reads it any more');
});

void t.test('a file of another identity is another file, and one that grows is nobody else’s', async (t) => {
  const first = await fileOf(t);
  const second = await fileOf(t, Buffer.alloc(bytes.length, 1));
  const readers = createFileReaders(32 * MiB);
  await readers.open(first, await wholeAs('a', first)).read(0, 10);
  t.same(await readers.open(second, await wholeAs('a', second)).read(0, 3), Buffer.alloc(3, 1));
  const one = await readers.open(second).read(0, 10);
  const two = await readers.open(second).read(0, 10);
  t.not(one.buffer, two.buffer);
});

void t.test(
  'a buffer stays as it is until the second read after it, also for those who read it with others',
  async (t) => {
    const file = await fileOf(t);
    // Room for the smallest buffers alone: what is not in use is used again at once.
    for (const shared of [undefined, await wholeAs('a', file)]) {
      const readers = createFileReaders(1);
      const openOne = () => readers.open(file, shared);
      const [reader, other] = [openOne(), openOne()];
      let last = await reader.read(0, 1000);
      for (let position = 16_384; position < 40 * 16_384; position += 16_384) {
        const next = await reader.read(position, 1000);
        await other.read((position * 7) % 2_000_000, 1000);
        t.ok(last.equals(bytes.subarray(position - 16_384, position - 15_384)));
        t.ok(next.equals(bytes.subarray(position, position + 1000)));
        last = next;
      }
    }
  },
);

void t.test('who began to read a stretch leaves: those who wait for it get it all the same', async (t) => {
  const path = join(await temporaryFolder(t), 'file');
  await writeFile(path, bytes);
  const [mine, theirs] = [await openAt(t, path), await openAt(t, path)];
  const readers = createFileReaders(32 * MiB);
  const shared = await wholeAs('a', mine);
  const leaving = readers.open(theirs, shared);
  const staying = readers.open(mine, shared);
  await theirs.close();
  const [, stayed] = await Promise.allSettled([leaving.read(0, 1000), staying.read(0, 1000)]);
  t.ok(stayed.status === 'fulfilled' && stayed.value.equals(bytes.subarray(0, 1000)));
});

void t.test('a file that ends too early, or a reader that is closed: an error, not silence', async (t) => {
  const file = await fileOf(t, 'short');
  const readers = createFileReaders(MiB);
  for (const whole of [undefined, { ...(await wholeAs('a', file)), size: 10 }]) {
    const reader = readers.open(file, whole);
    await t.rejects(reader.read(5, 10), /ends at 5/);
    reader.close();
    reader.close();
    await t.rejects(reader.read(0, 1), /closed/);
  }
});

void t.test(
  'a file that is changed in place: what is read after is not passed on, wherever the change is',
  async (t) => {
    const path = join(await temporaryFolder(t), 'file');
    const readers = createFileReaders(1);
    for (const at of [0, 1_500_000, bytes.length - 1]) {
      await writeFile(path, bytes);
      // Times of files go in steps of some milliseconds.
      await utimes(path, 1, 1);
      const file = await openAt(t, path);
      const shared = await wholeAs(`${at}`, file);
      const [reader, other] = [readers.open(file, shared), readers.open(file, shared)];
      t.ok((await reader.read(1_000_000, 10)).equals(bytes.subarray(1_000_000, 1_000_010)));
      const writer = await open(path, 'r+');
      await writer.write(Buffer.from([bytes[at]! ^ 1]), 0, 1, at);
      await writer.close();
      for (const read of await Promise.allSettled([reader.read(at, 10), other.read(at, 10)])) {
        t.match(read, { status: 'rejected', reason: /changed while it was read/ });
      }
      reader.close();
      other.close();
    }
  },
);
