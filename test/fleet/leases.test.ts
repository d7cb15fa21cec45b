import { randomUUID } from 'node:crypto';
import t from 'tap';
import type { Test } from 'tap';
import { createLease, flightKeys } from '../../src/fleet/leases.ts';
import type { Lease } from '../../src/fleet/leases.ts';
import { newGeneration } from '../../src/cache/redis-copies.ts';
import type { Copy } from '../../src/cache/redis-copies.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const MiB = 1024 * 1024;
const { digest } = blobOf(noise('leased', 10));
const chunks = [0, 1, 2].map((index) => noise(`chunk ${index}`, index < 2 ? MiB : 5));
const size = 2 * MiB + 5;

async function prepare(t: Test) {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const keys = flightKeys(redis, { upstream: 'docker.io', digest, repository: 'docker.io/library/x' });
  const lease = (leaseMs = 60_000, token: string = randomUUID()) => ({
    token,
    ...createLease(redis, keys, token, leaseMs),
  });
  const value = async (key: string) => (await redis.command(key, 'GET', key)) as Buffer | null;
  return { server, redis, keys, lease, value };
}

function newCopy(): Copy {
  return { size, generation: newGeneration() };
}

async function growAll(lease: Lease, copy: Copy): Promise<void> {
  for (const [index, chunk] of chunks.entries()) await lease.grow(copy, index + 1, 'docker.io/library/x', chunk);
}

void t.test('lease: of many who ask at once one gets it, and everyone is told who', { skip }, async (t) => {
  const { lease } = await prepare(t);
  const all = Array.from({ length: 50 }, () => lease());
  const states = await Promise.all(all.map((one) => one.take()));
  const holders = new Set(states.map(({ holder }) => holder));
  t.equal(holders.size, 1);
  t.equal(all.filter(({ token }) => holders.has(token)).length, 1);
});

void t.test('lease: a look takes nothing', { skip }, async (t) => {
  const { lease } = await prepare(t);
  t.match(await lease().look(), { holder: undefined, growing: undefined, whole: undefined });
  const other = lease();
  t.equal((await other.take()).holder, other.token);
});

void t.test('lease: what grows under it, and what becomes of it, is there for everyone', { skip }, async (t) => {
  const { lease, keys, value } = await prepare(t);
  const leader = lease();
  const other = lease();
  await leader.take();
  const copy = newCopy();
  t.ok(await leader.grow(copy, 0, 'docker.io/library/x'));
  t.same(await other.look(), {
    holder: leader.token,
    growing: { copy, chunks: 0, repository: 'docker.io/library/x' },
    whole: undefined,
  });
  await growAll(leader, copy);
  t.equal((await other.look()).growing!.chunks, 3);
  t.equal(await leader.finish(copy, 3, 60_000), 'done');
  t.same(await other.take(), { holder: undefined, growing: undefined, whole: copy }, 'nobody leads what is whole');
  for (const [index, chunk] of chunks.entries()) t.same(await value(keys.chunk(copy.generation, index)), chunk);
});

void t.test('49. lease: a token that is not its own writes nothing', { skip }, async (t) => {
  const { server, lease, keys } = await prepare(t);
  const leader = lease();
  const stranger = lease();
  await leader.take();
  const copy = newCopy();
  await leader.grow(copy, 1, 'docker.io/library/x', chunks[0]);
  const before = server.cli('--raw', 'KEYS', '*').split('\n').toSorted();

  t.equal(await stranger.renew(), false);
  t.equal(await stranger.grow(copy, 2, 'docker.io/library/evil', chunks[1]), false);
  t.equal(await stranger.grow(newCopy(), 0, 'docker.io/library/evil'), false);
  t.equal(await stranger.finish(copy, 1, 60_000), 'lost');
  await stranger.release();
  t.same(await leader.look(), {
    holder: leader.token,
    growing: { copy, chunks: 1, repository: 'docker.io/library/x' },
    whole: undefined,
  });
  t.same(server.cli('--raw', 'KEYS', '*').split('\n').toSorted(), before);
  t.ok(await leader.renew());
  t.ok(Number(server.cli('PTTL', keys.lease)) > 50_000, 'only its own word prolongs it');
});

void t.test('49. lease: it runs out by the clock of Redis, whatever its holder believes', { skip }, async (t) => {
  const { lease, value, keys } = await prepare(t);
  const first = lease(500);
  await first.take();
  const copy = newCopy();
  await first.grow(copy, 1, 'docker.io/library/x', chunks[0]);
  await until(async () => (await first.look()).holder === undefined, 'the end of the lease');
  t.equal(await first.renew(), false, 'what has run out is not prolonged');
  t.equal(await first.grow(copy, 2, 'docker.io/library/x', chunks[1]), false);
  t.equal(await first.finish(copy, 1, 60_000), 'lost');
  t.equal(await value(keys.chunk(copy.generation, 1)), null);
  t.equal((await first.look()).growing!.chunks, 1, 'what was there before stays for another');
});

