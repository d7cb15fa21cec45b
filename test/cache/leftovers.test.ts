import { existsSync } from 'node:fs';
import { readFile, readdir, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createDiskTier } from '../../src/cache/disk.ts';
import type { DiskTier } from '../../src/cache/disk.ts';
import { openLeftovers } from '../../src/cache/leftovers.ts';
import type { Leftovers } from '../../src/cache/leftovers.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { processBlob, processDigest, startStoreProcess } from '../fixtures/store-process.ts';

const kib = 1024;
const dayMs = 86_400_000;
const nowMs = Date.parse('2026-06-01');
const digest = (of: number): Digest => digestOf(Buffer.from(`blob ${of}`));

interface Stage {
  readonly path: string;
  readonly folder: string;
  readonly leftovers: Leftovers;
  /** Leaves so many bytes of a blob, written so many seconds before now. */
  leave(of: number, bytes: Buffer | number, secondsAgo?: number): Promise<void>;
}

async function prepare(t: Teardown, maxBytes = 2 ** 30): Promise<Stage> {
  const path = await temporaryFolder(t);
  const folder = join(path, 'leftovers');
  const leftovers = await openLeftovers(folder, maxBytes, () => nowMs);
  let count = 0;
  return {
    path,
    folder,
    leftovers,
    async leave(of, bytes, secondsAgo = 0) {
      const file = join(path, `unfinished ${count++}`);
      await writeFile(file, typeof bytes === 'number' ? noise(`left of ${of}`, bytes) : bytes);
      await utimes(file, nowMs / 1000 - secondsAgo, nowMs / 1000 - secondsAgo);
      await leftovers.keep(file, digest(of));
      if (existsSync(file)) throw new Error('what was kept is still where it was');
    },
  };
}

/** Which blobs something is left of. */
async function left({ folder }: Stage, of = 20): Promise<number[]> {
  const names = new Set(await readdir(folder));
  return Array.from({ length: of }, (_, at) => at).filter((at) => names.has(digest(at).replace(':', '-')));
}

void t.test('leftovers: what is kept is given back as it was, to one taker alone', async (t) => {
  const stage = await prepare(t);
  const bytes = noise('kept', 300 * kib);
  await stage.leave(1, bytes);
  const taken = await Promise.all(
    Array.from({ length: 10 }, (_, at) => stage.leftovers.take(digest(1), join(stage.path, `taken ${at}`))),
  );
  t.equal(taken.filter(Boolean).length, 1);
  t.ok((await readFile(join(stage.path, `taken ${taken.indexOf(true)}`))).equals(bytes));
  t.same(await readdir(stage.folder), []);
  t.equal(await stage.leftovers.take(digest(1), join(stage.path, 'again')), false);
  t.equal(await stage.leftovers.take(digest(2), join(stage.path, 'never')), false);
});

void t.test('leftovers: small ones are not worth it', async (t) => {
  const stage = await prepare(t);
  await stage.leave(1, 256 * kib - 1);
  await stage.leave(2, 256 * kib);
  await stage.leave(3, 0);
  t.same(await left(stage), [2]);
});

void t.test('leftovers: of two of one blob the larger stays, whichever came first', async (t) => {
  for (const [first, second] of [
    [300, 500],
    [500, 300],
  ] as const) {
    const stage = await prepare(t);
    await stage.leave(1, first * kib);
    await stage.leave(1, second * kib);
    t.same(await left(stage), [1]);
    t.equal((await stat(join(stage.folder, digest(1).replace(':', '-')))).size, 500 * kib);
  }
});

void t.test('leftovers: within the bound all stay, beyond it the oldest go', async (t) => {
  const stage = await prepare(t, 3 * 300 * kib);
  for (const [at, secondsAgo] of [
    [1, 20],
    [2, 30],
    [3, 10],
  ] as const) {
    await stage.leave(at, 300 * kib, secondsAgo);
  }
  t.same(await left(stage), [1, 2, 3], 'to the last byte');
  await stage.leave(4, 300 * kib, 0);
  t.same(await left(stage), [1, 3, 4]);
});

void t.test('leftovers: one that alone is too much does not take the others with it', async (t) => {
  const stage = await prepare(t, 700 * kib);
  await stage.leave(1, 300 * kib, 10);
  await stage.leave(2, 300 * kib, 5);
  await stage.leave(3, 701 * kib, 0);
  t.same(await left(stage), [1, 2]);
});

void t.test('leftovers: no bytes are allowed, no bytes are kept', async (t) => {
  const stage = await prepare(t, 0);
  await stage.leave(1, 300 * kib);
  t.same(await left(stage), []);
});

void t.test('leftovers: a week later nobody goes on with them, at the start and later', async (t) => {
  const stage = await prepare(t);
  await stage.leave(1, 300 * kib, 6.9 * 86_400);
  await stage.leave(2, 300 * kib, 7.1 * 86_400);
  t.same(await left(stage), [1]);
  await openLeftovers(stage.folder, 2 ** 30, () => nowMs + dayMs);
  t.same(await left(stage), []);
});

