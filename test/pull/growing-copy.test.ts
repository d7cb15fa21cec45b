import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { createDiskTier } from '../../src/cache/disk.ts';
import type { Partial } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { createGrowingCopy } from '../../src/pull/growing-copy.ts';
import type { GrowingCopy } from '../../src/pull/growing-copy.ts';
import { createWindow } from '../../src/pull/window.ts';
import { filesOf } from '../fixtures/downloads.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const pieces = [Buffer.from('some '), Buffer.from('bytes '), Buffer.from('more')];
const whole = Buffer.concat(pieces);
const digest = digestOf(whole);

interface Stage {
  readonly copy: GrowingCopy;
  readonly store: string;
  readonly troubles: unknown[];
  come(...chunks: Buffer[]): void;
}

/** A copy on a disk of its own. @param how opening goes otherwise than at once */
async function stage(
  t: Test,
  how: (open: () => Promise<Partial>) => Promise<Partial | undefined> = (open) => open(),
): Promise<Stage> {
  const store = await temporaryFolder(t);
  const disk = await createDiskTier({
    path: store,
    maxVerified: 10,
    maxBufferBytes: 1024 * 1024,
    maxLeftoverBytes: 0,
  });
  t.teardown(() => disk.close());
  const window = createWindow();
  const troubles: unknown[] = [];
  const copy = createGrowingCopy({
    open: () => how(() => disk.begin(digest)),
    from: (position) => window.from(position),
    onChange: () => undefined,
    onTrouble: (error) => troubles.push(error),
  });
  const come = (...chunks: Buffer[]) => {
    for (const chunk of chunks) window.push(chunk);
    copy.grow();
  };
  return { copy, store, troubles, come };
}

void t.test('what came while there was no place yet is in the copy', async (t) => {
  const gate = Promise.withResolvers<void>();
  const { copy, store, come } = await stage(t, (open) => gate.promise.then(open));
  copy.begin();
  t.ok(copy.isKept);
  come(pieces[0]!);
  come(pieces[1]!);
  t.equal(copy.flushedBytes, 0);
  t.equal(copy.reader(), undefined);
  gate.resolve();
  await copy.settled();
  t.equal(copy.flushedBytes, pieces[0]!.length + pieces[1]!.length);
  come(pieces[2]!);
  await copy.settled();
  const reader = copy.reader()!;
  t.same(await reader.read(0, whole.length), whole);
  reader.close();
  await copy.commit(digest);
  await copy.close({ isForLater: false });
  t.same((await filesOf(store)).blobs, [join(store, 'blobs', ...digest.split(':'))]);
  t.same((await filesOf(store)).unfinished, []);
});

void t.test('growing by nothing ends nothing', async (t) => {
  const { copy, come } = await stage(t);
  copy.begin();
  await copy.settled();
  copy.grow();
  await copy.settled();
  copy.grow();
  come(...pieces);
  await copy.settled();
  t.equal(copy.flushedBytes, whole.length);
  await copy.close({ isForLater: false });
});

void t.test('nothing at all is a copy as well', async (t) => {
  const { copy, store } = await stage(t);
  copy.begin();
  await copy.settled();
  t.equal((await filesOf(store)).unfinished.length, 1);
  await copy.close({ isForLater: false });
  t.same((await filesOf(store)).unfinished, []);
});

void t.test('before it begins, nothing is kept', async (t) => {
  const { copy, store, come } = await stage(t);
  come(...pieces);
  await copy.settled();
  t.notOk(copy.isKept);
  await copy.commit(digest);
  await copy.close({ isForLater: false });
  t.same(await filesOf(store), { blobs: [], unfinished: [] });
});

void t.test('no tier takes it: known as soon as there is no place', async (t) => {
  const { copy, come, troubles } = await stage(t, () => Promise.resolve(undefined));
  copy.begin();
  come(...pieces);
  await copy.settled();
  t.notOk(copy.isKept);
  t.equal(copy.flushedBytes, 0);
  t.same(troubles, []);
});

void t.test('a tier that fails: told once, what was written stays readable, and it gets no name', async (t) => {
  let isFailing = false;
  const { copy, store, come, troubles } = await stage(t, async (open) => {
    const partial = await open();
    return {
      ...partial,
      append: (chunks) => (isFailing ? Promise.reject(new Error('no')) : partial.append(chunks)),
    };
  });
  copy.begin();
  come(pieces[0]!);
  await copy.settled();
  isFailing = true;
  come(pieces[1]!);
  await copy.settled();
  come(pieces[2]!);
  await copy.settled();
  t.equal(troubles.length, 1);
  t.notOk(copy.isKept);
  t.equal(copy.flushedBytes, pieces[0]!.length);
  const reader = copy.reader()!;
  t.same(await reader.read(0, pieces[0]!.length), pieces[0]);
  reader.close();
  await copy.commit(digest);
  await copy.close({ isForLater: false });
  t.same(await filesOf(store), { blobs: [], unfinished: [] });
});
