import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { hashDownload, until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const MiB = 1024 * 1024;

t.setTimeout(120_000);

/** Replicas around one Redis, before a registry that sends as slowly as it is told to. */
async function start(t: Test, stopGrace: string) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  const redis = await startRedis(t);
  const replica = async () => {
    const file = join(await temporaryFolder(t), 'narrows.yaml');
    const settings = {
      upstreams: { up: { url: registry.url } },
      defaultUpstream: 'up',
      cache: { disk: { path: await temporaryFolder(t) }, redis: { url: redis.url, lease: '1s', timeout: '2s' } },
      limits: { stopGrace },
    };
    await writeFile(file, JSON.stringify(settings));
    return startServe(t, { args: ['--config', file] });
  };
  return { registry, replica };
}

void t.test('34. SIGTERM during 50 downloads: all end whole', { skip }, async (t) => {
  const { registry, replica } = await start(t, '60s');
  const blobs = Array.from({ length: 50 }, (_, at) => blobOf(noise(`drain ${at}`, (1 + (at % 5)) * 200_000)));
  for (const blob of blobs) registry.put('team/x', blob);
  registry.blobBytesPerSecond = 400_000;
  const serve = await replica();
  const running = blobs.map(({ digest }) => hashDownload(`${serve.url}/v2/up/team/x/blobs/${digest}`));
  await until(() => registry.count('GET blobs') === 50, '50 downloads');
  serve.child.kill('SIGTERM');
  const ended = await Promise.all(running);
  t.same(
    ended.map(({ digest }) => digest),
    blobs.map(({ digest }) => digest),
  );
  t.equal(await serve.exit, 0);
});

void t.test(
  '34, 48. what takes longer than the limit is gone on with by another replica, from where it was',
  { skip },
  async (t) => {
    const { registry, replica } = await start(t, '2s');
    const [long, short] = [blobOf(noise('long', 8 * MiB)), blobOf(noise('short', MiB))];
    for (const blob of [long, short]) registry.put('team/x', blob);
    registry.blobBytesPerSecond = MiB;
    const first = await replica();
    const path = `/v2/up/team/x/blobs/${long.digest}`;
    const cut = hashDownload(first.url + path).catch(() => undefined);
    await until(() => registry.count('GET blobs', long.digest) === 1, 'the long download');
    const second = await replica();
    const followed = hashDownload(second.url + path);
    const ends = hashDownload(`${first.url}/v2/up/team/x/blobs/${short.digest}`);
    await until(() => registry.count('GET blobs', short.digest) === 1, 'the short download');
    first.child.kill('SIGTERM');
    t.equal((await ends).digest, short.digest, 'what ends within the limit');
    t.equal(await first.exit, 0);
    t.equal((await followed).digest, long.digest, 'whoever asked the other replica gets all of it');
    t.not((await cut)?.digest, long.digest, 'what was cut off does not look whole');
    const asked = registry.seen.filter(({ method, path: at }) => method === 'GET' && at.endsWith(long.digest));
    t.equal(asked.length, 2);
    t.match(asked[1]!.headers.range, /^bytes=[1-9]\d{5,}-$/, 'from where it was');
  },
);
