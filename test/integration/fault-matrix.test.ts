import t from 'tap';
import type { Test } from 'tap';
import { download, until } from '../fixtures/downloads.ts';
import { startFaultProxy } from '../fixtures/fault-proxy.ts';
import type { Fault, FaultProxy } from '../fixtures/fault-proxy.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import { bucket, credentials, startS3 } from '../fixtures/s3.ts';

const KiB = 1024;
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'between any two' });

/** Large enough that all of them strike within a body, the first ones within a head or a handshake. */
const faults: Readonly<Record<string, Fault>> = {
  latency: { latencyMs: 40 },
  bandwidth: { bytesPerSecond: 2_000_000 },
  slices: { sliceBytes: 701 },
  'cut at once': { after: { bytes: 0, by: 'end' } },
  'cut in a head': { after: { bytes: 40, by: 'end' } },
  'cut in a body': { after: { bytes: 90_000, by: 'end' } },
  'reset in a body': { after: { bytes: 150_001, by: 'reset' } },
  'stall at once': { after: { bytes: 0, by: 'stall' } },
  'stall in a body': { after: { bytes: 70_000, by: 'stall' } },
  down: { isDown: true },
};
const parts = ['client', 'upstream', 'redis', 's3'] as const;
type Part = (typeof parts)[number];

interface Stage {
  /** Where clients ask: behind a proxy of their own. */
  readonly url: string;
  readonly proxies: Readonly<Record<Part, FaultProxy>>;
  /** Not asked for yet. */
  readonly unseen: Content[];
  readonly seen: readonly Content[];
}

const pathOf = ({ digest }: Content) => `/v2/up/team/x/blobs/${digest}`;
const manifest = '/v2/up/team/x/manifests/1';

const make = (name: string, count: number) =>
  Array.from({ length: count }, (_, at) => blobOf(noise(`${name} ${at}`, 200 * KiB + at)));

async function start(t: Test): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  const seen = make('seen', 3);
  const unseen = make('unseen', 2 * Object.keys(faults).length);
  for (const blob of [...seen, ...unseen]) registry.put('team/x', blob);
  registry.putImage('team/x', '1', image);
  const redis = await startRedis(t);
  const s3 = await startS3(t);
  const ports = { upstream: registry.url, redis: redis.port, s3: s3.url };
  const before = async (part: keyof typeof ports) => startFaultProxy(t, ports[part]);
  const [upstream, toRedis, toS3] = [await before('upstream'), await before('redis'), await before('s3')];
  const mirror = await startTestMirror(t, {
    upstreams: { up: `http://127.0.0.1:${upstream.port}` },
    config: {
      tags: { fresh: '1ms' },
      limits: {
        upstreamConnect: '300ms',
        upstreamHeaders: '300ms',
        upstreamStall: '300ms',
        downloadResumeDelay: '5ms',
      },
      // No memory, and a disk with room for few: what is asked for again comes from far away, too.
      cache: {
        memory: { maxSize: '1KiB', maxBlobSize: '1B' },
        disk: { maxSize: '700KiB' },
        redis: { url: `redis://127.0.0.1:${toRedis.port}`, connect: '300ms', maxBlobSize: '250KiB' },
        s3: {
          bucket,
          endpoint: `http://127.0.0.1:${toS3.port}`,
          pathStyle: true,
          ...credentials,
          minBlobSize: '1KiB',
          timeout: '300ms',
        },
      },
    },
  });
  const client = await startFaultProxy(t, mirror.url);
  const url = `http://127.0.0.1:${client.port}`;
  await isWhole(t, url, seen);
  return { url, seen, unseen, proxies: { client, upstream, redis: toRedis, s3: toS3 } };
}

/** Everything is as it should be. */
async function isWhole(t: Test, url: string, blobs: readonly Content[]): Promise<void> {
  for (const blob of blobs) {
    const got = await download(url + pathOf(blob));
    t.ok(got.status === 200 && got.isComplete && got.body.equals(blob.bytes), `${blob.digest}: ${got.status}`);
  }
}

/** In trouble, an answer is right, or says that there is trouble, or breaks off after a prefix of the truth. */
async function isNeverWrong(t: Test, url: string, path: string, truth: Buffer): Promise<boolean> {
  const got = await download(url + path, { patienceMs: 3000, headers: { accept: '*/*' } });
  if (got.status === 200) {
    t.ok(got.body.equals(truth.subarray(0, got.body.length)), `${path}: ${got.body.length} bytes of the truth`);
    if (got.isComplete) t.equal(got.body.length, truth.length, `${path}: what looks whole is whole`);
    return got.isComplete;
  }
  t.ok([0, 429, 502, 503, 504].includes(got.status), `${path}: ${got.status}`);
  if (got.status > 0 && got.isComplete) t.match(JSON.parse(got.body.toString()), { errors: [{}] });
  return false;
}

for (const part of parts) {
  void t.test(`9, 12, 18, 30, 51, 54. trouble before the ${part}`, { skip: !hasRedis }, async (t) => {
    const { url, proxies, seen, unseen } = await start(t);
    for (const [name, fault] of Object.entries(faults)) {
      proxies[part].suffer(fault);
      const asked = [...seen, unseen.pop()!];
      const outcomes = await Promise.all([
        ...asked.map((blob) => isNeverWrong(t, url, pathOf(blob), blob.bytes)),
        isNeverWrong(t, url, manifest, image.index.bytes),
      ]);
      const wholeCount = outcomes.filter(Boolean).length;
      // Redis and S3 are a help and no more: without them everything is answered.
      if (part === 'redis' || part === 's3') t.equal(wholeCount, outcomes.length, `${name}: all are answered`);
      proxies[part].suffer(undefined);
      await recovered(url, unseen.at(-1)!);
      await isWhole(t, url, [...asked, unseen.pop()!]);
      t.equal((await download(url + manifest)).body.compare(image.index.bytes), 0, `${name}: and is over`);
    }
    t.ok(proxies[part].connections > 0, `${proxies[part].connections} connections went through`);
  });
}

/** An upstream that was in trouble is left alone for a moment. */
async function recovered(url: string, blob: Content): Promise<void> {
  await until(async () => (await download(url + pathOf(blob))).isComplete, 'the end of the trouble');
}
