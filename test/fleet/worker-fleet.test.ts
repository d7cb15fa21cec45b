import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { Test } from 'tap';
import { createCoordinator } from '../../src/fleet/coordinator.ts';
import type { Fleet, Followed, Follower, Leader } from '../../src/fleet/fleet.ts';
import { createWorkerFleet } from '../../src/fleet/worker-fleet.ts';
import type { CoordinatorLink } from '../../src/fleet/worker-fleet.ts';
import { flightOf } from '../fixtures/flights.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { blobOf } from '../fixtures/registry.ts';
import { failureOf, within } from '../fixtures/servers.ts';

const MiB = 1024 * 1024;
const { bytes, digest } = blobOf(noise('a download of workers', 5 * MiB + 17));
const key = { upstream: 'docker.io', digest, repository: 'docker.io/library/x' };

/** Workers around one coordinator, each with a socket of its own; `said` is what they told it. */
async function prepare(t: Test, stallMs = 60_000) {
  const coordinator = createCoordinator();
  const folder = await temporaryFolder(t);
  const said: string[] = [];
  let count = 0;
  const start = async (over: Partial<CoordinatorLink> = {}) => {
    const worker = ++count;
    const place = join(folder, `${worker}`);
    const link: CoordinatorLink = {
      join: (name) => Promise.resolve(coordinator.join(worker, place, name)),
      leave(name) {
        said.push(`${worker} leaves`);
        coordinator.leave(worker, name);
      },
      dispute(name, there) {
        said.push(`${worker} disputes ${there.slice(folder.length + 1)}`);
        coordinator.dispute(name, there);
      },
      ...over,
    };
    const fleet = await createWorkerFleet({ link, place, stallMs, onTrouble: (error) => said.push(String(error)) });
    t.teardown(() => fleet.close());
    return fleet;
  };
  return { folder, said, start, coordinator };
}

async function leaderOf(fleet: Fleet, wanted = key): Promise<Leader> {
  const joined = await fleet.join(wanted);
  if (joined?.role !== 'leader') throw new Error('someone else leads');
  return joined;
}

async function followerOf(fleet: Fleet): Promise<Follower> {
  const joined = await fleet.join(key);
  if (joined?.role !== 'follower') throw new Error('nobody leads');
  return joined;
}

/** A download that has come as far as it was let, and fails where it is told to. */
async function startDownload(t: Test, { failsAt = Infinity, of = bytes }: { failsAt?: number; of?: Buffer } = {}) {
  const gate = { end: 0, changed: Promise.withResolvers<void>() };
  async function* body() {
    for (let at = 0; at < of.length;) {
      if (at >= gate.end) await gate.changed.promise;
      if (at >= failsAt) throw new Error('the upstream broke off');
      const piece = of.subarray(at, Math.min(gate.end, at + 100_000));
      if (piece.length > 0) yield piece;
      at += piece.length;
    }
  }
  const flight = flightOf(body(), { digest }, { size: bytes.length });
  const client = await flight.open('first');
  const allow = (until = Infinity) => {
    gate.end = until;
    gate.changed.resolve();
    gate.changed = Promise.withResolvers();
  };
  t.teardown(async () => {
    allow();
    await client.close();
  });
  const passOn = () => flight.open('passing-on');
  return { allow, share: async (leader: Leader) => leader.share(await passOn(), passOn) };
}

const anyone = () => Promise.resolve();

async function readOn(followed: Followed, onBytes: (sum: number) => void = () => undefined): Promise<Buffer> {
  const all: Buffer[] = [];
  let sum = 0;
  for await (const chunk of followed.body) {
    all.push(chunk);
    onBytes((sum += chunk.length));
  }
  return Buffer.concat(all);
}

void t.test('worker fleet: of all who come at once one leads, the others get its bytes as they come', async (t) => {
  const { start } = await prepare(t);
  const fleets = await Promise.all([start(), start(), start(), start()]);
  const joined = (await Promise.all(fleets.map((fleet) => fleet.join(key)))).map((one) => one!);
  const [leader, ...more] = joined.filter((one) => one.role === 'leader');
  t.same(more, []);
  const download = await startDownload(t);
  const sharing = download.share(leader!);
  download.allow(1 * MiB);
  const followers = joined.filter((one) => one.role === 'follower');
  t.equal(followers.length, 3);
  const followed = await Promise.all(followers.map((one) => one.follow(0, anyone)));
  t.ok(followed.every((one) => one?.size === bytes.length));
  const sums = [0, 0, 0];
  const reading = followed.map((one, at) => readOn(one!, (sum) => (sums[at] = sum)));
  await until(() => sums.every((sum) => sum === MiB), 'what has come so far');
  download.allow();
  for (const got of await Promise.all(reading)) t.ok(got.equals(bytes));
  await sharing;
  t.equal(leader!.isLost, true);
  t.equal((await fleets.at(-1)!.join(key))?.role, 'leader', 'what is over is led by nobody');
});

