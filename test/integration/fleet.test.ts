import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { download, hashDownload, until } from '../fixtures/downloads.ts';
import type { Download, Hashed } from '../fixtures/downloads.ts';
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
t.setTimeout(300_000);

interface Stage {
  readonly registry: TestRegistry;
  readonly redis: TestRedis;
  /** For `narrows serve` of a replica with a disk of its own; the settings are those of `cache.redis`. */
  argsOf(settings: object): Promise<string[]>;
  /** The replica itself, with this Redis where the settings name no other. */
  start(settings?: object): Promise<ServeProcess>;
}

async function prepare(t: Test, ...redisArgs: string[]): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  const redis = await startRedis(t, ...redisArgs);
  const argsOf = async (settings: object) => {
    const folder = await temporaryFolder(t);
    const config = join(folder, 'narrows.yaml');
    await writeFile(config, JSON.stringify({ cache: { redis: settings, disk: { path: join(folder, 'store') } } }));
    return ['--config', config, '--upstream', `docker.io=${registry.url}`];
  };
  const start = async (settings: object = {}) => startServe(t, { args: await argsOf({ url: redis.url, ...settings }) });
  return { registry, redis, argsOf, start };
}

function get(replica: ServeProcess, path: string): Promise<Download> {
  return download(replica.url + path, { headers: { accept } });
}

function isNear({ headers }: Download): boolean {
  return /^hit-(?:memory|disk)$/.test(String(headers['narrows-cache']));
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

void t.test('11. fleet: 300 clients of three replicas and one cold blob make one download', { skip }, async (t) => {
  const { registry, start } = await prepare(t);
  const blob = blobOf(noise('a blob of the fleet', 32 * 1024 * 1024));
  registry.put('library/x', blob);
  // Redis, three replicas, the upstream and 300 clients that hash, all on one machine: it may take its time.
  const replicas = await Promise.all([1, 2, 3].map(() => start({ timeout: '2s', lease: '20s' })));
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
  const [amd64, arm64] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
  const blobs = [arm64.config, ...arm64.layers];
  await get(a, `/p/linux-arm64${manifests}/1`);
  const narrowed = await get(a, `/p/linux-amd64_linux-arm64${manifests}/1`);
  t.match(narrowed.headers, { 'narrows-view': 'index', 'narrows-index': image.index.digest });
  const narrowedPath = `${manifests}/${String(narrowed.headers['docker-content-digest'])}`;
  for (const blob of blobs) await get(a, pathOf(blob, 'app'));
  await until(() => blobs.every((blob) => isInRedis(redis, blob)), 'the blobs in Redis');
  await registry.close();
  const c = await start();

  for (const replica of [b, c]) {
    const first = await get(replica, `/p/linux-arm64${manifests}/1`);
    t.match(first, { status: 200, headers: { 'narrows-view': 'image', 'narrows-cache': 'hit-redis' } });
    t.ok(first.body.equals(arm64.manifest.bytes));
    const again = await get(replica, `/p/linux-arm64${manifests}/1`);
    t.ok(isNear(again), String(again.headers['narrows-cache']));
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
      await until(async () => isNear(await get(replica, pathOf(blob, 'app'))), 'a copy of its own');
    }
    const unpulled = await get(replica, `/p/linux-amd64${manifests}/1`);
    t.equal(unpulled.status, 502, 'nobody pulled it, which is no reason to say that it does not exist');
    t.equal((await get(replica, pathOf(amd64.config, 'app'))).status, 502);
  }
});

void t.test(
  '21. fleet: a digest whose narrowing only another replica knows, asked of one that starts late',
  { skip },
  async (t) => {
    const { registry, start } = await prepare(t);
    registry.putImage('library/app', '1', image);
    const a = await start();
    const manifests = '/v2/docker.io/library/app/manifests';
    const tag = await get(a, `/p/linux-amd64_linux-arm64${manifests}/1`);
    await registry.close();
    const late = await start();
    const got = await get(late, `${manifests}/${String(tag.headers['docker-content-digest'])}`);
    t.match(got, { status: 200, headers: { 'narrows-view': 'index', 'narrows-cache': 'hit-redis' } });
    t.ok(got.body.equals(tag.body));
  },
);

