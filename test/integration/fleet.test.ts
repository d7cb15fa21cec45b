import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { download, hashDownload, until } from '../fixtures/downloads.ts';
import type { Hashed } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept as accept, temporaryFolder } from '../fixtures/mirror.ts';
import { runNarrows, startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { hasRedis, launch, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';
import { blobOf, pour, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { closedPort } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'], payloadBytes: 3_000_000 });

// 300 times 32 MiB are read and hashed by one process.
t.setTimeout(120_000);

interface Stage {
  readonly registry: TestRegistry;
  readonly redis: TestRedis;
  /** A replica with a disk of its own. */
  start(): Promise<ServeProcess>;
}

async function prepare(t: Test): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const redis = await startRedis(t);
  const args = ['--upstream', `docker.io=${registry.url}`, '--redis', redis.url];
  const start = async () => startServe(t, { args: [...args, '--store', await temporaryFolder(t)] });
  return { registry, redis, start };
}

function pathOf({ digest }: Content, repository = 'x'): string {
  return `/v2/docker.io/library/${repository}/blobs/${digest}`;
}

function isRight(got: Hashed, blob: Content): boolean {
  return got.status === 200 && got.isComplete && got.digest === blob.digest;
}

function isInRedis(redis: TestRedis, { digest }: Content): boolean {
  return redis.cli('EXISTS', `narrows:{${digest}}:blob`) === '1';
}

/** Sends the first half of a blob, and the rest when it is told to. */
function holdBack(registry: TestRegistry, blob: Content, bytesPerSecond = Infinity): () => void {
  const gate = Promise.withResolvers<void>();
  registry.script = async (seen, response) => {
    if (seen.method !== 'GET' || !seen.path.endsWith(blob.digest)) return false;
    const half = Math.floor(blob.bytes.length / 2);
    response.writeHead(200, { 'content-length': blob.bytes.length });
    await pour(blob.bytes.subarray(0, half), response, bytesPerSecond);
    await gate.promise;
    await pour(blob.bytes.subarray(half), response, bytesPerSecond);
    response.end();
    return true;
  };
  return gate.resolve;
}

void t.test('fleet: 300 clients of three replicas and one cold blob make one download', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  const blob = blobOf(noise('a blob of the fleet', 32 * 1024 * 1024));
  registry.put('library/x', blob);
  const replicas = await Promise.all([start(), start(), start()]);
  // The upstream keeps the second half until each of the 300 has begun to read: nobody waits for the whole of it.
  const goOn = holdBack(registry, blob, 50e6);
  const begun = new Set<number>();
  const onBytes = (at: number) => begun.add(at).size === 300 && goOn();
  const all = await Promise.all(
    Array.from({ length: 300 }, (_, at) =>
      hashDownload(replicas[at % 3]!.url + pathOf(blob), { onBytes: () => void onBytes(at) }),
    ),
  );
  t.equal(all.filter((got) => isRight(got, blob)).length, 300);
  t.equal(registry.count('GET blobs'), 1);
});

void t.test('fleet: with the upstream off, every replica serves what one of them pulled', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t);
  registry.putImage('library/app', '1', image);
  const [a, b] = await Promise.all([start(), start()]);
  const manifests = '/v2/docker.io/library/app/manifests';
  const get = (replica: ServeProcess, path: string) => download(replica.url + path, { headers: { accept } });
  const [amd64, arm64] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
  const blobs = [arm64.config, ...arm64.layers];
  await get(a, `/p/linux-arm64${manifests}/1`);
  const narrowed = await get(a, `/p/linux-amd64_linux-arm64${manifests}/1`);
  t.match(narrowed.headers, { 'narrows-view': 'index', 'narrows-index': image.index.digest });
  const narrowedPath = `${manifests}/${narrowed.headers['docker-content-digest']}`;
  for (const blob of blobs) await get(a, pathOf(blob, 'app'));
  await until(() => blobs.every((blob) => isInRedis(redis, blob)), 'the blobs in Redis');
  await registry.close();
  const c = await start();

  for (const replica of [b, c]) {
    const first = await get(replica, `/p/linux-arm64${manifests}/1`);
    t.match(first, { status: 200, headers: { 'narrows-view': 'image', 'narrows-cache': 'hit-redis' } });
    t.ok(first.body.equals(arm64.manifest.bytes));
    const again = await get(replica, `/p/linux-arm64${manifests}/1`);
    t.match(again, { status: 200, headers: { 'narrows-cache': /^hit-(?:memory|disk)$/ } });
    const index = await get(replica, narrowedPath);
    t.match(index.headers, { 'narrows-view': 'index', 'narrows-index': image.index.digest });
    t.ok(index.body.equals(narrowed.body), 'a digest that another replica made');
    t.ok((await get(replica, `/p/linux-amd64_linux-arm64${manifests}/1`)).body.equals(narrowed.body));
    for (const blob of blobs) {
      const head = await fetch(replica.url + pathOf(blob, 'app'), { method: 'HEAD' });
      t.equal(head.headers.get('content-length'), String(blob.bytes.length));
      const got = await get(replica, pathOf(blob, 'app'));
      t.match(got, { status: 200, isComplete: true, headers: { 'narrows-cache': 'hit-redis' } });
      t.ok(got.body.equals(blob.bytes));
      await until(
        async () =>
          /^hit-(?:memory|disk)$/.test(String((await get(replica, pathOf(blob, 'app'))).headers['narrows-cache'])),
        'a copy of its own',
      );
    }
    const unpulled = await get(replica, `/p/linux-amd64${manifests}/1`);
    t.equal(unpulled.status, 502, 'nobody pulled it, which is no reason to say that it does not exist');
    t.equal((await get(replica, pathOf(amd64.config, 'app'))).status, 502);
  }
});

