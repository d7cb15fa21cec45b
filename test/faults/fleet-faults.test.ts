import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { download, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';
import { blobOf, pour, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { serveSockets } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const MiB = 1024 * 1024;

t.setTimeout(300_000);

interface Stage {
  readonly registry: TestRegistry;
  readonly redis: TestRedis;
  /** A replica with a disk of its own. */
  start(redisUrl?: string): Promise<ServeProcess>;
}

async function prepare(t: Test, settings: object = {}, ...redisArgs: string[]): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const redis = await startRedis(t, ...redisArgs);
  const config = join(await temporaryFolder(t), 'narrows.yaml');
  // Whoever tests on a busy machine must not take it for a silent Redis.
  await writeFile(config, JSON.stringify({ cache: { redis: { timeout: '2s', ...settings } } }));
  const args = ['--config', config, '--upstream', `docker.io=${registry.url}`];
  const start = async (url = redis.url) =>
    startServe(t, { args: [...args, ...(url ? ['--redis', url] : []), '--store', await temporaryFolder(t)] });
  return { registry, redis, start };
}

function pathOf({ digest }: Content): string {
  return `/v2/docker.io/library/x/blobs/${digest}`;
}

function isRight(got: Hashed, blob: Content): boolean {
  return got.status === 200 && got.isComplete && got.digest === blob.digest;
}

/** Broken is allowed, wrong is not. */
function isHonest(got: Hashed, blob: Content): boolean {
  return isRight(got, blob) || got.status !== 200 || !got.isComplete;
}

function isInRedis(redis: TestRedis, { digest }: Content): boolean {
  return redis.cli('EXISTS', `narrows:{${digest}}:blob`) === '1';
}

/** Has a replica pull a blob, until Redis has a copy of it. */
async function pullInto(t: Test, redis: TestRedis, replica: ServeProcess, blob: Content): Promise<void> {
  t.ok(isRight(await hashDownload(replica.url + pathOf(blob)), blob));
  await until(() => isInRedis(redis, blob), 'the blob in Redis').catch((error: unknown) => {
    t.comment(replica.output());
    throw error;
  });
}

function chunksIn(redis: TestRedis, { digest }: Content): string[] {
  const keys = redis.cli('--raw', 'KEYS', `narrows:{${digest}}:*`).split('\n');
  return keys.filter((key) => /:\d+$/.test(key));
}

/** What Redis holds of a blob, and the chunks that belong to no copy and stay. */
async function heldBy(t: Test, redis: TestRedis, { digest }: Content): Promise<{ digest: string; litter: string[] }> {
  const client = (await openTestRedis(t, redis.port)).redis;
  const copy = JSON.parse(redis.cli('GET', `narrows:{${digest}}:blob`)) as { size: number; generation: string };
  const chunks: Buffer[] = [];
  for (let index = 0; index < Math.ceil(copy.size / MiB); index++) {
    const key = `narrows:{${digest}}:${copy.generation}:${index}`;
    chunks.push((await client.command(key, 'GET', key)) as Buffer);
  }
  const others = chunksIn(redis, { digest } as Content).filter((key) => !key.includes(copy.generation));
  return {
    digest: digestOf(Buffer.concat(chunks)),
    litter: others.filter((key) => Number(redis.cli('PTTL', key)) > 600_000),
  };
}

/** The nth GET of a blob sends as far as `stops[n]`, and goes on when it is told to. */
function holdBack(registry: TestRegistry, blob: Content, ...stops: number[]): (() => void)[] {
  const gates = stops.map(() => Promise.withResolvers<void>());
  let asked = 0;
  registry.script = async (seen, response) => {
    if (seen.method !== 'GET' || !seen.path.endsWith(blob.digest) || asked >= stops.length) return false;
    const stop = stops[asked]!;
    const gate = gates[asked++]!;
    const from = Number(/^bytes=(\d+)-$/.exec(seen.headers.range ?? '')?.[1] ?? 0);
    const { length } = blob.bytes;
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': length - from,
      ...(from > 0 && { 'content-range': `bytes ${from}-${length - 1}/${length}` }),
    });
    response.flushHeaders();
    await pour(blob.bytes.subarray(from, stop), response, Infinity);
    await gate.promise;
    await pour(blob.bytes.subarray(Math.max(from, stop)), response, Infinity);
    response.end();
    return true;
  };
  return gates.map(({ resolve }) => resolve);
}

