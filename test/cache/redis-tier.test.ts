import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import type { Blob } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { tierContract } from '../contracts/tier.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { openTestTier } from '../fixtures/redis-tier.ts';
import type { TestRedisTier } from '../fixtures/redis-tier.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const chunkBytes = 1024 * 1024;
const content = noise('redis tier', 2.5 * chunkBytes);
const digest = digestOf(content);

async function put({ tier }: TestRedisTier, bytes: Buffer): Promise<void> {
  await tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

async function opened({ tier }: TestRedisTier, bytes = content): Promise<Blob> {
  const blob = await tier.open(digestOf(bytes));
  if (!blob) throw new Error('the blob is not here');
  return blob;
}

/** What is left of the lives of some keys, in ms. */
function lives({ server }: TestRedisTier, keys: readonly string[]): number[] {
  return keys.map((key) => Number(server.cli('PTTL', key)));
}

void t.test('redis tier: keeps the contract', { skip }, async (t) => {
  const server = await startRedis(t);
  let at = 0;
  await tierContract(t, async (t) => {
    const prefix = `contract-${at++}:`;
    const stage = await openTestTier(t, { server, connection: { prefix } });
    return {
      tier: stage.tier,
      // What is on its way out has at most a minute to live.
      litter: () => {
        const named = stage
          .keys(`${prefix}*:blob`)
          .map((key) => (JSON.parse(server.cli('GET', key)) as { generation: string }).generation);
        const chunks = stage.keys(`${prefix}*`).filter((key) => /:\d+$/.test(key));
        const orphans = chunks.filter((key) => !named.some((generation) => key.includes(generation)));
        return Promise.resolve(orphans.filter((key) => Number(server.cli('PTTL', key)) > 60_000));
      },
    };
  });
});

void t.test('keys: chunks of exact bytes, all under the prefix, and nothing else', { skip }, async (t) => {
  const stage = await openTestTier(t, { connection: { prefix: 'team-a:mirror:' } });
  await put(stage, content);
  const { meta, chunks } = stage.keysOf(digest);
  t.equal(meta, `team-a:mirror:{${digest}}:blob`);
  t.equal(chunks.length, 3);
  for (const [at, key] of chunks.entries()) {
    t.match(key, new RegExp(`^team-a:mirror:\\{${digest}\\}:[0-9a-f-]{36}:${at}$`));
    const bytes = content.subarray(at * chunkBytes, (at + 1) * chunkBytes);
    t.equal(stage.server.cli('STRLEN', key), String(bytes.length));
    t.ok(bytes.equals((await stage.redis.transfer(key, 'GET', key)) as Buffer));
  }
  const books = ['order', 'sizes', 'total'].map((name) => `team-a:mirror:{books}:${name}`);
  t.same(stage.keys(), [meta, ...chunks, ...books].toSorted());
  t.match(JSON.parse(stage.server.cli('GET', meta)), { version: 1, size: content.length, chunkBytes });
});

void t.test('keys: other data in the same Redis stays as it is', { skip }, async (t) => {
  const stage = await openTestTier(t, { maxBytes: 3 * content.length });
  const { server, keys } = stage;
  const others = ['narrows', 'narrows-else:a', `{${digest}}:blob`, `other:{${digest}}:blob`, '{books}:total', 'sizes'];
  for (const key of others) server.cli('SET', key, 'theirs');
  for (let at = 0; at < 6; at++) await put(stage, noise(`blob ${at}`, content.length));
  await put(stage, content);
  await stage.tier.delete(digest);
  t.same(
    others.map((key) => server.cli('GET', key)),
    others.map(() => 'theirs'),
  );
  t.same(
    keys().filter((key) => !key.startsWith('narrows:')),
    others.toSorted(),
  );
});

void t.test('sizes: nothing, a byte, a whole chunk, and one byte to either side', { skip }, async (t) => {
  const stage = await openTestTier(t);
  for (const size of [0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 2 * chunkBytes]) {
    const bytes = noise('sizes', size);
    await put(stage, bytes);
    t.equal(stage.keysOf(digestOf(bytes)).chunks.length, Math.ceil(size / chunkBytes), `${size}`);
    const blob = await opened(stage, bytes);
    t.equal(blob.size, size);
    t.ok((await readAll(blob)).equals(bytes), `${size} bytes`);
  }
});

void t.test('put: what is larger than the bound for blobs is declined, and closed', { skip }, async (t) => {
  const stage = await openTestTier(t, { maxBlobBytes: content.length - 1 });
  let closes = 0;
  const blob = { ...bytesBlob(content, 'miss'), close: () => Promise.resolve(void closes++) };
  await stage.tier.put(digest, blob);
  t.equal(closes, 1);
  t.equal(await stage.tier.open(digest), undefined);
  t.same(stage.keys(), []);
  const fits = content.subarray(1);
  await put(stage, fits);
  t.ok((await readAll(await opened(stage, fits))).equals(fits));
});

void t.test('time to live: what nobody reads goes, all of it', { skip }, async (t) => {
  const ttlMs = 700;
  const stage = await openTestTier(t, { ttlMs });
  await put(stage, content);
  const { meta, chunks } = stage.keysOf(digest);
  t.ok(lives(stage, [meta, ...chunks]).every((ms) => ms <= ttlMs));
  await until(() => stage.keys(`narrows:{${digest}}*`).length === 0, 'the end of the copy');
  t.equal(await stage.tier.open(digest), undefined);
  await put(stage, content);
  t.ok((await readAll(await opened(stage))).equals(content), 'and may come again');
});

void t.test('time to live: reading makes it anew, of the whole copy', { skip }, async (t) => {
  const ttlMs = 500_000;
  const stage = await openTestTier(t, { ttlMs });
  await put(stage, content);
  const { meta, chunks } = stage.keysOf(digest);
  const all = [meta, ...chunks];
  const isNew = (ms: number) => ms > ttlMs - 100_000 && ms <= ttlMs;
  t.ok(lives(stage, all).every(isNew));
  for (const key of all) stage.server.cli('PEXPIRE', key, '60000');
  const blob = await opened(stage);
  t.ok(isNew(lives(stage, [meta])[0]!), 'of the meta when it is opened');
  await readAll(blob);
  t.ok(lives(stage, all).every(isNew), 'of the chunks when they are read');
});

void t.test('time to live: a chunk that went before the others makes the copy none', { skip }, async (t) => {
  const stage = await openTestTier(t);
  await put(stage, content);
  const { meta, chunks } = stage.keysOf(digest);
  stage.server.cli('PEXPIRE', chunks[2]!, '1');
  await until(() => stage.server.cli('EXISTS', chunks[2]!) === '0', 'the end of a chunk');
  await t.rejects(readAll(await opened(stage)), /chunk 2 of .* is gone/);
  t.equal(stage.server.cli('EXISTS', meta), '0');
  t.equal(await stage.tier.open(digest), undefined);
});

void t.test('read: with little room for chunks that are read ahead, all readers get on', { skip }, async (t) => {
  for (const maxBufferBytes of [0, chunkBytes, 4 * chunkBytes]) {
    const stage = await openTestTier(t, { maxBufferBytes });
    await put(stage, content);
    const all = await Promise.all(Array.from({ length: 10 }, async () => readAll(await opened(stage))));
    t.ok(
      all.every((bytes) => bytes.equals(content)),
      `${maxBufferBytes} bytes`,
    );
  }
});

void t.test('read: one that is closed reads no more, and gives back its room', { skip }, async (t) => {
  const stage = await openTestTier(t, { maxBufferBytes: 3 * chunkBytes });
  await put(stage, content);
  for (let at = 0; at < 10; at++) {
    const blob = await opened(stage);
    await blob.read(0, 10);
    await blob.close();
    await t.rejects(blob.read(10, 10), /closed/);
  }
  stage.server.cli('CONFIG', 'RESETSTAT');
  const blob = await opened(stage);
  await blob.read(0, 1);
  const asked = () => /cmdstat_getex:calls=(\d+)/.exec(stage.server.cli('INFO', 'commandstats'))?.[1];
  await until(() => asked() === '4', 'the meta and three chunks, two of them read ahead');
  t.ok((await readAll(blob)).equals(content));
});
