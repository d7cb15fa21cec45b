import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import { createMemoryTier } from '../../src/cache/memory.ts';
import { createSpreader } from '../../src/cache/spreader.ts';
import type { Spreader } from '../../src/cache/spreader.ts';
import type { Blob, Tier } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const blobs = Array.from({ length: 1100 }, (_, at) => noise(`spread ${at}`, 10));
const digests = blobs.map((bytes) => digestOf(bytes));

interface FarTier extends Tier {
  /** The places of what was put, in the order that it was begun in. */
  readonly puts: number[];
  /** Puts at once, at most so far. */
  mostAtOnce: number;
  /** Holds up all puts until it is called. */
  release(): void;
  fails: 'open' | 'put' | undefined;
}

/** A memory, in the place of a tier that is farther away and slower. */
function farTier({ isHeld = false } = {}): FarTier {
  const memory = createMemoryTier({ maxBytes: 1e6, maxBlobBytes: 1e6 });
  const { promise: gate, resolve: release } = Promise.withResolvers<void>();
  if (!isHeld) release();
  let atOnce = 0;
  const tier: FarTier = {
    name: 'redis',
    puts: [],
    mostAtOnce: 0,
    fails: undefined,
    release,
    async open(digest) {
      if (tier.fails === 'open') throw new Error('open fails');
      return memory.open(digest);
    },
    async has(digest) {
      if (tier.fails === 'open') throw new Error('open fails');
      return memory.has(digest);
    },
    async put(digest, blob) {
      tier.puts.push(digests.indexOf(digest));
      tier.mostAtOnce = Math.max(tier.mostAtOnce, ++atOnce);
      await gate;
      atOnce--;
      if (tier.fails !== 'put') return memory.put(digest, blob);
      await blob.close();
      throw new Error('put fails');
    },
    delete: (digest) => memory.delete(digest),
  };
  return tier;
}

interface Stage {
  readonly spreader: Spreader;
  readonly disk: Tier;
  readonly trouble: unknown[];
  /** Blobs of the disk that were opened and not closed. */
  open(): number;
}

async function prepare(t: Teardown, ...tiers: Tier[]): Promise<Stage> {
  const disk = await createDiskTier({
    path: await temporaryFolder(t),
    maxVerified: 2000,
    maxBufferBytes: 1e7,
    maxLeftoverBytes: 2 ** 30,
  });
  t.teardown(() => disk.close());
  const trouble: unknown[] = [];
  let opened = 0;
  const counting = (blob: Blob): Blob => {
    opened++;
    return { ...blob, close: () => (opened--, blob.close()) };
  };
  const counted: Tier = { ...disk, open: async (digest) => disk.open(digest).then((blob) => blob && counting(blob)) };
  const spreader = createSpreader({
    disk: counted,
    tiers,
    async attempt(_tier, action) {
      return action().catch((error: unknown) => void trouble.push(error));
    },
  });
  return { spreader, disk, trouble, open: () => opened };
}

async function land({ disk }: Stage, count: number): Promise<void> {
  const put = (at: number) => disk.put(digests[at]!, bytesBlob(blobs[at]!, 'miss'));
  for (let at = 0; at < count; at += 50) {
    await Promise.all(Array.from({ length: Math.min(50, count - at) }, (_, next) => put(at + next)));
  }
}

async function has(tier: Tier, at: number): Promise<boolean> {
  const blob = await tier.open(digests[at]!);
  return blob !== undefined && (await readAll(blob)).equals(blobs[at]!);
}

void t.test('spread: what is on the disk comes into every tier', async (t) => {
  const [one, other] = [farTier(), farTier()];
  const stage = await prepare(t, one, other);
  await land(stage, 5);
  for (const digest of digests.slice(0, 5)) stage.spreader.spread(digest);
  await until(() => other.puts.length === 5, 'the copies');
  await stage.spreader.close();
  for (const tier of [one, other]) {
    t.same(
      tier.puts.toSorted((a, b) => a - b),
      [0, 1, 2, 3, 4],
    );
    for (let at = 0; at < 5; at++) t.ok(await has(tier, at));
  }
  t.same(stage.trouble, []);
  t.equal(stage.open(), 0);
});

