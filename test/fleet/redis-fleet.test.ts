import t from 'tap';
import type { Test } from 'tap';
import { createRedisBounds } from '../../src/cache/redis-bounds.ts';
import { createRedisFleet } from '../../src/fleet/redis-fleet.ts';
import { FleetStalled } from '../../src/fleet/fleet.ts';
import type { RedisFleetOptions } from '../../src/fleet/redis-fleet.ts';
import type { Fleet, Followed, Follower, Leader } from '../../src/fleet/fleet.ts';
import { flightKeys } from '../../src/fleet/leases.ts';
import { flightOf } from '../fixtures/flights.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf } from '../fixtures/registry.ts';
import { failureOf, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const MiB = 1024 * 1024;
const { bytes, digest } = blobOf(noise('a download of the fleet', 5 * MiB + 17));
const key = { upstream: 'docker.io', digest, repository: 'docker.io/library/x' };

async function prepare(t: Test, ...redisArgs: string[]) {
  const server = await startRedis(t, ...redisArgs);
  const troubles: unknown[] = [];
  /** A replica: a connection and a seat of its own. */
  const join = async (over: Partial<RedisFleetOptions> = {}) => {
    const { redis } = await openTestRedis(t, server.port);
    const bounds = createRedisBounds({ redis, maxBytes: 1e9, now: Date.now });
    const fleet = await createRedisFleet({
      redis,
      bounds,
      leaseMs: 60_000,
      stallMs: 30_000,
      maxBlobBytes: 1e9,
      ttlMs: 3_600_000,
      onTrouble: (error) => troubles.push(error),
      ...over,
    });
    t.teardown(() => fleet.close());
    return { redis, fleet };
  };
  const { redis } = await openTestRedis(t, server.port);
  const keys = flightKeys(redis, key);
  const chunkKeys = async () => {
    const names = (await redis.command(keys.meta, 'KEYS', `narrows:{${digest}}:*`)) as Buffer[];
    return names
      .map(String)
      .filter((name) => /:\d+$/.test(name))
      .toSorted();
  };
  return { server, keys, join, chunkKeys, troubles };
}

async function leaderOf(fleet: Fleet): Promise<Leader> {
  const joined = await fleet.join(key);
  if (joined?.role !== 'leader') throw new Error('someone else leads');
  return joined;
}

async function followerOf(fleet: Fleet): Promise<Follower> {
  const joined = await fleet.join(key);
  if (joined?.role !== 'follower') throw new Error('nobody leads');
  return joined;
}

/** A download that has come as far as it was let. */
async function startDownload(t: Test, wanted = { bytes, digest }) {
  const gate = { end: 0, changed: Promise.withResolvers<void>() };
  async function* body() {
    for (let at = 0; at < wanted.bytes.length;) {
      if (at >= gate.end) await gate.changed.promise;
      const piece = wanted.bytes.subarray(at, Math.min(gate.end, at + 100_000));
      if (piece.length > 0) yield piece;
      at += piece.length;
    }
  }
  const flight = flightOf(body(), { digest: wanted.digest }, { size: wanted.bytes.length });
  const client = await flight.open('first');
  const allow = (end: number) => {
    gate.end = end;
    gate.changed.resolve();
    gate.changed = Promise.withResolvers();
  };
  t.teardown(async () => {
    allow(Infinity);
    await client.close();
  });
  const again = () => flight.open('passing-on');
  return { allow, share: async (leader: Leader) => leader.share(await again(), again) };
}

const anyone = () => Promise.resolve();

async function readOn(followed: Followed, onBytes: (count: number) => void = () => undefined): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const chunk of followed.body) {
    all.push(chunk);
    onBytes(chunk.length);
  }
  return Buffer.concat(all);
}