/** Between a replica and Redis: whoever listens is told of every piece that Redis sends, before it goes on or is lost. */
async function startTap(
  t: Test,
  port: number,
  mayPass: (total: number) => boolean | Promise<boolean>,
): Promise<string> {
  let total = 0;
  let turn = Promise.resolve();
  const pass = async (before: Promise<void>, chunk: Buffer, to: Socket) => {
    await before;
    total += chunk.length;
    if (await mayPass(total)) to.write(chunk);
    else to.destroy();
  };
  const tap = await serveSockets(t, (socket) => {
    const redis = connect(port, '127.0.0.1');
    socket.pipe(redis);
    redis.on('data', (chunk: Buffer) => {
      turn = pass(turn, chunk, socket);
    });
    redis.on('error', () => undefined);
    redis.on('close', () => void turn.then(() => socket.destroy()));
    socket.on('close', () => redis.destroy());
  });
  return `redis://127.0.0.1:${tap.port}`;
}

void t.test('fleet: Redis dies in the middle of a read, and the upstream gives the rest', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t);
  const blob = blobOf(noise('read from Redis', 10 * MiB));
  registry.put('library/x', blob);
  const a = await start();
  await pullInto(t, redis, a, blob);
  // A replica reads as fast as Redis sends: only from between can it be killed at a certain byte.
  const url = await startTap(t, redis.port, async (total) => {
    if (total <= 2.5 * MiB) return true;
    await redis.kill();
    return false;
  });
  const b = await start(url);
  const got = await hashDownload(b.url + pathOf(blob));
  t.ok(isRight(got, blob));
  t.equal(got.headers['narrows-cache'], 'hit-redis');
  t.equal(registry.count('GET blobs'), 2);
  const from = Number(
    /^bytes=(\d+)-$/.exec(registry.seen.findLast(({ method }) => method === 'GET')!.headers.range!)?.[1],
  );
  t.ok(from === MiB || from === 2 * MiB, `from ${from}`);
});

void t.test('fleet: chunks that go while they are read are made up for by the upstream', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t);
  const a = await start();
  const check = async (round: number) => {
    const blob = blobOf(noise(`chunks that go ${round}`, 8 * MiB));
    registry.put('library/x', blob);
    await pullInto(t, redis, a, blob);
    const at = Math.random() * 7 * MiB;
    const url = await startTap(t, redis.port, (total) => {
      const all = total < at ? [] : chunksIn(redis, blob);
      if (all.length > 0) redis.cli('DEL', all[Math.floor(Math.random() * all.length)]!);
      return true;
    });
    const b = await start(url);
    const all = await Promise.all([1, 2, 3].map(() => hashDownload(b.url + pathOf(blob))));
    t.ok(
      all.every((got) => isRight(got, blob)),
      `from ${at} on`,
    );
    t.ok(registry.count('GET blobs', blob.digest) <= 2);
  };
  await Promise.all([1, 2, 3].map(check));
});

void t.test('fleet: a chunk that was tampered with breaks the body, and the next one is right', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t);
  const [a, b] = await Promise.all([start(), start()]);
  for (const [chunk, offset] of [
    [0, 0],
    [3, 70_000],
    [4, 99],
  ] as const) {
    const blob = blobOf(noise(`tampered ${chunk}`, 4 * MiB + 100));
    registry.put('library/x', blob);
    await pullInto(t, redis, a, blob);
    const key = chunksIn(redis, blob).find((name) => name.endsWith(`:${chunk}`))!;
    redis.cli('SETRANGE', key, String(offset), blob.bytes[chunk * MiB + offset] === 120 ? 'y' : 'x');
    const all = await Promise.all([1, 2, 3].map(() => hashDownload(b.url + pathOf(blob))));
    t.ok(all.some(({ isComplete }) => !isComplete) && all.every((got) => isHonest(got, blob)), `chunk ${chunk}`);
    t.ok(isRight(await hashDownload(b.url + pathOf(blob)), blob));
  }
});

