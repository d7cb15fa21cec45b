import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { createCoordinator } from '../../src/fleet/coordinator.ts';
import { createWorkerFleet } from '../../src/fleet/worker-fleet.ts';
import { bytesBlob } from '../../src/cache/bytes.ts';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createSources } from '../../src/pull/sources.ts';
import { createRegistry } from '../../src/upstream/registry.ts';
import { hashDownload, until } from '../fixtures/downloads.ts';
import { content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf, pour, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { credentialsOf, failureOf, serveSockets, testLimits, within } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const MiB = 1024 * 1024;
const blob = blobOf(noise('found in many places', 5 * MiB + 17));
const path = `/v2/docker.io/library/x/blobs/${blob.digest}`;
const meta = `narrows:{${blob.digest}}:blob`;

async function prepare(t: Test) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  registry.put('library/x', blob);
  const redis = await startRedis(t);
  const start = (settings: object = {}) =>
    startTestMirror(t, {
      upstreams: { 'docker.io': registry.url },
      config: {
        cache: { redis: { url: redis.url, timeout: '2s', ...settings } },
        limits: { downloadResumeDelay: '10ms' },
      },
    });
  // Asked without holding up the mirrors, which are in this process.
  const { redis: client } = await openTestRedis(t, redis.port);
  const chunkKeys = async () => {
    const keys = (await client.command(meta, 'KEYS', `narrows:{${blob.digest}}:*`)) as Buffer[];
    return keys.map(String).filter((key) => /:[0-9a-f-]{36}:\d+$/.test(key));
  };
  const chunks = async () => (await chunkKeys()).length;
  const generations = async () => new Set((await chunkKeys()).map((key) => key.replace(/:\d+$/, ''))).size;
  const copy = async () => {
    const text = (await client.command(meta, 'GET', meta)) as Buffer | null;
    return text && (JSON.parse(text.toString()) as { size: number });
  };
  const isWhole = async () => (await copy()) !== null;
  return { registry, redis, start, generations, chunks, copy, isWhole };
}

function isRight({ status, isComplete, digest }: Awaited<ReturnType<typeof hashDownload>>): boolean {
  return status === 200 && isComplete && digest === blob.digest;
}

/** The first GET sends as far as `stop`, and goes on when it is told to. */
function holdBack(registry: TestRegistry, stop: number): () => void {
  const gate = Promise.withResolvers<void>();
  let isFirst = true;
  registry.script = async (seen, response) => {
    if (seen.method !== 'GET' || !isFirst) return false;
    isFirst = false;
    response.writeHead(200, { 'content-length': blob.bytes.length });
    response.flushHeaders();
    await pour(blob.bytes.subarray(0, stop), response, Infinity);
    await gate.promise;
    await pour(blob.bytes.subarray(stop), response, Infinity);
    response.end();
    return true;
  };
  return gate.resolve;
}

async function learnSize(registry: TestRegistry, mirror: TestMirror, layer: Content): Promise<void> {
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const config = { ...descriptor(blobOf(Buffer.from('{}'))), mediaType: 'application/vnd.oci.image.config.v1+json' };
  const manifest = content({ schemaVersion: 2, mediaType, config, layers: [descriptor(layer)] }, mediaType);
  registry.put('library/x', manifest);
  await mirror.get(`/v2/docker.io/library/x/manifests/${manifest.digest}`);
}

void t.test('sources: a whole copy of another replica, else its download, else the upstream', { skip }, async (t) => {
  const { registry, start, isWhole } = await prepare(t);
  const [a, b, c] = [await start(), await start(), await start()];
  const goOn = holdBack(registry, 2 * MiB);
  const first = hashDownload(a.url + path);
  await until(() => registry.count('GET blobs') === 1, 'the download');
  const second = hashDownload(b.url + path, { onBytes: () => goOn() });
  t.ok(isRight(await first) && isRight(await second));
  t.equal(registry.count('HEAD blobs'), 0, 'what one repository is read for need not be asked for twice');
  await until(isWhole, 'the copy in Redis');
  const third = await hashDownload(c.url + path);
  t.ok(isRight(third));
  t.same(
    [await first, await second, third].map(({ headers }) => headers['narrows-cache']),
    ['miss', 'joined', 'hit-redis'],
  );
  t.equal(registry.count('GET blobs'), 1);
});

void t.test('sources: what is passed on slower than it lands is not put there twice', { skip }, async (t) => {
  const { registry, redis, start, generations, isWhole } = await prepare(t);
  // Each answer of Redis comes late.
  const slow = await serveSockets(t, (socket) => {
    const there = connect(redis.port, '127.0.0.1');
    socket.pipe(there);
    there.on('data', (chunk: Buffer) => setTimeout(() => socket.write(chunk), 60));
    there.on('error', () => undefined);
    there.on('close', () => socket.destroy());
    socket.on('close', () => there.destroy());
  });
  const a = await start({ url: `redis://127.0.0.1:${slow.port}` });
  t.ok(isRight(await hashDownload(a.url + path)));
  await until(async () => (await a.head(path)).headers['narrows-cache'] === 'hit-disk', 'the landing');
  await until(isWhole, 'the copy in Redis');
  await a.stop();
  t.equal(await generations(), 1);
  t.equal(registry.count('GET blobs'), 1);
});

