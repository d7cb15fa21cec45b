import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { download } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { bucket, credentials, startS3 } from '../fixtures/s3.ts';
import type { TestS3 } from '../fixtures/s3.ts';

const large = noise('a layer for the bucket', 7 * 1024 * 1024 + 5);
const small = noise('a small one', 1000);
const digests = { large: digestOf(large), small: digestOf(small) };
const pathOf = (digest: string) => `/v2/docker.io/library/x/blobs/${digest}`;

interface Stage {
  readonly registry: TestRegistry;
  readonly s3: TestS3;
  mirror(over?: Record<string, unknown>): Promise<TestMirror>;
}

async function prepare(t: Test): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  for (const bytes of [large, small]) {
    registry.put('library/x', { bytes, digest: digestOf(bytes), mediaType: 'application/octet-stream' });
  }
  const s3 = await startS3(t);
  const settings = { bucket, endpoint: s3.url, pathStyle: true, ...credentials, minBlobSize: '1MiB', timeout: '300ms' };
  return {
    registry,
    s3,
    mirror: (over = {}) =>
      startTestMirror(t, {
        upstreams: { 'docker.io': registry.url },
        config: { cache: { s3: { ...settings, ...over } } },
      }),
  };
}

async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await delay(5);
}

void t.test('s3: what one replica pulled the next one has, without a download from the upstream', async (t) => {
  const { registry, s3, mirror } = await prepare(t);
  const first = await mirror();
  t.equal((await download(first.url + pathOf(digests.large))).headers['narrows-cache'], 'miss');
  t.equal((await download(first.url + pathOf(digests.small))).headers['narrows-cache'], 'miss');
  await until(async () => (await s3.keys()).length > 0);
  t.same(await s3.keys(), [`blobs/sha256/${digests.large.slice(7)}`], 'small blobs are left to others');
  const second = await mirror();
  const got = await download(second.url + pathOf(digests.large));
  t.equal(got.headers['narrows-cache'], 'hit-s3');
  t.ok(got.isComplete && got.body.equals(large));
  t.equal(registry.count('GET blobs', digests.large), 1);
  t.equal(registry.count('HEAD blobs', digests.large), 1, 'that its repository holds it is asked of its upstream');
  t.match((await second.head(pathOf(digests.large))).headers, { 'content-length': String(large.length) });
  // The file has its name a moment before its download is over.
  const state = async () => (await download(second.url + pathOf(digests.large))).headers['narrows-cache'];
  await until(async () => (await state()) === 'hit-disk');
});

void t.test('54. s3: a body that breaks off, and a store that hangs, cost a download and no wrong byte', async (t) => {
  const { registry, s3, mirror } = await prepare(t);
  await download((await mirror()).url + pathOf(digests.large));
  await until(async () => (await s3.keys()).length > 0);
  for (const fault of [{ cutAt: 100_000 }, { hangAt: 100_000 }, 'hang'] as const) {
    const next = await mirror();
    s3.fault = ({ method }) => (method === 'GET' || fault === 'hang' ? fault : undefined);
    registry.forget();
    const got = await download(next.url + pathOf(digests.large));
    t.ok(got.isComplete && got.body.equals(large), JSON.stringify(fault));
    t.equal(registry.count('GET blobs'), 1);
    s3.fault = undefined;
  }
});

void t.test('54. s3: a copy that was tampered with never looks whole, and the next try is right', async (t) => {
  const { s3, mirror } = await prepare(t);
  await download((await mirror()).url + pathOf(digests.large));
  await until(async () => (await s3.keys()).length > 0);
  const wrong = Buffer.from(large);
  wrong[3_000_000]! ^= 1;
  await s3.put(`blobs/sha256/${digests.large.slice(7)}`, wrong);
  const next = await mirror();
  const got = await download(next.url + pathOf(digests.large));
  t.notOk(got.isComplete);
  const again = await download(next.url + pathOf(digests.large));
  t.ok(again.isComplete && again.body.equals(large));
  await until(async () => (await readdir(join(next.store, 'blobs', 'sha256'))).length > 0);
});

void t.test('s3: a bucket that cannot be used is said once, and the mirror serves without', async (t) => {
  const { s3, registry, mirror } = await prepare(t);
  const wrongs: [over: Record<string, unknown>, reason: RegExp][] = [
    [{ bucket: 'nowhere' }, /S3 cannot be used: there is no bucket nowhere/],
    [{ accessKeyId: 'nobody' }, /S3 cannot be used: the bucket narrows may not be used with these credentials/],
    [{ endpoint: 'http://127.0.0.1:1' }, /S3 cannot be used: .*ECONNREFUSED/],
  ];
  for (const [over, reason] of wrongs) {
    const one = await mirror(over);
    t.equal(one.log.filter((line) => reason.test(line)).length, 1, String(reason));
    const got = await download(one.url + pathOf(digests.small));
    t.ok(got.isComplete && got.body.equals(small));
    await t.rejects(mirror({ ...over, required: true }), { message: reason });
  }
  t.ok(registry.count('GET blobs') > 0);
  await s3.stop();
});
