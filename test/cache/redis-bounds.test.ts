import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { createRedisBounds } from '../../src/cache/redis-bounds.ts';
import { createRedisTier } from '../../src/cache/redis-tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { openTestTier } from '../fixtures/redis-tier.ts';
import type { TestRedisTier } from '../fixtures/redis-tier.ts';
import { hasRedis, openTestRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const blobs = Array.from({ length: 40 }, (_, at) => noise(`bounded ${at}`, 100_000));
const digests = blobs.map((bytes) => digestOf(bytes));

/** A clock that goes on by a second with each look, so that the order of uses is the order of their times. */
function ticking(): () => number {
  let ms = 1_800_000_000_000;
  return () => (ms += 1000);
}

function prepare(t: Teardown, maxBytes: number, args: readonly string[] = []): Promise<TestRedisTier> {
  return openTestTier(t, { maxBytes, now: ticking(), args });
}

async function put({ tier }: Pick<TestRedisTier, 'tier'>, at: number): Promise<void> {
  await tier.put(digests[at]!, bytesBlob(blobs[at]!, 'miss'));
}

async function isHere({ tier }: TestRedisTier, at: number): Promise<boolean> {
  const blob = await tier.open(digests[at]!);
  return blob !== undefined && (await readAll(blob)).equals(blobs[at]!);
}

/** The places of those that can be found, without using them. */
function found({ keys }: TestRedisTier): number[] {
  const metas = new Set(keys('narrows:*:blob'));
  return digests.flatMap((digest, at) => (metas.has(`narrows:{${digest}}:blob`) ? [at] : []));
}

function total(sizes: Record<string, number>): number {
  return Object.values(sizes).reduce((sum, size) => sum + size, 0);
}

void t.test('books: what is added stands there once, with its size, the latest last', { skip }, async (t) => {
  const { bounds, books } = await prepare(t, 1e9);
  const [a, b, c] = digests as [Digest, Digest, Digest];
  await bounds.added(a, 10);
  await bounds.added(b, 20);
  await bounds.added(a, 10);
  t.same(books(), { sizes: { [a]: 10, [b]: 20 }, order: [b, a], total: 30 });
  await bounds.added(a, 15);
  t.equal(books().total, 35);
  await bounds.used(b);
  t.same(books().order, [a, b]);
  await bounds.used(c);
  t.same(books().order, [a, b], 'what is not there is not used');
  await bounds.removed(a);
  await bounds.removed(a);
  await bounds.removed(c);
  t.same(books(), { sizes: { [b]: 20 }, order: [b], total: 20 });
});

void t.test(
  'bound: the least recently used go, some more than has to, and soon with all they have',
  { skip },
  async (t) => {
    const stage = await prepare(t, 1_000_000);
    for (let at = 0; at < 10; at++) await put(stage, at);
    t.same(found(stage), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 'up to the bound all are there');
    for (const at of [0, 3]) t.ok(await isHere(stage, at));
    await until(() => stage.books().order.at(-1) === digests[3], 'the use');
    await put(stage, 10);
    t.same(found(stage), [0, 3, 4, 5, 6, 7, 8, 9, 10]);
    t.equal(stage.books().total, 900_000);
    t.same(
      stage.books().order.toSorted(),
      found(stage)
        .map((at) => digests[at]!)
        .toSorted(),
    );
    for (const at of [1, 2]) t.equal(await stage.tier.open(digests[at]!), undefined);
    await until(
      () => stage.keysOf(digests[1]!).chunks.length + stage.keysOf(digests[2]!).chunks.length === 0,
      'the end',
    );
    for (const at of found(stage)) t.ok(await isHere(stage, at));
  },
);

void t.test('56. bound: who reads what is evicted comes to its end', { skip }, async (t) => {
  const stage = await prepare(t, 3_500_000);
  const large = noise('large', 3_000_000);
  await stage.tier.put(digestOf(large), bytesBlob(large, 'miss'));
  const blob = await stage.tier.open(digestOf(large));
  await blob!.read(0, 10);
  for (let at = 0; at < 6; at++) await put(stage, at);
  t.equal(await stage.tier.open(digestOf(large)), undefined);
  t.ok((await readAll(blob!)).equals(large));
});

void t.test(
  'bound: a blob that is larger than all of it does not stay, and takes no room after',
  { skip },
  async (t) => {
    const stage = await prepare(t, 50_000);
    await put(stage, 0);
    t.same(found(stage), []);
    t.same(stage.books(), { sizes: {}, order: [], total: 0 });
  },
);

void t.test('bound: replicas that write and evict at once keep it together', { skip }, async (t) => {
  const stage = await prepare(t, 1_000_000);
  const now = ticking();
  const others = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const { redis } = await openTestRedis(t, stage.server.port, { stallMs: 5000 });
      const bounds = createRedisBounds({ redis, maxBytes: 1_000_000, now });
      return createRedisTier({ redis, bounds, maxBlobBytes: 1e9, ttlMs: 600_000, maxBufferBytes: 16e6 });
    }),
  );
  await Promise.all(blobs.map((_, at) => put({ tier: others[at % 3]! }, at)));
  const { sizes, order, total: sum } = stage.books();
  t.ok(sum <= 1_000_000 && sum >= 700_000, `${sum} bytes`);
  t.equal(total(sizes), sum);
  t.same(Object.keys(sizes).toSorted(), order.toSorted());
  t.same(
    found(stage)
      .map((at) => digests[at]!)
      .toSorted(),
    order.toSorted(),
    'what is in the books is what is there',
  );
  for (const at of found(stage)) t.ok(await isHere(stage, at));
});