void t.test(
  'fleet: a digest whose narrowing only another replica knows, asked of one that starts late',
  { skip },
  async (t) => {
    const { registry, start } = await prepare(t);
    registry.putImage('library/app', '1', image);
    const a = await start();
    const manifests = '/v2/docker.io/library/app/manifests';
    const tag = await download(`${a.url}/p/linux-amd64_linux-arm64${manifests}/1`, { headers: { accept } });
    await registry.close();
    const late = await start();
    const got = await download(`${late.url}${manifests}/${tag.headers['docker-content-digest']}`, {
      headers: { accept },
    });
    t.match(got, { status: 200, headers: { 'narrows-view': 'index', 'narrows-cache': 'hit-redis' } });
    t.ok(got.body.equals(tag.body));
  },
);

void t.test(
  'fleet: bytes are shared, that a repository holds them is asked of its own upstream',
  { skip },
  async (t) => {
    const { registry, redis, start } = await prepare(t);
    const blob = blobOf(noise('one digest, two repositories', 8 * 1024 * 1024));
    const other = blobOf(Buffer.from('another'));
    registry.put('library/x', blob);
    registry.put('library/y', blob);
    registry.put('library/z', other);
    const [a, b, c] = await Promise.all([start(), start(), start()]);
    const goOn = holdBack(registry, blob);
    const begun = Promise.withResolvers<void>();
    const leading = hashDownload(a.url + pathOf(blob), { onBytes: begun.resolve });
    await begun.promise;

    const refused = await download(c.url + pathOf(blob, 'z'));
    t.match(refused, { status: 404, isComplete: true }, 'while another repository downloads it');
    t.match(refused.body.toString(), /BLOB_UNKNOWN/);
    t.equal(registry.count('HEAD blobs', '/library/z/'), 1);

    // The upstream holds the rest back until the follower has read: it read what the leader passes on.
    const following = hashDownload(b.url + pathOf(blob, 'y'), { onBytes: goOn });
    for (const got of await Promise.all([leading, following])) t.ok(isRight(got, blob));
    t.equal((await following).headers['narrows-cache'], 'joined');
    t.equal(registry.count('HEAD blobs', '/library/y/'), 1);
    t.equal(registry.count('GET blobs'), 1);

    await until(() => isInRedis(redis, blob), 'the blob in Redis');
    t.equal((await download(c.url + pathOf(blob, 'z'))).status, 404, 'though Redis holds it');
    const held = await hashDownload(c.url + pathOf(blob));
    t.ok(isRight(held, blob));
    t.equal(held.headers['narrows-cache'], 'hit-redis');
    t.equal((await download(c.url + pathOf(blob, 'z'))).status, 404, 'though the disk holds it');
    t.equal(registry.count('GET blobs'), 1);
  },
);

type Line = Readonly<Record<string, string>>;

function linesOf(server: ServeProcess): Line[] {
  return server
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line);
}

