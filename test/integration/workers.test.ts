import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { download, filesOf, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept as accept, temporaryFolder } from '../fixtures/mirror.ts';
import { runNarrows } from '../fixtures/process.ts';
import { blobOf, pour } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import {
  ask,
  commandLines,
  connectTo,
  connectToEach,
  connectionsOf,
  hasKernelFiles,
  isRefused,
  isRunning,
  startWorkers,
  untilAllServe,
} from '../fixtures/workers.ts';
import type { TestWorkers } from '../fixtures/workers.ts';

const MiB = 1024 * 1024;
const skip = hasKernelFiles ? false : 'there is no /proc';
const replaced = 'another one takes its place';

// 300 times 32 MiB are read and hashed by one process.
t.setTimeout(180_000);

/** That it has ended as it should: nothing of it is left. */
async function checkEnd(t: Test, { server, running, temporary, lines }: TestWorkers): Promise<void> {
  t.equal(await server.exit, 0);
  t.same(running(), [], 'no process is left');
  t.same(await readdir(temporary), [], 'the folder of sockets is gone');
  t.equal(lines('"msg":"stopped"'), 1, 'one process speaks for all');
}

function put(registry: TestRegistry, seed: string, bytes: number): Content {
  const blob = blobOf(noise(seed, bytes));
  registry.put('library/x', blob);
  return blob;
}

/** A coordinator that was stopped has answers to catch up with. */
async function untilTogether(registry: TestRegistry, pair: readonly Socket[]): Promise<void> {
  let tries = 0;
  await until(async () => {
    const probe = put(registry, `probe ${++tries}`, 2 * MiB);
    const received = pair.map((socket) => ask(socket, pathOf(probe)));
    await until(() => received.every((bytes) => bytes() > 2 * MiB), 'the probe, twice');
    return registry.count('GET blobs', probe.digest) === 1;
  }, 'workers that download together');
}

function pathOf({ digest }: Content): string {
  return `/v2/docker.io/library/x/blobs/${digest}`;
}

function isRight(got: Hashed, blob: Content): boolean {
  return got.status === 200 && got.isComplete && got.digest === blob.digest;
}

/** Sends the first half of a blob, and the rest when it is told to. `ports` are those of whoever asked. */
function holdBack(registry: TestRegistry, blob: Content): { ports: number[]; goOn(): void } {
  const gate = Promise.withResolvers<void>();
  const ports: number[] = [];
  const size = blob.bytes.length;
  registry.script = async ({ method, path, headers }, response) => {
    if (method !== 'GET' || !path.endsWith(blob.digest)) return false;
    ports.push(response.socket!.remotePort!);
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0);
    if (from > 0) response.setHeader('content-range', `bytes ${from}-${size - 1}/${size}`);
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': size - from });
    await pour(blob.bytes.subarray(from, size / 2), response, registry.blobBytesPerSecond);
    await gate.promise;
    await pour(blob.bytes.subarray(Math.max(from, size / 2)), response, registry.blobBytesPerSecond);
    response.end();
    return true;
  };
  return { ports, goOn: gate.resolve };
}

/** Clients whose answers have begun, on both workers, and the worker that leads their download. */
async function startHerd({ server, registry, workers, port }: TestWorkers, blob: Content, count: number) {
  const held = holdBack(registry, blob);
  const begun = new Set<number>();
  const running = Array.from({ length: count }, (_, at) =>
    hashDownload(server.url + pathOf(blob), { onBytes: () => void begun.add(at) }),
  );
  await until(() => begun.size === count, 'the first bytes of everyone');
  const leader = workers().find((pid) => connectionsOf(pid, held.ports[0]!) > 0)!;
  const other = workers().find((pid) => pid !== leader)!;
  return { ...held, running, leader, other, led: connectionsOf(leader, port), followed: connectionsOf(other, port) };
}

