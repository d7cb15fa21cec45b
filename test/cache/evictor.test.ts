import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import type { DiskTier } from '../../src/cache/disk.ts';
import { createEvictor } from '../../src/cache/evictor.ts';
import type { Evictor } from '../../src/cache/evictor.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { within } from '../fixtures/servers.ts';

const bytesEach = 10_000;

interface Stage {
  readonly path: string;
  readonly catalog: Catalog;
  readonly disk: DiskTier;
  readonly evictor: Evictor;
  readonly evicted: number[];
  readonly full: number[];
  readonly trouble: unknown[];
}

/** A store as the mirror puts it together, on a clock of its own. */
async function prepare(t: Teardown, maxBytes: number, path?: string): Promise<Stage> {
  const folder = path ?? (await temporaryFolder(t));
  let time = 0;
  const catalog = openCatalog(join(folder, 'catalog.sqlite'), () => ++time);
  const trouble: unknown[] = [];
  const quietly = (action: () => unknown) => {
    try {
      action();
    } catch (error) {
      trouble.push(error);
    }
  };
  const disk = await createDiskTier({
    path: folder,
    maxVerified: 1000,
    maxBufferBytes: 1e7,
    maxLeftoverBytes: 2 ** 30,
    books: {
      adding: catalog.add,
      added(digest, bytes) {
        quietly(() => catalog.has(digest) || catalog.add(digest, bytes));
        evictor.check();
      },
      used: (digest) => catalog.used(digest),
      removed: (digest) => quietly(() => catalog.remove(digest)),
      full: () => evictor.relieve(),
    },
  });
  const [evicted, full]: number[][] = [[], []];
  const evictor = createEvictor({
    catalog,
    disk,
    maxBytes,
    onEvicted: (bytes) => evicted!.push(bytes),
    onFull: (bytes) => full!.push(bytes),
    onTrouble: (error) => trouble.push(error),
  });
  t.teardown(async () => {
    await evictor.settled();
    await disk.close();
    catalog.close();
  });
  return { path: folder, catalog, disk, evictor, evicted: evicted!, full: full!, trouble };
}

function blobOf(at: number, bytes = bytesEach): Buffer {
  return noise(`evictor ${at}`, bytes);
}

function digest(at: number, bytes = bytesEach): Digest {
  return digestOf(blobOf(at, bytes));
}

async function put({ disk, evictor }: Stage, ...all: number[]): Promise<void> {
  for (const at of all) {
    await disk.put(digest(at), bytesBlob(blobOf(at), 'miss'));
    await evictor.settled();
  }
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at);

/** Which of the first blobs lie on the disk. */
async function left({ path }: Stage, of = 200): Promise<number[]> {
  const names = new Set(await readdir(join(path, 'blobs/sha256')));
  return range(0, of).filter((at) => names.has(hexOf(digest(at))));
}

async function sizesOf({ path }: Stage): Promise<Map<string, number>> {
  const names = await readdir(join(path, 'blobs/sha256'));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(path, 'blobs/sha256', name))).size));
  return new Map(names.map((name, at) => [`sha256:${name}`, sizes[at]!]));
}

function booksOf({ catalog }: Stage): Map<string, number> {
  return new Map(catalog.entries('', 1000).map((entry) => [entry.digest, entry.bytes]));
}

void t.test('evictor: what is within the bound stays, to the last byte', async (t) => {
  const stage = await prepare(t, 10 * bytesEach);
  await put(stage, ...range(0, 10));
  t.same(await left(stage), range(0, 10));
  await put(stage, 10);
  t.same(await left(stage), range(2, 11), 'and with one more, the oldest go, down to nine tenths');
  t.same(stage.evicted, [bytesEach, bytesEach]);
  t.same([stage.full, stage.trouble], [[], []]);
});