void t.test('sources: a copy of another size than the blob’s is passed by, and replaced', { skip }, async (t) => {
  const { registry, redis, start, copy, isWhole } = await prepare(t);
  for (const size of [0, 3 * MiB, 2 ** 50]) {
    const [a, b, c] = [await start(), await start(), await start()];
    await learnSize(registry, a, blob);
    t.ok(isRight(await hashDownload(a.url + path)));
    await until(isWhole, 'the copy in Redis');
    await a.stop();
    redis.cli('SET', meta, JSON.stringify({ ...(await copy()), size }), 'KEEPTTL');
    registry.forget();

    t.equal((await b.head(path)).headers['content-length'], String(blob.bytes.length));
    t.ok(isRight(await hashDownload(b.url + path)), `${size}`);
    t.equal(registry.count('GET blobs'), 1);
    await until(async () => (await copy())?.size === blob.bytes.length, 'a copy that is right');
    const healed = await hashDownload(c.url + path);
    t.ok(isRight(healed));
    t.equal(healed.headers['narrows-cache'], 'hit-redis');
    await b.stop();
    await c.stop();
    redis.cli('FLUSHALL');
  }
});

void t.test('sources: other content in a copy breaks the body, and the copy goes', { skip }, async (t) => {
  const { registry, redis, start, isWhole } = await prepare(t);
  const [a, b] = [await start(), await start()];
  await hashDownload(a.url + path);
  await until(isWhole, 'the copy in Redis');
  const [chunk] = redis.cli('--raw', 'KEYS', `narrows:{${blob.digest}}:*-*:2`).split('\n');
  redis.cli('SETRANGE', chunk!, '1000', 'other content');
  t.notOk((await hashDownload(b.url + path)).isComplete);
  await until(async () => !(await isWhole()), 'the copy to be gone');
  t.ok(isRight(await hashDownload(b.url + path)));
  t.equal(registry.count('GET blobs'), 2);
});

void t.test('8. sources: other content of the upstream goes to nobody', { skip }, async (t) => {
  const { registry, start, isWhole } = await prepare(t);
  const [a, b] = [await start(), await start()];
  const goOn = Promise.withResolvers<void>();
  let isFirst = true;
  registry.script = async (seen, response) => {
    if (seen.method !== 'GET' || !isFirst) return false;
    isFirst = false;
    const wrong = Buffer.from(blob.bytes);
    wrong[wrong.length - 1]! ^= 1;
    response.writeHead(200, { 'content-length': wrong.length });
    await pour(wrong.subarray(0, 2 * MiB), response, Infinity);
    await goOn.promise;
    await pour(wrong.subarray(2 * MiB), response, Infinity);
    response.end();
    return true;
  };
  const first = hashDownload(a.url + path);
  await until(() => registry.count('GET blobs') === 1, 'the download');
  const second = hashDownload(b.url + path, { onBytes: () => goOn.resolve() });
  t.notOk((await first).isComplete);
  // Whoever follows sees the leader leave before it has all of it, and may get what is missing from the upstream.
  const got = await second;
  t.ok(isRight(got) || !got.isComplete);
  t.ok(isRight(await hashDownload(a.url + path)));
  t.ok(isRight(await hashDownload(b.url + path)));
  await until(isWhole, 'the copy that is right');
});

void t.test('sources: what is missing of a leader’s copy comes from the upstream', { skip }, async (t) => {
  const { registry, redis, start, chunks } = await prepare(t);
  const [a, b] = [await start(), await start()];
  const goOn = holdBack(registry, 3 * MiB);
  const leading = hashDownload(a.url + path);
  await until(async () => (await chunks()) === 3, 'three chunks');
  redis.cli('DEL', redis.cli('--raw', 'KEYS', `narrows:{${blob.digest}}:*-*:1`));
  // The leader is held back all the time: nobody waits for it.
  const got = await within(10_000, 'the follower', hashDownload(b.url + path));
  t.ok(isRight(got));
  t.equal(got.headers['narrows-cache'], 'joined');
  t.equal(registry.seen.at(-1)!.headers.range, `bytes=${MiB}-`);
  goOn();
  t.ok(isRight(await leading));
  t.equal(registry.count('GET blobs'), 2);
});

