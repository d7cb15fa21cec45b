import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import { createMemoryTier } from '../../src/cache/memory.ts';
import { keyOf } from '../../src/cache/s3-tier.ts';
import type { GrowingTier, Store, Tier, TierName } from '../../src/cache/tier.ts';
import { createStore } from '../../src/cache/tiers.ts';
import type { FarTier, TieredStore } from '../../src/cache/tiers.ts';
import { digestOf, matches } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { tierContract } from '../contracts/tier.ts';
import { filesOf, until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { openTestS3Tier, startS3 } from '../fixtures/s3.ts';
import type { TestS3 } from '../fixtures/s3.ts';

const maxMemoryBlobBytes = 10_000;
const small = noise('small', maxMemoryBlobBytes);
const large = noise('large', maxMemoryBlobBytes + 1);

t.setTimeout(60_000);

interface Stage {
  readonly path: string;
  readonly disk: GrowingTier;
  readonly store: TieredStore;
  readonly trouble: [tier: string, error: unknown][];
  readonly skips: TierName[];
}

/** Memory and disk of this machine, before tiers that are farther away. */
async function prepare(t: Teardown, far: readonly FarTier[], path?: string): Promise<Stage> {
  const folder = path ?? (await temporaryFolder(t));
  const disk = await createDiskTier({ path: folder, maxVerified: 100, maxBufferBytes: 1e7, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => disk.close());
  const trouble: Stage['trouble'] = [];
  const skips: TierName[] = [];
  const store = createStore({
    memory: createMemoryTier({ maxBytes: 1e6, maxBlobBytes: maxMemoryBlobBytes }),
    disk,
    far,
    maxMemoryBlobBytes,
    onTrouble: (...what) => trouble.push(what),
    onSkip: (tier) => skips.push(tier),
  });
  t.teardown(() => store.close());
  return { path: folder, disk, store, trouble, skips };
}

async function stateOf(store: Store, bytes: Buffer): Promise<string | undefined> {
  const blob = await store.open(digestOf(bytes));
  await blob?.close();
  return blob?.state;
}

interface Far extends FarTier {
  /** Its folder. */
  readonly path: string;
}

/** A real tier that is farther away under a name: another disk. */
async function farDisk(t: Teardown, name: TierName, isAwaited = false): Promise<Far> {
  const path = await temporaryFolder(t);
  const disk = await createDiskTier({ path, maxVerified: 100, maxBufferBytes: 1e7, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => disk.close());
  const open = async (digest: Digest) => {
    const blob = await disk.open(digest);
    return blob && { ...blob, state: `hit-${name}` as const };
  };
  return { path, isAwaited, tier: { ...disk, name, open } };
}

async function farS3(t: Teardown): Promise<{ s3: TestS3; far: FarTier }> {
  const s3 = await startS3(t);
  const { tier } = await openTestS3Tier(t, s3, { stallMs: 600 });
  return { s3, far: { tier, isAwaited: false } };
}

function putInto({ tier }: FarTier, bytes: Buffer): Promise<void> {
  return tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

async function isThere(tier: Tier, digest: Digest): Promise<boolean> {
  const blob = await tier.open(digest);
  await blob?.close();
  return blob !== undefined;
}

async function isIn({ tier }: FarTier, bytes: Buffer): Promise<boolean> {
  const blob = await tier.open(digestOf(bytes));
  return blob !== undefined && (await readAll(blob)).equals(bytes);
}

/** The stack as one tier: what is not near is looked for far away, and `isFar` leaves it there alone. */
function asTier({ store, disk }: Stage, far: Tier, isFar: boolean): Tier {
  return {
    name: isFar ? far.name : disk.name,
    open: async (digest) => (await store.open(digest)) ?? store.far(digest),
    has: async (digest) => (await store.locate(digest))?.bytes,
    async put(digest, blob) {
      const bytes = await readAll(blob);
      if (!matches(bytes, digest)) throw new Error(`content does not hash to ${digest}`);
      await store.put(digest, bytes);
      // A copy may fail, or be let go, where others put the same at once.
      while (!(await isThere(far, digest))) {
        store.spread(digest);
        await store.close();
      }
      if (isFar) await disk.delete(digest);
    },
    delete: async (digest) => {
      for (const tier of [disk, far]) await tier.delete(digest);
    },
  };
}

for (const isFar of [false, true]) {
  void t.test(`store: keeps to the contract of tiers, ${isFar ? 'far away' : 'near'}`, async (t) => {
    const trouble: Stage['trouble'] = [];
    await tierContract(t, async (t) => {
      const far = await farDisk(t, 's3');
      const stage = await prepare(t, [far]);
      t.teardown(() => trouble.push(...stage.trouble));
      const litter = async () => [...(await filesOf(stage.path)).unfinished, ...(await filesOf(far.path)).unfinished];
      return { tier: asTier(stage, far.tier, isFar), litter };
    });
    // Two at once may put it in the place of what is being copied: a copy less.
    t.same(
      trouble.filter(([, error]) => !/was replaced while it was read/.test(String(error))),
      [],
    );
  });
}

void t.test('store: what is near is never asked for far away, what is far is no part of it', async (t) => {
  const [redis, s3] = [await farDisk(t, 'redis'), await farDisk(t, 's3')];
  const { store } = await prepare(t, [redis, s3]);
  await putInto(s3, large);
  t.equal(await store.open(digestOf(large)), undefined);
  t.same(await store.locate(digestOf(large)), { tier: 's3', bytes: large.length });
  const found = await store.far(digestOf(large));
  t.equal(found!.state, 'hit-s3');
  t.ok((await readAll(found!)).equals(large));
  await putInto(redis, large);
  const nearer = await store.far(digestOf(large));
  t.equal(nearer!.state, 'hit-redis', 'the nearest first');
  await nearer!.close();
  const other = await store.far(digestOf(large), new Set(['hit-redis']));
  t.equal(other!.state, 'hit-s3', 'but for one that had its chance');
  await other!.close();
  t.equal(await store.far(digestOf(large), new Set(['hit-redis', 'hit-s3'])), undefined);
});

void t.test('store: what is small comes up from far away, into memory and onto the disk', async (t) => {
  const far = await farDisk(t, 'redis');
  const stage = await prepare(t, [far]);
  const { store } = stage;
  await putInto(far, small);
  t.equal(await store.read(digestOf(small), small.length - 1), undefined, 'what is too large stays where it is');
  t.equal(await store.open(digestOf(small)), undefined);
  const read = await store.read(digestOf(small), small.length);
  t.match(read, { state: 'hit-redis' });
  t.ok(read!.bytes.equals(small));
  t.match(await store.read(digestOf(small), small.length), { state: 'hit-memory' });
  t.equal(await stateOf((await prepare(t, [], stage.path)).store, small), 'hit-disk');
});

void t.test('store: copies go to what is farther away behind the answer, but for those that are awaited', async (t) => {
  const gate = Promise.withResolvers<void>();
  const [redis, s3] = [await farDisk(t, 'redis', true), await farDisk(t, 's3')];
  const held: Tier = { ...s3.tier, put: (digest, blob) => gate.promise.then(() => s3.tier.put(digest, blob)) };
  const { store, trouble } = await prepare(t, [redis, { tier: held, isAwaited: false }]);
  await store.put(digestOf(small), small);
  t.ok(await isIn(redis, small), 'there with the answer');
  t.notOk(await isIn(s3, small), 'not yet');
  const partial = await store.begin(digestOf(large));
  await partial!.append([large]);
  await partial!.commit(digestOf(large));
  await partial!.close();
  store.spread(digestOf(large));
  gate.resolve();
  for (const bytes of [small, large]) await until(() => isIn(s3, bytes), 'the copy');
  t.ok(await isIn(redis, large));
  await store.close();
  t.same(trouble, []);
});

void t.test('store: a far tier that is silent is passed by, told once and then counted', async (t) => {
  const [{ s3, far }, next] = [await farS3(t), await farDisk(t, 'redis')];
  const { store, trouble, skips } = await prepare(t, [far, next]);
  await putInto(next, small);
  await putInto(next, large);
  s3.fault = () => 'hang';
  const started = performance.now();
  const found = await store.far(digestOf(large));
  const ms = performance.now() - started;
  t.equal(found!.state, 'hit-redis');
  t.ok((await readAll(found!)).equals(large));
  t.ok(ms >= 599 && ms < 3000, `after ${ms} ms`);
  const again = performance.now();
  t.match(await store.read(digestOf(small), 1e6), { state: 'hit-redis' });
  for (let at = 0; at < 20; at++) await (await store.far(digestOf(large)))!.close();
  await store.distrust(digestOf(Buffer.from('other')));
  t.ok(performance.now() - again < 600, 'nobody waits for it any more');
  t.same(trouble, []);
  t.same([...new Set(skips)], ['s3']);
  t.equal(skips.length, 23);
});

void t.test('store: a far tier that is broken is told each time, and the next one answers', async (t) => {
  const [{ s3, far }, next] = [await farS3(t), await farDisk(t, 'redis')];
  const { store, trouble, skips } = await prepare(t, [far, next]);
  await putInto(next, small);
  s3.fault = () => ({ status: 400, code: 'InvalidRequest' });
  await (await store.far(digestOf(small)))!.close();
  t.match(await store.read(digestOf(small), 1e6), { state: 'hit-redis' });
  t.same(
    trouble.map(([tier]) => tier),
    ['s3', 's3'],
  );
  t.same(skips, []);
});

void t.test('store: a small copy far away that is not what it should be is a miss, and goes', async (t) => {
  const [{ s3, far }, next] = [await farS3(t), await farDisk(t, 'redis')];
  const { store, trouble } = await prepare(t, [far, next]);
  const key = keyOf('', digestOf(small));
  for (const wrong of [Buffer.alloc(small.length), small.subarray(1), Buffer.alloc(0)]) {
    await s3.put(key, wrong);
    trouble.length = 0;
    t.equal(await store.read(digestOf(small), 1e6), undefined);
    t.match(trouble, [['s3', { message: `s3 holds other content than that of ${digestOf(small)}` }]]);
    t.same(await s3.keys(), []);
  }
  await s3.put(key, Buffer.alloc(small.length));
  await putInto(next, small);
  t.match(await store.read(digestOf(small), 1e6), { state: 'hit-redis' }, 'where another has the right one');
  await far.tier.put(digestOf(large), bytesBlob(large, 'miss'));
  await store.put(digestOf(large), large);
  await store.distrust(digestOf(large));
  t.notOk(await isIn(far, large), 'whose content was not right is asked no more');
  t.equal(await stateOf(store, large), 'hit-disk', 'which says nothing of what is near');
});