void t.test(
  '60. fleet: bytes are shared, that a repository holds them is asked of its own upstream',
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
    const leading = hashDownload(a.url + pathOf(blob), { onBytes: () => begun.resolve() });
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

/** At which the slowest hundredth begins. */
function p99(all: readonly number[]): number {
  return all.toSorted((one, other) => one - other)[Math.floor(all.length * 0.99)]!;
}

void t.test(
  '51. fleet: a Redis that falls silent costs a moment once, and is used when it speaks',
  { skip },
  async (t) => {
    const { registry, redis, start } = await prepare(t);
    registry.putImage('library/x', '1', image);
    const [shared, other, alone] = await Promise.all([start(), start(), start({ url: null })]);
    const tag = '/p/linux-arm64/v2/docker.io/library/x/manifests/1';
    for (const replica of [shared, other, alone]) await get(replica, tag);
    const silences: [name: string, begin: () => void, end: () => void][] = [
      ['SIGSTOP', () => redis.signal('SIGSTOP'), () => redis.signal('SIGCONT')],
      // What is paused does not hear that it may go on.
      ['PAUSE ALL', () => void redis.cli('CLIENT', 'PAUSE', '4000', 'ALL'), () => undefined],
      [
        'PAUSE WRITE',
        () => void redis.cli('CLIENT', 'PAUSE', '60000', 'WRITE'),
        () => void redis.cli('CLIENT', 'UNPAUSE'),
      ],
    ];
    const costs: number[] = [];
    for (const [name, begin, end] of silences) {
      const blobs = Array.from({ length: 41 }, (_, at) => blobOf(noise(`${name} ${at}`, 100_000)));
      for (const blob of blobs) registry.put('library/x', blob);
      const took = { shared: [] as number[], alone: [] as number[] };
      begin();
      for (let at = 0; at < 40; at += 4) {
        const paths = [tag, tag, ...blobs.slice(at, at + 4).map((blob) => pathOf(blob))];
        for (const [replica, into] of [
          [shared, took.shared],
          [alone, took.alone],
        ] as const) {
          const all = await Promise.all(paths.map((path) => hashDownload(replica.url + path, { headers: { accept } })));
          t.ok(
            all.every(({ status, isComplete }) => status === 200 && isComplete),
            name,
          );
          into.push(...all.map(({ ms }) => ms));
        }
      }
      t.notOk(isBack(shared), name);
      end();
      costs.push(Math.round(p99(took.shared) - p99(took.alone)));
      await until(() => isBack(shared) && isBack(other), 'Redis');
      const fresh = blobs[40]!;
      t.ok(isRight(await hashDownload(shared.url + pathOf(fresh)), fresh));
      await until(() => isInRedis(redis, fresh), 'the blob in Redis');
      t.equal((await get(other, pathOf(fresh))).headers['narrows-cache'], 'hit-redis', `after ${name}`);
    }
    t.comment(`p99 with Redis is above that without by ${costs.join(', ')} ms`);
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

function isBack(server: ServeProcess): boolean {
  return (
    countOf(server, 'Redis answers and is used again') === countOf(server, 'Redis is in trouble; going on without it')
  );
}

function countOf(server: ServeProcess, text: string): number {
  return linesOf(server).filter(({ msg }) => msg === text).length;
}

const small = blobOf(noise('pulled without Redis', 100_000));

void t.test(
  'fleet: a Redis that nobody finds is told in one line, and pulls go on; when it comes it is used',
  { skip },
  async (t) => {
    const port = await closedPort();
    const { registry, start } = await prepare(t);
    registry.put('library/x', small);
    const settings = { url: `redis://127.0.0.1:${port}`, connect: '500ms' };
    const [a, b] = await Promise.all([start(settings), start(settings)]);
    const warnings = linesOf(a).filter(({ level }) => level === 'warn');
    t.equal(warnings.length, 1);
    t.match(JSON.stringify(warnings[0]), new RegExp(`127\\.0\\.0\\.1:${port}`));
    t.match(JSON.stringify(warnings[0]), /ECONNREFUSED/);
    t.ok(isRight(await hashDownload(a.url + pathOf(small)), small));
    await until(async () => isNear(await get(a, pathOf(small))), 'the blob on the disk');

    const server = await launch(port, await temporaryFolder(t), []);
    t.teardown(() => void server.kill('SIGKILL'));
    for (const replica of [a, b]) {
      await until(() => linesOf(replica).some(({ msg }) => msg === 'Redis answers and is used again'), 'Redis');
    }
    const later = blobOf(noise('with Redis', 100_000));
    registry.put('library/x', later);
    for (const replica of [a, b]) t.ok(isRight(await hashDownload(replica.url + pathOf(later)), later));
    t.equal(registry.count('GET blobs', later.digest), 1);
  },
);

void t.test('52. fleet: a wrong password is told in one line, and pulls go on', { skip }, async (t) => {
  const { registry, redis, start } = await prepare(t, '--requirepass', 'right');
  registry.put('library/x', small);
  const a = await start({ password: 'wrong', connect: '500ms' });
  const warnings = linesOf(a).filter(({ level }) => level === 'warn');
  t.equal(warnings.length, 1);
  t.match(JSON.stringify(warnings[0]), new RegExp(`127\\.0\\.0\\.1:${redis.port}`));
  t.match(JSON.stringify(warnings[0]), /WRONGPASS/);
  t.ok(isRight(await hashDownload(a.url + pathOf(small)), small));
});

void t.test(
  'fleet: a Redis that is required and cannot be used ends the start with one sentence',
  { skip },
  async (t) => {
    const { redis, argsOf } = await prepare(t, '--requirepass', 'right');
    const port = await closedPort();
    const bad: [port: number, reason: string, settings: object][] = [
      [port, 'ECONNREFUSED', { url: `redis://127.0.0.1:${port}` }],
      [redis.port, 'WRONGPASS', { url: redis.url, password: 'wrong' }],
    ];
    for (const [port, reason, settings] of bad) {
      const done = runNarrows(['serve', ...(await argsOf({ ...settings, connect: '500ms', required: true }))]);
      t.equal(done.code, 1);
      t.match(done.err, new RegExp(`^[^\\n]*127\\.0\\.0\\.1:${port}[^\\n]*${reason}[^\\n]*\\n$`));
    }
  },
);

void t.test('fleet: two places for one Redis are a mistake of the configuration', { skip }, async (t) => {
  const { redis, argsOf } = await prepare(t);
  const done = runNarrows(['serve', ...(await argsOf({ url: redis.url, cluster: ['127.0.0.1:6380'] }))]);
  t.equal(done.code, 2);
  t.match(done.err, /cache\.redis: expected one of url, cluster and sentinels/);
});
