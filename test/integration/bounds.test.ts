import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { hexOf } from '../../src/oci/digest.ts';
import { filesOf, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const MiB = 1024 * 1024;
const maxBytes = 20 * MiB;
const clients = 8;
/** What may have got its name and is not yet counted. */
const inFlight = clients * 4 * MiB;

t.setTimeout(90_000);

interface Stage {
  readonly registry: TestRegistry;
  readonly store: string;
  /** A server on the store, of this bound and with nothing in memory. */
  start(maxSize?: string): Promise<ServeProcess>;
}

async function prepare(t: Teardown, over: { store?: string } = {}): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const store = over.store ?? (await temporaryFolder(t));
  const folder = await temporaryFolder(t);
  const start = async (maxSize = '20MiB') => {
    const config = join(folder, 'narrows.yaml');
    await writeFile(config, JSON.stringify({ cache: { memory: { maxSize: 0 }, disk: { maxSize } } }));
    return startServe(t, {
      args: ['--config', config, '--store', store, '--upstream', `docker.io=${registry.url}`],
    });
  };
  return { registry, store, start };
}

/** Distinct blobs of 1 to 4 MiB. */
function makeBlobs({ registry }: Stage, name: string, count: number): Content[] {
  return Array.from({ length: count }, (_, at) => {
    const blob = blobOf(noise(`bounds ${name} ${at}`, (1 + ((at * 7) % 13) / 4) * MiB));
    registry.put('library/x', blob);
    return blob;
  });
}

function urlOf(server: ServeProcess, { digest }: Content): string {
  return `${server.url}/v2/docker.io/library/x/blobs/${digest}`;
}

function isRight(got: Hashed, { digest }: Content): boolean {
  return got.status === 200 && got.isComplete && got.digest === digest;
}

/** By several clients at once; how many got what they asked for. */
async function pullAll(server: ServeProcess, blobs: readonly Content[]): Promise<number> {
  const left = [...blobs];
  let right = 0;
  const client = async () => {
    for (let blob; (blob = left.shift());) if (isRight(await hashDownload(urlOf(server, blob)), blob)) right++;
  };
  await Promise.all(Array.from({ length: clients }, client));
  return right;
}

async function sizesOf(store: string): Promise<Map<string, number>> {
  const folder = join(store, 'blobs/sha256');
  const sizes = new Map<string, number>();
  for (const name of await readdir(folder)) {
    // One that goes meanwhile counts for nothing.
    const file = await stat(join(folder, name)).catch(() => undefined);
    if (file) sizes.set(`sha256:${name}`, file.size);
  }
  return sizes;
}

async function heldBytes(store: string): Promise<number> {
  return [...(await sizesOf(store)).values()].reduce((sum, bytes) => sum + bytes, 0);
}

async function has(store: string, { digest }: Content): Promise<boolean> {
  return (await sizesOf(store)).has(digest);
}

/** The largest sum of files while something runs. */
async function largest(store: string, running: Promise<unknown>): Promise<number> {
  const watch = { isOver: false };
  const over = running.finally(() => (watch.isOver = true));
  let most = 0;
  while (!watch.isOver) {
    most = Math.max(most, await heldBytes(store));
    await delay(2);
  }
  await over;
  return most;
}

function open(t: Teardown, store: string): Catalog {
  const catalog = openCatalog(join(store, 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  return catalog;
}

function booksOf(catalog: Catalog): Map<string, number> {
  return new Map(catalog.entries('', 10_000).map(({ digest, bytes }) => [digest, bytes]));
}

/** A client that has read the start of an answer, and reads on when it is told to. */
async function beginReading(url: string): Promise<{ finish(): Promise<string> }> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { agent: false, headers: { connection: 'close' } }, resolve).on('error', reject);
  });
  const hash = createHash('sha256');
  answer.on('data', (chunk: Buffer) => hash.update(chunk));
  await new Promise((resolve) => answer.once('data', resolve));
  answer.pause();
  return {
    finish: () =>
      new Promise((resolve) => {
        answer.on('close', () => resolve(answer.complete ? `sha256:${hash.digest('hex')}` : 'cut'));
        answer.resume();
      }),
  };
}

void t.test('57. bounds: ten times as much as there is room for', async (t) => {
  const stage = await prepare(t);
  const { registry, store, start } = stage;
  const pinned = makeBlobs(stage, 'pinned', 2);
  const slow = blobOf(noise('bounds slow', 12 * MiB));
  registry.put('library/x', slow);
  const many = makeBlobs(stage, 'many', 84);
  const allBytes = many.reduce((sum, { bytes }) => sum + bytes.length, 0);
  t.ok(allBytes >= 10 * maxBytes, `${allBytes} bytes`);
  const server = await start();
  t.equal(await pullAll(server, pinned), pinned.length);
  const catalog = open(t, store);
  catalog.pin(
    'test',
    pinned.map(({ digest }) => ({ digest, deep: false })),
  );
  t.ok(isRight(await hashDownload(urlOf(server, slow)), slow));
  await until(() => has(store, slow), 'the blob on the disk');
  const reader = await beginReading(urlOf(server, slow));

  const pulling = pullAll(server, many);
  const most = await largest(store, pulling);
  t.equal(await pulling, many.length, 'everyone gets everything');
  t.comment(`at most ${(most / MiB).toFixed(1)} MiB of ${maxBytes / MiB} MiB`);
  t.ok(most > 0.9 * maxBytes, 'the room is used');
  t.ok(most <= maxBytes + inFlight, `never above the bound by more than what is in flight: ${most}`);
  await until(async () => (await heldBytes(store)) <= maxBytes, 'the bound');
  await until(async () => (await filesOf(store)).unfinished.length === 0, 'the end of all downloads');

  registry.forget();
  for (const blob of pinned) t.ok(isRight(await hashDownload(urlOf(server, blob)), blob));
  t.equal(registry.count('GET blobs'), 0, 'what is pinned is still here');
  t.equal(await has(store, slow), false);
  t.equal(await reader.finish(), slow.digest, 'who began to read what is gone reads to its end');

  catalog.unpin('test');
  await pullAll(server, makeBlobs(stage, 'more', 20));
  await until(async () => !(await has(store, pinned[0]!)), 'what is no longer pinned to go');
  server.child.kill('SIGTERM');
  t.equal(await server.exit, 0);
  t.same(booksOf(catalog), await sizesOf(store));
  t.ok(catalog.totalBytes() <= maxBytes);
});