void t.test(
  '18. sources: Redis goes while a follower waits for a head, and the upstream is asked',
  { skip },
  async (t) => {
    const { registry, redis, start } = await prepare(t);
    const [a, b] = [await start(), await start()];
    const silence = Promise.withResolvers<void>();
    let asked = 0;
    registry.script = async ({ method }) => {
      if (method === 'GET' && asked++ === 0) await silence.promise;
      return false;
    };
    const leading = hashDownload(a.url + path);
    await until(() => asked === 1, 'the leader’s question');
    const following = hashDownload(b.url + path);
    await until(() => /_flights_|cmdstat_evalsha:calls=[2-9]/.test(redis.cli('INFO', 'commandstats')), 'the follower');
    await redis.kill();
    t.ok(isRight(await following));
    silence.resolve();
    t.ok(isRight(await leading));
  },
);

void t.test('sources: a leader whose repository has no such blob stands in nobody’s way', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  registry.put('library/z', blobOf(Buffer.from('another')));
  const [a, b] = [await start(), await start()];
  const silence = Promise.withResolvers<void>();
  registry.script = async (seen) => {
    if (seen.method === 'GET' && seen.path.includes('/library/z/')) await silence.promise;
    return false;
  };
  const refused = a.get(`/v2/docker.io/library/z/blobs/${blob.digest}`);
  await until(() => registry.count('GET blobs') === 1, 'the leader’s question');
  const following = hashDownload(b.url + path, { onHead: () => t.ok(true) });
  silence.resolve();
  t.equal((await refused).status, 404);
  t.ok(isRight(await within(10_000, 'the follower', following)));
  t.equal(registry.count('GET blobs'), 2);
});

void t.test('sources: what is too large to pass on each one downloads, at once', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  const mirrors = await Promise.all([1, 2, 3].map(() => start({ maxBlobSize: '1MiB', lease: '60s' })));
  const all = await Promise.all(mirrors.map(({ url }) => within(20_000, 'a pull', hashDownload(url + path))));
  t.ok(all.every(isRight));
  t.equal(registry.count('GET blobs'), 3);
});

void t.test('sources: who follows can stop while the leader is silent', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  const [a, b] = [await start(), await start()];
  const goOn = holdBack(registry, 2 * MiB);
  const leading = hashDownload(a.url + path);
  await until(() => registry.count('GET blobs') === 1, 'the download');
  const left = await hashDownload(b.url + path, { leaveAfter: 1 });
  t.notOk(left.isComplete);
  await within(5000, 'the stop', b.stop());
  goOn();
  t.ok(isRight(await leading));
});

void t.test('48. sources: a leader that stops is followed by another at once', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  const [a, b] = [await start({ lease: '60s' }), await start({ lease: '60s' })];
  const goOn = holdBack(registry, 2 * MiB);
  const left = Promise.withResolvers<void>();
  void hashDownload(a.url + path, { leaveAfter: 1 }).then(() => left.resolve());
  await left.promise;
  const following = hashDownload(b.url + path);
  await until(async () => (await b.head(path)).headers['narrows-cache'] === 'joined', 'the follower');
  await a.stop();
  t.ok(isRight(await within(10_000, 'the follower', following)));
  t.equal(registry.count('GET blobs'), 2);
  goOn();
});

void t.test('sources: whoever may not read what just landed does not stay the leader', async (t) => {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const upstream = createRegistry({
    name: 'docker.io',
    url: new URL(registry.url),
    credentials: credentialsOf(undefined),
    trustedHosts: [],
    ca: undefined,
    proxy: undefined,
    maxManifestBytes: 1e6,
    limits: testLimits,
    now: Date.now,
  });
  t.teardown(() => upstream.close());
  const source = { upstream, repository: parseRepositoryName('library/z'), key: 'docker.io/library/z' };
  const coordinator = createCoordinator();
  const folder = await temporaryFolder(t);
  const workers = await Promise.all(
    [0, 1].map((worker) => {
      const place = join(folder, `${worker}.sock`);
      const link = {
        join: (key: string) => Promise.resolve(coordinator.join(worker, place, key)),
        leave: (key: string) => coordinator.leave(worker, key),
        dispute: coordinator.dispute,
      };
      return createWorkerFleet({ link, place, stallMs: 60_000, onTrouble: t.error });
    }),
  );
  for (const worker of workers) t.teardown(() => worker.close());
  const sources = createSources({
    store: {
      far: () => Promise.resolve(undefined),
      open: () => Promise.resolve(bytesBlob(blob.bytes, 'hit-disk')),
      spread: () => undefined,
      distrust: () => Promise.resolve(),
    },
    fleets: [workers[0]!],
    source,
    digest: blob.digest,
    confirm: () => Promise.reject(new Error('not yours')),
    expectedSize: () => Promise.resolve(undefined),
    passOn: () => Promise.reject(new Error('nothing came')),
  });
  t.match(await failureOf(sources.fetch(0)), { message: 'not yours' });
  const next = await workers[1]!.join({
    upstream: 'docker.io',
    digest: blob.digest,
    repository: 'docker.io/library/x',
  });
  t.equal(next?.role, 'leader');
});