void t.test('bound: many writers of the same blobs count each once', { skip }, async (t) => {
  const stage = await prepare(t, 1e9);
  await Promise.all(Array.from({ length: 30 }, (_, at) => put(stage, at % 3)));
  t.same(stage.books().total, 300_000);
  await Promise.all(Array.from({ length: 6 }, (_, at) => stage.tier.delete(digests[at % 3]!)));
  t.same(stage.books(), { sizes: {}, order: [], total: 0 });
});

void t.test('lost books: Redis may lose any of them, and the bound holds again soon after', { skip }, async (t) => {
  for (const lost of ['sizes', 'order', 'total']) {
    const stage = await prepare(t, 1_000_000);
    for (let at = 0; at < 8; at++) await put(stage, at);
    stage.server.cli('DEL', `narrows:{books}:${lost}`);
    for (let at = 8; at < 40; at++) await put(stage, at);
    const { sizes, order, total: sum } = stage.books();
    t.ok(total(sizes) <= 1_000_000, `${lost}: ${total(sizes)} bytes in the books`);
    t.ok(order.length <= 10, `${lost}: ${order.length} blobs in the order`);
    t.ok(sum <= 1_000_000, `${lost}: ${sum}`);
    t.equal(total(sizes), sum, lost);
    t.ok(await isHere(stage, 39));
  }
});

void t.test(
  "books: a name in them that is no digest, or of a blob that is gone, is in nobody's way",
  { skip },
  async (t) => {
    const stage = await prepare(t, 1_000_000);
    for (const name of ['x', '../../etc/passwd', `sha256:${'z'.repeat(64)}`]) {
      stage.server.cli('ZADD', 'narrows:{books}:order', '1', name);
      stage.server.cli('HSET', 'narrows:{books}:sizes', name, '100000');
      stage.server.cli('INCRBY', 'narrows:{books}:total', '100000');
    }
    for (let at = 0; at < 3; at++) await put(stage, at);
    stage.server.cli('DEL', `narrows:{${digests[0]!}}:blob`);
    for (let at = 3; at < 12; at++) await put(stage, at);
    const { order, total: sum } = stage.books();
    t.ok(order.every((name) => digests.includes(name as Digest)));
    t.ok(sum <= 1_000_000);
    t.ok(await isHere(stage, 11));
  },
);

void t.test('away: adding, using and removing fail at once', { skip }, async (t) => {
  const { server, bounds, redis } = await prepare(t, 1e9);
  await server.kill();
  for (const action of [
    () => bounds.added(digests[0]!, 1),
    () => bounds.used(digests[0]!),
    () => bounds.removed(digests[0]!),
  ]) {
    await t.rejects(action(), { name: 'TierAway' });
  }
  t.equal(redis.isAway, true);
});
