import t from 'tap';
import type { Test } from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { digestOfKey, keyOf } from '../../src/cache/s3-tier.ts';
import type { S3TierOptions } from '../../src/cache/s3-tier.ts';
import type { Blob, Tier } from '../../src/cache/tier.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { tierContract } from '../contracts/tier.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { openTestS3Tier, startS3 } from '../fixtures/s3.ts';
import type { S3Asked, TestS3, TestS3Tier } from '../fixtures/s3.ts';

const content = noise('s3', 700_000);
const digest = digestOf(content);
const key = keyOf('', digest);
const hourMs = 3_600_000;

t.setTimeout(60_000);

interface Stage extends TestS3Tier {
  readonly s3: TestS3;
}

interface Over extends Partial<S3TierOptions> {
  readonly server?: TestS3;
}

async function prepare(t: Teardown, { server, ...over }: Over = {}): Promise<Stage> {
  const s3 = server ?? (await startS3(t));
  return { s3, ...(await openTestS3Tier(t, s3, over)) };
}

function put(tier: Tier, bytes = content): Promise<void> {
  return tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

async function opened(t: Teardown, tier: Tier): Promise<Blob> {
  const blob = await tier.open(digest);
  if (!blob) throw new Error('the blob is not here');
  t.teardown(() => blob.close());
  return blob;
}

const isGet = ({ method, query }: S3Asked) => method === 'GET' && !query.has('list-type');
const isPart = ({ method, query }: S3Asked) => method === 'PUT' && query.has('partNumber');
const isEnd = ({ method, query }: S3Asked) => method === 'POST' && query.has('uploadId');

// ---- The contract

/** S3 has no files that live as long as they are open: who jumps after a delete asks for what is no longer there. */
const otherInS3 = 'delete: who is reading reads on to the end';

function butForDeletes(t: Test): Test {
  const test = (name: string, body: (t: Test) => Promise<void>) =>
    t.test(name, { skip: name === otherInS3 && 'who reads on in order has it to the end' }, body);
  return Object.create(t, { test: { value: test } }) as Test;
}

for (const [how, partBytes] of [
  ['in one go', 1e9],
  ['in parts', 300_000],
] as const) {
  void t.test(`s3 tier: keeps to the contract of tiers, uploads ${how}`, async (t) => {
    const server = await startS3(t);
    let count = 0;
    await tierContract(butForDeletes(t), async (t) => {
      const prefix = `contract-${count++}/`;
      const { s3, tier } = await prepare(t, { server, prefix, partBytes });
      return {
        tier,
        litter: async () => {
          const keys = (await s3.keys()).filter((name) => name.startsWith(prefix));
          return [...keys.filter((name) => !digestOfKey(prefix, name)), ...(await s3.uploads())];
        },
      };
    });
    const parts = server.seen.filter(isPart).length;
    t.ok(partBytes < 1e9 ? parts > 100 : parts === 0, `${parts} parts`);
  });
}

void t.test('56. delete: who reads on in order has it to the end, who jumps is told', async (t) => {
  const { tier, s3 } = await prepare(t);
  await put(tier);
  const [one, other] = [await opened(t, tier), await opened(t, tier)];
  for (const blob of [one, other]) await blob.read(0, 1000);
  await tier.delete(digest);
  t.same(await s3.keys(), []);
  let at = 1000;
  while (at < content.length) {
    const piece = await one.read(at, 100_000);
    if (!piece.equals(content.subarray(at, at + piece.length))) t.fail(`wrong at ${at}`);
    at += piece.length;
  }
  t.equal(at, content.length);
  await t.rejects(other.read(0, 1000), { name: 'NoSuchKey' });
});

// ---- Objects

void t.test('keys: a folder for each algorithm, behind the prefix, and back', (t) => {
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const one = digestOf(content, algorithm);
    t.equal(keyOf('a/b/', one), `a/b/blobs/${algorithm}/${hexOf(one)}`);
    t.equal(digestOfKey('a/b/', keyOf('a/b/', one)), one);
    t.equal(digestOfKey('', keyOf('a/b/', one)), undefined);
    t.equal(digestOfKey('', `${keyOf('', one)}/`), undefined);
    t.equal(digestOfKey('', keyOf('', one).toUpperCase()), undefined);
  }
  for (const foreign of ['', 'blobs/', 'blobs/sha256/', 'blobs/sha256/abc', 'other', `x${key}`, `${key}.tmp`]) {
    t.equal(digestOfKey('', foreign), undefined, foreign);
  }
  t.end();
});

void t.test('objects: are the bytes of the blob, under a prefix and for both algorithms', async (t) => {
  const { tier, s3, puts } = await prepare(t, { prefix: 'team a/ä+/', partBytes: 100_000 });
  const long = digestOf(content, 'sha512');
  await put(tier);
  await tier.put(long, bytesBlob(content, 'miss'));
  t.same(await s3.keys(), [keyOf('team a/ä+/', digest), keyOf('team a/ä+/', long)]);
  for (const name of await s3.keys()) t.ok((await s3.read(name)).equals(content));
  t.same(puts, [content.length, content.length]);
  for (const one of [digest, long]) {
    const blob = await tier.open(one);
    t.ok((await readAll(blob!)).equals(content));
    await tier.delete(one);
  }
  t.same(await s3.keys(), []);
});