void t.test('spread: what a tier has already it is not given again', async (t) => {
  const [one, other] = [farTier(), farTier()];
  const stage = await prepare(t, one, other);
  await land(stage, 2);
  await one.put(digests[0]!, bytesBlob(blobs[0]!, 'miss'));
  for (const at of [0, 1]) stage.spreader.spread(digests[at]!);
  await until(() => other.puts.length === 2, 'the copies');
  await stage.spreader.close();
  t.same(one.puts, [0, 1], 'of which the first is its own');
  t.equal(stage.open(), 0);
});

void t.test('spread: what has left the disk is passed over', async (t) => {
  const far = farTier();
  const stage = await prepare(t, far);
  await land(stage, 1);
  for (const at of [7, 0]) stage.spreader.spread(digests[at]!);
  await until(() => far.puts.length === 1, 'the copy');
  await stage.spreader.close();
  t.same(far.puts, [0]);
  t.same(stage.trouble, []);
});

void t.test('spread: two at once, and each of what waits once', async (t) => {
  const far = farTier({ isHeld: true });
  const stage = await prepare(t, far);
  await land(stage, 20);
  for (let round = 0; round < 3; round++) for (const digest of digests.slice(0, 20)) stage.spreader.spread(digest);
  await until(() => far.puts.length === 2, 'the first two');
  far.release();
  await until(() => far.puts.length >= 20, 'the rest');
  await stage.spreader.close();
  t.equal(far.mostAtOnce, 2);
  t.same(
    far.puts.toSorted((a, b) => a - b),
    Array.from({ length: 20 }, (_, at) => at),
  );
});

void t.test('spread: what waits beyond a bound is let go', async (t) => {
  const far = farTier({ isHeld: true });
  const stage = await prepare(t, far);
  await land(stage, 1100);
  for (const digest of digests) stage.spreader.spread(digest);
  far.release();
  await until(() => far.puts.length >= 1002, 'all but those');
  await stage.spreader.close();
  t.equal(far.puts.length, 1002);
  stage.spreader.spread(digests[1099]!);
  await until(() => far.puts.length === 1003, 'one that comes later');
  await stage.spreader.close();
});

void t.test("spread: a tier that fails is in nobody's way", async (t) => {
  for (const fails of ['open', 'put'] as const) {
    const [one, other] = [farTier(), farTier()];
    one.fails = fails;
    const stage = await prepare(t, one, other);
    await land(stage, 10);
    for (const digest of digests.slice(0, 10)) stage.spreader.spread(digest);
    await until(() => other.puts.length === 10, 'the copies in the other');
    await stage.spreader.close();
    for (let at = 0; at < 10; at++) t.ok(await has(other, at));
    t.equal(stage.trouble.length, 10);
    t.match(stage.trouble[0], { message: `${fails} fails` });
    t.equal(stage.open(), 0);
  }
});

void t.test('close: waits for what has begun, and forgets the rest', async (t) => {
  const far = farTier({ isHeld: true });
  const stage = await prepare(t, far);
  await land(stage, 10);
  for (const digest of digests.slice(0, 10)) stage.spreader.spread(digest);
  await until(() => far.puts.length === 2, 'the first two');
  let isClosed = false;
  const closing = stage.spreader.close().then(() => (isClosed = true));
  await new Promise(setImmediate);
  t.equal(isClosed, false);
  far.release();
  await closing;
  t.same(
    far.puts.toSorted((a, b) => a - b),
    [0, 1],
  );
  for (const at of [0, 1]) t.ok(await has(far, at));
  t.equal(stage.open(), 0);
});

void t.test('spread: without any tier the disk is left alone', async (t) => {
  const stage = await prepare(t);
  await land(stage, 1);
  stage.spreader.spread(digests[0]!);
  await stage.spreader.close();
  t.equal(stage.open(), 0);
});