void t.test('worker fleet: who follows starts at any place, up to the end', async (t) => {
  const { start } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  const leader = await leaderOf(one);
  void download.share(leader);
  download.allow(bytes.length - 1);
  const follower = await followerOf(other);
  const froms = [1, 2 * MiB + 3, bytes.length - 1, bytes.length];
  const followed = await Promise.all(froms.map((from) => follower.follow(from, anyone)));
  const reading = followed.map((one) => readOn(one!));
  download.allow();
  for (const [at, got] of (await Promise.all(reading)).entries()) t.ok(got.equals(bytes.subarray(froms[at])));
});

void t.test('worker fleet: before its head is there a download can be waited for, until it is given up', async (t) => {
  const { start, said } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const leader = await leaderOf(one);
  const early = (await followerOf(other)).follow(0, anyone);
  const download = await startDownload(t);
  download.allow(1);
  void download.share(leader);
  const followed = (await early)!;
  download.allow();
  t.ok((await readOn(followed)).equals(bytes));
  await until(() => said.length === 1, 'the end');

  const second = await leaderOf(one);
  const follower = await followerOf(other);
  const vain = follower.follow(0, anyone);
  await second.leave();
  t.equal(await vain, undefined);
  t.equal(await follower.follow(0, anyone), undefined, 'nobody there knows of it');
  await leaderOf(other);
  await second.leave();
  t.same(said, ['1 leaves', '1 leaves'], 'a place is left once');
  t.equal((await one.join(key))?.role, 'follower');
});

void t.test('worker fleet: a download that fails breaks off for those who follow', async (t) => {
  const { start } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const wrong = Buffer.from(bytes);
  wrong[bytes.length - 5]! ^= 1;
  // All that was sent before the verdict of a whole download may have come; then it is theirs to find out.
  for (const [what, options, isWhole] of [
    ['cut', { failsAt: MiB }, false],
    ['wrong', { of: wrong }, true],
  ] as const) {
    const download = await startDownload(t, options);
    const sharing = download.share(await leaderOf(one));
    const followed = (await (await followerOf(other)).follow(0, anyone))!;
    const reading = readOn(followed);
    download.allow();
    const outcome = await reading.catch((error: Error) => error);
    if (outcome instanceof Error) t.match(outcome.message, /has gone/, what);
    else t.ok(isWhole && outcome.equals(wrong), what);
    await sharing;
  }
});

void t.test('48. worker fleet: a leader that ends cuts off those who follow, and another leads', async (t) => {
  const { start, coordinator } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  void download.share(await leaderOf(one));
  download.allow(MiB);
  const follower = await followerOf(other);
  const followed = (await follower.follow(0, anyone))!;
  let sum = 0;
  const reading = failureOf(readOn(followed, (now) => (sum = now)));
  await until(() => sum === MiB, 'what has come so far');
  await one.close();
  t.match(await reading, { message: /has gone/ });
  t.equal(await follower.follow(sum, anyone), undefined, 'nobody is there');
  coordinator.gone(1);
  await leaderOf(other);
});

void t.test('worker fleet: a leader that is silent is disputed once, by whoever waits for it', async (t) => {
  const stallMs = 300;
  const { start, said } = await prepare(t, stallMs);
  const [one, two, three] = await Promise.all([start(), start(), start()]);
  const download = await startDownload(t);
  void download.share(await leaderOf(one));
  download.allow(MiB);
  const followers = await Promise.all([followerOf(two), followerOf(three)]);
  const started = performance.now();
  await Promise.all(
    followers.map(async (follower, at) => {
      const followed = await follower.follow(0, anyone);
      t.match(await failureOf(readOn(followed!)), { message: /silent/ });
      // Each asks again as soon as it knows.
      await (at === 0 ? two : three).join(key);
    }),
  );
  t.ok(performance.now() - started > stallMs * 0.9);
  t.same(said.toSorted(), ['2 disputes 1', '3 disputes 1']);
  const seats = await Promise.all([one, two, three].map((fleet) => fleet.join(key)));
  t.equal(seats.filter((seat) => seat?.role === 'leader').length, 1, 'one has taken its place, not each');
});

void t.test('worker fleet: a leader without a head is disputed as well', async (t) => {
  const { start, said } = await prepare(t, 200);
  const [one, other] = await Promise.all([start(), start()]);
  await leaderOf(one);
  t.equal(await within(5000, 'following', (await followerOf(other)).follow(0, anyone)), undefined);
  t.same(said, ['2 disputes 1']);
  await leaderOf(other);
});