async function metricsOf({ server }: TestWorkers): Promise<(name: string) => number> {
  const text = (await download(`${server.adminUrl}/metrics`)).body.toString();
  return (name) =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? ([\\d.]+)$`, 'gm'))].reduce(
      (sum, [, at]) => sum + Number(at),
      0,
    );
}

void t.test('workers: what two of them serve is what one would', { skip }, async (t) => {
  const stage = await startWorkers(t);
  const { registry, store, server, port, workers, lines } = stage;
  registry.blobBytesPerSecond = 50e6;

  await t.test('workers: 300 clients of a cold blob make one download and one copy', async (t) => {
    const blob = put(registry, 'a herd', 32 * MiB);
    const { running, goOn, led, followed } = await startHerd(stage, blob, 300);
    t.equal(led + followed, 300);
    t.ok(led > 0 && followed > 0, `both of them serve: ${led} and ${followed}`);
    goOn();
    const all = await Promise.all(running);
    t.equal(all.filter((got) => isRight(got, blob)).length, 300);
    t.equal(registry.count('GET blobs'), 1);
    await until(async () => (await filesOf(store)).unfinished.length === 0, 'the blob on the disk');
    t.equal((await filesOf(store)).blobs.length, 1);
  });

  await t.test('workers: ranges of a cold blob', async (t) => {
    const blob = put(registry, 'ranges', 8 * MiB);
    registry.forget();
    const ranges = Array.from({ length: 24 }, (_, at) => [at * 300_000, (at + 1) * 300_000 + at] as const);
    const all = await Promise.all(
      ranges.map(([from, to]) => download(server.url + pathOf(blob), { headers: { range: `bytes=${from}-${to}` } })),
    );
    for (const [at, [from, to]] of ranges.entries()) {
      t.match(all[at], {
        status: 206,
        isComplete: true,
        headers: { 'content-range': `bytes ${from}-${to}/${8 * MiB}` },
      });
      t.ok(all[at]!.body.equals(blob.bytes.subarray(from, to + 1)));
    }
    t.equal(registry.count('GET blobs'), 1);
  });

  await t.test('workers: the admin address answers for all of them', async (t) => {
    const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });
    registry.putImage('library/app', '1', image);
    const path = '/p/linux-arm64/v2/docker.io/library/app/manifests/1';
    t.equal((await download(server.url + path, { headers: { accept } })).status, 200);
    t.match(await download(`${server.adminUrl}/readyz`), { status: 200 });
    const images = await download(`${server.adminUrl}/api/images`);
    t.same(JSON.parse(images.body.toString()), {
      images: [{ image: 'docker.io/library/app:1', digest: image.index.digest }],
    });
    const before = await metricsOf(stage);
    const inspect = await download(`${server.adminUrl}/api/inspect?image=app:1`);
    t.match(JSON.parse(inspect.body.toString()), {
      platforms: [
        { platform: 'linux/amd64', status: 'absent' },
        { platform: 'linux/arm64', status: 'partial' },
      ],
    });
    registry.putImage('library/app', '2', image);
    t.equal((await download(`${server.adminUrl}/api/inspect?image=app:2`)).status, 200);
    const after = await metricsOf(stage);
    const asked = after('narrows_upstream_requests_total') - before('narrows_upstream_requests_total');
    t.equal(asked, 1, 'what the admin address asks of upstreams is counted too');
    t.equal(after('narrows_requests_total'), lines('"msg":"request"'), 'every line of the log of every worker');
    t.equal(after('narrows_requests_total'), 300 + 24 + 1);
    t.ok(after('narrows_sent_bytes_total') > 300 * 32 * MiB);
    t.equal(after('narrows_downloads_running'), 0);
  });

  await t.test('workers: Ctrl-C reaches every process, and running answers finish', async (t) => {
    const { running, goOn, led, followed } = await startHerd(stage, put(registry, 'Ctrl-C', 4 * MiB), 6);
    t.ok(led > 0 && followed > 0);
    process.kill(-stage.pid, 'SIGINT');
    await until(async () => (await download(`${server.adminUrl}/readyz`)).status === 503, 'the stop');
    await until(() => workers().every((pid) => connectionsOf(pid, port) < 7), 'the stop');
    goOn();
    for (const got of await Promise.all(running)) t.ok(got.isComplete);
    await checkEnd(t, stage);
  });
});

void t.test('33. workers: kill -9', { skip }, async (t) => {
  const stage = await startWorkers(t);
  const { registry, store, server, pid, workers, lines } = stage;
  registry.blobBytesPerSecond = 50e6;

  await t.test('workers: one that dies leading is followed by another, and replaced', async (t) => {
    const blob = put(registry, 'killed', 8 * MiB);
    const { running, ports, goOn, leader, other, led, followed } = await startHerd(stage, blob, 12);
    t.equal(led + followed, 12);
    t.ok(led > 0 && followed > 0);
    process.kill(leader, 'SIGKILL');
    await until(() => ports.length === 2, 'the next to lead');
    goOn();
    const all = await Promise.all(running);
    t.equal(all.filter((got) => isRight(got, blob)).length, followed, 'the clients of the other see nothing of it');
    t.equal(all.filter(({ isComplete }) => !isComplete).length, led);
    t.match(registry.seen.at(-1)!.headers.range, /^bytes=[1-9]\d*-$/, 'it goes on where the bytes are');
    await until(() => lines(replaced) === 1, 'another worker');
    await untilAllServe(t, stage);
    process.kill(other, 'SIGKILL');
    await until(() => lines(replaced) === 2, 'another worker');
    const later = put(registry, 'later', MiB);
    t.ok(isRight(await hashDownload(server.url + pathOf(later)), later), 'the one that took its place serves');
  });

  await t.test('workers: what one asked for right before its end is answered to nobody', async (t) => {
    await untilAllServe(t, stage);
    const [dying] = workers() as [number];
    const asking = await connectTo(t, stage.port, dying);
    const cold = put(registry, 'asked for', 1000);
    process.kill(pid, 'SIGSTOP');
    ask(asking, pathOf(cold));
    await until(() => registry.count('GET blobs', cold.digest) === 1, 'its going on alone, for nobody says who leads');
    const ended = once(asking, 'close');
    process.kill(dying, 'SIGKILL');
    await ended;
    process.kill(pid, 'SIGCONT');
    await until(() => lines(replaced) === 3, 'another worker');
    t.ok(isRight(await hashDownload(server.url + pathOf(cold)), cold));
    t.equal(server.child.exitCode, null);
  });

  await t.test('workers: when nobody coordinates them each goes on alone, and afterwards together', async (t) => {
    await untilAllServe(t, stage);
    // For each of two blobs, a connection to each worker.
    const pairs = [await connectToEach(t, stage), await connectToEach(t, stage)] as const;
    // Too large for memory, so that they are cold again without their files.
    const blobs = [put(registry, 'alone', 2 * MiB), put(registry, 'alone too', 2 * MiB)];
    process.kill(pid, 'SIGSTOP');
    const received = pairs.flatMap((pair, at) => pair.map((socket) => ask(socket, pathOf(blobs[at]!))));
    await until(() => received.every((bytes) => bytes() > 2 * MiB), 'all of both, twice');
    process.kill(pid, 'SIGCONT');
    for (const blob of blobs) t.equal(registry.count('GET blobs', blob.digest), 2);
    await until(async () => (await filesOf(store)).unfinished.length === 0, 'the blobs on the disk');
    for (const file of (await filesOf(store)).blobs) await rm(file);
    await untilTogether(registry, pairs[0]);
    for (const [at, blob] of blobs.entries()) {
      const [first, second] = (at === 0 ? pairs[0] : pairs[1].toReversed()) as [Socket, Socket];
      registry.forget();
      const held = holdBack(registry, blob);
      const leading = ask(first, pathOf(blob));
      await until(() => leading() > 1000, 'the first bytes');
      const following = ask(second, pathOf(blob));
      await until(() => following() > 1000, 'the first bytes');
      held.goOn();
      await until(() => leading() > 2 * MiB && following() > 2 * MiB, 'all of it, twice');
      t.equal(registry.count('GET blobs'), 1, 'nobody holds a place that he does not fill');
    }
  });

  await t.test('workers: without the process that started them they end by themselves', async (t) => {
    await untilAllServe(t, stage);
    const { running, led, followed } = await startHerd(stage, put(registry, 'orphans', MiB), 6);
    t.ok(led > 0 && followed > 0);
    const orphans = workers();
    server.child.kill('SIGKILL');
    await until(() => !orphans.some(isRunning), 'the end of the workers');
    for (const got of await Promise.all(running)) t.notOk(got.isComplete);
  });
});

void t.test('49. workers: one that is silent while it leads is passed over', { skip }, async (t) => {
  const stage = await startWorkers(t, { upstreamStall: '1s', stopGrace: '1s' });
  const { registry, store, server, workers } = stage;
  const blob = put(registry, 'silent', 8 * MiB);
  registry.blobBytesPerSecond = 4 * MiB;
  const herd = await startHerd(stage, blob, 8);
  t.ok(herd.led > 0 && herd.followed > 0);
  process.kill(herd.leader, 'SIGSTOP');
  await until(() => herd.ports.length === 2, 'the next to lead');
  herd.goOn();
  let ended = 0;
  for (const one of herd.running) void one.then((got) => (ended += isRight(got, blob) ? 1 : 0));
  await until(() => ended === herd.followed, 'the clients of the other');
  process.kill(herd.leader, 'SIGCONT');
  t.equal((await Promise.all(herd.running)).filter((got) => isRight(got, blob)).length, 8, 'its own were only late');
  await until(async () => (await filesOf(store)).unfinished.length === 0, 'the blob on the disk');
  t.equal((await filesOf(store)).blobs.length, 1);

  process.kill(workers()[0]!, 'SIGSTOP');
  server.child.kill('SIGTERM');
  await checkEnd(t, stage);
});

void t.test('34. workers: SIGTERM lets running answers finish, and takes nothing new', { skip }, async (t) => {
  const stage = await startWorkers(t);
  const { registry, server } = stage;
  registry.blobBytesPerSecond = 50e6;
  const blob = put(registry, 'SIGTERM', 4 * MiB);
  const { running, goOn, led, followed } = await startHerd(stage, blob, 6);
  t.ok(led > 0 && followed > 0);
  server.child.kill('SIGTERM');
  await until(() => isRefused(stage.port), 'the refusal');
  goOn();
  t.equal((await Promise.all(running)).filter((got) => isRight(got, blob)).length, 6);
  await checkEnd(t, stage);
});

void t.test('workers: a second SIGTERM does not wait', { skip }, async (t) => {
  const stage = await startWorkers(t);
  const { registry, server, workers, lines } = stage;
  const { running } = await startHerd(stage, put(registry, 'twice', MiB), 4);
  const all = workers();
  server.child.kill('SIGTERM');
  await until(() => lines('"msg":"stopping') === 1, 'the stop');
  server.child.kill('SIGTERM');
  for (const got of await Promise.all(running)) t.notOk(got.isComplete);
  t.equal(await server.exit, 0);
  await until(() => !all.some(isRunning), 'the end of the workers');
});

void t.test('workers: SIGTERM while one is being replaced', { skip }, async (t) => {
  const stage = await startWorkers(t);
  const { server, workers, lines } = stage;
  process.kill(workers()[0]!, 'SIGKILL');
  await until(() => lines(replaced) === 1, 'the replacement');
  process.kill(workers().at(-1)!, 'SIGKILL');
  await until(() => lines(replaced) === 2, 'that of one that never served');
  workers();
  server.child.kill('SIGTERM');
  await checkEnd(t, stage);
});

void t.test(
  'workers: an address that is taken is told in one sentence, and no process is left',
  { skip },
  async (t) => {
    const blocker = createServer();
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    t.teardown(() => blocker.close());
    const taken = `127.0.0.1:${(blocker.address() as AddressInfo).port}`;
    const TMPDIR = await temporaryFolder(t);
    for (const [listen, admin] of [
      [taken, '127.0.0.1:0'],
      ['127.0.0.1:0', taken],
    ] as const) {
      const store = await temporaryFolder(t);
      const args = ['serve', '--workers', '2', '--listen', listen, '--admin', admin, '--store', store];
      const { code, out, err } = runNarrows(args, { TMPDIR });
      t.match({ code, out }, { code: 1, out: '' });
      t.equal(err, `${taken} is taken; choose another address with --listen or --admin.\n`);

      t.same(
        commandLines().filter((line) => line.includes(store)),
        [],
      );
      t.same(await readdir(TMPDIR), []);
    }
  },
);