void t.test('leftovers: those of an earlier life are bounded at the start as well', async (t) => {
  const stage = await prepare(t);
  for (const at of [1, 2, 3]) await stage.leave(at, 300 * kib, 100 - at);
  await openLeftovers(stage.folder, 700 * kib, () => nowMs);
  t.same(await left(stage), [2, 3]);
});

void t.test('leftovers: cleared, nothing is left, and it goes on', async (t) => {
  const stage = await prepare(t);
  await stage.leave(1, 300 * kib);
  await stage.leftovers.clear();
  t.same(await readdir(stage.folder), []);
  await stage.leave(2, 300 * kib);
  t.same(await left(stage), [2]);
});

void t.test('leftovers: what cannot be kept is no trouble', async (t) => {
  const stage = await prepare(t);
  await stage.leftovers.keep(join(stage.path, 'was never there'), digest(1));
  t.same(await left(stage), []);
});

const bytes = noise('a blob of a tier', 700 * kib);
const blobDigest = digestOf(bytes);

async function openTier(t: Teardown, path: string): Promise<DiskTier> {
  const tier = await createDiskTier({ path, maxVerified: 10, maxBufferBytes: 2 ** 26, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => tier.close());
  return tier;
}

/** A download that broke off after so many bytes. */
async function breakOff(tier: DiskTier, length: number, isForLater = true): Promise<void> {
  const partial = await tier.begin(blobDigest);
  await partial.append([bytes.subarray(0, length)]);
  await partial.close({ isForLater });
}

void t.test('disk: what one process leaves for later another takes up, to the end', async (t) => {
  const path = await temporaryFolder(t);
  const [one, other] = [await openTier(t, path), await openTier(t, path)];
  await breakOff(one, 400 * kib);
  t.equal(await other.open(blobDigest), undefined, 'it has no name yet');
  const partial = await other.takeUp(blobDigest);
  t.equal(partial?.startBytes, 400 * kib);
  t.equal(await one.takeUp(blobDigest), undefined, 'one alone');
  const reader = partial!.reader();
  t.ok((await reader.read(1000, 5000)).equals(bytes.subarray(1000, 6000)));
  reader.close();
  await partial!.append([bytes.subarray(400 * kib, 500 * kib), bytes.subarray(500 * kib)]);
  await partial!.commit(blobDigest);
  await partial!.close();
  t.ok((await readFile(join(path, 'blobs/sha256', hexOf(blobDigest)))).equals(bytes));
  t.same(await readdir(join(path, 'leftovers')), []);
});

void t.test('disk: what is not for later, or was committed, leaves nothing to take up', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  await breakOff(tier, 400 * kib, false);
  t.equal(await tier.takeUp(blobDigest), undefined);
  const partial = await tier.begin(blobDigest);
  await partial.append([bytes]);
  await partial.commit(blobDigest);
  await partial.close({ isForLater: true });
  t.equal(await tier.takeUp(blobDigest), undefined);
  t.equal(await tier.has(blobDigest), bytes.length);
});

void t.test('disk: what was taken up and breaks off again is left again, farther on', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  await breakOff(tier, 300 * kib);
  const again = await tier.takeUp(blobDigest);
  await again!.append([bytes.subarray(300 * kib, 600 * kib)]);
  await again!.close({ isForLater: true });
  const last = await tier.takeUp(blobDigest);
  t.equal(last?.startBytes, 600 * kib);
  await last!.close();
  t.same(await readdir(join(path, 'leftovers')), []);
});

void t.test('disk: a process that is killed within a download leaves it to the next one', async (t) => {
  const path = await temporaryFolder(t);
  const other = startStoreProcess(t, 'hold', path);
  await other.said('ready');
  const beside = await openTier(t, path);
  t.equal(await beside.takeUp(processDigest), undefined, 'not while it lives');
  other.child.kill('SIGKILL');
  await other.ended;
  const next = await openTier(t, path);
  const partial = await next.takeUp(processDigest);
  t.equal(partial?.startBytes, processBlob.length);
  await partial!.commit(processDigest);
  await partial!.close();
  t.ok((await readFile(join(path, 'blobs/sha256', hexOf(processDigest)))).equals(processBlob));
});

void t.test('disk: a link that lies among the leftovers is not written through, nor read', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  const outside = join(await temporaryFolder(t), 'outside');
  await writeFile(outside, bytes.subarray(0, 300 * kib));
  await symlink(outside, join(path, 'leftovers', blobDigest.replace(':', '-')));
  const partial = await tier.takeUp(blobDigest).catch(() => undefined);
  await partial?.append([bytes.subarray(300 * kib)]);
  await partial?.close();
  t.equal((await stat(outside)).size, 300 * kib, 'what lies outside of the store is as it was');
  t.equal(partial, undefined);
});
