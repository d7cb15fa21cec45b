import t from 'tap';
import { sweepS3 } from '../../src/cache/s3-bounds.ts';
import type { S3Store } from '../../src/cache/s3-store.ts';
import { keyOf } from '../../src/cache/s3-tier.ts';
import { readAll } from '../../src/cache/bytes.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { openTestS3, openTestS3Tier, startS3 } from '../fixtures/s3.ts';
import type { TestS3 } from '../fixtures/s3.ts';

const prefix = 'mirror/';
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const bytesEach = 1000;

t.setTimeout(60_000);

interface Stage {
  readonly s3: TestS3;
  readonly store: S3Store;
  /** The sizes of what was told to have gone. */
  readonly evicted: number[];
  sweep(maxBytes: number): Promise<number>;
}

async function prepare(t: Teardown): Promise<Stage> {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const evicted: number[] = [];
  const sweep = (maxBytes: number) =>
    sweepS3({ s3: store, prefix, maxBytes, onEvicted: (bytes) => evicted.push(bytes) });
  return { s3, store, evicted, sweep };
}

interface Placed {
  readonly key: string;
  readonly ageMs: number;
}

/** Blobs of equal size, as the tier names them: in no order of theirs is the age. */
async function place(s3: TestS3, count: number, ageMsOf: (at: number) => number): Promise<Placed[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, at) => {
      const bytes = noise(`s3 bounds ${at}`, bytesEach);
      const key = keyOf(prefix, digestOf(bytes, at % 2 === 0 ? 'sha256' : 'sha512'));
      await s3.put(key, bytes, ageMsOf(at));
      return { key, ageMs: ageMsOf(at) };
    }),
  );
}

function newest(placed: readonly Placed[], count: number): string[] {
  return placed
    .toSorted((one, other) => one.ageMs - other.ageMs)
    .slice(0, count)
    .map(({ key }) => key)
    .toSorted();
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((total, bytes) => total + bytes, 0);
}

void t.test('sweep: what is within its bound stays, to the last byte', async (t) => {
  const { s3, evicted, sweep } = await prepare(t);
  await place(s3, 20, (at) => at * hourMs);
  t.equal(await sweep(20 * bytesEach), 0);
  t.equal((await s3.keys()).length, 20);
  t.same(evicted, []);
  t.same(await sweep(20 * bytesEach - 1), 3 * bytesEach, 'one byte above, and it goes down to nine tenths');
});

void t.test('sweep: of more than the bound, the oldest go until nine tenths are left', async (t) => {
  const { s3, evicted, sweep } = await prepare(t);
  // Not in the order in which they are listed, nor in that of their coming.
  const placed = await place(s3, 40, (at) => ((at * 7) % 40) * hourMs);
  t.equal(await sweep(20 * bytesEach), 22 * bytesEach);
  t.same(await s3.keys(), newest(placed, 18));
  t.equal(sum(evicted), 22 * bytesEach);
  t.equal(await sweep(20 * bytesEach), 0, 'and then it is within');
});

void t.test('sweep: a listing of several pages, and what others have in the bucket stays', async (t) => {
  const { s3, sweep } = await prepare(t);
  const placed = await place(s3, 60, (at) => ((at * 7) % 60) * hourMs);
  const foreign = [
    keyOf('', digestOf(Buffer.from('beside'))),
    keyOf('mirror', digestOf(Buffer.from('a prefix that goes on otherwise'))),
    keyOf('other/', digestOf(Buffer.from('another mirror'))),
    keyOf(`${prefix}blobs/`, digestOf(Buffer.from('deeper'))),
    `${prefix}index.json`,
    `${prefix}blobs/sha256/notes.txt`,
    `${keyOf(prefix, digestOf(Buffer.from('almost')))}.bak`,
    `${prefix}blobs/md5/d41d8cd98f00b204e9800998ecf8427e`,
  ];
  for (const key of foreign) await s3.put(key, noise(key, 100_000), 1000 * hourMs);
  s3.pageSize = 7;
  t.equal(await sweep(30 * bytesEach), 33 * bytesEach, 'nor do they count');
  t.same(await s3.keys(), [...newest(placed, 27), ...foreign].toSorted());
});

