import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { asked, closureOf, createSandbox, requireProgram, sizeOf, startDockerRegistry } from '../fixtures/clients.ts';
import type { Ran, Sandbox } from '../fixtures/clients.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltChild, BuiltImage, Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/arm/v7'];
const image = buildImage({ platforms, attestations: true });
const plain = buildImage({ platforms, seed: 'no attestations' });
const [amd64, arm64, arm] = image.children as [BuiltChild, BuiltChild, BuiltChild];

void t.test('crane: through any, digest and manifest are those of the whole index', async (t) => {
  const crane = await clientOf(t, 'crane');
  if (!crane) return;
  const { run, name } = crane;
  t.match(await run('digest', name('any')), { code: 0, out: `${image.index.digest}\n` });
  t.match(await run('manifest', name('any')), { code: 0, out: image.index.bytes.toString() });
  t.match(await run('digest', '--platform', 'linux/arm64', name('any')), { out: `${arm64.manifest.digest}\n` });
});

void t.test('crane: through a platform, a tag is that image', async (t) => {
  const crane = await clientOf(t, 'crane');
  if (!crane) return;
  const { run, name, upstream } = crane;
  t.match(await run('digest', name('linux-arm64')), { code: 0, out: `${arm64.manifest.digest}\n` });
  t.match(await run('manifest', name('linux-arm64')), { code: 0, out: arm64.manifest.bytes.toString() });
  t.match(await run('config', name('linux-arm64')), { code: 0, out: arm64.config.bytes.toString() });
  const original = name('linux-arm64').replace(/:1$/, `@${image.index.digest}`);
  t.match(await run('manifest', original), { code: 0, out: image.index.bytes.toString() });
  t.same(asked(upstream), [
    'HEAD manifests/1',
    ...[`manifests/${image.index.digest}`, ...closureOf(arm64).slice(0, 2)].map((what) => `GET ${what}`).toSorted(),
  ]);
});

void t.test('90. crane validate: every view is a sound image, down to the layers', async (t) => {
  const crane = await clientOf(t, 'crane', plain);
  if (!crane) return;
  const { run, name } = crane;
  for (const set of ['any', 'linux-arm64', 'linux-amd64_linux-arm-v7'])
    t.match(await run('validate', '--remote', name(set)), { code: 0, out: /^PASS/ });
});

void t.test('crane pull: an OCI layout holds every byte of the index', async (t) => {
  const crane = await clientOf(t, 'crane');
  if (!crane) return;
  const { run, name, sandbox, upstream } = crane;
  const layout = join(sandbox.home, 'layout');
  t.match(await run('pull', '--format', 'oci', name('any'), layout), { code: 0 });
  await holds(t, layout, [...image.manifests, ...image.blobs]);
  t.match(JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')), {
    manifests: [{ digest: image.index.digest }],
  });
  const gets = asked(upstream).filter((what) => what.startsWith('GET'));
  t.equal(new Set(gets).size, gets.length, 'nothing was asked for twice');
});

void t.test('crane copy: into another registry, the index keeps its digest', async (t) => {
  const crane = await clientOf(t, 'crane');
  const program = await requireProgram(t, 'docker-registry');
  if (!crane || program === undefined) return;
  const { run, name, sandbox, upstream } = crane;
  const { host } = await startDockerRegistry(t, sandbox, program);
  t.match(await run('copy', name('any'), `${host}/copy/hello:1`), { code: 0 });
  t.match(await run('digest', `${host}/copy/hello:1`), { code: 0, out: `${image.index.digest}\n` });
  const layout = join(sandbox.home, 'layout');
  t.match(await run('pull', '--format', 'oci', `${host}/copy/hello:1`, layout), { code: 0 });
  await holds(t, layout, [...image.manifests, ...image.blobs]);

  upstream.forget();
  t.match(await run('copy', name('linux-arm64'), `${host}/copy/hello:arm64`), { code: 0 });
  t.match(await run('digest', `${host}/copy/hello:arm64`), { code: 0, out: `${arm64.manifest.digest}\n` });
  t.same(upstream.seen, []);
});

void t.test('crane: lists tags, and the catalog of what was pulled', async (t) => {
  const crane = await clientOf(t, 'crane');
  if (!crane) return;
  const { run, name, host } = crane;
  t.match(await run('digest', name('any')), { code: 0 });
  t.match(await run('ls', name('any').replace(/:1$/, '')), { code: 0, out: '1\n' });
  t.match(await run('catalog', host), { code: 0, out: 'docker.io/library/hello\n' });
});

void t.test('oras manifest fetch: descriptor and bytes fit in every view', async (t) => {
  const oras = await clientOf(t, 'oras');
  if (!oras) return;
  const { run, name } = oras;
  const fetch = (...args: string[]) => run('manifest', 'fetch', '--plain-http', ...args);
  for (const { set, manifest } of [
    { set: 'any', manifest: image.index },
    { set: 'linux-arm-v7', manifest: arm.manifest },
  ]) {
    t.match(await fetch(name(set)), { code: 0, out: manifest.bytes.toString() });
    const { out } = await fetch('--descriptor', name(set));
    t.match(JSON.parse(out), descriptor(manifest));
  }
  t.match(await fetch('--platform', 'linux/arm64', name('linux-amd64_linux-arm64')), {
    code: 0,
    out: arm64.manifest.bytes.toString(),
  });
  const missing = await fetch(name('linux-s390x'));
  t.match(missing, { code: 1, err: /not found/ });
});

