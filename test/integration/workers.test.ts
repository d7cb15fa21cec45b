import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { download, filesOf, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept as accept, temporaryFolder } from '../fixtures/mirror.ts';
import { runNarrows, startServe } from '../fixtures/process.ts';
import { blobOf, pour, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const MiB = 1024 * 1024;
// Which worker has what is for nobody to see but the kernel.
const skip = existsSync('/proc/self/net/tcp') ? false : 'there is no /proc';

// 300 times 32 MiB are read and hashed by one process.
t.setTimeout(180_000);

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** How many connections with this port at its end a process has. */
function connectionsOf(pid: number, port: number): number {
  const held = new Set(readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`)));
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1, -1);
  return rows.filter((row) => {
    const [, local = '', , state, , , , , , inode] = row.trim().split(/\s+/);
    return parseInt(local.split(':')[1]!, 16) === port && state === '01' && held.has(`socket:[${inode}]`);
  }).length;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** A server of two workers, the leader of a process group, before a registry. */
async function prepare(t: Test, limits: Record<string, unknown> = {}) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const store = await temporaryFolder(t);
  const sockets = await temporaryFolder(t);
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, JSON.stringify({ limits }));
  const pids = new Set<number>();
  t.teardown(() => {
    for (const pid of pids) if (isRunning(pid)) process.kill(pid, 'SIGKILL');
  });
  const args = ['--workers', '2', '--config', file, '--store', store, '--upstream', `docker.io=${registry.url}`];
  const server = await startServe(t, { args, under: ['setsid', 'env', `TMPDIR=${sockets}`] });
  const pid = server.child.pid!;
  const workers = () => {
    const found = childrenOf(pid);
    for (const one of found) pids.add(one);
    return found;
  };
  workers();
  const lines = (text: string) => server.output().split(text).length - 1;
  /** That it has ended as it should: nothing of it is left. */
  const checkEnd = async () => {
    t.equal(await server.exit, 0);
    t.same([...pids].filter(isRunning), [], 'no process is left');
    t.same(await readdir(sockets), [], 'the folder of sockets is gone');
    t.equal(lines('"msg":"stopped"'), 1, 'one process speaks for all');
  };
  return { registry, store, server, pid, port: Number(new URL(server.url).port), workers, lines, checkEnd };
}

type Stage = Awaited<ReturnType<typeof prepare>>;

function put(registry: TestRegistry, seed: string, bytes: number): Content {
  const blob = blobOf(noise(seed, bytes));
  registry.put('library/x', blob);
  return blob;
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
async function startHerd({ server, registry, workers, port }: Stage, blob: Content, count: number) {
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

/** A connection that a worker has answered on. */
async function openConnection(t: Test, port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await ping(socket);
  return socket;
}

function ping(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once('data', () => resolve());
    socket.write('GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n');
  });
}

/** New connections go to whoever has started: at the end, to each of them. */
async function untilAllServe(t: Test, { workers, port }: Stage): Promise<void> {
  await until(async () => {
    await openConnection(t, port);
    return workers().length === 2 && workers().every((pid) => connectionsOf(pid, port) > 0);
  }, 'a connection to each worker');
}

async function metricsOf({ server }: Stage): Promise<(name: string) => number> {
  const text = (await download(`${server.adminUrl}/metrics`)).body.toString();
  return (name) =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? ([\\d.]+)$`, 'gm'))].reduce(
      (sum, [, at]) => sum + Number(at),
      0,
    );
}

void t.test('workers: what two of them serve is what one would', { skip }, async (t) => {
  const stage = await prepare(t);
  const { registry, store, server, port, workers, lines, checkEnd } = stage;
  registry.blobBytesPerSecond = 50e6;

  await t.test('workers: 300 clients of a cold blob make one download and one copy', async (t) => {
    const blob = put(registry, 'a herd', 32 * MiB);
    const { running, goOn, led, followed } = await startHerd(stage, blob, 300);
    t.equal(led + followed, 300);
    t.ok(led > 100 && followed > 100, `both of them serve: ${led} and ${followed}`);
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
    await checkEnd();
  });
});

void t.test('workers: kill -9', { skip }, async (t) => {
  const stage = await prepare(t);
  const { registry, server, pid, workers, lines } = stage;
  registry.blobBytesPerSecond = 50e6;
  const replaced = 'another one takes its place';

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
    const asking = await Promise.all([0, 1, 2, 3].map(() => openConnection(t, stage.port)));
    const pinging = await Promise.all([0, 1, 2, 3].map(() => openConnection(t, stage.port)));
    process.kill(pid, 'SIGSTOP');
    const cold = asking.map((_, at) => put(registry, `cold ${at}`, 1000));
    for (const [at, socket] of asking.entries()) socket.write(`GET ${pathOf(cold[at]!)} HTTP/1.1\r\nhost: x\r\n\r\n`);
    // By the time that they have answered so much else, they have asked who leads.
    for (let times = 0; times < 30; times++) await Promise.all(pinging.map(ping));
    process.kill(workers()[0]!, 'SIGKILL');
    process.kill(pid, 'SIGCONT');
    await until(() => lines(replaced) === 3, 'another worker');
    for (const blob of cold) t.ok(isRight(await hashDownload(server.url + pathOf(blob)), blob));
    t.equal(server.child.exitCode, null);
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

void t.test('workers: one that is silent while it leads is passed over', { skip }, async (t) => {
  const stage = await prepare(t, { upstreamStall: '1s', stopGrace: '1s' });
  const { registry, store, server, workers, checkEnd } = stage;
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
  await checkEnd();
});

void t.test('workers: SIGTERM lets running answers finish, and takes nothing new', { skip }, async (t) => {
  const stage = await prepare(t);
  const { registry, server, checkEnd } = stage;
  registry.blobBytesPerSecond = 50e6;
  const blob = put(registry, 'SIGTERM', 4 * MiB);
  const { running, goOn, led, followed } = await startHerd(stage, blob, 6);
  t.ok(led > 0 && followed > 0);
  server.child.kill('SIGTERM');
  await until(async () => (await download(`${server.url}/v2/`)).status === 0, 'the refusal');
  goOn();
  t.equal((await Promise.all(running)).filter((got) => isRight(got, blob)).length, 6);
  await checkEnd();
});

void t.test('workers: a second SIGTERM does not wait', { skip }, async (t) => {
  const stage = await prepare(t);
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
  const { server, workers, lines, checkEnd } = await prepare(t);
  process.kill(workers()[0]!, 'SIGKILL');
  await until(() => lines('another one takes its place') === 1, 'the replacement');
  process.kill(workers().at(-1)!, 'SIGKILL');
  await until(() => lines('another one takes its place') === 2, 'that of one that never served');
  workers();
  server.child.kill('SIGTERM');
  await checkEnd();
});

void t.test('workers: an address that is taken is told in one sentence, and no process is left', async (t) => {
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
    const commands = readdirSync('/proc').map((name) => commandOf(name));
    t.same(
      commands.filter((command) => command.includes(store)),
      [],
    );
    t.same(await readdir(TMPDIR), []);
  }
});

function commandOf(pid: string): string {
  const path = `/proc/${pid}/cmdline`;
  try {
    return /^\d+$/.test(pid) ? readFileSync(path, 'utf8') : '';
  } catch {
    return '';
  }
}