void t.test('lease: each word of its holder prolongs it', { skip }, async (t) => {
  const { server, lease, keys } = await prepare(t);
  const leader = lease(60_000);
  await leader.take();
  const copy = newCopy();
  const words = [
    () => leader.renew(),
    () => leader.grow(copy, 0, 'docker.io/library/x'),
    () => leader.grow(copy, 1, 'docker.io/library/x', chunks[0]),
  ];
  for (const word of words) {
    server.cli('PEXPIRE', keys.lease, '1000');
    t.ok(await word());
    t.ok(Number(server.cli('PTTL', keys.lease)) > 50_000);
  }
});

void t.test('lease: who takes over finds the generation and the chunks, and goes on with them', { skip }, async (t) => {
  const { server, lease, keys, value } = await prepare(t);
  const first = lease();
  const second = lease();
  await first.take();
  const copy = newCopy();
  await first.grow(copy, 2, 'docker.io/library/x', chunks[0]);
  await first.grow(copy, 2, 'docker.io/library/x', chunks[1]);
  server.cli('DEL', keys.lease);
  const state = await second.take();
  t.same(state, {
    holder: second.token,
    growing: { copy, chunks: 2, repository: 'docker.io/library/x' },
    whole: undefined,
  });
  // The first comes back in the middle: of each chunk, only what the second writes counts.
  const late = noise('too late', 5);
  const both = await Promise.all([
    first.grow(copy, 3, 'docker.io/library/x', late),
    second.grow(copy, 3, 'docker.io/library/y', chunks[2]),
    first.grow(copy, 3, 'docker.io/library/x', late),
  ]);
  t.same(both, [false, true, false]);
  t.same(await value(keys.chunk(copy.generation, 2)), chunks[2]);
  t.equal((await first.look()).growing!.repository, 'docker.io/library/y');
});

void t.test('lease: a copy with a hole is not published, and one that another made goes', { skip }, async (t) => {
  const { server, lease, keys } = await prepare(t);
  const leader = lease();
  await leader.take();
  const holed = newCopy();
  await growAll(leader, holed);
  server.cli('DEL', keys.chunk(holed.generation, 1));
  t.equal(await leader.finish(holed, 3, 60_000), 'incomplete');
  t.equal((await leader.look()).whole, undefined);
  t.equal((await leader.look()).holder, leader.token);

  const [theirs, ours] = [newCopy(), newCopy()];
  await growAll(leader, theirs);
  server.cli('SET', keys.meta, JSON.stringify({ version: 1, ...theirs, chunkBytes: MiB }));
  await growAll(leader, ours);
  t.equal(await leader.finish(ours, 3, 3_600_000), 'done');
  t.same((await leader.look()).whole, ours);
  for (const [index] of chunks.entries()) {
    t.ok(Number(server.cli('PTTL', keys.chunk(ours.generation, index))) > 3_500_000);
    t.ok(
      Number(server.cli('PTTL', keys.chunk(theirs.generation, index))) <= 60_000,
      'who reads it may come to its end',
    );
  }
});

void t.test('lease: who leaves takes what grew along, for it may be wrong', { skip }, async (t) => {
  const { lease } = await prepare(t);
  const leader = lease();
  await leader.take();
  await growAll(leader, newCopy());
  await leader.release();
  t.match(await leader.look(), { holder: undefined, growing: undefined });
});

void t.test('lease: what others wrote into its keys is none', { skip }, async (t) => {
  const { server, lease, keys } = await prepare(t);
  const leader = lease();
  await leader.take();
  await leader.grow(newCopy(), 1, 'docker.io/library/x', chunks[0]);
  for (const [field, value] of [
    ['copy', '{}'],
    ['chunks', '-1'],
    ['chunks', 'x'],
    ['chunks', '1e99'],
  ] as const) {
    server.cli('HSET', keys.growing, field, value);
    t.equal((await leader.look()).growing, undefined, `${field} ${value}`);
  }
  server.cli('SET', keys.meta, 'rubbish');
  t.equal((await leader.look()).whole, undefined);
});

void t.test('lease: each upstream has its own, and one digest has one place in a cluster', { skip }, async (t) => {
  const { redis, keys } = await prepare(t);
  const other = flightKeys(redis, { upstream: 'ghcr.io', digest, repository: 'ghcr.io/x' });
  t.not(other.lease, keys.lease);
  t.not(other.growing, keys.growing);
  t.equal(other.meta, keys.meta);
  const all = [keys.lease, keys.growing, keys.meta, keys.chunk(newGeneration(), 0), other.lease, other.growing];
  t.same(new Set(all.map((key) => /\{([^}]+)\}/.exec(key)![1])), new Set([digest]));
});
