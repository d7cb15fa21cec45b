import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { bytesBlob } from '../../src/cache/bytes.ts';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import type { DiskTier } from '../../src/cache/disk.ts';
import { reconcile } from '../../src/cache/reconcile.ts';
import { algorithmOf, digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Algorithm, Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

interface Stage {
  readonly path: string;
  readonly catalog: Catalog;
  readonly disk: DiskTier;
  run(signal?: AbortSignal): Promise<number>;
}

async function prepare(t: Teardown): Promise<Stage> {
  const path = await temporaryFolder(t);
  let time = 0;
  const catalog = openCatalog(join(path, 'catalog.sqlite'), () => ++time);
  const disk = await createDiskTier({
    path,
    maxVerified: 1000,
    maxBufferBytes: 1e7,
    maxLeftoverBytes: 2 ** 30,
    books: {
      adding: catalog.add,
      added: () => undefined,
      used: catalog.used,
      removed: catalog.remove,
      full: () => undefined,
    },
  });
  t.teardown(async () => {
    await disk.close();
    catalog.close();
  });
  return { path, catalog, disk, run: (signal = new AbortController().signal) => reconcile(path, catalog, signal) };
}

/** Lays a blob into the store, as someone who copies one in, or a version without books. */
async function lay({ path }: Stage, at: number, bytes: number, algorithm: Algorithm = 'sha256'): Promise<Digest> {
  const content = noise(`reconcile ${at}`, bytes);
  const digest = digestOf(content, algorithm);
  await writeFile(join(path, 'blobs', algorithmOf(digest), hexOf(digest)), content);
  return digest;
}

function name(text: string): string {
  return hexOf(digestOf(Buffer.from(text)));
}

function booksOf({ catalog }: Stage): [Digest, number][] {
  return catalog.entries('', 10_000).map(({ digest, bytes }) => [digest, bytes]);
}

void t.test('reconcile: what lies in the store and in no books is in them after', async (t) => {
  const stage = await prepare(t);
  t.equal(await stage.run(), 0);
  const laid = new Map<Digest, number>();
  for (let at = 0; at < 40; at++) {
    laid.set(await lay(stage, at, at * 10, at % 3 === 0 ? 'sha512' : 'sha256'), at * 10);
  }
  t.equal(await stage.run(), 40);
  t.same(new Map(booksOf(stage)), laid);
  t.equal(stage.catalog.totalBytes(), (40 * 39 * 10) / 2);
  t.equal(await stage.run(), 0, 'once');
});

void t.test('reconcile: what is in the books stays there as it is, in the order of its use', async (t) => {
  const stage = await prepare(t);
  const kept = [1, 2, 3].map((at) => noise(`reconcile kept ${at}`, 100));
  for (const bytes of kept) await stage.disk.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
  stage.catalog.used(digestOf(kept[0]!));
  const found = await lay(stage, 1, 5);
  t.equal(await stage.run(), 1);
  t.same(
    stage.catalog.oldest(10).map(({ digest }) => digest),
    [digestOf(kept[1]!), digestOf(kept[2]!), digestOf(kept[0]!), found],
    'what is found counts as new: when it was used nobody knows',
  );
  t.equal(stage.catalog.totalBytes(), 305);
});

void t.test('reconcile: what is no blob is left out, and left alone', async (t) => {
  const stage = await prepare(t);
  const folder = join(stage.path, 'blobs/sha256');
  const outside = join(stage.path, 'outside');
  await writeFile(outside, noise('outside', 1_000_000));
  await writeFile(join(folder, 'notes.txt'), 'notes');
  await writeFile(join(folder, name('upper').toUpperCase()), 'upper');
  await writeFile(join(folder, `${name('part')}.part`), 'part');
  await writeFile(join(folder, hexOf(digestOf(Buffer.from('long'), 'sha512'))), 'of another algorithm');
  await mkdir(join(folder, name('folder')));
  await symlink(outside, join(folder, name('link')));
  await symlink(join(stage.path, 'nothing'), join(folder, name('dead link')));
  await writeFile(join(stage.path, 'blobs', name('beside')), 'beside');
  const before = await readdir(folder);
  t.equal(await stage.run(), 0);
  t.same(booksOf(stage), []);
  t.equal(stage.catalog.totalBytes(), 0);
  t.same(await readdir(folder), before);
});

void t.test('reconcile: ends when it is told to', async (t) => {
  const stage = await prepare(t);
  for (let at = 0; at < 300; at++) await lay(stage, at, 10);
  const stopping = new AbortController();
  const running = stage.run(stopping.signal);
  while (booksOf(stage).length < 20) await new Promise(setImmediate);
  stopping.abort();
  const found = await running;
  t.ok(found >= 20 && found < 300, `${found} of 300`);
  t.equal(booksOf(stage).length, found);
  t.equal(await stage.run(), 300 - found, 'the rest is found the next time');
});

void t.test('reconcile: while blobs come and go, the books are those of the store', async (t) => {
  const stage = await prepare(t);
  for (let at = 0; at < 400; at++) await lay(stage, at, 10);
  const coming = async (lane: number) => {
    for (let at = 0; at < 40; at++) {
      const bytes = noise(`reconcile lane ${lane} ${at}`, 100);
      await stage.disk.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
      if (at % 2 === 0) await stage.disk.delete(digestOf(bytes));
    }
  };
  await Promise.all([stage.run(), ...[1, 2, 3, 4].map(coming), stage.run()]);
  const names = await readdir(join(stage.path, 'blobs/sha256'));
  t.equal(names.length, 400 + 4 * 20);
  t.same(
    booksOf(stage).map(([digest]) => hexOf(digest)),
    names.toSorted(),
  );
  t.equal(stage.catalog.totalBytes(), 4000 + 4 * 20 * 100);
});

void t.test('reconcile: others get their turns while it runs', async (t) => {
  const stage = await prepare(t);
  for (let at = 0; at < 500; at++) await lay(stage, at, 10);
  const watch = { turns: 0, isOver: false };
  const running = stage.run().finally(() => (watch.isOver = true));
  while (!watch.isOver) {
    await new Promise(setImmediate);
    watch.turns++;
  }
  t.equal(await running, 500);
  t.ok(watch.turns > 400, `${watch.turns} turns`);
});
