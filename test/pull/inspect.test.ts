import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { parseConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { hexOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import type { PlatformSet } from '../../src/oci/platform.ts';
import { parseImageName } from '../../src/oci/reference.ts';
import type { Inspection } from '../../src/pull/inspect.ts';
import { openPullWork } from '../../src/wiring/pull-parts.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { containerdAccept as accept, defaults, startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { failureOf } from '../fixtures/servers.ts';

const image = buildImage({
  platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'],
  attestations: true,
  seed: 'inspect',
});
const [amd64, arm64, arm] = image.children as [BuiltChild, BuiltChild, BuiltChild];

interface Stage {
  readonly registry: TestRegistry;
  readonly mirror: TestMirror;
  readonly clock: { now: number };
  inspect(name: string, ...platforms: string[]): Promise<Inspection>;
  /** As a client does, but for what is left out. */
  pull(child: BuiltChild, ...leftOut: Content[]): Promise<void>;
  pullBlobs(repository: string, ...blobs: Content[]): Promise<void>;
  /** Behind everyone's back. */
  remove(held: Content): Promise<void>;
}

/** A mirror that clients pull from, and beside it, on its store, one that is asked. */
async function prepare(t: Test): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  registry.putImage('library/app', '1', image);
  const clock = { now: Date.now() };
  const now = () => clock.now;
  const upstreams = { 'docker.io': { url: registry.url } };
  const mirror = await startTestMirror(t, { upstreams, now });
  const config = parseConfig({
    ...defaults,
    upstreams,
    cache: { ...(defaults['cache'] as object), disk: { path: mirror.store, maxSize: '1GiB' } },
  });
  const closers: (() => unknown)[] = [];
  const log = createLog('silent', { isTerminal: false, write: () => undefined });
  const work = await openPullWork({ config, log, metrics: createMetrics(), now, closers });
  t.teardown(async () => {
    for (const close of closers.toReversed()) await close();
  });
  const fileOf = ({ digest }: Content) => join(mirror.store, 'blobs/sha256', hexOf(digest));
  const pullBlobs = async (repository: string, ...blobs: Content[]) => {
    for (const blob of blobs) {
      t.equal((await mirror.get(`/v2/docker.io/library/${repository}/blobs/${blob.digest}`)).status, 200);
      // An answer is whole before its copy has its name.
      await until(() => existsSync(fileOf(blob)), 'the blob on the disk');
    }
  };
  return {
    registry,
    mirror,
    clock,
    inspect: (name, ...platforms) => work.pull.inspect(parseImageName(name), setOf(platforms)),
    async pull({ platform, config: own, layers }, ...leftOut) {
      const path = `/p/${platform.replaceAll('/', '-')}/v2/docker.io/library/app/manifests/1`;
      t.equal((await mirror.get(path, { accept })).status, 200);
      await pullBlobs('app', ...[own, ...layers].filter((blob) => !leftOut.includes(blob)));
    },
    pullBlobs,
    remove: (held) => rm(fileOf(held)),
  };
}

function setOf(platforms: readonly string[]): PlatformSet {
  return platforms.length === 0 ? 'any' : platforms.map((platform) => parsePlatform(platform)!);
}

function sizeOf(...parts: readonly Content[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

function missing(kind: 'manifest' | 'config' | 'layer', { digest, bytes }: Content) {
  return { digest, bytes: bytes.length, kind };
}

function absent({ platform, manifest }: BuiltChild) {
  const { digest, bytes } = manifest;
  return {
    platform,
    digest,
    status: 'absent',
    bytes: bytes.length,
    heldBytes: 0,
    missing: [missing('manifest', manifest)],
  };
}

function present({ platform, manifest, config, layers }: BuiltChild) {
  const bytes = sizeOf(manifest, config, ...layers);
  return { platform, digest: manifest.digest, status: 'present', bytes, heldBytes: bytes, missing: [] };
}

function notOffered(platform: string) {
  return { platform, status: 'not offered', bytes: 0, heldBytes: 0, missing: [] };
}

void t.test('inspect: of an image that nobody pulled, the document is all that is fetched', async (t) => {
  const { registry, inspect } = await prepare(t);
  t.same(await inspect('app:1'), {
    image: 'docker.io/library/app:1',
    digest: image.index.digest,
    mediaType: mediaTypes.ociIndex,
    platforms: [absent(amd64), absent(arm64), absent(arm)],
  });
  t.same(
    registry.seen.map(({ method, path }) => `${method} ${path}`),
    ['HEAD /v2/library/app/manifests/1', `GET /v2/library/app/manifests/${image.index.digest}`],
  );
  registry.forget();
  await inspect('docker.io/library/app:1');
  t.same(registry.seen, [], 'by another name of it, what is fresh is not asked for');
});

void t.test('inspect: what is here, in whole and in part', async (t) => {
  const { registry, inspect, pull, remove } = await prepare(t);
  await pull(arm64);
  await pull(amd64, amd64.layers[0]!);
  registry.forget();
  const bytes = sizeOf(amd64.manifest, amd64.config, amd64.layers[0]!);
  t.same((await inspect('app:1')).platforms, [
    {
      ...present(amd64),
      status: 'partial',
      heldBytes: bytes - sizeOf(amd64.layers[0]!),
      missing: [missing('layer', amd64.layers[0]!)],
    },
    present(arm64),
    absent(arm),
  ]);
  t.equal(registry.count('GET blobs') + registry.count('GET manifests'), 0);

  await remove(arm64.layers[0]!);
  await remove(arm64.config);
  const [, partial] = (await inspect('app:1')).platforms;
  t.same(partial, {
    ...present(arm64),
    status: 'partial',
    heldBytes: sizeOf(arm64.manifest),
    missing: [missing('config', arm64.config), missing('layer', arm64.layers[0]!)],
  });
});

void t.test('inspect: without its manifest nobody knows what a platform consists of', async (t) => {
  const { inspect, pull, remove } = await prepare(t);
  await pull(arm64);
  await remove(arm64.manifest);
  t.same((await inspect('app:1', 'linux/arm64')).platforms, [absent(arm64)]);
});

void t.test('inspect: platforms that are asked for, offered or not', async (t) => {
  const { inspect } = await prepare(t);
  const of = async (...platforms: string[]) => (await inspect('app:1', ...platforms)).platforms;
  t.same(await of('linux/arm64'), [absent(arm64)]);
  t.same(await of('linux/s390x', 'linux/amd64', 'linux/riscv64'), [
    notOffered('linux/s390x'),
    absent(amd64),
    notOffered('linux/riscv64'),
  ]);
  t.same(await of('linux/arm/v8'), [absent(arm)], 'an older variant runs there');
  t.same(await of('linux/arm/v6'), [notOffered('linux/arm/v6')], 'a newer one does not');
  t.same(await of('linux/arm/v7', 'linux/arm/v8'), [absent(arm)], 'what fits both is told once');
});

void t.test('inspect: an image without an index says its platform when its config is here', async (t) => {
  const { registry, inspect, pullBlobs } = await prepare(t);
  for (const one of [arm64.config, ...arm64.layers]) registry.put('library/single', one);
  registry.put('library/single', arm64.manifest, '1');
  const about = {
    image: 'docker.io/library/single:1',
    digest: arm64.manifest.digest,
    mediaType: mediaTypes.ociManifest,
  };
  const cold = await inspect('single:1', 'linux/riscv64');
  t.same(cold, {
    ...about,
    platforms: [
      {
        ...present(arm64),
        platform: 'unknown',
        status: 'partial',
        heldBytes: sizeOf(arm64.manifest),
        missing: [missing('config', arm64.config), missing('layer', arm64.layers[0]!)],
      },
    ],
  });
  await pullBlobs('single', arm64.config, ...arm64.layers);
  t.same(await inspect('single:1'), { ...about, platforms: [present(arm64)] });
  t.same((await inspect('single:1', 'linux/arm64', 'linux/riscv64')).platforms, [
    present(arm64),
    notOffered('linux/riscv64'),
  ]);
  t.same((await inspect('single:1', 'linux/riscv64')).platforms, [notOffered('linux/riscv64')]);
});

void t.test('inspect: by digest, of an index and of a single image', async (t) => {
  const { registry, inspect, pull } = await prepare(t);
  await pull(amd64);
  const index = await inspect(`app@${image.index.digest}`);
  t.equal(index.image, `docker.io/library/app@${image.index.digest}`);
  t.same(index.platforms, [present(amd64), absent(arm64), absent(arm)]);
  t.same((await inspect(`app:other@${amd64.manifest.digest}`)).platforms, [present(amd64)]);
  const unknown = await failureOf(inspect(`app@${blobOf(noise('unknown', 10)).digest}`));
  t.match(unknown, { kind: 'manifestUnknown', message: /docker\.io\/library\/app has no manifest sha256:/ });
  const other = buildImage({ platforms: ['linux/amd64'], seed: 'other' });
  registry.putImage('library/other', '1', other);
  t.match(
    await failureOf(inspect(`other@${image.index.digest}`)),
    { kind: 'manifestUnknown' },
    'of another repository',
  );
});

void t.test('inspect: a layer that stands there twice, or in two platforms, is one each time', async (t) => {
  const { registry, mirror, inspect, pullBlobs } = await prepare(t);
  const layer = content(noise('shared', 5000), 'application/vnd.oci.image.layer.v1.tar');
  const manifests = [amd64, arm64].map(({ config }) =>
    content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: descriptor(config),
        layers: [descriptor(layer), descriptor(layer)],
      },
      mediaTypes.ociManifest,
    ),
  );
  const index = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: manifests.map((one, at) => ({
        ...descriptor(one),
        platform: { os: 'linux', architecture: ['amd64', 'arm64'][at] },
      })),
    },
    mediaTypes.ociIndex,
  );
  for (const one of [...manifests, amd64.config, arm64.config, layer]) registry.put('library/shared', one);
  registry.put('library/shared', index, '1');
  for (const { digest } of manifests) await mirror.get(`/v2/docker.io/library/shared/manifests/${digest}`);
  await pullBlobs('shared', layer);
  const expected = [amd64, arm64].map(({ platform, config }, at) => ({
    platform,
    digest: manifests[at]!.digest,
    status: 'partial',
    bytes: sizeOf(manifests[at]!, config, layer),
    heldBytes: sizeOf(manifests[at]!, layer),
    missing: [missing('config', config)],
  }));
  t.same((await inspect('shared:1')).platforms, expected);
});

