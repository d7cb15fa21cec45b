import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import type { DiskTier } from '../../src/cache/disk.ts';
import { createHostedContent } from '../../src/cache/hosted-content.ts';
import type { HostedContent, SharedPlace } from '../../src/cache/hosted-content.ts';
import { unbounded } from '../../src/cache/redis-bounds.ts';
import { createRedisTier } from '../../src/cache/redis-tier.ts';
import type { Tier } from '../../src/cache/tier.ts';
import { algorithmOf, digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';
import { openBookedDisk } from '../fixtures/booked-disk.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const bytes = noise('hosted content', 700_000);
const digest = digestOf(bytes);
const empty = digestOf(Buffer.alloc(0));
const maxBlobBytes = 1_000_000;

interface Machine {
  readonly path: string;
  readonly disk: DiskTier;
  readonly catalog: Catalog;
  readonly content: HostedContent;
  fileOf(of: Digest): string;
  adopt(of: Buffer, as?: Digest): Promise<void>;
}

async function startMachine(t: Teardown, shared: readonly SharedPlace[] = []): Promise<Machine> {
  const path = await temporaryFolder(t);
  const { catalog, disk } = await openBookedDisk(t, path);
  const content = createHostedContent({ disk, catalog, shared });
  return {
    path,
    disk,
    catalog,
    content,
    fileOf: (of) => join(path, 'blobs', algorithmOf(of), hexOf(of)),
    async adopt(of, as = digestOf(of)) {
      const file = join(path, 'upload');
      await writeFile(file, of);
      await content.adopt(file, of.length, as);
    },
  };
}

interface Fleet {
  readonly server: TestRedis;
  readonly tier: Tier;
  readonly place: SharedPlace;
}

async function startFleet(t: Teardown): Promise<Fleet> {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const tier = createRedisTier({
    redis,
    bounds: unbounded,
    prefix: 'narrows:hosted:',
    maxBlobBytes,
    maxBufferBytes: 16_000_000,
  });
  return { server, tier, place: { tier, minBytes: 0, maxBytes: maxBlobBytes } };
}

async function opened({ content }: Pick<Machine, 'content'>, of = digest): Promise<Buffer> {
  const blob = await content.open(of);
  if (!blob) throw new Error('it is not here');
  return readAll(blob);
}

/** The file with one bit changed. */
async function rot(file: string, at = 5): Promise<void> {
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0]! ^= 1;
  await handle.write(byte, 0, 1, at);
  await handle.close();
}

void t.test('one machine: what was adopted or put is here, on its disk, and the file has moved', async (t) => {
  const machine = await startMachine(t);
  const { content } = machine;
  const other = noise('put', 1000);
  for (const one of [digest, digestOf(other)]) {
    t.equal(await content.has(one), false);
    t.equal(await content.open(one), undefined);
    t.equal(await content.read(one, 1_000_000), undefined);
  }
  await machine.adopt(bytes);
  await content.put(digestOf(other), other);
  await t.rejects(stat(join(machine.path, 'upload')), { code: 'ENOENT' });
  for (const what of [bytes, other]) {
    const one = digestOf(what);
    t.equal(await content.has(one), true);
    t.ok((await opened(machine, one)).equals(what));
    t.ok((await content.read(one, 1_000_000))?.equals(what));
    t.ok((await readFile(machine.fileOf(one))).equals(what));
  }
  t.equal(content.maxBlobBytes, Infinity);
});

void t.test('one machine: again changes nothing, sha512 is another digest', async (t) => {
  const machine = await startMachine(t);
  const long = digestOf(bytes, 'sha512');
  await machine.adopt(bytes);
  await machine.adopt(bytes);
  await machine.content.put(digest, bytes);
  t.ok((await opened(machine)).equals(bytes));
  t.equal(await machine.content.has(long), false);
  await machine.adopt(bytes, long);
  t.ok((await opened(machine, long)).equals(bytes));
  t.same(machine.content.kept(''), [digest, long]);
});

void t.test('one machine: wrong bytes are not put', async (t) => {
  const { content } = await startMachine(t);
  await t.rejects(content.put(digest, bytes.subarray(1)));
  t.equal(await content.has(digest), false);
  t.equal(await content.open(digest), undefined);
});

void t.test('nothing at all is always here, and nobody holds it', async (t) => {
  const machine = await startMachine(t);
  const { content } = machine;
  for (const one of [empty, digestOf(Buffer.alloc(0), 'sha512')]) {
    for (let round = 0; round < 2; round++) {
      t.equal(await content.has(one), true);
      t.equal((await opened(machine, one)).length, 0);
      t.equal((await content.read(one, 0))?.length, 0);
      await machine.adopt(Buffer.alloc(0), one);
      await content.put(one, Buffer.alloc(0));
    }
  }
  t.same(content.kept(''), []);
});

void t.test('read: no more than was asked for', async (t) => {
  const machine = await startMachine(t);
  await machine.adopt(bytes);
  t.equal(await machine.content.read(digest, bytes.length - 1), undefined);
  t.ok((await machine.content.read(digest, bytes.length))?.equals(bytes));
});

