import type { Test } from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import type { Blob, Tier } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';

export interface TierUnderTest {
  readonly tier: Tier;
  /** What the tier holds that no digest names: files half written, and the like. */
  litter(): Promise<readonly string[]>;
}

/** Makes an empty tier that holds blobs of at least `contractBytes`. */
export type MakeTier = (t: Teardown) => Promise<TierUnderTest>;

/** More than two of the chunks that a tier may cut it into. */
const content = noise('tier contract', 2_700_001);
const chunkBytes = 1024 * 1024;
const digest = digestOf(content);
export const contractBytes = content.length;

/** What every tier keeps to, whatever it is made of. */
export async function tierContract(t: Test, make: MakeTier): Promise<void> {
  await t.test('open: what was never put is undefined', async (t) => {
    const { tier } = await make(t);
    t.equal(await tier.open(digest), undefined);
  });

  await t.test('put: what was put can be opened, under its size and the name of the tier', async (t) => {
    const { tier, litter } = await make(t);
    await tier.put(digest, source(content));
    const blob = await opened(tier);
    t.match(blob, { size: content.length, state: `hit-${tier.name}` });
    t.ok((await readAll(blob)).equals(content));
    t.same(await litter(), []);
  });

  await t.test('has: the size of what is here, and nothing of what is not', async (t) => {
    const { tier } = await make(t);
    t.equal(await tier.has(digest), undefined);
    await tier.put(digest, source(content));
    t.equal(await tier.has(digest), content.length);
    await tier.delete(digest);
    t.equal(await tier.has(digest), undefined);
  });

  await t.test('put: a second time changes nothing', async (t) => {
    const { tier, litter } = await make(t);
    for (let at = 0; at < 3; at++) await tier.put(digest, source(content));
    t.ok((await readAll(await opened(tier))).equals(content));
    t.same(await litter(), []);
  });

  await t.test('put: sha512 is a digest like the other, and no alias of it', async (t) => {
    const { tier } = await make(t);
    const long = digestOf(content, 'sha512');
    await tier.put(long, source(content));
    t.equal(await tier.open(digest), undefined);
    const blob = await tier.open(long);
    t.ok((await readAll(blob!)).equals(content));
    await t.rejects(tier.put(digestOf(Buffer.from('other'), 'sha512'), source(content)));
  });

  await t.test('put: other bytes than those of the digest are refused, and nothing stays', async (t) => {
    const { tier, litter } = await make(t);
    const wrong = {
      'a bit at the start': flipped(content, 0),
      'a bit in the middle': flipped(content, content.length >> 1),
      'a bit at the end': flipped(content, content.length - 1),
      'one byte less': content.subarray(0, -1),
      'one byte more': Buffer.concat([content, Buffer.from([0])]),
      nothing: Buffer.alloc(0),
    };
    for (const [what, bytes] of Object.entries(wrong)) {
      const blob = source(bytes);
      await t.rejects(tier.put(digest, blob), what);
      t.equal(await tier.open(digest), undefined, what);
      t.equal(blob.closes, 1, `${what}: what was given is closed`);
    }
    t.same(await litter(), []);
  });

  await t.test('put: wrong bytes do not push out the right ones', async (t) => {
    const { tier, litter } = await make(t);
    await tier.put(digest, source(content));
    await t.rejects(tier.put(digest, source(flipped(content, 5))));
    t.ok((await readAll(await opened(tier))).equals(content));
    t.same(await litter(), []);
  });

  await t.test('put: a source that breaks off, or turns out rotten, leaves nothing and is closed', async (t) => {
    const { tier, litter } = await make(t);
    for (const at of [0, 1, chunkBytes, content.length - 1]) {
      const blob = source(content, { breaksAt: at });
      await t.rejects(tier.put(digest, blob), /broke off/, `at ${at}`);
      t.equal(blob.closes, 1);
    }
    const rotten = Promise.reject(new Error('rotten'));
    rotten.catch(() => undefined);
    const blob = source(content, { verified: rotten });
    await t.rejects(tier.put(digest, blob), /rotten/);
    t.equal(blob.closes, 1);
    t.equal(await tier.open(digest), undefined);
    t.same(await litter(), []);
  });

  await t.test('put: closes what it was given, once, when all is well', async (t) => {
    const { tier } = await make(t);
    const blob = source(content);
    await tier.put(digest, blob);
    t.equal(blob.closes, 1);
  });

  await t.test('put: two writers of one digest both succeed', async (t) => {
    const { tier, litter } = await make(t);
    const blobs = Array.from({ length: 5 }, () => source(content));
    await Promise.all(blobs.map((blob) => tier.put(digest, blob)));
    t.ok((await readAll(await opened(tier))).equals(content));
    t.same(await litter(), []);
  });

  await t.test('put: of writers at once, the wrong ones fail and the right one stays', async (t) => {
    const { tier, litter } = await make(t);
    const outcomes = await Promise.allSettled([
      tier.put(digest, source(flipped(content, 1))),
      tier.put(digest, source(content)),
      tier.put(digest, source(content, { breaksAt: 300_000 })),
      tier.put(digest, source(flipped(content, 2))),
    ]);
    t.same(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled', 'rejected', 'rejected'],
    );
    t.ok((await readAll(await opened(tier))).equals(content));
    t.same(await litter(), []);
  });

  await t.test('read: any place and length gives at least a byte, and those of the blob', async (t) => {
    const { tier } = await make(t);
    await tier.put(digest, source(content));
    const blob = await opened(tier);
    t.teardown(() => blob.close());
    const borders = [256, chunkBytes, 2 * chunkBytes].flatMap((border) => [border - 1, border, border + 1]);
    const places = [0, 1, ...borders, content.length >> 1, content.length - 2, content.length - 1];
    const lengths = [1, 2, 4096, 65_536, content.length];
    const random = noise('places', 800);
    for (let at = 0; at < 200; at++) {
      const place = random.readUInt32LE(at * 4) % content.length;
      const length = 1 + (random.readUInt32LE(at * 4) % 100_000);
      if (!(await isSlice(blob, place, length))) t.fail(`${length} bytes from ${place}`);
    }
    for (const place of places) {
      for (const length of lengths) t.ok(await isSlice(blob, place, length), `${length} bytes from ${place}`);
    }
    await blob.verified;
  });

  await t.test('read: a buffer stays as it is until the second read after it', async (t) => {
    const { tier } = await make(t);
    await tier.put(digest, source(content));
    const blob = await opened(tier);
    t.teardown(() => blob.close());
    const step = 40_000;
    let before: Buffer | undefined;
    for (let place = 0; place + step <= content.length; place += step) {
      const now = await blob.read(place, step);
      const from = place - step;
      if (before && !before.equals(content.subarray(from, from + before.length))) t.fail(`changed at ${place}`);
      if (!now.equals(content.subarray(place, place + now.length))) t.fail(`wrong at ${place}`);
      before = now;
    }
    t.pass('no buffer changed too early');
  });

  await t.test('read: readers of one blob do not disturb each other', async (t) => {
    const { tier } = await make(t);
    await tier.put(digest, source(content));
    const read = async () => (await readAll(await opened(tier))).equals(content);
    t.same(
      await Promise.all(Array.from({ length: 20 }, read)),
      Array.from({ length: 20 }, () => true),
    );
  });

  await t.test('close: may be called again', async (t) => {
    const { tier } = await make(t);
    await tier.put(digest, source(content));
    const blob = await opened(tier);
    await blob.close();
    await t.resolves(blob.close());
  });

  await t.test('delete: what is deleted is not here, and deleting what is not here is fine', async (t) => {
    const { tier, litter } = await make(t);
    await tier.delete(digest);
    await tier.put(digest, source(content));
    await tier.delete(digest);
    t.equal(await tier.open(digest), undefined);
    await tier.put(digest, source(content));
    t.ok((await readAll(await opened(tier))).equals(content), 'and may come again');
    t.same(await litter(), []);
  });

  await t.test('delete: who is reading reads on to the end', async (t) => {
    const { tier } = await make(t);
    await tier.put(digest, source(content));
    const places = [0, chunkBytes - 1, chunkBytes + 1, 2 * chunkBytes, content.length - 1];
    const readers = await Promise.all(places.map(() => opened(tier)));
    for (const [at, place] of places.entries()) t.ok(await isSlice(readers[at]!, place, 1000));
    const unread = await opened(tier);
    await tier.delete(digest);
    t.equal(await tier.open(digest), undefined);
    await tier.put(digest, source(content));
    await tier.delete(digest);
    for (const blob of [...readers, unread]) t.ok((await readAll(blob)).equals(content));
  });
}

interface Source extends Blob {
  closes: number;
}

/** A blob to put: in pieces that vary, and with a count of its closings. */
function source(bytes: Buffer, how: { breaksAt?: number; verified?: Promise<void> } = {}): Source {
  const plain = bytesBlob(bytes, 'miss');
  const made: Source = {
    ...plain,
    closes: 0,
    verified: how.verified,
    read(position, maxBytes) {
      if (how.breaksAt !== undefined && position >= how.breaksAt) return Promise.reject(new Error('broke off'));
      const end = Math.min(how.breaksAt || Infinity, position + 1 + (position % 100_000));
      return plain.read(position, Math.min(maxBytes, end - position));
    },
    close() {
      made.closes++;
      return Promise.resolve();
    },
  };
  return made;
}

async function opened(tier: Tier): Promise<Blob> {
  const blob = await tier.open(digest);
  if (!blob) throw new Error('the blob is not here');
  return blob;
}

async function isSlice(blob: Blob, position: number, maxBytes: number): Promise<boolean> {
  const got = await blob.read(position, maxBytes);
  const isLengthRight = got.length > 0 && got.length <= maxBytes;
  return isLengthRight && got.equals(content.subarray(position, position + got.length));
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1;
  return copy;
}