void t.test('fleet: a forged copy is never taken for a blob, and the next pull is right', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t);
  const [a, b] = await Promise.all([start(), start()]);
  const generation = '00000000-0000-0000-0000-000000000000';
  const forgeries: ((copy: Record<string, unknown>) => unknown)[] = [
    () => 'no JSON at all',
    () => null,
    (copy) => ({ ...copy, size: 3 * MiB }),
    (copy) => ({ ...copy, size: 4 * MiB + 1 }),
    (copy) => ({ ...copy, size: 2 ** 29 }),
    (copy) => ({ ...copy, size: 2 ** 52 }),
    (copy) => ({ ...copy, size: 0 }),
    (copy) => ({ ...copy, generation }),
    (copy) => ({ ...copy, generation: '../../x' }),
    (copy) => ({ ...copy, version: 2 }),
  ];
  const check = async (forge: (typeof forgeries)[0], isSizeKnown: boolean) => {
    const what = `${String(forge)}, size ${isSizeKnown ? 'known' : 'unknown'}`;
    const blob = blobOf(noise(`forged: ${what}`, 4 * MiB));
    registry.put('library/x', blob);
    if (isSizeKnown) {
      const manifest = manifestOf(blob);
      registry.put('library/x', manifest);
      await download(`${a.url}/v2/docker.io/library/x/manifests/${manifest.digest}`);
    }
    await pullInto(t, redis, a, blob);
    const meta = `narrows:{${blob.digest}}:blob`;
    const forged = forge(JSON.parse(redis.cli('GET', meta)) as Record<string, unknown>);
    redis.cli('SET', meta, typeof forged === 'string' ? forged : JSON.stringify(forged), 'KEEPTTL');
    const first = await hashDownload(b.url + pathOf(blob));
    t.ok(isSizeKnown ? isRight(first, blob) : isHonest(first, blob), what);
    const second = await hashDownload(b.url + pathOf(blob));
    t.ok(isRight(second, blob), `${what}: first ${first.status} ${first.isComplete}, then ${second.status}`);
  };
  await Promise.all([true, false].flatMap((isKnown) => forgeries.map((forge) => check(forge, isKnown))));
});

function manifestOf(layer: Content): Content {
  const config = blobOf(Buffer.from('{}'));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const described = { ...descriptor(config), mediaType: 'application/vnd.oci.image.config.v1+json' };
  return content({ schemaVersion: 2, mediaType, config: described, layers: [descriptor(layer)] }, mediaType);
}