void t.test('redis fleet: of all who come at once one leads, the others follow', { skip }, async (t) => {
  const { join } = await prepare(t);
  const replicas = await Promise.all([join(), join(), join()]);
  for (let round = 0; round < 20; round++) {
    const seats = await Promise.all(Array.from({ length: 12 }, (_, at) => replicas[at % 3]!.fleet.join(key)));
    const leaders = seats.filter((seat) => seat?.role === 'leader');
    t.equal(leaders.length, 1);
    t.equal(seats.filter((seat) => seat?.role === 'follower').length, 11);
    await leaders[0]!.leave();
  }
});

void t.test(
  'redis fleet: followers read what grows, from any place, and then it is there as a whole',
  { skip },
  async (t) => {
    const { server, keys, join, chunkKeys } = await prepare(t);
    const [a, b] = [await join(), await join()];
    const leader = await leaderOf(a.fleet);
    const download = await startDownload(t);
    const sharing = download.share(leader);
    const follower = await followerOf(b.fleet);
    const places = [0, 1, MiB - 1, MiB, 3 * MiB + 5, bytes.length - 1, bytes.length];
    const read = places.map(() => 0);
    const followed = places.map(async (from, at) => {
      const one = (await follower.follow(from, anyone))!;
      return { one, body: await readOn(one, (count) => void (read[at]! += count)) };
    });
    download.allow(2 * MiB + 5);
    await until(() => read[0] === 2 * MiB && read[2] === MiB + 1, 'two chunks, while the third is on its way');
    download.allow(Infinity);
    for (const [at, { one, body }] of (await Promise.all(followed)).entries()) {
      t.equal(one.size, bytes.length);
      t.ok(body.equals(bytes.subarray(places[at])), `from ${places[at]}`);
    }
    await sharing;
    t.equal(server.cli('EXISTS', keys.meta), '1');
    t.equal(server.cli('EXISTS', keys.lease, keys.growing), '0');
    t.equal((await chunkKeys()).length, 6);
    const late = (await (await followerOf(b.fleet)).follow(0, anyone))!;
    t.ok((await readOn(late)).equals(bytes), 'nobody leads what is whole');
  },
);

void t.test('redis fleet: nobody reads before the repository of the leader was looked at', { skip }, async (t) => {
  const { join } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  const asked: string[] = [];
  const refused = (await followerOf(b.fleet)).follow(0, (repository) => {
    asked.push(repository);
    return Promise.reject(new Error('not yours'));
  });
  t.match(await failureOf(refused), { message: 'not yours' });
  t.same(asked, ['docker.io/library/x']);
  download.allow(Infinity);
  await sharing;
});

void t.test(
  'redis fleet: a leader that leaves ends its followers, before a byte and in the middle',
  { skip },
  async (t) => {
    const { server, keys, join } = await prepare(t);
    const [a, b] = [await join(), await join()];
    const first = await leaderOf(a.fleet);
    const waiting = (await followerOf(b.fleet)).follow(0, anyone);
    await first.leave();
    t.equal(await within(5000, 'the end', waiting), undefined);

    const second = await leaderOf(a.fleet);
    const download = await startDownload(t);
    const sharing = download.share(second);
    const followed = (await (await followerOf(b.fleet)).follow(0, anyone))!;
    let read = 0;
    const reading = readOn(followed, (count) => void (read += count));
    download.allow(2 * MiB);
    await until(() => read === 2 * MiB, 'two chunks');
    await second.leave();
    t.match(await within(5000, 'the end', failureOf(reading)), { message: /has gone/ });
    download.allow(Infinity);
    await sharing;
    t.equal(server.cli('EXISTS', keys.meta), '0', 'who has left publishes nothing');
    t.equal((await leaderOf(b.fleet)).isLost, false, 'another may lead');
  },
);

void t.test(
  'redis fleet: a download that fails leaves nothing behind for others to go on with',
  { skip },
  async (t) => {
    const { server, keys, join } = await prepare(t);
    const [a, b] = [await join(), await join()];
    const wrong = Buffer.from(bytes);
    wrong[bytes.length - 1]! ^= 1;
    const download = await startDownload(t, { bytes: wrong, digest });
    const leader = await leaderOf(a.fleet);
    download.allow(Infinity);
    await download.share(leader);
    t.equal(server.cli('EXISTS', keys.meta, keys.lease, keys.growing), '0');
    t.equal((await leaderOf(b.fleet)).role, 'leader');
  },
);