void t.test('what is hosted is not evicted until it is released', async (t) => {
  const machine = await startMachine(t);
  const { catalog, content, disk } = machine;
  const cached = noise('from an upstream', 1000);
  const other = noise('put', 1000);
  await machine.adopt(bytes);
  await content.put(digestOf(other), other);
  await disk.put(digestOf(cached), bytesBlob(cached, 'miss'));
  const evictable = () => catalog.oldest(10).map((entry) => entry.digest);
  t.same(evictable(), [digestOf(cached)], 'neither what was adopted nor what was put');
  t.same(content.kept(''), [digest, digestOf(other)].toSorted());
  t.same(content.kept(content.kept('')[0]!), [digest, digestOf(other)].toSorted().slice(1), 'page by page');
  await content.release(digest);
  t.same(evictable().toSorted(), [digest, digestOf(cached)].toSorted());
  t.same(content.kept(''), [digestOf(other)]);
  t.ok((await opened(machine)).equals(bytes), 'it is there until its turn comes');
  await content.release(digest);
  await machine.adopt(bytes);
  t.same(evictable(), [digestOf(cached)], 'and may come again');
});

void t.test('one machine: a copy that has rotted is not given', async (t) => {
  const machine = await startMachine(t);
  await machine.adopt(bytes);
  await rot(machine.fileOf(digest));
  t.equal(await machine.content.read(digest, 1_000_000), undefined);
});

void t.test('replicas: what one took, the others have', { skip }, async (t) => {
  const { place } = await startFleet(t);
  const [one, two] = [await startMachine(t, [place]), await startMachine(t, [place])];
  const other = noise('put', 1000);
  await one.adopt(bytes);
  await one.content.put(digestOf(other), other);
  for (const machine of [one, two]) {
    t.equal(machine.content.maxBlobBytes, maxBlobBytes);
    t.equal(await machine.content.has(digest), true);
    t.ok((await opened(machine)).equals(bytes));
    t.ok((await machine.content.read(digestOf(other), 10_000))?.equals(other));
  }
  await two.adopt(bytes);
  t.ok((await opened(two)).equals(bytes));
});

void t.test('replicas: a copy on the disk that has rotted is read from the shared one', { skip }, async (t) => {
  const { place } = await startFleet(t);
  const machine = await startMachine(t, [place]);
  await machine.adopt(bytes);
  await rot(machine.fileOf(digest));
  t.ok((await machine.content.read(digest, 1_000_000))?.equals(bytes));
  t.ok((await opened(machine)).equals(bytes), 'and the rotten one has gone');
});

void t.test('replicas: what only the disk of one has is not there', { skip }, async (t) => {
  const { place, tier } = await startFleet(t);
  const machine = await startMachine(t, [place]);
  await machine.adopt(bytes);
  await tier.delete(digest);
  t.equal(await machine.content.has(digest), false);
  await machine.content.put(digest, bytes);
  t.equal(await machine.content.has(digest), true);
  t.ok((await readAll((await tier.open(digest))!)).equals(bytes), 'and is shared when it comes again');
});

void t.test('replicas: what is released goes where they share', { skip }, async (t) => {
  const { place, server } = await startFleet(t);
  const [one, two] = [await startMachine(t, [place]), await startMachine(t, [place])];
  await one.adopt(bytes);
  await one.content.release(digest);
  t.equal(await two.content.has(digest), false);
  t.equal(await two.content.open(digest), undefined);
  t.same(one.content.kept(''), []);
  const left = server.cli('--raw', 'KEYS', '*').split('\n').filter(Boolean);
  for (const name of left) t.not(server.cli('TTL', name), '-1', `${name} has an end`);
});

void t.test('replicas: nothing of what is shared ends by itself', { skip }, async (t) => {
  const { place, server } = await startFleet(t);
  const machine = await startMachine(t, [place]);
  await machine.adopt(bytes);
  const names = server.cli('--raw', 'KEYS', '*').split('\n').filter(Boolean);
  t.ok(names.length > 0);
  for (const name of names) t.equal(server.cli('TTL', name), '-1', name);
});

void t.test(
  'replicas: the first place that takes a size gets it, and what none takes is refused',
  { skip },
  async (t) => {
    const { place, tier } = await startFleet(t);
    const large = await startMachine(t);
    const places = [
      { tier: large.disk, minBytes: 500_000, maxBytes: 800_000 },
      { tier, minBytes: 0, maxBytes: 600_000 },
    ];
    const machine = await startMachine(t, places);
    t.equal(machine.content.maxBlobBytes, 800_000);
    const small = noise('small', 1000);
    await machine.content.put(digestOf(small), small);
    await machine.adopt(bytes);
    t.equal(await large.disk.has(digestOf(small)), undefined);
    t.equal(await large.disk.has(digest), bytes.length);
    t.equal(await tier.has(digest), undefined);
    t.equal(await tier.has(digestOf(small)), small.length);
    const other = await startMachine(t, places);
    t.ok((await opened(other)).equals(bytes));
    t.ok((await opened(other, digestOf(small))).equals(small));
    const huge = noise('huge', 800_001);
    await t.rejects(machine.adopt(huge), /no shared place takes/);
    t.equal(place.maxBytes, maxBlobBytes);
  },
);

void t.test('replicas: a Redis that has stopped is thrown, by what has to be in it', { skip }, async (t) => {
  const { place, server } = await startFleet(t);
  const machine = await startMachine(t, [place]);
  await machine.adopt(bytes);
  await server.kill();
  t.ok((await opened(machine)).equals(bytes), 'what the disk has is read');
  await t.rejects(machine.content.has(digest));
  await t.rejects(machine.content.open(digestOf(Buffer.from('not here'))));
  const other = noise('another', 1000);
  await t.rejects(machine.adopt(other));
  await t.rejects(machine.content.put(digestOf(other), other));
});
