import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { createSandbox, requireProgram } from '../fixtures/clients.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { putSynthetic, sign, syntheticImages } from '../fixtures/synthetic.ts';

const images = syntheticImages('arm64', 16);
const names = images.map(({ repository, tag }) => `${repository.replace('library/', '')}:${tag}`);

/** A registry with the eight images, and the settings of a store before it. */
async function prepare(t: Test) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  putSynthetic(registry, images);
  const signed = sign(registry, images[0]!.repository, images[0]!.index);
  const folder = await temporaryFolder(t);
  const settings = async (name: string, more: object = {}) => {
    const file = join(folder, `${name}.yaml`);
    const upstreams = { 'docker.io': { url: registry.url } };
    await writeFile(file, JSON.stringify({ upstreams, cache: { disk: { path: join(folder, name) } }, ...more }));
    return file;
  };
  return { registry, signed, folder, settings };
}

function sizeOf(contents: readonly Content[]): number {
  const each = new Map(contents.map((one) => [one.digest, one.bytes.length]));
  return [...each.values()].reduce((total, bytes) => total + bytes, 0);
}

function distinct(contents: readonly Content[]): string[] {
  return [...new Set(contents.map(({ digest }) => digest))].toSorted();
}

/** `blobs/sha256:…`, without the repository. */
function askedFor(registry: TestRegistry, method: string, kind: string): string[] {
  return registry.seen
    .filter((one) => one.method === method && one.path.includes(`/${kind}/`))
    .map((one) => one.path.split('/').at(-1)!)
    .toSorted();
}

void t.test(
  'warming eight images for arm64 fetches their closure, each digest once, and again only asks',
  async (t) => {
    const { registry, signed, settings } = await prepare(t);
    const config = await settings('store');
    const warm = () => runCommand(['warm', ...names, '--platform', 'linux/arm64', '--set', 'edge', '--config', config]);
    t.match(await warm(), { code: 0 });
    const blobs = [...images.flatMap((image) => image.blobs), ...signed.blobs];
    const manifests = [...images.flatMap((image) => [image.index, ...image.manifests]), ...signed.manifests];
    t.same(askedFor(registry, 'GET', 'blobs'), distinct(blobs), 'each blob once, and no other');
    t.same(askedFor(registry, 'GET', 'manifests'), distinct(manifests), 'each manifest once, and no other');
    t.same(askedFor(registry, 'HEAD', 'blobs'), [], 'what a manifest lists need not be asked for');
    const lists = registry.seen.filter((one) => one.path.includes('/referrers/'));
    t.ok(lists.length > 0, 'and lists of what is said about them');
    t.ok(
      registry.sentBytes - sizeOf([...blobs, ...manifests]) < lists.length * 400,
      'not a byte of another platform, lists apart',
    );
    registry.forget();
    t.match(await warm(), { code: 0 });
    t.ok(registry.seen.length > 0);
    t.ok(
      registry.seen.every(({ method }) => method === 'HEAD'),
      'again: HEADs alone',
    );
    t.match(await runCommand(['check', '--set', 'edge', '--config', config]), { code: 0, out: /8 images complete/ });
  },
);

void t.test('74. warm, export, import, and an offline mirror has all of it: by tag, by digest, signed', async (t) => {
  const { registry, signed, folder, settings } = await prepare(t);
  const [near, far] = [await settings('near'), await settings('far', { offline: true })];
  const bundle = join(folder, 'edge.tar');
  t.match(await runCommand(['warm', ...names, '--platform', 'linux/arm64', '--set', 'edge', '--config', near]), {
    code: 0,
  });
  t.match(await runCommand(['export', '--set', 'edge', '-o', bundle, '--config', near]), { code: 0 });
  await registry.close();
  t.match(await runCommand(['import', bundle, '--config', far]), { code: 0, out: /8 images taken in/ });
  t.match(await runCommand(['check', '--set', 'edge', '--config', far]), { code: 0, out: /8 images complete/ });
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:1' },
    store: join(folder, 'far'),
    config: { offline: true },
  });
  const skopeo = await requireProgram(t, 'skopeo');
  if (skopeo === undefined) return;
  const sandbox = await createSandbox(t);
  const copy = (from: string, to: string) =>
    sandbox.run(
      skopeo,
      '--insecure-policy',
      '--override-arch',
      'arm64',
      '--override-os',
      'linux',
      'copy',
      '--src-tls-verify=false',
      `docker://${new URL(mirror.url).host}/${from}`,
      `dir:${join(folder, to)}`,
    );
  for (const [at, { repository, tag, index, manifests }] of images.entries()) {
    const byTag = await mirror.get(`/p/linux-arm64/v2/${repository}/manifests/${tag}`, { accept: index.mediaType });
    t.equal(byTag.headers['docker-content-digest'], manifests[0]!.digest, `${repository} by tag is arm64's`);
    t.match(await copy(`${repository}:${tag}`, `tag-${at}`), { code: 0 }, `skopeo pulls ${repository} by tag`);
    t.match(
      await copy(`${repository}@${index.digest}`, `digest-${at}`),
      { code: 0 },
      'and by the index it was published as',
    );
    for (const one of [index, ...manifests]) {
      const got = await mirror.get(`/v2/${repository}/manifests/${one.digest}`);
      t.ok(got.body.equals(one.bytes), 'the index, the image and its attestation are the publisher’s, to the byte');
    }
  }
  const { repository, index } = images[0]!;
  const signature = await mirror.get(`/v2/${repository}/manifests/${signed.signatureTag}`);
  t.ok(signature.body.equals(signed.signature.bytes), 'the signature is found by its tag');
  const referrers = await mirror.get(`/v2/${repository}/referrers/${index.digest}`);
  t.same(
    referrers.json<{ manifests: { digest: string }[] }>().manifests.map(({ digest }) => digest),
    [signed.sbom.digest],
    'and the SBOM by the referrers API',
  );
  for (const blob of signed.blobs) {
    t.ok((await mirror.get(`/v2/${repository}/blobs/${blob.digest}`)).body.equals(blob.bytes), 'with its content');
  }
});