void t.test('redis fleet: a copy with a hole is not published', { skip }, async (t) => {
  const { server, keys, join, chunkKeys } = await prepare(t);
  const { fleet } = await join();
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(fleet));
  download.allow(3 * MiB);
  await until(async () => (await chunkKeys()).length === 3, 'three chunks');
  server.cli('DEL', (await chunkKeys())[1]!);
  download.allow(Infinity);
  await sharing;
  t.equal(server.cli('EXISTS', keys.meta, keys.lease, keys.growing), '0');
});

void t.test('redis fleet: of what is gone nobody waits for more', { skip }, async (t) => {
  const { server, join, chunkKeys } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  download.allow(3 * MiB);
  await until(async () => (await chunkKeys()).length === 3, 'three chunks');
  server.cli(
    'DEL',
    (await chunkKeys()).find((name) => name.endsWith(':1'))!,
  );
  const follower = await followerOf(b.fleet);
  const followed = (await follower.follow(0, anyone))!;
  t.match(await failureOf(readOn(followed)), { message: /chunk 1 is not in Redis any more/ });
  t.equal(await follower.follow(MiB + 5, anyone), undefined, 'whoever comes for it is sent away');
  t.equal((await follower.follow(2 * MiB, anyone))!.size, bytes.length, 'what is there is read');
  download.allow(Infinity);
  await sharing;
});

void t.test('redis fleet: what is too large is not led, and nobody waits for it', { skip }, async (t) => {
  const { server, keys, join } = await prepare(t);
  const [a, b] = [await join({ maxBlobBytes: bytes.length - 1 }), await join()];
  const leader = await leaderOf(a.fleet);
  const waiting = (await followerOf(b.fleet)).follow(0, anyone);
  const download = await startDownload(t);
  const sharing = download.share(leader);
  t.equal(await within(5000, 'the end', waiting), undefined);
  await within(5000, 'the leader', sharing);
  t.equal(server.cli('KEYS', '*'), '', 'nothing of it is in Redis');
  t.ok(leader.isLost);
  t.equal(server.cli('EXISTS', keys.lease), '0');
});

void t.test('redis fleet: messages that get lost cost patience, not bytes', { skip }, async (t) => {
  const { join } = await prepare(t, '--rename-command', 'PUBLISH', '');
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  const followed = (await (await followerOf(b.fleet)).follow(0, anyone))!;
  let read = 0;
  const reading = readOn(followed, (count) => void (read += count));
  for (const chunk of [1, 2, 3]) {
    download.allow(chunk * MiB);
    await until(() => read === chunk * MiB, `chunk ${chunk}`);
  }
  download.allow(Infinity);
  t.ok((await reading).equals(bytes));
  await sharing;
});

void t.test(
  '49. redis fleet: who has lost the lead knows it, and its late words count for nothing',
  { skip },
  async (t) => {
    const { server, keys, join, chunkKeys } = await prepare(t);
    const [a, b, c] = [await join({ leaseMs: 3000 }), await join(), await join()];
    const first = await leaderOf(a.fleet);
    const slow = await startDownload(t);
    const sharing = slow.share(first);
    slow.allow(2 * MiB);
    await until(async () => (await chunkKeys()).length === 2, 'two chunks');
    // As if it had slept: its lease is over, by the clock that counts.
    server.cli('DEL', keys.lease);
    const second = await leaderOf(b.fleet);
    await until(() => first.isLost, 'the first to find out');
    const fast = await startDownload(t);
    fast.allow(4 * MiB);
    const sharingOn = fast.share(second);
    await until(async () => (await chunkKeys()).length === 4, 'two more, of the same copy');
    slow.allow(Infinity);
    await sharing;
    t.equal((await chunkKeys()).length, 4);
    t.equal(server.cli('EXISTS', keys.meta), '0');
    const following = readOn((await (await followerOf(c.fleet)).follow(0, anyone))!);
    fast.allow(Infinity);
    await sharingOn;
    t.ok((await following).equals(bytes));
    t.equal((await chunkKeys()).length, 6, 'one generation');
  },
);