void t.test('inspect: what is no image has no platforms', async (t) => {
  const { registry, inspect } = await prepare(t);
  registry.put(
    'library/list',
    content({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] }, mediaTypes.ociIndex),
    '1',
  );
  t.same((await inspect('list:1')).platforms, []);
  t.same((await inspect('list:1', 'linux/amd64')).platforms, [notOffered('linux/amd64')]);
  const old = content({ schemaVersion: 1, name: 'old' }, 'application/vnd.docker.distribution.manifest.v1+json');
  registry.put('library/old', old, '1');
  t.match(await inspect('old:1'), { digest: old.digest, platforms: [] });
});

void t.test('inspect: an upstream in trouble is no reason to say nothing', async (t) => {
  const { registry, clock, inspect, pull } = await prepare(t);
  await pull(arm64);
  t.match(await failureOf(inspect('app:2')), { kind: 'manifestUnknown', message: /has no tag 2 in library\/app/ });
  await registry.close();
  const expected = [absent(amd64), present(arm64), absent(arm)];
  for (const passed of [0, 3_600_000, 30 * 86_400_000]) {
    clock.now += passed;
    t.same((await inspect('app:1')).platforms, expected);
  }
  t.same((await inspect(`app@${arm64.manifest.digest}`)).platforms, [present(arm64)]);
  const nothing = await failureOf(inspect('other:1'));
  t.match(nothing, { name: 'NarrowsError', kind: /^upstream/ }, 'of what was never here, nothing is known');
  t.match(await failureOf(inspect('nowhere.example/app:1')), { kind: 'nameUnknown' });
});