void t.test('oras discover: an index keeps its referrers, whole or narrowed; a platform has its own', async (t) => {
  const oras = await clientOf(t, 'oras');
  if (!oras) return;
  const { run, name, upstream } = oras;
  const ofIndex = referrer(upstream, image.index, 'application/vnd.example.sbom');
  const signature = referrer(upstream, image.index, 'application/vnd.example.signature');
  const ofChild = referrer(upstream, amd64.manifest, 'application/vnd.example.sbom');
  const discover = async (set: string, ...args: string[]) => {
    const { code, out, err } = await run('discover', '--plain-http', '--format', 'json', ...args, name(set));
    t.equal(code, 0, err);
    const { digest, referrers } = JSON.parse(out) as { digest: string; referrers: { digest: string }[] };
    return { digest, referrers: referrers.map((one) => one.digest).toSorted() };
  };
  const both = [ofIndex.digest, signature.digest].toSorted();
  t.same(await discover('any'), { digest: image.index.digest, referrers: both });
  const narrowed = await discover('linux-amd64_linux-arm64');
  t.not(narrowed.digest, image.index.digest);
  t.same(narrowed.referrers, both);
  t.same((await discover('any', '--artifact-type', 'application/vnd.example.signature')).referrers, [signature.digest]);
  t.same(await discover('linux-amd64'), { digest: amd64.manifest.digest, referrers: [ofChild.digest] });
  t.same(await discover('linux-arm64'), { digest: arm64.manifest.digest, referrers: [] });
});

void t.test('oras copy: an image with all that refers to it, into an OCI layout', async (t) => {
  const oras = await clientOf(t, 'oras');
  if (!oras) return;
  const { run, name, upstream, sandbox } = oras;
  const sbom = referrer(upstream, image.index, 'application/vnd.example.sbom');
  const layout = join(sandbox.home, 'layout');
  t.match(await run('copy', '--recursive', '--from-plain-http', name('any'), '--to-oci-layout', `${layout}:1`), {
    code: 0,
  });
  await holds(t, layout, [...image.manifests, ...image.blobs, sbom]);
  const contents = new Map([...image.manifests, ...image.blobs, sbom, nothing].map((one) => [one.digest, one]));
  const gets = asked(upstream).filter((what) => /^GET (manifests|blobs)/.test(what));
  t.equal(gets.length, contents.size, 'each thing was asked for once');
  t.same(new Set(gets.map((what) => what.split('/')[1])), new Set(contents.keys()));
});

void t.test('oras copy: one platform moves the bytes of one platform', async (t) => {
  const oras = await clientOf(t, 'oras');
  if (!oras) return;
  const { run, name, upstream, sandbox } = oras;
  const layout = join(sandbox.home, 'layout');
  t.match(await run('copy', '--from-plain-http', name('linux-arm-v7'), '--to-oci-layout', `${layout}:1`), { code: 0 });
  const parts = [arm.manifest, arm.config, ...arm.layers];
  await holds(t, layout, parts);
  t.equal((await readdir(join(layout, 'blobs/sha256'))).length, parts.length);
  t.equal(upstream.sentBytes, sizeOf([image.index, ...parts]));
});

interface Client {
  readonly sandbox: Sandbox;
  readonly upstream: TestRegistry;
  readonly host: string;
  run(...args: string[]): Promise<Ran>;
  /** The image as it is named for a platform set. */
  name(set: string): string;
}

async function clientOf(t: Test, client: string, source: BuiltImage = image): Promise<Client | undefined> {
  const program = await requireProgram(t, client);
  if (program === undefined) return undefined;
  const sandbox = await createSandbox(t);
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', source);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const { host } = new URL(mirror.url);
  return {
    sandbox,
    upstream,
    host,
    run: (...args) => sandbox.run(program, ...args),
    name: (set) => `${host}/p/${set}/docker.io/library/hello:1`,
  };
}

const nothing = content(Buffer.from('{}'), 'application/vnd.oci.empty.v1+json');

/** Something that says what it is about, as signatures do. */
function referrer(upstream: TestRegistry, subject: Content, artifactType: string): Content {
  const manifest = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      artifactType,
      config: descriptor(nothing),
      layers: [descriptor(nothing)],
      subject: descriptor(subject),
    },
    mediaTypes.ociManifest,
  );
  upstream.put('library/hello', nothing);
  upstream.put('library/hello', manifest);
  return manifest;
}

async function holds(t: Test, layout: string, contents: readonly Content[]): Promise<void> {
  for (const { digest, bytes } of contents)
    t.same(await readFile(join(layout, 'blobs', ...digest.split(':'))), bytes, digest);
}