for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
  void t.test(`fleet: the leader is gone at half of a download, by ${signal}`, { skip }, async (t) => {
    const { registry, redis, start } = await prepare(t, { lease: '1s' });
    const blob = blobOf(noise(`led by one that ${signal}`, 8 * MiB));
    registry.put('library/x', blob);
    const [a, b, c] = await Promise.all([start(), start(), start()]);
    const [wakeFirst, wakeSecond] = holdBack(registry, blob, 4 * MiB, 6 * MiB);
    const leading = hashDownload(a.url + pathOf(blob));
    await until(() => chunksIn(redis, blob).length === 4, 'the first half in Redis');
    let read = 0;
    const following = Array.from({ length: 10 }, () =>
      hashDownload(b.url + pathOf(blob), { onBytes: (count) => void (read += count) }),
    );
    await until(() => read === 10 * 4 * MiB, 'followers that have all that the leader gave');
    a.child.kill(signal);
    await until(() => chunksIn(redis, blob).length === 6, 'another leader that goes on where the first was');
    const grown = chunksIn(redis, blob)[0]!.split(':').at(-2)!;
    t.equal(registry.count('GET blobs'), 2);
    t.equal(registry.seen.findLast(({ method }) => method === 'GET')!.headers.range, `bytes=${4 * MiB}-`);
    // It comes back while the other is in the middle, and has all the rest at once.
    a.child.kill('SIGCONT');
    wakeFirst!();
    const first = await leading;
    t.ok(signal === 'SIGKILL' ? !first.isComplete : isRight(first, blob), 'its own client');
    t.equal(chunksIn(redis, blob).filter((key) => key.includes(grown)).length, 6);
    wakeSecond!();
    t.equal((await Promise.all(following)).filter((got) => isRight(got, blob)).length, 10);
    await until(() => isInRedis(redis, blob), 'the whole in Redis');
    // Whoever takes another's place lets its chunks expire right after.
    await until(async () => (await heldBy(t, redis, blob)).litter.length === 0, 'no other copy that stays');
    t.equal((await heldBy(t, redis, blob)).digest, blob.digest);
    const third = await hashDownload(c.url + pathOf(blob));
    t.ok(isRight(third, blob));
    t.equal(third.headers['narrows-cache'], 'hit-redis');
    t.equal(registry.count('GET blobs'), 2);
  });
}

for (const what of ['flushed', 'restarted empty'] as const) {
  void t.test(`fleet: Redis is ${what} in the middle of a download`, { skip }, async (t) => {
    const { registry, redis, start } = await prepare(t, { lease: '1s' });
    const blob = blobOf(noise(`Redis is ${what}`, 8 * MiB));
    registry.put('library/x', blob);
    const [a, b, c] = await Promise.all([start(), start(), start()]);
    const [goOn] = holdBack(registry, blob, 4 * MiB);
    let read = 0;
    const onBytes = (count: number) => void (read += count);
    const all = [a, b, c].map((replica) => hashDownload(replica.url + pathOf(blob), { onBytes }));
    await until(() => read === 3 * 4 * MiB, 'three clients that have the first half');
    if (what === 'flushed') redis.cli('FLUSHALL');
    else await redis.restart();
    await until(() => registry.count('GET blobs') > 1, 'someone who goes on alone');
    goOn!();
    for (const got of await Promise.all(all)) t.ok(isRight(got, blob));
    t.ok(registry.count('GET blobs') <= 3);
    await until(() => isInRedis(redis, blob), 'the whole in Redis');
    // Whoever takes another's place lets its chunks expire right after.
    await until(async () => (await heldBy(t, redis, blob)).litter.length === 0, 'no other copy that stays');
    t.equal((await heldBy(t, redis, blob)).digest, blob.digest);
  });
}

void t.test('fleet: a Redis without memory holds up nobody', { skip }, async (t) => {
  // Whoever waited for a lease would wait long.
  const full = ['--maxmemory', '6mb', '--maxmemory-policy', 'noeviction'];
  const { registry, redis, start } = await prepare(t, { lease: '60s' }, ...full);
  const replicas = await Promise.all([start(), start(), start()]);
  const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], payloadBytes: 10 * MiB });
  registry.putImage('library/x', '1', image);
  const [child] = image.children;
  for (const replica of replicas) {
    const tag = await download(`${replica.url}/p/linux-amd64/v2/docker.io/library/x/manifests/1`);
    t.match(tag, { status: 200, headers: { 'docker-content-digest': child!.manifest.digest } });
  }
  for (const blob of [...child!.layers, child!.config]) {
    const all = await Promise.all(replicas.map((replica) => hashDownload(replica.url + pathOf(blob))));
    for (const got of all) t.ok(isRight(got, blob) && got.ms < 20_000, `after ${Math.round(got.ms)} ms`);
  }
  t.match(redis.cli('INFO', 'errorstats'), /errorstat_OOM:count=[1-9]/);
});
