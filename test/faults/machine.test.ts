import { writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { filesOf, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { awaitFootprint, footprintOf, memoryHeld, settled } from '../fixtures/footprint.ts';
import { buildImage, content, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { hasProgram, startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { hasKernelFiles } from '../fixtures/workers.ts';

const skip = hasKernelFiles ? false : 'the kernel shows no /proc';
const MiB = 1024 * 1024;
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'machine' });

t.setTimeout(280_000);

interface Stage {
  readonly serve: ServeProcess;
  readonly registry: TestRegistry;
  readonly store: string;
  readonly port: number;
  readonly pid: number;
  get(path: string): Promise<Hashed>;
}

/**
 * A server as a process of its own, as it runs at home.
 * @param under a program that runs it
 * @param collects whether it collects its garbage when told to
 */
async function start(t: Test, under: readonly string[] = [], limits: object = {}, collects = false): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/x', '1', image);
  const store = await temporaryFolder(t);
  const config = join(await temporaryFolder(t), 'narrows.yaml');
  const settings = {
    upstreams: { up: { url: registry.url } },
    defaultUpstream: 'up',
    cache: { disk: { path: store }, memory: { maxSize: '4MiB', maxAnswers: '1MiB', maxBlobSize: '64KiB' } },
    limits,
  };
  await writeFile(config, JSON.stringify(settings));
  const serve = await startServe(t, { args: ['--config', config], under, collects });
  const port = Number(new URL(serve.url).port);
  const get = (path: string) => hashDownload(serve.url + path, { patienceMs: 60_000 });
  return { serve, registry, store, port, pid: serve.child.pid!, get };
}

const pathOf = ({ digest }: Content) => `/v2/up/team/x/blobs/${digest}`;

function make(registry: TestRegistry, name: string, count: number, bytes: number): Content[] {
  const blobs = Array.from({ length: count }, (_, at) => blobOf(noise(`${name} ${at}`, bytes)));
  for (const blob of blobs) registry.put('team/x', blob);
  return blobs;
}

function isWhole({ status, isComplete }: Hashed): boolean {
  return status === 200 && isComplete;
}

/** Does each of them, so many at once. */
async function inTurn<T>(all: readonly T[], atOnce: number, each: (one: T) => Promise<void>): Promise<void> {
  const left = all.values();
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const one of left) await each(one);
    }),
  );
}

// ---- Descriptors

const hasPrlimit = hasProgram('prlimit');

for (const limit of [64, 256]) {
  const skipped = skip || (hasPrlimit ? false : 'prlimit is not installed');
  void t.test(
    `43. ${limit} descriptors and many more clients: no wrong byte, and no end`,
    { skip: skipped },
    async (t) => {
      const stage = await start(t, ['prlimit', `--nofile=${limit}:${limit}`]);
      const { registry, pid } = stage;
      const fresh = await footprintOf(pid);
      const blobs = make(registry, 'descriptors', 60, 512 * 1024);
      registry.blobBytesPerSecond = MiB;
      const wanted = [...blobs.map((blob) => ({ path: pathOf(blob), digest: blob.digest })), manifestWanted];
      const outcomes: Record<number, number> = {};
      const clients = Array.from({ length: limit * 4 }, (_, at) => wanted[at % wanted.length]!);
      for (let round = 0; round < 2; round++) {
        await inTurn(clients, clients.length, async ({ path, digest }) => {
          const got = await stage.get(path);
          const status = isWhole(got) ? 200 : got.status === 200 ? 0 : got.status;
          outcomes[status] = (outcomes[status] ?? 0) + 1;
          if (status === 200 && got.digest !== digest) t.fail(`${path}: wrong bytes`);
          if (status >= 400 && status < 500) t.fail(`${path}: ${status} says something of the content`);
        });
      }
      // It is full for milliseconds at a time, which counting its descriptors from outside can miss.
      t.match(stage.serve.output(), 'EMFILE', 'there were no descriptors left');
      t.comment(JSON.stringify({ limit, outcomes }));
      t.ok(
        Object.keys(outcomes).some((status) => status !== '0'),
        'some were answered meanwhile',
      );
      t.equal(stage.serve.child.exitCode, null, 'it lives');

      registry.blobBytesPerSecond = Infinity;
      await settled(pid, fresh, 20);
      for (const { path, digest } of wanted) t.match(await stage.get(path), { status: 200, isComplete: true, digest });
      await until(async () => (await filesOf(stage.store)).unfinished.length === 0, 'nothing unfinished');
    },
  );
}

