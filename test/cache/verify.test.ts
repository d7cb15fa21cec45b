import { existsSync } from 'node:fs';
import { copyFile, readFile, rename, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { bytesBlob } from '../../src/cache/bytes.ts';
import { verifyStore } from '../../src/cache/verify.ts';
import type { Verdict } from '../../src/cache/verify.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { openBookedDisk } from '../fixtures/booked-disk.ts';

interface Store {
  readonly verify: () => Promise<Verdict>;
  readonly put: (bytes: Buffer) => Promise<Digest>;
  readonly totalBytes: () => number;
  readonly fileOf: (digest: Digest) => string;
  /** What was told of each blob. */
  readonly read: number[];
}

/** A store and its books, opened by a process that has verified nothing yet. */
async function open(t: Test, path: string): Promise<Store> {
  const { catalog, disk } = await openBookedDisk(t, path);
  const read: number[] = [];
  return {
    read,
    verify: () => verifyStore({ catalog, disk, onRead: (bytes) => read.push(bytes) }),
    async put(bytes) {
      const digest = digestOf(bytes);
      await disk.put(digest, bytesBlob(bytes, 'miss'));
      return digest;
    },
    totalBytes: catalog.totalBytes,
    fileOf: (digest) => join(path, 'blobs/sha256', hexOf(digest)),
  };
}

/** A store of three blobs, looked at by another process than the one that wrote it. */
async function prepare(t: Test) {
  const path = await temporaryFolder(t);
  const writer = await open(t, path);
  const digests = [
    await writer.put(noise('verify 0', 1_000_000)),
    await writer.put(noise('verify 1', 500)),
    await writer.put(noise('verify 2', 70_000)),
  ] as [Digest, Digest, Digest];
  return { path, writer, digests, store: await open(t, path) };
}

async function flip(file: string, at: number): Promise<void> {
  const bytes = await readFile(file);
  bytes[at]! ^= 1;
  await writeFile(file, bytes);
}

void t.test('verify: a store that is right is read and left as it is', async (t) => {
  const { store, digests } = await prepare(t);
  t.same(await store.verify(), { blobs: 3, bytes: 1_070_500, wrong: [], lost: [], unreadable: [] });
  t.same(
    store.read.toSorted((one, other) => one - other),
    [500, 70_000, 1_000_000],
  );
  t.ok(digests.every((digest) => existsSync(store.fileOf(digest))));
  t.equal(store.totalBytes(), 1_070_500);
  t.same(await (await open(t, await temporaryFolder(t))).verify(), {
    blobs: 0,
    bytes: 0,
    wrong: [],
    lost: [],
    unreadable: [],
  });
});

void t.test('55. verify: what is not what its name says is found at any place, and gone', async (t) => {
  for (const at of [0, 499_999, 999_999]) {
    const { store, digests } = await prepare(t);
    await flip(store.fileOf(digests[0]), at);
    t.same(await store.verify(), { blobs: 3, bytes: 1_070_500, wrong: [digests[0]], lost: [], unreadable: [] });
    t.notOk(existsSync(store.fileOf(digests[0])));
    t.equal(store.totalBytes(), 70_500);
    t.same(await store.verify(), { blobs: 2, bytes: 70_500, wrong: [], lost: [], unreadable: [] });
  }
});

void t.test('verify: what is too short, too long or another blob', async (t) => {
  const { store, digests } = await prepare(t);
  const [one, two, three] = digests.map(store.fileOf) as [string, string, string];
  await truncate(one, 999_999);
  await copyFile(one, two);
  await writeFile(three, Buffer.concat([await readFile(three), Buffer.alloc(1)]));
  const { wrong, lost } = await store.verify();
  t.same(wrong.toSorted(), digests.toSorted());
  t.same(lost, []);
  t.equal(store.totalBytes(), 0);
});

void t.test('55. verify: bytes that rot under a process that has verified them are found by another one', async (t) => {
  const { writer, store, digests } = await prepare(t);
  const file = writer.fileOf(digests[0]);
  const { atime, mtime } = await stat(file);
  await flip(file, 5);
  // A disk that rots does not tell the time.
  await utimes(file, atime, mtime);
  t.same((await store.verify()).wrong, [digests[0]]);
});

void t.test('verify: what is in the books alone goes out of them', async (t) => {
  const { store, digests } = await prepare(t);
  await rm(store.fileOf(digests[0]));
  // What a full disk or a power cut leaves of a name.
  await truncate(store.fileOf(digests[1]), 0);
  const { lost, ...rest } = await store.verify();
  t.same(rest, { blobs: 1, bytes: 70_000, wrong: [], unreadable: [] });
  t.same(lost.toSorted(), [digests[0], digests[1]].toSorted());
  t.equal(store.totalBytes(), 70_000);
  t.equal(
    store.read.reduce((sum, bytes) => sum + bytes),
    1_070_500,
    'they are done with as well',
  );
});

void t.test('verify: what cannot be opened is told, and all the rest is read', async (t) => {
  const { store, digests } = await prepare(t);
  const file = store.fileOf(digests[1]);
  await rename(file, `${file}.elsewhere`);
  // Links are not followed; on a disk that fails it is the same.
  await symlink(`${file}.elsewhere`, file);
  t.same(await store.verify(), { blobs: 2, bytes: 1_070_000, wrong: [], lost: [], unreadable: [digests[1]] });
  t.ok(existsSync(file));
  t.equal(store.totalBytes(), 1_070_500);
});

void t.test('verify: what comes and goes meanwhile disturbs nothing', async (t) => {
  const { writer, store, digests } = await prepare(t);
  const verifying = store.verify();
  const later = await writer.put(noise('verify later', 3000));
  await rm(writer.fileOf(digests[2]));
  const { wrong, lost } = await verifying;
  t.ok(wrong.length === 0 && lost.every((digest) => digest === digests[2]));
  t.ok(existsSync(writer.fileOf(later)));
  t.same(await store.verify(), {
    blobs: 3,
    bytes: 1_003_500,
    wrong: [],
    lost: lost.length > 0 ? [] : [digests[2]],
    unreadable: [],
  });
});

void t.test('verify: thousands are gone through', async (t) => {
  const path = await temporaryFolder(t);
  const writer = await open(t, path);
  const digests = await Promise.all(
    Array.from({ length: 1100 }, (_, at) => writer.put(noise(`verify many ${at}`, 10))),
  );
  const store = await open(t, path);
  for (const at of [0, 1000, 1099]) await flip(store.fileOf(digests[at]!), 3);
  const { blobs, wrong } = await store.verify();
  t.equal(blobs, 1100);
  t.same(wrong.toSorted(), [0, 1000, 1099].map((at) => digests[at]!).toSorted());
  t.equal(store.totalBytes(), 10_970);
});