void t.test('put: what is smaller than the least is declined, and S3 is not asked', async (t) => {
  const { tier, s3, puts } = await prepare(t, { minBlobBytes: content.length });
  s3.seen.length = 0;
  let closes = 0;
  const small = content.subarray(1);
  const blob = { ...bytesBlob(small, 'miss'), close: () => Promise.resolve(void closes++) };
  await tier.put(digestOf(small), blob);
  t.equal(closes, 1);
  t.same([s3.seen, puts], [[], []]);
  await put(tier);
  t.same(await s3.keys(), [key]);
  t.same(puts, [content.length]);
});

// ---- Reading

void t.test('read: in order is one request, and each jump one more, from its place', async (t) => {
  const { tier, s3 } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  s3.seen.length = 0;
  for (const from of [0, 300_000, 1, content.length - 1, 0]) {
    for (let at = from; at < Math.min(from + 200_000, content.length);) {
      const piece = await blob.read(at, 10_000);
      if (!piece.equals(content.subarray(at, at + piece.length))) t.fail(`wrong at ${at}`);
      at += piece.length;
    }
  }
  t.same(
    s3.seen.map(({ headers }) => headers.range),
    [0, 300_000, 1, content.length - 1, 0].map((from) => `bytes=${from}-`),
  );
});

void t.test('read: in any order, many at once, each has the bytes of its place', async (t) => {
  const { tier } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  const random = noise('s3 places', 400);
  const places = Array.from({ length: 100 }, (_, at) => random.readUInt32LE(at * 4) % content.length);
  const all = await Promise.all(places.map(async (place) => ({ place, piece: await blob.read(place, 50_000) })));
  t.ok(all.every(({ place, piece }) => piece.equals(content.subarray(place, place + piece.length))));
  t.ok((await readAll(blob)).equals(content), 'and then from the start');
});

void t.test('read: a body that breaks off fails the read that waits, and the next goes on from there', async (t) => {
  const { tier, s3 } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  let at = 0;
  const readOn = async () => {
    const piece = await blob.read(at, 30_000);
    if (!piece.equals(content.subarray(at, at + piece.length))) t.fail(`wrong at ${at}`);
    at += piece.length;
  };
  await readOn();
  s3.fault = (asked) => (isGet(asked) ? { cutAt: 0 } : undefined);
  await t.rejects(blob.read(0, 1), 'nothing comes');
  await t.rejects(readOn());
  await t.rejects(readOn());
  s3.fault = (asked) => (isGet(asked) ? { cutAt: 100_000 } : undefined);
  for (let tries = 0; at < content.length && tries < 100; tries++) {
    while (at < content.length) await readOn().catch(() => tries++);
  }
  t.equal(at, content.length, 'piece by piece');
});

void t.test('read: a reader that takes longer than the store waits reads on', async (t) => {
  const large = noise('s3 slow', 8_000_000);
  const { tier, s3 } = await prepare(t);
  await put(tier, large);
  const blob = await tier.open(digestOf(large));
  t.teardown(() => blob!.close());
  const rest = s3.connectionsClosed;
  let at = (await blob!.read(0, 100_000)).length;
  await until(() => s3.connectionsClosed > rest, 'the end of the connection');
  while (at < large.length) {
    const piece = await blob!.read(at, 1_000_000);
    if (!piece.equals(large.subarray(at, at + piece.length))) t.fail(`wrong at ${at}`);
    at += piece.length;
  }
  t.equal(at, large.length);
});

void t.test('read: a body that stands still fails within the patience for the store', async (t) => {
  const { tier, s3 } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  s3.fault = (asked) => (isGet(asked) ? { hangAt: 100_000 } : undefined);
  const started = performance.now();
  await t.rejects(readAll(blob), /sent nothing for 1000 ms|timed out after 1000 ms/);
  const ms = performance.now() - started;
  t.ok(ms > 900 && ms < 3000, `after ${ms} ms`);
});

void t.test('close: nothing is read any more, and the connection goes', async (t) => {
  const { tier, s3 } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  await blob.read(0, 10);
  await blob.close();
  await blob.close();
  await t.rejects(blob.read(10, 10), /reader is closed/);
  t.equal(s3.seen.filter(isGet).length, 1);
});

// ---- What is not what it should be

