import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { hexOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { MirrorOptions, Teardown, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const blob = blobOf(noise('push blobs', 200_000));
const path = `/v2/team/x/blobs/${blob.digest}`;

function start(t: Teardown, config: MirrorOptions['config'] = {}): Promise<TestMirror> {
  return startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: { repositories: [{ name: 'team/*', hosted: true, push: ['anonymous'] }], ...config },
  });
}

void t.test('a disk that fails: 503 and when to come again, nothing is visible, and later it is fine', async (t) => {
  const mirror = await start(t);
  const folder = join(mirror.store, 'blobs/sha256');
  await rename(folder, `${folder}-away`);
  await writeFile(folder, 'no folder');
  const answer = await createPusher(mirror, 'team/x').blob(blob);
  t.match(answer, { status: 503, headers: { 'retry-after': /^\d+$/ } });
  t.match(answer.json(), { errors: [{ code: 'UNAVAILABLE', message: /\.$/ }] });
  await rm(folder);
  await rename(`${folder}-away`, folder);
  t.equal((await mirror.get(path)).status, 404);
  t.equal((await createPusher(mirror, 'team/x').blob(blob)).status, 201);
  t.ok((await mirror.get(path)).body.equals(blob.bytes));
});

void t.test('a folder of uploads that is gone is made an error of, not an end', async (t) => {
  const mirror = await start(t);
  const folder = join(mirror.store, 'uploads');
  await rm(folder, { recursive: true });
  t.ok((await mirror.send('POST', '/v2/team/x/blobs/uploads/')).status >= 500);
  await mkdir(folder);
  t.equal((await createPusher(mirror, 'team/x').blob(blob)).status, 201);
});

void t.test('mount: what the disk has lost is not mounted, and can be brought again', async (t) => {
  const mirror = await start(t);
  await createPusher(mirror, 'team/y').blob(blob);
  await rm(join(mirror.store, 'blobs/sha256', hexOf(blob.digest)));
  const answer = await mirror.send('POST', `/v2/team/x/blobs/uploads/?mount=${blob.digest}&from=team/y`);
  t.equal(answer.status, 202);
  t.equal((await mirror.head(path)).status, 404);
  const put = await mirror.send('PUT', `${answer.headers['location']}?digest=${blob.digest}`, blob.bytes);
  t.equal(put.status, 201);
  t.ok((await mirror.get(path)).body.equals(blob.bytes));
  t.ok((await mirror.get(path.replace('team/x', 'team/y'))).body.equals(blob.bytes), 'and the other has it again');
});

void t.test('replicas: what one took all have, and what one deleted none has', { skip }, async (t) => {
  const redis = await startRedis(t);
  const config = { cache: { redis: { url: redis.url, timeout: '2s' } } };
  const [one, two] = [await start(t, config), await start(t, config)];
  t.equal((await createPusher(one, 'team/x').blob(blob)).status, 201);
  t.ok((await two.get(path)).body.equals(blob.bytes));
  t.equal((await two.send('POST', `/v2/team/z/blobs/uploads/?mount=${blob.digest}&from=team/x`)).status, 201);
  t.equal((await two.send('DELETE', path)).status, 202);
  for (const mirror of [one, two]) t.equal((await mirror.get(path)).status, 404);
  t.ok((await one.get(path.replace('team/x', 'team/z'))).body.equals(blob.bytes));
});

void t.test('replicas: what is deleted while its copy is being written is given to nobody', { skip }, async (t) => {
  const redis = await startRedis(t);
  const config = { cache: { redis: { url: redis.url, timeout: '2s' } } };
  const [one, two] = [await start(t, config), await start(t, config)];
  // A reader has the last byte before the disk has: how long before differs each time.
  for (let round = 0; round < 20; round++) {
    const large = blobOf(Buffer.alloc(2 * 1024 * 1024, `round ${round}`));
    t.equal((await createPusher(one, 'team/x').blob(large)).status, 201);
    const at = `/v2/team/x/blobs/${large.digest}`;
    t.equal((await two.get(at)).status, 200);
    t.equal((await two.send('DELETE', at)).status, 202);
    t.equal((await two.head(at)).status, 404);
  }
});

void t.test('replicas: more than they can share is refused', { skip }, async (t) => {
  const redis = await startRedis(t);
  const mirror = await start(t, { cache: { redis: { url: redis.url, timeout: '2s', maxBlobSize: '128KiB' } } });
  const answer = await createPusher(mirror, 'team/x').blob(blob);
  t.equal(answer.status, 413);
  t.match(answer.json(), { errors: [{ code: 'SIZE_INVALID', message: /131072/ }] });
  t.equal((await mirror.head(path)).status, 404);
  const small = blobOf(noise('small enough', 128 * 1024));
  t.equal((await createPusher(mirror, 'team/x').blob(small)).status, 201);
});

void t.test('replicas: without Redis nothing is taken, and nothing is called unknown', { skip }, async (t) => {
  const redis = await startRedis(t);
  const mirror = await start(t, { cache: { redis: { url: redis.url, timeout: '2s' } } });
  const pusher = createPusher(mirror, 'team/x');
  t.equal((await pusher.blob(blob)).status, 201);
  await redis.kill();
  const other = blobOf(noise('while it is away', 1000));
  const answer = await pusher.blob(other);
  t.equal(answer.status, 503);
  t.match(answer.json(), { errors: [{ code: 'UNAVAILABLE', message: /\.$/ }] });
  t.equal((await mirror.get(`/v2/team/x/blobs/${other.digest}`)).status, 503);
  t.equal((await mirror.send('DELETE', path)).status, 503);
  t.equal((await mirror.get('/v2/team/x/tags/list')).status, 503);
  await redis.restart();
  await until(async () => (await pusher.blob(other)).status === 201, 'Redis to be used again');
  t.ok((await mirror.get(`/v2/team/x/blobs/${other.digest}`)).body.equals(other.bytes));
});