void t.test('evictor: takes the least recently used, and what comes again is new', async (t) => {
  const stage = await prepare(t, 20 * bytesEach);
  await put(stage, ...range(0, 20));
  for (const at of [3, 0, 7]) await (await stage.disk.open(digest(at)))?.close();
  await put(stage, 1, 20);
  t.same(await left(stage), [0, 1, 3, ...range(6, 21)]);
});

void t.test('evictor: goes no further than it has to', async (t) => {
  const stage = await prepare(t, 1e9);
  await put(stage, ...range(0, 30));
  t.equal(await stage.evictor.run(29 * bytesEach + 1), bytesEach);
  t.equal(await stage.evictor.run(29 * bytesEach), 0);
  t.equal(await stage.evictor.run(10 * bytesEach + 5000), 19 * bytesEach);
  t.same(await left(stage), range(20, 30));
  t.equal(stage.catalog.totalBytes(), 10 * bytesEach);
  t.equal(await stage.evictor.run(0), 10 * bytesEach);
  t.same(await left(stage), []);
  t.same(stage.full, []);
});

void t.test('evictor: more than it looks at in one go', async (t) => {
  const stage = await prepare(t, 1e9);
  const all = range(0, 450);
  for (const at of all) await stage.disk.put(digest(at, 10), bytesBlob(blobOf(at, 10), 'miss'));
  t.equal(await stage.evictor.run(10), 4490);
  t.same([...booksOf(stage).keys()], [digest(449, 10)]);
  t.equal((await sizesOf(stage)).size, 1);
});

void t.test('58. evictor: what is pinned stays; where that alone is too much, it says so and lets be', async (t) => {
  const stage = await prepare(t, 10 * bytesEach);
  stage.catalog.learn(digest(0), [{ child: digest(1) }, { child: digest(2) }]);
  stage.catalog.pin('deep', [{ digest: digest(0), deep: true }]);
  stage.catalog.pin(
    'plain',
    range(3, 8).map((at) => ({ digest: digest(at), deep: false })),
  );
  await put(stage, ...range(0, 12));
  t.same(await left(stage), [...range(0, 8), 10, 11], 'the pinned, and the newest beside them');
  t.same(stage.full, []);
  stage.catalog.pin(
    'more',
    range(20, 30).map((at) => ({ digest: digest(at), deep: false })),
  );
  await put(stage, ...range(20, 30));
  await within(5000, 'the evictor', stage.evictor.settled());
  t.same(await left(stage), [...range(0, 8), ...range(20, 30)]);
  t.ok(stage.full.length > 0);
  t.equal(stage.full.at(-1), 18 * bytesEach);
  const told = stage.full.length;
  await put(stage, 40);
  await within(5000, 'the evictor', stage.evictor.settled());
  t.same(await left(stage), [...range(0, 8), ...range(20, 30)], 'what is not pinned comes and goes');
  t.equal(stage.full.length, told + 1);
  stage.catalog.unpin('more');
  await put(stage, 41);
  t.same(await left(stage), [...range(0, 8), 41]);
});

void t.test('56. evictor: who reads what goes reads on to the end', async (t) => {
  const stage = await prepare(t, 1e9);
  await put(stage, ...range(0, 10));
  const blobs = await Promise.all(range(0, 10).map((at) => stage.disk.open(digest(at))));
  await Promise.all(blobs.map((blob) => blob!.read(0, 100)));
  t.equal(await stage.evictor.run(0), 10 * bytesEach);
  t.same(await left(stage), []);
  t.equal(await stage.disk.open(digest(0)), undefined);
  for (const [at, blob] of blobs.entries()) t.ok((await readAll(blob!)).equals(blobOf(at)));
});

