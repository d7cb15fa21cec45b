import t from 'tap';
import type { Test } from 'tap';
import { Agent } from 'undici';
import { download, until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, fetchAnswer, startTestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { Live } from '../../src/wiring/live.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/s390x'];
const image = buildImage({ platforms, payloadBytes: 3_000_000, seed: 'live' });
const arm = image.children[1]!;
const layer = arm.layers.toSorted((one, other) => other.bytes.length - one.bytes.length)[0]!;

async function start(t: Test) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/app', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { up: registry.url } });
  const dispatcher = new Agent();
  t.teardown(() => dispatcher.destroy());
  const live = async () =>
    (await fetchAnswer(`${mirror.adminUrl}/api/live`, { method: 'GET', dispatcher })).json<Live & object>();
  const metrics = async () =>
    (await fetchAnswer(`${mirror.adminUrl}/metrics`, { method: 'GET', dispatcher })).body.toString();
  return { registry, mirror, live, metrics };
}

void t.test('live: a download is seen while it runs, how far it is and who waits for it', async (t) => {
  const { registry, mirror, live } = await start(t);
  t.same((await live()).running, []);
  const path = '/p/linux-arm64/v2/up/team/app';
  await mirror.get(`${path}/manifests/1`, { accept });
  registry.blobBytesPerSecond = 2_000_000;
  const readers = [1, 2, 3].map(() => download(`${mirror.url}${path}/blobs/${layer.digest}`));
  await until(async () => (await live()).running.some(({ readers: count }) => count === 3), 'three readers');
  const [first] = (await live()).running;
  t.match(first, {
    digest: layer.digest,
    repository: 'up/team/app',
    platforms: ['linux/arm64'],
    size: layer.bytes.length,
    origin: 'miss',
  });
  await until(async () => ((await live()).running[0]?.receivedBytes ?? Infinity) > first!.receivedBytes, 'progress');
  await Promise.all(readers);
  await until(async () => (await live()).running.length === 0, 'its end');
  t.match((await live()).downloads, { joined: 2, failed: 0, mismatched: 0 });
});

void t.test('live: who pulled what, from where, and what was not moved', async (t) => {
  const { registry, mirror, live, metrics } = await start(t);
  const path = '/p/linux-arm64/v2/up/team/app';
  const before = await live();
  t.equal(before.sparedBytes, 0);
  await mirror.get(`${path}/manifests/1`, { accept });
  const ofArm = arm.manifest.bytes.length + [arm.config, ...arm.layers].reduce((sum, one) => sum + one.bytes.length, 0);
  t.equal((await live()).sparedBytes, 2 * ofArm, 'two platforms that nobody asked for');
  for (const { digest } of [arm.config, ...arm.layers]) await mirror.get(`${path}/blobs/${digest}`);
  const again = async () => (await mirror.get(`${path}/blobs/${layer.digest}`)).headers['narrows-cache'];
  await until(async () => (await again()) === 'hit-disk', 'a copy on the disk');
  const after = await live();
  t.match(after.platforms, [{ platform: 'linux/arm64' }]);
  t.ok(after.platforms[0]!.requests >= 3 + arm.layers.length);
  t.equal(after.upstreamBytes, registry.sentBytes);
  t.ok(after.sources.some(({ cache, bytes }) => cache === 'hit-disk' && bytes === layer.bytes.length));
  t.match(after.upstreams, [{ name: 'up', troubles: 0, bytes: registry.sentBytes, backoffS: 0 }]);
  t.match(after.stores, [{ tier: 'disk', isAvailable: true }, { tier: 'memory' }]);
  t.ok(after.stores[0]!.bytes >= registry.sentBytes - image.index.bytes.length);
  t.match(await metrics(), /^narrows_download_bytes_total\{platform="linux\/arm64"\} \d+$/m);
  const amd = await mirror.get('/p/linux-amd64/v2/up/team/app/manifests/1', { accept });
  t.equal(amd.status, 200);
  t.ok((await live()).sparedBytes < after.sparedBytes, 'what is asked for after all was not spared');
});

void t.test('live: an upstream that limits the rate is seen to be left alone, and what it has left', async (t) => {
  const { registry, mirror, live } = await start(t);
  registry.script = (_seen, response) => {
    response.writeHead(429, { 'retry-after': '60', 'ratelimit-limit': '100;w=1', 'ratelimit-remaining': '3;w=1' });
    response.end();
    return true;
  };
  t.equal((await mirror.get('/v2/up/team/app/manifests/1')).status, 429);
  const [up] = (await live()).upstreams;
  t.match(up, { name: 'up', troubles: 1, remaining: 3, limit: 100 });
  t.ok(up!.backoffS > 30 && up!.backoffS <= 66, `${up!.backoffS} s`);
});