void t.test('worker fleet: a reader that takes its time blames nobody for it', async (t) => {
  const stallMs = 200;
  const { start, said } = await prepare(t, stallMs);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  void download.share(await leaderOf(one));
  download.allow(bytes.length - 1);
  const follower = await followerOf(other);
  // First to say whether it may read, then with what it has read.
  const followed = (await follower.follow(0, () => delay(3 * stallMs)))!;
  const all: Buffer[] = [];
  for await (const chunk of followed.body) {
    if (all.length < 2) await delay(3 * stallMs);
    download.allow();
    all.push(chunk);
  }
  t.ok(Buffer.concat(all).equals(bytes));
  t.same(
    said.filter((word) => word.includes('disputes')),
    [],
  );
});

void t.test('worker fleet: who may not read gets nothing, and is told the repository of the download', async (t) => {
  const { start } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  void download.share(await leaderOf(one));
  download.allow(MiB);
  const follower = await followerOf(other);
  const asked: string[] = [];
  const refusal = follower.follow(0, (repository) => {
    asked.push(repository);
    return Promise.reject(new Error('not for you'));
  });
  t.match(await failureOf(refusal), { message: 'not for you' });
  t.same(asked, ['docker.io/library/x']);
  const followed = (await follower.follow(0, anyone))!;
  download.allow();
  t.ok((await readOn(followed)).equals(bytes), 'others may');
});

void t.test('worker fleet: who follows and leaves disturbs nobody', async (t) => {
  const { start } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  const sharing = download.share(await leaderOf(one));
  download.allow(2 * MiB);
  const follower = await followerOf(other);
  const [leaving, staying] = await Promise.all([follower.follow(0, anyone), follower.follow(0, anyone)]);
  const reading = readOn(staying!);
  for await (const _ of leaving!.body) break;
  leaving!.cancel();
  (await follower.follow(0, anyone))!.cancel();
  download.allow();
  t.ok((await reading).equals(bytes));
  await sharing;
});

void t.test('worker fleet: each upstream has a download of its own', async (t) => {
  const { start } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  await leaderOf(one);
  await leaderOf(other, { ...key, upstream: 'ghcr.io' });
  t.equal((await one.join({ ...key, upstream: 'ghcr.io' }))?.role, 'follower');
});

void t.test('worker fleet: an older download that ends does not give away the place of a later one', async (t) => {
  const { start, said } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const older = await leaderOf(one);
  const later = await leaderOf(one);
  await older.leave();
  const follower = await followerOf(other);
  const download = await startDownload(t);
  download.allow(MiB);
  const sharing = download.share(later);
  const followed = (await follower.follow(0, anyone))!;
  download.allow();
  t.ok((await readOn(followed)).equals(bytes));
  await sharing;
  t.same(said, ['1 leaves']);
  t.equal(older.isLost && later.isLost, true);
});

void t.test('worker fleet: what nobody can make sense of is hung up on', async (t) => {
  const { start, folder } = await prepare(t);
  const [one, other] = await Promise.all([start(), start()]);
  const download = await startDownload(t);
  void download.share(await leaderOf(one));
  download.allow(MiB);
  for (const line of ['rubbish\n', 'null\n', '{}\n', '{"key":"other","from":0}\n', 'x'.repeat(5000), '{"key":']) {
    const socket = connect(join(folder, '1'));
    socket.end(line);
    socket.resume();
    await within(5000, line.slice(0, 30), once(socket, 'close'));
    t.equal(socket.bytesRead, 0, line.slice(0, 30));
  }
  const followed = (await (await followerOf(other)).follow(0, anyone))!;
  download.allow();
  t.ok((await readOn(followed)).equals(bytes));
});

void t.test('worker fleet: a leader that says rubbish, or more than it said, is none', async (t) => {
  const { folder, start } = await prepare(t);
  for (const [at, answer, expected] of [
    [1, 'rubbish\n', undefined],
    [2, '{"size":5,"repository":"x"}\nabcdefgh', /has gone/],
    [3, '{"size":5,"repository":"x"}\nabc', /has gone/],
  ] as const) {
    const place = join(folder, `impostor ${at}`);
    const server = createServer((socket) => void socket.on('error', () => undefined).end(answer));
    await new Promise<void>((resolve) => server.listen(place, resolve));
    t.teardown(() => server.close());
    const fleet = await start({ join: () => Promise.resolve(place) });
    const followed = await (await followerOf(fleet)).follow(0, anyone);
    if (expected) t.match(await failureOf(readOn(followed!)), { message: expected }, answer);
    else t.equal(followed, undefined, answer);
  }
});

void t.test('worker fleet: where nobody can be asked everyone is on his own', async (t) => {
  const { start, said } = await prepare(t);
  const fleet = await start({ join: () => Promise.reject(new Error('no coordinator')) });
  t.equal(await fleet.join(key), undefined);
  t.same(said, ['Error: no coordinator']);
});