void t.test('15. bounds: kill -9 at any moment, and the next life keeps the bound and its books', async (t) => {
  const stage = await prepare(t);
  const { store, start } = stage;
  for (let round = 0; round < 3; round++) {
    const server = await start();
    const blobs = makeBlobs(stage, `round ${round}`, 24);
    const pulling = pullAll(server, blobs);
    const moment = (round + 1) * 12 * MiB * Math.random();
    const before = stage.registry.sentBytes;
    await until(() => stage.registry.sentBytes - before > moment, 'the moment');
    server.child.kill('SIGKILL');
    await server.exit;
    await pulling;
    t.ok((await heldBytes(store)) <= maxBytes + inFlight);
    const books = booksOf(open(t, store));
    for (const [digest, bytes] of await sizesOf(store)) {
      t.equal(books.get(digest), bytes, 'what has a name is in the books');
      books.delete(digest);
    }
    t.ok(books.size <= clients * (round + 1), `${books.size} were on their way in or out`);
  }
  const server = await start();
  const most = await largest(store, pullAll(server, makeBlobs(stage, 'after', 24)));
  t.ok(most <= maxBytes + inFlight);
  await until(async () => (await heldBytes(store)) <= maxBytes, 'the bound');
  server.child.kill('SIGTERM');
  t.equal(await server.exit, 0);
  const catalog = open(t, store);
  t.same(booksOf(catalog), await sizesOf(store), 'what was on its way is out of the books');
  t.ok(catalog.totalBytes() <= maxBytes && catalog.totalBytes() > maxBytes / 2);
});

void t.test('57. bounds: a store that is too large is brought within, with books or without', async (t) => {
  const stage = await prepare(t);
  const { store, start } = stage;
  const blobs = makeBlobs(stage, 'laid', 20);
  await mkdir(join(store, 'blobs/sha256'), { recursive: true });
  for (const { digest, bytes } of blobs) await writeFile(join(store, 'blobs/sha256', hexOf(digest)), bytes);
  t.ok((await heldBytes(store)) > 2 * maxBytes);
  for (const [maxSize, bound] of [
    ['20MiB', maxBytes],
    ['8MiB', 8 * MiB],
  ] as const) {
    const server = await start(maxSize);
    await until(async () => (await heldBytes(store)) <= bound, maxSize);
    server.child.kill('SIGTERM');
    t.equal(await server.exit, 0);
    const catalog = open(t, store);
    t.same(booksOf(catalog), await sizesOf(store));
    t.ok(catalog.totalBytes() > bound * 0.9 - 4 * MiB, `${catalog.totalBytes()} bytes, and no less than it has to be`);
  }
});

// ---- A disk without room

const disk = mountDisk();
const skip = disk === undefined && 'needs to mount a small disk';

function mountDisk(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'narrows-small-'));
  const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', folder]).status === 0;
  t.teardown(() => {
    if (isMounted) spawnSync('umount', ['-l', folder]);
    rmdirSync(folder);
  });
  return isMounted ? folder : undefined;
}

void t.test('17. a full disk: clients get everything, and the store makes room by itself', { skip }, async (t) => {
  const store = join(disk!, 'store');
  await mkdir(store);
  const stage = await prepare(t, { store });
  const { registry, start } = stage;
  const server = await start('100MiB');
  const isKept = async (blob: Content) => {
    registry.forget();
    const got = await hashDownload(urlOf(server, blob));
    return isRight(got, blob) && registry.count('GET blobs') === 0;
  };
  const blobs = Array.from({ length: 40 }, (_, at) => blobOf(noise(`full ${at}`, 1 * MiB)));
  for (const blob of blobs) registry.put('library/x', blob);
  let before: Content | undefined;
  let kept = 0;
  for (const blob of blobs) {
    t.ok(isRight(await hashDownload(urlOf(server, blob)), blob));
    await until(async () => (await filesOf(store)).unfinished.length === 0, 'the end of its download');
    if (await has(store, blob)) kept++;
    // What is used leaves a note in the books, which needs room as well.
    if (before && (await has(store, before))) t.ok(await isKept(before));
    before = blob;
  }
  t.comment(`${kept} of ${blobs.length} were kept`);
  t.ok(kept >= 20, `${kept} of ${blobs.length} were kept, and not only the first`);
  t.ok((await has(store, blobs.at(-1)!)) || (await has(store, blobs.at(-2)!)), 'nor has it stopped');
  t.equal(await pullAll(server, blobs), blobs.length, 'many at once get everything as well');
  await until(async () => (await filesOf(store)).unfinished.length === 0, 'the end of the downloads');
  server.child.kill('SIGTERM');
  t.equal(await server.exit, 0);
  // What could not get its name may stand in the books until its turn comes; what has one is in them.
  const books = booksOf(open(t, store));
  for (const [digest, bytes] of await sizesOf(store)) t.equal(books.get(digest), bytes);
});