void t.test('48. redis fleet: a leader that died is taken over from when its lease is over', { skip }, async (t) => {
  const { server, keys, join, chunkKeys } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  download.allow(2 * MiB);
  await until(async () => (await chunkKeys()).length === 2, 'two chunks');
  const followed = (await (await followerOf(b.fleet)).follow(0, anyone))!;
  const reading = readOn(followed);
  await a.redis.close();
  server.cli('PEXPIRE', keys.lease, '300');
  t.match(await failureOf(reading), { message: /has gone/ });
  const next = await startDownload(t);
  next.allow(Infinity);
  const third = await join();
  await next.share(await leaderOf(b.fleet));
  t.equal((await chunkKeys()).length, 6, 'the chunks of the one that died were gone on with');
  t.ok((await readOn((await (await followerOf(third.fleet)).follow(0, anyone))!)).equals(bytes));
  download.allow(Infinity);
  await sharing;
});

void t.test('redis fleet: who stops following does not wait for a leader that is silent', { skip }, async (t) => {
  const { join } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  const followed = (await (await followerOf(b.fleet)).follow(0, anyone))!;
  const reading = readOn(followed);
  followed.cancel();
  await within(5000, 'the end', failureOf(reading));
  download.allow(Infinity);
  await sharing;
});

void t.test('redis fleet: the end of a replica leaves all that it leads, at once', { skip }, async (t) => {
  const { join } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(a.fleet));
  const failure = failureOf(readOn((await (await followerOf(b.fleet)).follow(0, anyone))!));
  await a.fleet.close();
  t.match(await within(5000, 'the end', failure), { message: /has gone/ });
  t.equal((await leaderOf(b.fleet)).role, 'leader');
  download.allow(Infinity);
  await sharing;
});

void t.test(
  'redis fleet: a lease that was asked of a silent Redis is given back when it wakes',
  { skip },
  async (t) => {
    const { server, join } = await prepare(t);
    const [a, b] = [await join(), await join()];
    // The scripts are known from here on: what is asked for in the silence will be done after it.
    for (const { fleet } of [a, b]) await (await leaderOf(fleet)).leave();
    server.signal('SIGSTOP');
    t.equal(await a.fleet.join(key), undefined, 'it goes on alone');
    server.signal('SIGCONT');
    await until(async () => (await b.fleet.join(key))?.role === 'leader', 'a leader');
  },
);

void t.test('redis fleet: who waits for a head when Redis goes is sent away, not failed', { skip }, async (t) => {
  const { server, join } = await prepare(t);
  const [a, b] = [await join(), await join()];
  const leader = await leaderOf(a.fleet);
  const waiting = (await followerOf(b.fleet)).follow(0, anyone);
  await server.kill();
  t.equal(await within(5000, 'the end', waiting), undefined);
  await leader.leave();
});

void t.test('redis fleet: without Redis everyone goes alone', { skip }, async (t) => {
  const { server, join, troubles } = await prepare(t);
  const { fleet } = await join();
  await server.kill();
  t.equal(await fleet.join(key), undefined);
  t.ok(troubles.length > 0);
});

void t.test(
  'fleet: a leader that is there and brings nothing is waited for once, and not for ever',
  { skip },
  async (t) => {
    const { join } = await prepare(t);
    const first = await join();
    const second = await join({ stallMs: 200 });
    t.match(await first.fleet.join(key), { role: 'leader' });
    const follower = await second.fleet.join(key);
    if (follower?.role !== 'follower') throw new Error('two lead');
    await t.rejects(
      follower.follow(0, () => Promise.resolve()),
      FleetStalled,
    );
  },
);
