import { existsSync } from 'node:fs';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { hexOf } from '../../src/oci/digest.ts';
import { download, filesOf, until } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown, TestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { Script, Seen, TestRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64'], payloadBytes: 2 * 1024 * 1024, seed: 'taken up' });
const [{ layers, manifest }] = image.children as [(typeof image.children)[number]];
const [blob] = layers as [(typeof layers)[number]];
const { bytes } = blob;
const path = `/v2/docker.io/library/app/blobs/${blob.digest}`;
const half = 1024 * 1024;

interface Stage {
  readonly upstream: TestRegistry;
  readonly mirror: TestMirror;
  readonly leftover: string;
  pull(): ReturnType<typeof download>;
  /** The `Range` of each GET of the blob, undefined for none. */
  ranges(): (string | undefined)[];
  /** Puts a file there as a download left it that broke off. */
  plant(content: Buffer): Promise<void>;
}

async function stage(t: Teardown, { knowsSize = true } = {}): Promise<Stage> {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/app', '1', image);
  const mirror = await start(t, upstream);
  // The manifest says the size of the layer.
  if (knowsSize) await mirror.get(`/v2/docker.io/library/app/manifests/${manifest.digest}`, { accept });
  const leftover = join(mirror.store, 'leftovers', blob.digest.replace(':', '-'));
  return {
    upstream,
    mirror,
    leftover,
    pull: () => download(mirror.url + path),
    ranges: () => upstream.seen.filter(isBlobGet).map(({ headers }) => headers.range),
    plant: (content) => writeFile(leftover, content),
  };
}

function start(t: Teardown, upstream: TestRegistry, store?: string): Promise<TestMirror> {
  return startTestMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    config: { limits: { downloadResumes: 1, downloadResumeDelay: '1ms', stopGrace: '1ms' } },
    ...(store !== undefined && { store }),
  });
}

function isBlobGet({ method, path: asked }: Seen): boolean {
  return method === 'GET' && asked.endsWith(blob.digest);
}

/** The first download breaks off after so many bytes; whoever asks again is cut off without an answer. */
function breakOffAt(length: number): Script {
  let isFirst = true;
  return (seen, response) => {
    if (!isBlobGet(seen)) return false;
    if (!isFirst) return (response.destroy(), true);
    isFirst = false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, length), () => response.destroy());
    return true;
  };
}

async function isStored(mirror: TestMirror): Promise<boolean> {
  const file = join(mirror.store, 'blobs/sha256', hexOf(blob.digest));
  await until(() => existsSync(file), 'the blob in the store');
  return (await readFile(file)).equals(bytes);
}

void t.test(
  '9. a download that breaks off for good is gone on with by the next pull, from where it broke',
  async (t) => {
    const { upstream, mirror, leftover, pull, ranges } = await stage(t);
    upstream.script = breakOffAt(half);
    t.equal((await pull()).isComplete, false);
    await until(() => existsSync(leftover), 'what is left of it');
    const { size } = await stat(leftover);
    t.ok(size > 0 && size <= half, String(size));
    t.ok((await readFile(leftover)).equals(bytes.subarray(0, size)));
    upstream.script = undefined;
    upstream.forget();
    const next = await pull();
    t.match(next, { status: 200, isComplete: true, headers: { 'content-length': String(bytes.length) } });
    t.ok(next.body.equals(bytes));
    t.same(ranges(), [`bytes=${size}-`]);
    t.ok(await isStored(mirror));
    t.same(await readdir(join(mirror.store, 'leftovers')), []);
    await until(async () => (await pull()).headers['narrows-cache'] === 'hit-disk', 'the copy on the disk');
  },
);

void t.test('while the upstream stays down, what is left stays for the one after', async (t) => {
  const { upstream, leftover, pull, plant, ranges } = await stage(t);
  await plant(bytes.subarray(0, half));
  upstream.script = (seen, response) => isBlobGet(seen) && (response.destroy(), true);
  const failed = await pull();
  t.ok(failed.status >= 500, String(failed.status));
  await until(() => existsSync(leftover), 'what is left of it');
  upstream.script = undefined;
  upstream.forget();
  t.ok((await pull()).body.equals(bytes));
  t.same(ranges(), [`bytes=${half}-`]);
});

void t.test('who joins while it is gone on with gets all of it, and nobody asks twice', async (t) => {
  const { plant, pull, ranges } = await stage(t);
  await plant(bytes.subarray(0, half));
  const all = await Promise.all(Array.from({ length: 10 }, pull));
  t.ok(all.every(({ status, isComplete, body }) => status === 200 && isComplete && body.equals(bytes)));
  t.same(ranges(), [`bytes=${half}-`]);
});

