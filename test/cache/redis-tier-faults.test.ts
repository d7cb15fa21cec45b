import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import type { Blob } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { openTestTier } from '../fixtures/redis-tier.ts';
import type { TestRedisTier } from '../fixtures/redis-tier.ts';
import { hasRedis } from '../fixtures/redis.ts';
import { failureOf, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const chunkBytes = 1024 * 1024;
const content = noise('redis tier', 5.5 * chunkBytes);
const digest = digestOf(content);
const booksName = 'narrows:{books}:sizes';

async function put({ tier }: TestRedisTier, bytes = content): Promise<void> {
  await tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

async function opened({ tier }: TestRedisTier, bytes = content): Promise<Blob> {
  const blob = await tier.open(digestOf(bytes));
  if (!blob) throw new Error('the blob is not here');
  return blob;
}

/** Nothing is to be found, nothing in the books, and what chunks there are have a minute at most. */
function isGone(stage: TestRedisTier): boolean {
  const { meta, chunks } = stage.keysOf(digest);
  const lives = chunks.map((key) => Number(stage.server.cli('PTTL', key)));
  return meta === '' && stage.books().sizes[digest] === undefined && lives.every((ms) => ms <= 60_000);
}

async function comesAgain(stage: TestRedisTier): Promise<boolean> {
  await put(stage);
  return (await readAll(await opened(stage))).equals(content);
}

/** Reads until it fails, or to the end; every byte that came has to be right. */
async function readRight(blob: Blob, bytes = content): Promise<{ length: number; error: Error | undefined }> {
  let length = 0;
  try {
    while (length < blob.size) {
      const piece = await blob.read(length, 300_000);
      if (!piece.equals(bytes.subarray(length, length + piece.length))) throw new Error(`wrong at ${length}`);
      length += piece.length;
    }
    return { length, error: undefined };
  } catch (error) {
    return { length, error: error as Error };
  }
}

void t.test('19. a chunk is missing: the copy is none from then on', { skip }, async (t) => {
  for (const at of [0, 3, 5]) {
    const stage = await openTestTier(t);
    await put(stage);
    stage.server.cli('DEL', stage.keysOf(digest).chunks[at]!);
    const { length, error } = await readRight(await opened(stage));
    t.match(error, { message: `chunk ${at} of ${digest} is gone` });
    t.equal(length, at * chunkBytes, 'what came before is right');
    t.equal(await stage.tier.open(digest), undefined);
    t.ok(isGone(stage));
    t.ok(await comesAgain(stage));
  }
});

void t.test('19. a chunk goes while it is read: no reader gets past it', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage);
  const readers = await Promise.all(Array.from({ length: 5 }, () => opened(stage)));
  for (const reader of readers) await reader.read(0, 10);
  stage.server.cli('DEL', stage.keysOf(digest).chunks[5]!);
  for (const { length, error } of await Promise.all(readers.map((reader) => readRight(reader)))) {
    t.match(error, { message: /chunk 5 of .* is gone/ });
    t.equal(length, 5 * chunkBytes);
  }
  t.ok(isGone(stage));
});

void t.test('19. a chunk is torn: no byte of it is passed on', { skip }, async (t) => {
  for (const bytes of [
    Buffer.alloc(0),
    content.subarray(0, 500),
    Buffer.concat([content.subarray(0, chunkBytes + 1)]),
  ]) {
    const stage = await openTestTier(t);
    await put(stage);
    const key = stage.keysOf(digest).chunks[3]!;
    await stage.redis.transfer(key, 'SET', key, bytes);
    const { length, error } = await readRight(await opened(stage));
    t.match(error, { message: /chunk 3 of .* is torn/ }, `${bytes.length} bytes`);
    t.equal(length, 3 * chunkBytes);
    t.equal(await stage.tier.open(digest), undefined);
    t.ok(isGone(stage));
  }
});

void t.test('a chunk is something else: reading fails', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage);
  const key = stage.keysOf(digest).chunks[3]!;
  stage.server.cli('DEL', key);
  stage.server.cli('LPUSH', key, 'x');
  const { length, error } = await readRight(await opened(stage));
  t.match(error, { message: /^WRONGTYPE/ });
  t.equal(length, 3 * chunkBytes);
});

void t.test('20. a chunk is tampered with: the verdict is withheld, and the copy goes', { skip }, async (t) => {
  for (const at of [0, 3, 5]) {
    const stage = await openTestTier(t);
    await put(stage);
    const key = stage.keysOf(digest).chunks[at]!;
    stage.server.cli('SETRANGE', key, '7', 'tampered');
    t.equal(stage.server.cli('STRLEN', key), String(at === 5 ? chunkBytes / 2 : chunkBytes));
    await t.rejects(readAll(await opened(stage)), /other content than that of/);
    t.equal(await stage.tier.open(digest), undefined);
    t.ok(isGone(stage));
    t.ok(await comesAgain(stage));
  }
});