const manifestWanted = {
  path: `/v2/up/team/x/manifests/${image.index.digest}`,
  digest: image.index.digest,
};

// ---- Memory

const tinyPerRound = 3000;

void t.test('44. a heap of 128 MiB: thousands of manifests and large blobs do not fill it', { skip }, async (t) => {
  const stage = await start(t, ['env', 'NODE_OPTIONS=--max-old-space-size=128'], {}, true);
  const { registry, pid } = stage;
  const fresh = await footprintOf(pid);
  const large = make(registry, 'large', 3, 32 * MiB);
  let wrong = 0;
  const check = async ({ path, digest }: { path: string; digest: string }) => {
    const got = await stage.get(path);
    if (!isWhole(got) || got.digest !== digest) wrong++;
  };
  /** Others each time, so that what is kept of each would show. */
  const round = async (number: number) => {
    const tiny = Array.from({ length: tinyPerRound }, (_, at) => tinyManifest(number, at));
    for (const [at, one] of tiny.entries()) registry.put('team/x', one, `${number}-${at}`);
    const manifests = tiny.map((one, at) => ({ path: `/v2/up/team/x/manifests/${number}-${at}`, digest: one.digest }));
    const blobs = Array.from({ length: 30 }, (_, at) => large[at % large.length]!);
    await Promise.all([
      inTurn(manifests, 40, check),
      inTurn(blobs, 30, (blob) => check({ path: pathOf(blob), digest: blob.digest })),
    ]);
    for (const at of tiny.keys()) registry.delete('team/x', `${number}-${at}`);
    const { rssBytes } = await settled(pid, fresh, 20);
    return { rssBytes, heldBytes: await memoryHeld(stage.serve) };
  };
  const seen = [await round(0), await round(1), await round(2), await round(3)];
  t.comment(JSON.stringify({ fresh: fresh.rssBytes, seen }));
  t.equal(wrong, 0);
  t.equal(stage.serve.child.exitCode, null, 'it lives');
  // What it reaches, not what it has taken: a runtime takes memory before it needs it, and differently each time.
  t.ok(seen.at(-1)!.heldBytes < seen[1]!.heldBytes + 4 * MiB, 'two rounds more leave nothing behind');
  t.ok(seen.at(-1)!.rssBytes < fresh.rssBytes + 300 * MiB);
});

function tinyManifest(round: number, at: number): Content {
  const { bytes, mediaType } = image.children[0]!.manifest;
  const manifest = JSON.parse(bytes.toString()) as object;
  return content({ ...manifest, annotations: { at: `${round} ${at}` } }, mediaType);
}

// ---- The event loop

/** A connection that is kept, for one question at a time. */
interface Line {
  readonly socket: Socket;
  /** Resolves with the answer's status; rejects where the connection ends before. */
  ping(): Promise<number>;
}

async function openLine(t: Test, port: number): Promise<Line> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  let waiting: PromiseWithResolvers<number> | undefined;
  let said = '';
  const settle = (outcome: number | Error) => {
    const asked = waiting;
    waiting = undefined;
    said = '';
    if (typeof outcome === 'number') asked?.resolve(outcome);
    else asked?.reject(outcome);
  };
  socket.on('data', (chunk: Buffer) => {
    said += chunk.toString();
    if (said.endsWith('\r\n\r\n{}')) settle(Number(said.split(' ', 2)[1]));
  });
  socket.on('error', () => undefined);
  socket.on('close', () => settle(new Error('the connection is gone')));
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return {
    socket,
    ping() {
      waiting = Promise.withResolvers();
      if (socket.destroyed) settle(new Error('the connection is gone'));
      const { promise } = waiting ?? { promise: Promise.reject(new Error('the connection is gone')) };
      socket.write('GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n');
      return promise;
    },
  };
}

/** Pings one after the other until something else is over, and how many were answered before. */
async function pingsWhile(line: Line, work: Promise<unknown>): Promise<number> {
  const state = { isOver: false };
  const end = () => void (state.isOver = true);
  work.then(end, end);
  let answered = 0;
  while (!state.isOver) {
    if ((await line.ping()) !== 200) throw new Error('a ping was refused');
    if (!state.isOver) answered++;
  }
  await work;
  return answered;
}

