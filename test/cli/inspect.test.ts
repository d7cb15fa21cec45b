import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { hexOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { filesOf, until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({
  platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'],
  payloadBytes: 100_000,
  attestations: true,
  seed: 'inspected',
});
const [amd64, arm64, arm] = image.children as [BuiltChild, BuiltChild, BuiltChild];

/** A store that a client of arm64 has filled, and one of amd64 but for its layer; the server runs on. */
async function prepare(t: Test, disk: Record<string, unknown> = {}) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  registry.putImage('library/app', '1', image);
  const upstreams = { 'docker.io': { url: registry.url } };
  const mirror = await startTestMirror(t, { upstreams });
  const fileOf = ({ digest }: Content) => join(mirror.store, 'blobs/sha256', hexOf(digest));
  const pullBlob = async (repository: string, blob: Content) => {
    t.equal((await mirror.get(`/v2/docker.io/library/${repository}/blobs/${blob.digest}`)).status, 200);
    await until(() => existsSync(fileOf(blob)), 'the blob on the disk');
  };
  for (const platform of ['linux-arm64', 'linux-amd64']) {
    await mirror.get(`/p/${platform}/v2/docker.io/library/app/manifests/1`, { accept });
  }
  for (const blob of [arm64.config, ...arm64.layers, amd64.config]) await pullBlob('app', blob);
  registry.forget();
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(
    file,
    JSON.stringify({
      upstreams,
      platforms: { sets: { edge: ['linux/arm64', 'linux/arm/v7'] } },
      cache: { disk: { path: mirror.store, ...disk } },
    }),
  );
  const inspect = (...args: string[]) => runCommand(['inspect', '--config', file, ...args]);
  /** `linux/arm64 present`, a line a platform. */
  const statuses = async (...args: string[]) => {
    const { out } = await inspect('--json', ...args);
    const { platforms } = JSON.parse(out) as { platforms: { platform: string; status: string }[] };
    return platforms.map(({ platform, status }) => `${platform} ${status}`);
  };
  return { registry, mirror, file, fileOf, pullBlob, inspect, statuses };
}

void t.test('inspect: the table that people see', async (t) => {
  const { registry, inspect } = await prepare(t);
  const found = await inspect('app:1', '--platform', 'any');
  t.equal(found.err, '');
  t.equal(
    found.out,
    `docker.io/library/app:1
${image.index.digest}

PLATFORM      HERE         SIZE      HELD  MISSING  DIGEST
linux/amd64   partial  98.8 KiB     708 B        1  ${amd64.manifest.digest}
linux/arm64   present  98.8 KiB  98.8 KiB        0  ${arm64.manifest.digest}
linux/arm/v7  absent          -       0 B        1  ${arm.manifest.digest}
`,
  );
  t.equal(found.code, 0);
  t.equal((await inspect('app:1')).out, found.out, 'any is what there is');
  t.equal(
    (await inspect('app:1', '--platform', 'linux/arm64', '--platform', 'windows/amd64')).out,
    `docker.io/library/app:1
${image.index.digest}

PLATFORM       HERE             SIZE      HELD  MISSING  DIGEST
linux/arm64    present      98.8 KiB  98.8 KiB        0  ${arm64.manifest.digest}
windows/amd64  not offered         -         -        0
`,
  );
  t.same(registry.seen, [], 'what the server has just asked needs no question');
});

void t.test('inspect: JSON for machines', async (t) => {
  const { inspect } = await prepare(t);
  const { code, out } = await inspect('app:1', '--json', '--platform', 'linux/amd64,linux/s390x');
  t.equal(code, 0);
  const [layer] = amd64.layers as [Content];
  const heldBytes = amd64.manifest.bytes.length + amd64.config.bytes.length;
  t.same(JSON.parse(out), {
    image: 'docker.io/library/app:1',
    digest: image.index.digest,
    mediaType: mediaTypes.ociIndex,
    platforms: [
      {
        platform: 'linux/amd64',
        digest: amd64.manifest.digest,
        status: 'partial',
        bytes: heldBytes + layer.bytes.length,
        heldBytes,
        missing: [{ digest: layer.digest, bytes: layer.bytes.length, kind: 'layer' }],
      },
      { platform: 'linux/s390x', status: 'not offered', bytes: 0, heldBytes: 0, missing: [] },
    ],
  });
  t.ok(out.startsWith('{\n  "image"') && out.endsWith('}\n'), 'to be read by people too');
});

void t.test('inspect: platforms as lists, repeated, and by the name of a set', async (t) => {
  const { statuses } = await prepare(t);
  const edge = ['linux/arm64 present', 'linux/arm/v7 absent'];
  t.same(await statuses('app:1', '--platform', 'edge'), edge);
  t.same(await statuses('app:1', '--platform', 'linux/arm64, linux/arm/v7'), edge);
  t.same(await statuses('app:1', '--platform', 'linux/arm64', '--platform', 'linux/arm'), edge);
  t.same(await statuses('app:1', '--platform', 'linux/amd64,edge'), ['linux/amd64 partial', ...edge]);
  t.equal((await statuses('app:1', '--platform', 'edge,any')).length, 3);
});

void t.test('inspect: by digest, by all names of a repository, and without an index', async (t) => {
  const { registry, inspect, statuses, pullBlob } = await prepare(t);
  for (const name of [
    'library/app:1',
    'docker.io/library/app:1',
    'index.docker.io/app:1',
    `app@${image.index.digest}`,
  ]) {
    t.same(await statuses(name), ['linux/amd64 partial', 'linux/arm64 present', 'linux/arm/v7 absent'], name);
  }
  t.same(await statuses(`app@${arm64.manifest.digest}`), ['linux/arm64 present']);
  for (const one of [arm64.config, ...arm64.layers]) registry.put('library/single', one);
  registry.put('library/single', arm64.manifest, 'latest');
  await pullBlob('single', arm64.config);
  const single = `PLATFORM     HERE         SIZE      HELD  MISSING  DIGEST
linux/arm64  present  98.8 KiB  98.8 KiB        0  ${arm64.manifest.digest}
`;
  const { out } = await inspect('single');
  t.equal(out, `docker.io/library/single:latest\n${arm64.manifest.digest}\n\n${single}`);
});

void t.test('inspect: what is no image for platforms is told to be none', async (t) => {
  const { registry, inspect } = await prepare(t);
  const list = buildImage({ platforms: [] });
  registry.put('library/list', list.index, '1');
  const { code, out } = await inspect('list:1');
  t.equal(out, `docker.io/library/list:1\n${list.index.digest}\n\nThis is no image for platforms.\n`);
  t.equal(code, 0);
});

void t.test('inspect: with the upstream off, what is here is told all the same', async (t) => {
  const { registry, mirror, fileOf, inspect, statuses } = await prepare(t);
  await registry.close();
  const all = ['linux/amd64 partial', 'linux/arm64 present', 'linux/arm/v7 absent'];
  t.same(await statuses('app:1'), all);
  await mirror.stop();
  t.same(await statuses('app:1'), all, 'nor does it take a server');
  await rm(fileOf(arm64.layers[0]!));
  t.same(await statuses('app:1', '--platform', 'linux/arm64'), ['linux/arm64 partial']);
  const unknown = await inspect('other:1');
  t.match(unknown, { code: 1, out: '' });
  t.match(unknown.err, /^[^\n]*docker\.io[^\n]*\.\n$/, 'of the rest, one sentence');
});

void t.test('inspect: what is not there is one sentence and exit 1', async (t) => {
  const { inspect } = await prepare(t);
  for (const [name, sentence] of [
    ['app:2', 'docker.io has no tag 2 in library/app.\n'],
    ['nothing', 'docker.io has no tag latest in library/nothing.\n'],
    [`app@sha256:${'0'.repeat(64)}`, `docker.io/library/app has no manifest sha256:${'0'.repeat(64)}.\n`],
    ['quay.example/app:1', /^quay\.example is not a registry that this mirror serves; [^\n]+\n$/],
    ['UPPER:1', /^"UPPER" is not a repository name: [^\n]+\n$/],
    ['app@sha256:5', /^[^\n]*sha256:5[^\n]*\n$/],
  ] as const) {
    const { code, out, err } = await inspect(name);
    t.match({ code, out }, { code: 1, out: '' }, name);
    if (typeof sentence === 'string') t.equal(err, sentence);
    else t.match(err, sentence);
  }
});

void t.test('inspect: wrong use is exit 2', async (t) => {
  const { inspect } = await prepare(t);
  for (const platform of ['arm64', 'linux/arm64,', 'linux/arm64;linux/amd64', 'nowhere']) {
    const { code, out, err } = await inspect('app:1', '--platform', platform);
    t.match({ code, out }, { code: 2, out: '' }, platform);
    const wrong = JSON.stringify(platform.endsWith(',') ? '' : platform);
    t.equal(err, `${wrong} is no platform such as linux/arm64, no named set, and not any.\n`);
  }
  t.equal((await inspect()).code, 2);
  t.equal((await inspect('app:1', '--nonsense')).code, 2);
  t.match(await runCommand(['inspect', '--help']), { code: 0, out: /Example:\n {2}narrows inspect / });
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'store'), 'in the way');
  const refused = await inspect('app:1', '--store', join(folder, 'store'));
  t.match(refused, { code: 1, err: /^The store [^\n]*\/store cannot be used \(E[A-Z]+\); [^\n]+\n$/ });
});

void t.test('inspect: it only looks, however small the bound of its configuration is', async (t) => {
  const { mirror, inspect } = await prepare(t, { maxSize: '1KiB' });
  const before = (await filesOf(mirror.store)).blobs.toSorted();
  t.equal((await inspect('app:1')).code, 0);
  t.same((await filesOf(mirror.store)).blobs.toSorted(), before);
});