void t.test('sweep: what came in one minute goes in any order, and no more of it than has to', async (t) => {
  const { s3, sweep } = await prepare(t);
  await place(s3, 40, () => hourMs);
  t.equal(await sweep(20 * bytesEach), 22 * bytesEach);
  t.equal((await s3.keys()).length, 18);
});

void t.test('sweep: nothing stays that is older than what goes, whatever came in its minute', async (t) => {
  const { s3, sweep } = await prepare(t);
  // The last one in the order of the listing.
  const all = await place(s3, 40, () => hourMs);
  const last = (await s3.keys()).at(-1)!;
  await s3.age(last, 1000 * hourMs);
  t.equal(await sweep(39 * bytesEach), 5 * bytesEach);
  t.notOk((await s3.keys()).includes(last), 'the oldest of all');
  t.equal((await s3.keys()).length, all.length - 5);
});

void t.test('sweep: what was used lately stays', async (t) => {
  const { s3, sweep } = await prepare(t);
  const placed = await place(s3, 20, (at) => (at + 30) * hourMs);
  const used = noise('s3 bounds 19', bytesEach);
  const digest = digestOf(used, 'sha512');
  const { tier, trouble } = await openTestS3Tier(t, s3, { prefix });
  const blob = await tier.open(digest);
  t.ok((await readAll(blob!)).equals(used));
  while (Date.now() - (await s3.changedAtMs(keyOf(prefix, digest))) > hourMs) await tier.open(digest);
  t.same(trouble, []);
  t.equal(await sweep(10 * bytesEach), 11 * bytesEach);
  t.same(await s3.keys(), [...newest(placed, 8), keyOf(prefix, digest)].toSorted(), 'the oldest, but for its use');
});

void t.test('sweep: two at once, as of two replicas, take away what one would', async (t) => {
  for (let round = 0; round < 2; round++) {
    const { s3, sweep } = await prepare(t);
    const placed = await place(s3, 60, (at) => ((at * 7) % 60) * hourMs);
    s3.pageSize = 7;
    const gone = await Promise.all([sweep(30 * bytesEach), sweep(30 * bytesEach)]);
    t.ok(Math.max(...gone) <= 33 * bytesEach && sum(gone) >= 33 * bytesEach, String(gone));
    t.same(await s3.keys(), newest(placed, 27));
  }
});

void t.test('sweep: what comes while it runs stays', async (t) => {
  const { s3, store, sweep } = await prepare(t);
  const placed = await place(s3, 30, (at) => (at + 1) * hourMs);
  s3.pageSize = 5;
  const fresh: string[] = [];
  const sweeping = { isOver: false };
  const swept = sweep(20 * bytesEach).finally(() => (sweeping.isOver = true));
  for (let at = 0; !sweeping.isOver; at++) {
    const bytes = noise(`s3 bounds fresh ${at}`, 100);
    await store.put(keyOf(prefix, digestOf(bytes)), bytes);
    fresh.push(keyOf(prefix, digestOf(bytes)));
  }
  const gone = await swept;
  t.ok(fresh.length > 0, `${fresh.length} came`);
  const left = await s3.keys();
  t.ok(fresh.every((key) => left.includes(key)));
  t.equal(gone, (placed.length + fresh.length - left.length) * bytesEach);
});

void t.test('sweep: a listing that cannot be believed takes nothing away', async (t) => {
  const { s3, evicted, sweep } = await prepare(t);
  await place(s3, 20, (at) => at * hourMs);
  const whole = await (await fetch(`${s3.url}/narrows?list-type=2`)).text();
  const xml = whole.replace(/<IsTruncated>.*?<\/IsTruncated>/, '<IsTruncated>true</IsTruncated>');
  s3.fault = ({ query }) => (query.has('list-type') ? { status: 200, xml } : undefined);
  await t.rejects(sweep(10 * bytesEach), /cut off without a token/);
  t.equal((await s3.keys()).length, 20);
  t.same(evicted, []);
});

void t.test('sweep: what may not be deleted is not told to have gone', async (t) => {
  const { s3, evicted, sweep } = await prepare(t);
  await place(s3, 20, (at) => at * hourMs);
  s3.fault = ({ query }) => (query.has('delete') ? { status: 403, code: 'AccessDenied' } : undefined);
  await t.rejects(sweep(10 * bytesEach), { name: 'TierAway' });
  t.equal((await s3.keys()).length, 20);
  t.same(evicted, []);
});
