import { open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { readAll } from '../../src/cache/bytes.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import { createMemoryTier } from '../../src/cache/memory.ts';
import type { Blob, Store, Tier } from '../../src/cache/tier.ts';
import { createStore } from '../../src/cache/tiers.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const maxMemoryBlobBytes = 10_000;
const small = noise('small', maxMemoryBlobBytes);
const large = noise('large', maxMemoryBlobBytes + 1);

interface Stage {
  readonly path: string;
  readonly store: Store;
  readonly trouble: [tier: string, error: unknown][];
}

async function prepare(t: Teardown, over: { path?: string; memory?: Tier } = {}): Promise<Stage> {
  const path = over.path ?? (await temporaryFolder(t));
  const disk = await createDiskTier({ path, maxVerified: 100, maxBufferBytes: 1024 * 1024, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => disk.close());
  const trouble: Stage['trouble'] = [];
  const store = createStore({
    memory: over.memory ?? createMemoryTier({ maxBytes: 1024 * 1024, maxBlobBytes: maxMemoryBlobBytes }),
    disk,
    maxMemoryBlobBytes,
    onTrouble: (...what) => trouble.push(what),
  });
  return { path, store, trouble };
}

/** The same store after a restart: nothing in memory, nothing known to be right. */
function restart(t: Teardown, { path }: Stage): Promise<Stage> {
  return prepare(t, { path });
}

function fileOf({ path }: Stage, bytes: Buffer): string {
  return join(path, 'blobs', 'sha256', hexOf(digestOf(bytes)));
}

async function flip(file: string, at: number): Promise<void> {
  const handle = await open(file, 'r+');
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, at);
  await handle.write(Buffer.from([buffer[0]! ^ 1]), 0, 1, at);
  await handle.close();
}

async function stateOf(store: Store, bytes: Buffer): Promise<string | undefined> {
  const blob = await store.open(digestOf(bytes));
  await blob?.close();
  return blob?.state;
}

function put(store: Store, bytes: Buffer): Promise<void> {
  return store.put(digestOf(bytes), bytes);
}

void t.test('store: what is nowhere is undefined, without trouble', async (t) => {
  const { store, trouble } = await prepare(t);
  t.equal(await store.open(digestOf(small)), undefined);
  t.same(trouble, []);
});

void t.test('store: what is put is in every tier that takes it', async (t) => {
  const stage = await prepare(t);
  for (const bytes of [small, large]) {
    await put(stage.store, bytes);
    const blob = await stage.store.open(digestOf(bytes));
    t.equal(blob!.state, bytes === small ? 'hit-memory' : 'hit-disk');
    t.ok((await readAll(blob!)).equals(bytes));
    t.equal((await stat(fileOf(stage, bytes))).size, bytes.length);
  }
  t.same(stage.trouble, []);
});

void t.test(
  'store: what is small comes up into memory when it is read from disk, what is large does not',
  async (t) => {
    const first = await prepare(t);
    await put(first.store, small);
    await put(first.store, large);
    const { store, trouble } = await restart(t, first);
    t.equal(await stateOf(store, small), 'hit-disk');
    t.equal(await stateOf(store, small), 'hit-memory');
    t.equal(await stateOf(store, large), 'hit-disk');
    t.equal(await stateOf(store, large), 'hit-disk');
    t.same(trouble, []);
  },
);

void t.test('store: a small blob is verified whole before it is answered', async (t) => {
  const first = await prepare(t);
  await put(first.store, small);
  const { store } = await restart(t, first);
  const blob = await store.open(digestOf(small));
  t.equal(blob!.verified, undefined);
  t.ok((await readAll(blob!)).equals(small));
});

void t.test('store: a large blob is answered while it is verified', async (t) => {
  const first = await prepare(t);
  await put(first.store, large);
  const { store } = await restart(t, first);
  const blob = await store.open(digestOf(large));
  t.type(blob!.verified, Promise);
  t.ok((await readAll(blob!)).equals(large));
});

void t.test('store: a small blob that is rotten is a miss that no reader sees, and goes', async (t) => {
  for (const at of [0, small.length - 1]) {
    const first = await prepare(t);
    await put(first.store, small);
    await flip(fileOf(first, small), at);
    const { store, trouble } = await restart(t, first);
    t.equal(await store.open(digestOf(small)), undefined);
    t.match(trouble, [['disk', { message: /does not hash/ }]]);
    await t.rejects(stat(fileOf(first, small)), { code: 'ENOENT' });
    await put(store, small);
    t.equal(await stateOf(store, small), 'hit-memory', 'and comes back with the next copy');
  }
});

void t.test('store: a large blob that is rotten never is whole', async (t) => {
  const first = await prepare(t);
  await put(first.store, large);
  await flip(fileOf(first, large), 5);
  const { store } = await restart(t, first);
  const blob = await store.open(digestOf(large));
  await t.rejects(readAll(blob!), /does not hash/);
  t.equal(await store.open(digestOf(large)), undefined);
});

void t.test('82. store: a broken disk is a miss, and memory goes on without it', async (t) => {
  const stage = await prepare(t);
  const { store, path, trouble } = stage;
  await put(store, small);
  await put(store, large);
  await rename(join(path, 'blobs'), join(path, 'away'));
  await writeFile(join(path, 'blobs'), 'no folder any more');
  t.equal(await store.open(digestOf(large)), undefined);
  t.match(trouble, [['disk', { code: 'ENOTDIR' }]]);
  const other = noise('other', 100);
  await put(store, other);
  t.equal(await stateOf(store, other), 'hit-memory', 'what is put is kept where it can be');
  t.equal(await stateOf(store, small), 'hit-memory');
  t.match(trouble.slice(1), [['disk', { code: 'ENOTDIR' }]]);
  await rm(join(path, 'blobs'));
  await rename(join(path, 'away'), join(path, 'blobs'));
  t.equal(await stateOf(store, large), 'hit-disk', 'and the disk is used again as soon as it works');
});

void t.test('store: where no tier can take a download, there is none to begin', async (t) => {
  const { store, path, trouble } = await prepare(t);
  await rm(join(path, 'tmp'), { recursive: true });
  t.equal(await store.begin(digestOf(large)), undefined);
  t.match(trouble, [['disk', { code: 'ENOENT' }]]);
});

void t.test('store: begins on the disk, where a download gets its name at the end', async (t) => {
  const { store } = await prepare(t);
  const partial = await store.begin(digestOf(large));
  await partial!.append([large]);
  await partial!.commit(digestOf(large));
  await partial!.close();
  t.equal(await stateOf(store, large), 'hit-disk');
});

/** A memory that fails at one thing; the rest of it works. */
function brokenMemory(fails: 'open' | 'put'): Tier {
  const works = createMemoryTier({ maxBytes: 1024 * 1024, maxBlobBytes: maxMemoryBlobBytes });
  const fail = () => Promise.reject(new Error(`${fails} fails`));
  return { ...works, [fails]: fail };
}

void t.test('store: a memory that cannot be read is a miss, and the disk answers', async (t) => {
  const { store, trouble } = await prepare(t, { memory: brokenMemory('open') });
  await put(store, small);
  t.equal(await stateOf(store, small), 'hit-disk');
  t.match(trouble, [['memory', { message: 'open fails' }]]);
});

void t.test('store: a memory that cannot be written to takes no copy, and the disk answers', async (t) => {
  const { store, trouble } = await prepare(t, { memory: brokenMemory('put') });
  await put(store, small);
  t.match(trouble, [['memory', { message: 'put fails' }]]);
  for (let at = 1; at <= 2; at++) {
    t.equal(await stateOf(store, small), 'hit-disk');
    t.match(trouble[at], ['memory', { message: 'put fails' }], 'and it is the memory that is in trouble');
  }
});

void t.test('store: wrong bytes are put nowhere', async (t) => {
  const { store, path, trouble } = await prepare(t);
  await store.put(digestOf(small), large.subarray(0, 100));
  t.equal(await store.open(digestOf(small)), undefined);
  t.same(
    trouble.map(([tier]) => tier),
    ['memory', 'disk'],
  );
  t.same(await readdir(join(path, 'blobs', 'sha256')), []);
});

async function countOpenFiles(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}

void t.test(
  'store: leaves no file open, whatever became of the blob',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const first = await prepare(t);
    await put(first.store, small);
    await put(first.store, large);
    const { store } = await restart(t, first);
    const before = await countOpenFiles();
    const blobs: (Blob | undefined)[] = [];
    for (let at = 0; at < 20; at++) blobs.push(await store.open(digestOf(small)), await store.open(digestOf(large)));
    await Promise.all(blobs.map((blob) => readAll(blob!)));
    await flip(fileOf(first, large), 5);
    const rotten = await store.open(digestOf(large));
    await t.rejects(readAll(rotten!));
    await store.open(digestOf(large));
    t.equal(await countOpenFiles(), before);
  },
);