/** `narrows serve` over a Redis that the configuration describes. */
async function prepareBad(t: Test, redis: Record<string, unknown>) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const blob = blobOf(noise('without Redis', 100_000));
  registry.put('library/x', blob);
  const folder = await temporaryFolder(t);
  const config = join(folder, 'narrows.yaml');
  await writeFile(config, JSON.stringify({ cache: { redis: { connect: '500ms', ...redis } } }));
  const args = ['--config', config, '--upstream', `docker.io=${registry.url}`];
  return {
    registry,
    blob,
    args,
    start: async () => startServe(t, { args: [...args, '--store', await temporaryFolder(t)] }),
  };
}

void t.test(
  'fleet: a Redis that nobody finds is told in one line, and pulls go on; when it comes it is used',
  { skip },
  async (t) => {
    const port = await closedPort();
    const { registry, blob, start } = await prepareBad(t, { url: `redis://127.0.0.1:${port}` });
    const [a, b] = await Promise.all([start(), start()]);
    const warnings = linesOf(a).filter(({ level }) => level === 'warn');
    t.equal(warnings.length, 1);
    t.match(JSON.stringify(warnings[0]), new RegExp(`127\\.0\\.0\\.1:${port}`));
    t.match(JSON.stringify(warnings[0]), /ECONNREFUSED/);
    t.ok(isRight(await hashDownload(a.url + pathOf(blob)), blob));
    await until(
      async () => (await download(a.url + pathOf(blob))).headers['narrows-cache'] !== 'joined',
      'the blob on the disk',
    );
    t.match((await download(a.url + pathOf(blob))).headers['narrows-cache'], /^hit-(?:memory|disk)$/);

    const server = await launch(port, await temporaryFolder(t), []);
    t.teardown(() => void server.kill('SIGKILL'));
    for (const replica of [a, b]) {
      await until(() => linesOf(replica).some(({ msg }) => msg === 'Redis answers and is used again'), 'Redis');
    }
    const later = blobOf(noise('with Redis', 100_000));
    registry.put('library/x', later);
    t.ok(isRight(await hashDownload(a.url + pathOf(later)), later));
    await until(
      async () =>
        (await download(b.url + pathOf(later), { headers: { range: 'bytes=0-0' } })).headers['narrows-cache'] !==
        'joined',
      'a copy that is whole',
    );
    t.equal(registry.count('GET blobs', later.digest), 1);
  },
);

void t.test('fleet: a wrong password is told in one line, and pulls go on', { skip }, async (t) => {
  const redis = await startRedis(t, '--requirepass', 'right');
  const { blob, start } = await prepareBad(t, { url: redis.url, password: 'wrong' });
  const a = await start();
  const warnings = linesOf(a).filter(({ level }) => level === 'warn');
  t.equal(warnings.length, 1);
  t.match(JSON.stringify(warnings[0]), new RegExp(`127\\.0\\.0\\.1:${redis.port}`));
  t.match(JSON.stringify(warnings[0]), /WRONGPASS/);
  t.ok(isRight(await hashDownload(a.url + pathOf(blob)), blob));
});

void t.test(
  'fleet: a Redis that is required and cannot be used ends the start with one sentence',
  { skip },
  async (t) => {
    const port = await closedPort();
    const { args } = await prepareBad(t, { url: `redis://127.0.0.1:${port}`, required: true });
    const missing = runNarrows(['serve', ...args, '--store', await temporaryFolder(t)]);
    t.match(missing, { code: 1, out: '' });
    t.match(missing.err, new RegExp(`^[^\\n]*127\\.0\\.0\\.1:${port}[^\\n]*ECONNREFUSED[^\\n]*\\n$`));

    const redis = await startRedis(t, '--requirepass', 'right');
    const locked = await prepareBad(t, { url: redis.url, password: 'wrong', required: true });
    const refused = runNarrows(['serve', ...locked.args, '--store', await temporaryFolder(t)]);
    t.equal(refused.code, 1);
    t.match(refused.err, new RegExp(`^[^\\n]*127\\.0\\.0\\.1:${redis.port}[^\\n]*WRONGPASS[^\\n]*\\n$`));
  },
);

void t.test('fleet: two places for one Redis are a mistake of the configuration', async (t) => {
  const { args } = await prepareBad(t, { url: 'redis://127.0.0.1:6379', cluster: ['127.0.0.1:6380'] });
  const done = runNarrows(['serve', ...args, '--store', await temporaryFolder(t)]);
  t.equal(done.code, 2);
  t.match(done.err, /cache\.redis: expected one of url, cluster and sentinels/);
});
