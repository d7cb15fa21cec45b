import t from 'tap';
import {
  blobKeys,
  chunkBytes,
  chunkCount,
  chunkLength,
  formatCopy,
  newGeneration,
  parseCopy,
  publishCopy,
  removeCopy,
} from '../../src/cache/redis-copies.ts';
import type { Copy } from '../../src/cache/redis-copies.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { hasRedis, openTestRedis, startCluster, startRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const digest = digestOf(Buffer.from('content'));
const generation = '01234567-89ab-4cde-8f01-23456789abcd';

void t.test('keys: everything of a digest has one hash tag, and a name that says what it is', (t) => {
  const keys = blobKeys({ prefix: 'narrows:' }, digest);
  t.equal(keys.meta, `narrows:{${digest}}:blob`);
  t.equal(keys.chunk(generation, 12), `narrows:{${digest}}:${generation}:12`);
  t.equal(keys.of('lease'), `narrows:{${digest}}:lease`);
  const long = digestOf(Buffer.from('content'), 'sha512');
  t.equal(blobKeys({ prefix: '' }, long).meta, `{${long}}:blob`);
  t.end();
});

function lengths(size: number): number[] {
  return Array.from({ length: chunkCount(size) }, (_, index) => chunkLength(size, index));
}

void t.test('chunks: all full but the last, and none of nothing', (t) => {
  t.same(lengths(0), []);
  t.same(lengths(1), [1]);
  t.same(lengths(chunkBytes), [chunkBytes]);
  t.same(lengths(chunkBytes + 1), [chunkBytes, 1]);
  t.same(lengths(3 * chunkBytes - 1), [chunkBytes, chunkBytes, chunkBytes - 1]);
  t.end();
});

void t.test('copies: what is written is read as it was, and each has another generation', (t) => {
  for (const size of [0, 1, 5_000_000, 2 ** 29]) {
    const copy = { size, generation: newGeneration() };
    t.same(parseCopy(Buffer.from(formatCopy(copy))), copy);
  }
  t.equal(new Set(Array.from({ length: 100 }, newGeneration)).size, 100);
  t.end();
});

void t.test('copies: what was not written by us is none', (t) => {
  const good = { version: 1, size: 5, generation, chunkBytes };
  t.ok(parseCopy(Buffer.from(JSON.stringify(good))));
  const sizes = [-1, 1.5, 2 ** 29 + 1, 2 ** 53, 1e300, '5', null];
  const generations = ['', 'x', generation.slice(1), `${generation}0`, `../${generation.slice(3)}`, 7];
  const bad = [
    null,
    7,
    'text',
    [],
    {},
    [good],
    { ...good, version: 2 },
    { ...good, version: '1' },
    { ...good, chunkBytes: 1 },
    { ...good, more: 1 },
    { size: 5, version: 1, generation, chunkBytes },
    ...sizes.map((size) => ({ ...good, size })),
    ...generations.map((one) => ({ ...good, generation: one })),
  ];
  for (const value of bad) t.equal(parseCopy(Buffer.from(JSON.stringify(value))), undefined, JSON.stringify(value));
  const text = JSON.stringify(good);
  for (const torn of ['', ' ', text.slice(0, -1), `${text} `, `${text}${text}`, '\u0000', '\uFFFF']) {
    t.equal(parseCopy(Buffer.from(torn)), undefined, JSON.stringify(torn));
  }
  t.equal(parseCopy(Buffer.from([0xff, 0xfe, 0x7b])), undefined);
  t.end();
});

function newCopy(): Copy {
  return { size: 2 * chunkBytes + 1, generation: newGeneration() };
}

void t.test('scripts: a copy is published whole, and taken away only as it is', { skip }, async (t) => {
  const server = await startRedis(t);
  const cluster = await startCluster(t);
  const clients = [await openTestRedis(t, server.port), await openTestRedis(t, 0, { place: cluster.place })];
  for (const { redis } of clients) {
    const keys = blobKeys(redis, digest);
    const [first, second] = [newCopy(), newCopy()];
    const chunksOf = (copy: Copy) => [0, 1, 2].map((index) => keys.chunk(copy.generation, index));
    const publish = (copy: Copy) => redis.run(publishCopy, [keys.meta, ...chunksOf(copy)], formatCopy(copy), '60000');
    const remove = (copy: Copy) => redis.run(removeCopy, [keys.meta], formatCopy(copy));
    const found = async () => {
      const text = await redis.command(keys.meta, 'GET', keys.meta);
      return Buffer.isBuffer(text) ? parseCopy(text) : undefined;
    };
    for (const key of chunksOf(first).slice(1)) await redis.command(key, 'SET', key, 'x');
    t.equal(await publish(first), 0, 'a chunk is missing');
    t.equal(await found(), undefined);
    await redis.command(keys.meta, 'SET', chunksOf(first)[0]!, 'x');
    t.equal(await publish(first), 1);
    t.same(await found(), first);
    const ms = (await redis.command(keys.meta, 'PTTL', keys.meta)) as number;
    t.ok(ms > 0 && ms <= 60_000);
    for (const key of chunksOf(second)) await redis.command(key, 'SET', key, 'x');
    t.equal(String(await publish(second)), formatCopy(first), 'the one before is told');
    t.equal(await remove(first), 0, 'it is another by now');
    t.same(await found(), second);
    t.equal(await remove(second), 1);
    t.equal(await remove(second), 0);
    t.equal(await found(), undefined);
  }
});
