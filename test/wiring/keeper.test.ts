import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { tryLock } from '../../src/cache/claim.ts';
import { join } from 'node:path';
import { airgapStage } from '../fixtures/airgap.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';

const first = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'first' });
const second = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'second' });
const [amd64, arm64] = [0, 1] as const;
const layerOf = (image: typeof first, child: 0 | 1) => image.children[child]!.layers[0]!.digest;

/** A store with a set of one image for arm64, and a server on it that looks again every second. */
async function prepare(t: Parameters<typeof airgapStage>[0], warm: object = {}) {
  const stage = await airgapStage(t);
  stage.registry.putImage('library/app', '1', first);
  const config = await stage.settings();
  await stage.warm(config, 'app:1', '--platform', 'linux/arm64', '--set', 'edge');
  const serve = () =>
    startTestMirror(t, {
      upstreams: { 'docker.io': stage.registry.url },
      store: stage.store(),
      config: { warm: { every: '1s', ...warm } },
    });
  return { ...stage, config, serve };
}

void t.test('a server fetches what moved, for the platforms of the set alone', async (t) => {
  const { registry, serve, check, config } = await prepare(t);
  await serve();
  registry.putImage('library/app', '1', second);
  await until(() => registry.count('GET blobs', layerOf(second, arm64)) > 0, 'the new image');
  await until(
    async () => (await check(config, '--set', 'edge')).images[0]?.digest === second.index.digest,
    'its record',
  );
  t.equal(registry.count('GET blobs', layerOf(second, amd64)), 0);
  t.match(await check(config, '--set', 'edge'), { code: 0 });
});

void t.test('what clients ask for beside the set is learnt, and fetched with it', async (t) => {
  const { registry, serve } = await prepare(t, { learnt: '1h' });
  const mirror = await serve();
  t.match(await mirror.get('/p/linux-amd64/v2/library/app/manifests/1', { accept }), { status: 200 });
  await until(() => registry.count('GET blobs', layerOf(first, amd64)) > 0, 'the platform that a client runs');
  t.pass();
});

void t.test('of several processes on a store one is enough', async (t) => {
  const { registry, serve, store } = await prepare(t);
  const other = tryLock(join(store(), 'warming.lock'))!;
  const mirror = await serve();
  registry.putImage('library/app', '1', second);
  await until(
    () => mirror.log.filter((line) => line.includes('the sets are warmed again then')).length > 2,
    'two rounds',
  );
  t.equal(registry.count('GET blobs', layerOf(second, arm64)), 0, 'while another one is at it');
  other.close();
  await until(() => registry.count('GET blobs', layerOf(second, arm64)) > 0, 'the new image, once it has gone');
});

void t.test('offline, nothing is looked at', async (t) => {
  const { registry, serve: _, store } = await prepare(t);
  registry.forget();
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': registry.url },
    store: store(),
    config: { warm: { every: '1s' }, offline: true },
  });
  t.match(await mirror.get('/p/linux-arm64/v2/library/app/manifests/1', { accept }), { status: 200 });
  t.notOk(mirror.log.some((line) => line.includes('the sets are warmed again then')));
  t.same(registry.seen, []);
});

void t.test('warm --watch stays, and ends when it is asked to', async (t) => {
  const { registry, config, check } = await prepare(t);
  const main = fileURLToPath(new URL('../../src/narrows.js', import.meta.url));
  const args = [
    'warm',
    'app:1',
    '--platform',
    'linux/arm64',
    '--set',
    'edge',
    '--watch',
    '--every',
    '1s',
    '--config',
    config,
  ];
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exit = new Promise((resolve) => child.on('exit', resolve));
  t.teardown(() => child.kill('SIGKILL'));
  await until(() => printed.includes('looking again at'), 'the first round');
  registry.putImage('library/app', '1', second);
  await until(
    async () => (await check(config, '--set', 'edge')).images[0]?.digest === second.index.digest,
    'the second',
  );
  await until(() => /1 image, \S+ \S+ fetched, 0 not complete/.test(printed), 'what it says of it');
  child.kill('SIGTERM');
  t.equal(await exit, 0);
});

void t.test('an interrupt ends what is under way, and the next run goes on', async (t) => {
  const { registry, settings, check } = await airgapStage(t);
  const large = buildImage({ platforms: ['linux/arm64'], payloadBytes: 6_000_000, seed: 'large' });
  registry.putImage('library/large', '1', large);
  registry.blobBytesPerSecond = 3_000_000;
  const config = await settings();
  const main = fileURLToPath(new URL('../../src/narrows.js', import.meta.url));
  const args = ['warm', 'large:1', '--platform', 'linux/arm64', '--config', config];
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let printed = '';
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exit = new Promise((resolve) => child.on('exit', resolve));
  const { digest } = large.children[0]!.layers[0]!;
  await until(() => registry.count('GET blobs', digest) > 0, 'the download');
  child.kill('SIGINT');
  t.equal(await exit, 1);
  t.match(printed, /It was interrupted; the same command goes on\./);
  registry.blobBytesPerSecond = Infinity;
  const next = spawn(process.execPath, [main, ...args], { stdio: 'ignore' });
  t.equal(await new Promise((resolve) => next.on('exit', resolve)), 0);
  t.match(await check(config, 'large:1', '--platform', 'linux/arm64'), { code: 0 });
});