void t.test('an upstream that knows no ranges starts over, and the client gets each byte once', async (t) => {
  const { upstream, mirror, plant, pull } = await stage(t);
  await plant(bytes.subarray(0, half));
  upstream.script = (seen, response) => {
    if (!isBlobGet(seen)) return false;
    response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    return true;
  };
  t.ok((await pull()).body.equals(bytes));
  t.ok(await isStored(mirror));
});

void t.test('a part that has a wrong byte never becomes a whole wrong answer, and is not tried again', async (t) => {
  for (const length of [half, bytes.length - 1, bytes.length]) {
    const { upstream, mirror, plant, pull, ranges } = await stage(t);
    const wrong = Buffer.from(bytes.subarray(0, length));
    wrong[length >> 1]! ^= 1;
    await plant(wrong);
    const first = await pull();
    t.notOk(first.status === 200 && first.isComplete && !first.body.equals(bytes), `${length} bytes`);
    upstream.forget();
    const next = await pull();
    t.match(next, { status: 200, isComplete: true });
    t.ok(next.body.equals(bytes));
    t.same(ranges(), [undefined], 'from the start');
    t.ok(await isStored(mirror));
  }
});

void t.test('what is left and longer than the blob is dropped', async (t) => {
  const { mirror, plant, pull, ranges } = await stage(t);
  await plant(Buffer.concat([bytes, Buffer.from('x')]));
  const { status, isComplete, body } = await pull();
  t.same([status, isComplete, body.equals(bytes)], [200, true, true]);
  t.same(ranges(), [undefined]);
  t.ok(await isStored(mirror));
  t.same(await readdir(join(mirror.store, 'leftovers')), []);
});

void t.test('what is left and whole needs nobody to be asked, though the upstream is down', async (t) => {
  const { upstream, mirror, plant, pull } = await stage(t);
  await plant(bytes);
  upstream.forget();
  upstream.script = (_, response) => (response.destroy(), true);
  const { status, isComplete, body } = await pull();
  t.same([status, isComplete, body.equals(bytes)], [200, true, true]);
  t.equal(upstream.seen.length, 0);
  t.ok(await isStored(mirror));
});

void t.test('a blob whose size nobody told is asked for it, and goes on', async (t) => {
  const { mirror, plant, pull, ranges } = await stage(t, { knowsSize: false });
  await plant(bytes.subarray(0, half));
  const { status, isComplete, body } = await pull();
  t.same([status, isComplete, body.equals(bytes)], [200, true, true]);
  t.same(ranges(), [`bytes=${half}-`]);
  t.ok(await isStored(mirror));
});

void t.test('what a repository may not show it does not show, though some of it lies here', async (t) => {
  const { mirror, plant, pull } = await stage(t);
  await plant(bytes);
  const answer = await download(`${mirror.url}/v2/docker.io/library/other/blobs/${blob.digest}`);
  t.equal(answer.status, 404);
  t.ok((await pull()).body.equals(bytes), 'and who may has it still');
});

void t.test('33. a mirror that stops within a download leaves it to the next one on the same store', async (t) => {
  const store = await temporaryFolder(t);
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/app', '1', image);
  const first = await start(t, upstream, store);
  await first.get(`/v2/docker.io/library/app/manifests/${manifest.digest}`, { accept });
  let sent = 0;
  upstream.script = (seen, response) => {
    if (!isBlobGet(seen)) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, (sent = half)));
    return true;
  };
  const broken = download(first.url + path);
  await until(async () => (await sizeOf(await filesOf(store))) === half, 'half of it on the disk');
  await first.stop();
  t.equal((await broken).isComplete, false);
  upstream.script = undefined;
  upstream.forget();
  const second = await start(t, upstream, store);
  t.ok((await download(second.url + path)).body.equals(bytes));
  t.same(
    upstream.seen.filter(isBlobGet).map(({ headers }) => headers.range),
    [`bytes=${sent}-`],
  );
});

async function sizeOf({ unfinished }: { unfinished: string[] }): Promise<number> {
  const sizes = await Promise.all(
    unfinished.map((file) =>
      stat(file).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((total, size) => total + size, 0);
}

void t.test('a part of another blob’s name is nobody’s: each goes by its own digest', async (t) => {
  const { plant, pull, ranges } = await stage(t);
  await plant(noise('another blob', half));
  const first = await pull();
  t.notOk(first.isComplete && first.status === 200 && !first.body.equals(bytes));
  t.ok((await pull()).body.equals(bytes));
  t.same(ranges().at(-1), undefined);
});