void t.test(
  '20. the meta is forged: no wrong content is vouched for, and the right one can come',
  { skip },
  async (t) => {
    const stage = await openTestTier(t);
    const { server } = stage;
    await put(stage);
    const { meta } = stage.keysOf(digest);
    const real = JSON.parse(server.cli('GET', meta)) as { size: number; generation: string };
    const { size } = real;
    const forged: Record<string, unknown> = {
      'a byte more': { ...real, size: size + 1 },
      'a byte less': { ...real, size: size - 1 },
      'a chunk more': { ...real, size: size + chunkBytes },
      'a chunk less': { ...real, size: 5 * chunkBytes },
      nothing: { ...real, size: 0 },
      'more than can be': { ...real, size: 2 ** 50 },
      'more than is safe': { ...real, size: 2 ** 60 },
      negative: { ...real, size: -1 },
      'half a byte': { ...real, size: 1.5 },
      'a text for a size': { ...real, size: String(size) },
      'another version': { ...real, version: 2 },
      'other chunks': { ...real, chunkBytes: 1000 },
      'more than is known': { ...real, more: true },
      'another generation': { ...real, generation: '00000000-0000-4000-8000-000000000000' },
      'a generation that leads astray': { ...real, generation: '../'.repeat(12) },
      'no object': 'text',
      null: null,
      list: [real],
    };
    const texts = Object.entries(forged).map(([what, value]) => [what, JSON.stringify(value)] as const);
    const garbage = [
      ['empty', ''],
      ['garbage', '\u0000\u0001{'],
      ['half', JSON.stringify(real).slice(0, 30)],
    ] as const;
    for (const [what, text] of [...texts, ...garbage]) {
      await stage.redis.command(meta, 'SET', meta, text);
      const blob = await stage.tier.open(digest);
      if (blob) await t.rejects(within(5000, what, readAll(blob)), what);
      t.equal(await stage.tier.open(digest), undefined, `${what}: none from then on`);
      t.ok(await comesAgain(stage), `${what}: and the right one comes again`);
    }
    t.equal(stage.books().total, content.length);
  },
);

void t.test('put: whoever replaces a copy leaves it to its readers, and to the books', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage);
  const reader = await opened(stage);
  await reader.read(0, 10);
  const old = stage.keysOf(digest).chunks;
  await put(stage);
  t.ok((await readAll(reader)).equals(content));
  const late = stage.keysOf(digest).chunks.filter((key) => !old.includes(key));
  t.equal(late.length, old.length, 'each copy has its own chunks');
  stage.server.cli('DEL', ...old);
  const again = await opened(stage);
  t.ok((await readAll(again)).equals(content));
});

void t.test('a reader of a copy that was replaced says nothing about the one that is there', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage);
  const reader = await opened(stage);
  const old = stage.keysOf(digest).chunks;
  await put(stage);
  stage.server.cli('DEL', ...old);
  t.match((await readRight(reader)).error, { message: /is gone/ });
  t.same(stage.books(), { sizes: { [digest]: content.length }, order: [digest], total: content.length });
  t.ok((await readAll(await opened(stage))).equals(content));
});

void t.test('put: one that fails after all else leaves nothing to be found', { skip }, async (t) => {
  const stage = await openTestTier(t);
  stage.server.cli('SET', booksName, 'no hash');
  await t.rejects(put(stage), /WRONGTYPE/);
  t.equal(await stage.tier.open(digest), undefined);
  stage.server.cli('DEL', booksName);
  await until(() => stage.keysOf(digest).chunks.length === 0, 'the end of the chunks');
  t.ok(await comesAgain(stage));
});

void t.test('put: a chunk that goes before the others are there makes the copy none', { skip }, async (t) => {
  const stage = await openTestTier(t);
  const plain = bytesBlob(content, 'miss');
  const blob: Blob = {
    ...plain,
    read(position, maxBytes) {
      if (position > 4 * chunkBytes)
        for (const key of stage.keysOf(digest).chunks.slice(0, 1)) stage.server.cli('DEL', key);
      return plain.read(position, maxBytes);
    },
  };
  await t.rejects(stage.tier.put(digest, blob), /did not keep/);
  t.equal(await stage.tier.open(digest), undefined);
  await until(() => stage.keysOf(digest).chunks.length === 0, 'the end of the chunks');
});

void t.test('18. killed while it is read: the read fails, and a new server has nothing', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage);
  const blob = await opened(stage);
  await blob.read(0, 10);
  await stage.server.kill();
  const { length, error } = await within(5000, 'the failure', readRight(blob));
  t.match(error, { name: 'TierAway' });
  t.ok(length <= 3 * chunkBytes, 'what had been read ahead is right');
  await t.rejects(stage.tier.open(digest), { name: 'TierAway' });
  await stage.server.restart();
  await until(() => stage.changes.at(-1) === undefined, 'the server');
  t.equal(await stage.tier.open(digest), undefined);
  t.ok(await comesAgain(stage));
});

void t.test('15. killed while it is written: what it kept is no copy', { skip }, async (t) => {
  const stage = await openTestTier(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  const plain = bytesBlob(content, 'miss');
  const arrived = Promise.withResolvers<void>();
  const killed = Promise.withResolvers<void>();
  const blob: Blob = {
    ...plain,
    async read(position, maxBytes) {
      if (position >= 4 * chunkBytes) {
        arrived.resolve();
        await killed.promise;
      }
      return plain.read(position, maxBytes);
    },
  };
  const putting = failureOf(stage.tier.put(digest, blob));
  await arrived.promise;
  await until(() => stage.keysOf(digest).chunks.length >= 3, 'some chunks');
  await stage.server.kill();
  killed.resolve();
  t.match(await within(5000, 'the failure', putting), { name: 'TierAway' });
  await stage.server.restart();
  await until(() => stage.changes.at(-1) === undefined, 'the server');
  const { chunks } = stage.keysOf(digest);
  t.ok(chunks.length >= 3, 'it was kept');
  t.ok(
    chunks.every((key) => Number(stage.server.cli('PTTL', key)) > 0),
    'and goes by itself',
  );
  t.equal(await stage.tier.open(digest), undefined);
  t.ok(await comesAgain(stage));
});