void t.test('evictor: no room on the device takes a tenth away, whatever the bound is', async (t) => {
  const stage = await prepare(t, 1e9);
  await put(stage, ...range(0, 40));
  stage.evictor.relieve();
  await stage.evictor.settled();
  t.same(await left(stage), range(4, 40));
  stage.catalog.pin(
    'all',
    range(0, 40).map((at) => ({ digest: digest(at), deep: false })),
  );
  stage.evictor.relieve();
  await within(5000, 'the evictor', stage.evictor.settled());
  t.same(await left(stage), range(4, 40));
  t.same(stage.full, [36 * bytesEach]);
});

void t.test('evictor: what is in the books and not on the disk goes out of them in its turn', async (t) => {
  const stage = await prepare(t, 1e9);
  await put(stage, ...range(0, 10));
  for (const at of [0, 1, 9]) await rm(join(stage.path, 'blobs/sha256', hexOf(digest(at))));
  await stage.evictor.run(7 * bytesEach);
  t.same(await left(stage), range(3, 9));
  t.equal(booksOf(stage).size, 7);
});

void t.test('57. evictor: blobs that come by many at once never stay above the bound', async (t) => {
  const stage = await prepare(t, 20 * bytesEach);
  await Promise.all(range(0, 20).map(async (lane) => put(stage, ...range(lane * 10, lane * 10 + 10))));
  const total = stage.catalog.totalBytes();
  t.ok(total <= 20 * bytesEach && total >= 17 * bytesEach, `${total} bytes`);
  t.same(await sizesOf(stage), booksOf(stage));
});

void t.test('57. evictor: two processes on one store take away what one would', async (t) => {
  const one = await prepare(t, 1e9);
  await put(one, ...range(0, 60));
  const other = await prepare(t, 1e9, one.path);
  const gone = await Promise.all([one.evictor.run(30 * bytesEach), other.evictor.run(30 * bytesEach)]);
  t.ok(Math.max(...gone) <= 31 * bytesEach, String(gone));
  const stay = await left(one);
  t.ok(stay.length === 30 || stay.length === 29, `${stay.length} stay`);
  t.same(stay, range(60 - stay.length, 60));
  t.equal(one.catalog.totalBytes(), stay.length * bytesEach);
  t.same([one.trouble, other.trouble], [[], []]);
});

void t.test('56. evictor: what comes while it goes lies in the store and in its books, or in neither', async (t) => {
  const one = await prepare(t, 1e9);
  const other = await prepare(t, 1e9, one.path);
  for (let round = 0; round < 400; round++) {
    const coming = put(one, 0);
    for (let turns = round % 40; turns > 0; turns--) await new Promise(setImmediate);
    await Promise.all([coming, other.disk.delete(digest(0))]);
    const books = booksOf(one);
    for (const [name, size] of await sizesOf(one)) {
      if (books.get(name) !== size) t.fail(`round ${round}: ${name} lies there and is in no books`);
    }
  }
  t.same([one.trouble, other.trouble], [[], []]);
});

void t.test('evictor: books that cannot be written to are told of, and cost no content', async (t) => {
  const stage = await prepare(t, 20 * bytesEach);
  await put(stage, ...range(0, 20));
  const holder = new DatabaseSync(join(stage.path, 'catalog.sqlite'));
  t.teardown(() => holder.close());
  holder.exec('BEGIN IMMEDIATE');
  let isHeld = true;
  const release = () => {
    if (isHeld) holder.exec('ROLLBACK');
    isHeld = false;
  };
  t.teardown(release);
  stage.evictor.relieve();
  await within(4000, 'the evictor', stage.evictor.settled()).catch((error: unknown) => t.fail(String(error)));
  t.ok((await left(stage)).length >= 18, `${(await left(stage)).length} of 20 are left, where two were to go`);
  t.ok(stage.trouble.length > 0);
  await t.rejects(put(stage, 50), /locked/, 'what cannot be entered is not kept');
  release();
  await stage.evictor.settled();
  await put(stage, ...range(20, 30));
  t.same(await sizesOf(stage), booksOf(stage), 'and all is well after');
  t.ok(stage.catalog.totalBytes() <= 20 * bytesEach);
});