void t.test('54. rot: a wrong bit withholds the verdict, and the object goes', async (t) => {
  for (const at of [0, content.length >> 1, content.length - 1]) {
    const { tier, s3 } = await prepare(t);
    await put(tier);
    const wrong = Buffer.from(content);
    wrong[at]! ^= 1;
    await s3.put(key, wrong);
    const blob = await opened(t, tier);
    t.equal((await blob.read(0, 10)).length > 0, true, 'it is read while it is verified');
    await t.rejects(readAll(blob), /S3 holds other content/, `bit at ${at}`);
    t.same(await s3.keys(), []);
    t.equal(await tier.open(digest), undefined);
    await put(tier);
    t.ok((await readAll((await tier.open(digest))!)).equals(content), 'and the good copy after');
  }
});

void t.test('rot: an object that changes its size while it is read never is whole', async (t) => {
  for (const [what, bytes] of Object.entries({
    shorter: content.subarray(0, 400_000),
    longer: Buffer.concat([Buffer.from('more'), content]),
  })) {
    const { tier, s3 } = await prepare(t);
    await put(tier);
    const blob = await opened(t, tier);
    t.equal(blob.size, content.length);
    await s3.put(key, bytes);
    await t.rejects(readAll(blob), what);
    const next = await tier.open(digest);
    if (next) await t.rejects(readAll(next), /S3 holds other content/, what);
    t.same(await s3.keys(), [], `${what}: gone`);
  }
});

void t.test('read: an object that went away after it was found fails the read', async (t) => {
  const { tier } = await prepare(t);
  await put(tier);
  const blob = await opened(t, tier);
  await tier.delete(digest);
  await t.rejects(blob.read(0, 10), { name: 'NoSuchKey' });
});

void t.test('54. put: an upload that fails leaves nothing, and says why', async (t) => {
  const nothing = '<?xml version="1.0"?><Error><Code>InternalError</Code><Message>in the end</Message></Error>';
  const faults = {
    'a part is refused': (asked: S3Asked) =>
      isPart(asked) && asked.query.get('partNumber') === '3' ? { status: 400, code: 'BadDigest' } : undefined,
    'the end is refused': (asked: S3Asked) => (isEnd(asked) ? { status: 400, code: 'InvalidPart' } : undefined),
    'the end is an error under a 200': (asked: S3Asked) => (isEnd(asked) ? { status: 200, xml: nothing } : undefined),
  };
  for (const [what, fault] of Object.entries(faults)) {
    const { tier, s3, puts } = await prepare(t, { partBytes: 100_000 });
    s3.fault = fault;
    await t.rejects(put(tier), what);
    t.same(await s3.keys(), [], what);
    t.same(puts, []);
    if (what !== 'the end is an error under a 200') t.same(await s3.uploads(), [], what);
    s3.fault = undefined;
    await until(
      async () =>
        put(tier).then(
          () => true,
          () => false,
        ),
      'a store that works',
    );
    t.ok((await s3.read(key)).equals(content), `${what}: and the next is kept`);
  }
});

void t.test('put: an upload that cannot be given up is told, with the reason it failed for', async (t) => {
  const { tier, s3, trouble } = await prepare(t, { partBytes: 100_000 });
  s3.fault = (asked) => {
    if (asked.method === 'DELETE') return { status: 400, code: 'NoSuchUpload' };
    return isPart(asked) ? { status: 400, code: 'BadDigest' } : undefined;
  };
  await t.rejects(put(tier), { name: 'BadDigest' });
  t.match(trouble, [{ name: 'NoSuchUpload' }]);
});

// ---- The order of eviction

void t.test('open: a copy that was not used for a day counts as new from then on', async (t) => {
  let aheadMs = 0;
  const { tier, s3, trouble } = await prepare(t, { now: () => Date.now() + aheadMs });
  const copies = () => s3.seen.filter(({ headers }) => headers['x-amz-copy-source'] !== undefined).length;
  await put(tier);
  await s3.age(key, 5 * hourMs);
  const before = await s3.changedAtMs(key);
  aheadMs = 18 * hourMs;
  await (await opened(t, tier)).close();
  await (await opened(t, tier)).close();
  t.equal(copies(), 0, '23 hours after');
  aheadMs = 20 * hourMs;
  const blob = await opened(t, tier);
  await until(async () => (await s3.changedAtMs(key)) > before + 4 * hourMs, 'the copy');
  t.equal(copies(), 1, '25 hours after');
  t.ok((await readAll(blob)).equals(content), 'and who opened it reads it');
  aheadMs = 0;
  await (await opened(t, tier)).close();
  t.equal(copies(), 1, 'and not again');
  t.same(trouble, []);
});

void t.test('open: a copy that cannot be counted as new is told, and read all the same', async (t) => {
  const { tier, s3, trouble } = await prepare(t, { now: () => Date.now() + 25 * hourMs });
  await put(tier);
  s3.fault = ({ headers }) =>
    headers['x-amz-copy-source'] === undefined ? undefined : { status: 400, code: 'InvalidRequest' };
  t.ok((await readAll(await opened(t, tier))).equals(content));
  await until(() => trouble.length > 0, 'the trouble');
  t.match(trouble, [{ name: 'InvalidRequest' }]);
});