/** An index of as many entries, values and bytes as are taken, nested as deeply as they may be. */
function heaviestIndex(seed: number): Content {
  const entries = Array.from({ length: 1000 }, (_, at) => ({
    mediaType: image.children[0]!.manifest.mediaType,
    digest: at === 0 ? image.children[0]!.manifest.digest : blobOf(Buffer.from(`${seed} ${at}`)).digest,
    size: image.children[0]!.manifest.bytes.length,
    platform: at === 0 ? { os: 'linux', architecture: 'amd64' } : { os: 'linux', architecture: `a${at}` },
    annotations: Object.fromEntries(Array.from({ length: 85 }, (_unused, key) => [`k${key}`, 'x'.repeat(37)])),
  }));
  const nested = JSON.parse('{"a":'.repeat(60) + '1' + '}'.repeat(60)) as object;
  const index = { schemaVersion: 2, mediaType: image.index.mediaType, manifests: entries, nested };
  return content(index, image.index.mediaType);
}

void t.test('45. the heaviest manifests and a large blob: others are answered in between', { skip }, async (t) => {
  const stage = await start(t);
  const { registry, get } = stage;
  const heavy = [0, 1, 2, 3].map(heaviestIndex);
  for (const [at, one] of heavy.entries()) registry.put('team/x', one, `heavy-${at}`);
  t.ok(
    heavy.every(({ bytes }) => bytes.length > 3.9 * MiB && bytes.length <= 4 * MiB),
    `${heavy[0]!.bytes.length}`,
  );
  const line = await openLine(t, stage.port);
  const narrowed: Hashed[] = [];
  const clients = Array.from({ length: 40 }, (_, at) => at);
  const reading = inTurn(clients, clients.length, async (at) => {
    narrowed.push(await get(`/v2/p/linux-amd64/up/team/x/manifests/heavy-${at % heavy.length}`));
  });
  const whileReading = await pingsWhile(line, reading);
  t.same(
    narrowed.map(({ status, digest }) => ({ status, digest })),
    clients.map(() => ({ status: 200, digest: image.children[0]!.manifest.digest })),
  );
  const [large] = make(registry, 'hashed', 1, 128 * MiB);
  const whileHashing = await pingsWhile(
    line,
    get(pathOf(large!)).then((got) => t.match(got, { status: 200, digest: large!.digest })),
  );
  t.comment(JSON.stringify({ whileReading, whileHashing }));
  t.ok(whileReading >= clients.length / 2, `${whileReading} pings while 40 clients had heavy manifests read`);
  t.ok(whileHashing >= 32, `${whileHashing} pings while 128 MiB were hashed`);
});

// ---- Connections

/** As many as the descriptors of this process allow, for it holds the other end of each. */
function idleCount(): number {
  const [, soft] = /Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return Math.min(10_000, Number(soft) - 2000);
}

void t.test('89. thousands of idle connections and 500 active: all of them are served', { skip }, async (t) => {
  const count = idleCount();
  const stage = await start(t, [], { connections: 20_000, keepAlive: '10m' });
  const { registry, pid } = stage;
  const blobs = make(registry, 'active', 50, 256 * 1024);
  const before = await footprintOf(pid);
  const lines: Line[] = [];
  await inTurn(
    Array.from({ length: count }, (_, at) => at),
    200,
    async () => {
      const line = await openLine(t, stage.port);
      await line.ping();
      lines.push(line);
    },
  );
  const idle = await awaitFootprint(pid, ({ sockets }) => sockets >= before.sockets + count);
  const perIdle = (idle.rssBytes - before.rssBytes) / count;
  t.comment(`${count} idle connections, ${Math.round(perIdle)} bytes of memory each`);
  t.ok(perIdle < 64 * 1024);

  let right = 0;
  const active = Array.from({ length: 500 }, (_, at) => blobs[at % blobs.length]!);
  await inTurn(active, active.length, async (blob) => {
    const got = await stage.get(pathOf(blob));
    if (isWhole(got) && got.digest === blob.digest) right++;
  });
  t.equal(right, active.length, 'all active ones got their bytes');

  let usable = 0;
  await inTurn(lines, 200, async (line) => {
    if ((await line.ping().catch(() => 0)) === 200) usable++;
  });
  t.equal(usable, count, 'all idle ones can be used again');
  t.ok((await footprintOf(pid)).sockets >= before.sockets + count, 'and are the same');
});
