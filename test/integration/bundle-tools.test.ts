import { execFileSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { app, appSignature, createSide, exportEdge, web } from '../fixtures/bundles.ts';
import type { Side } from '../fixtures/bundles.ts';
import {
  containerds,
  createSandbox,
  requireProgram,
  requireRoot,
  startContainerd,
  startDockerRegistry,
} from '../fixtures/clients.ts';
import type { Ran, Sandbox } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltChild } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

/** What programs of others make of a bundle, and what a bundle is made of that they wrote. */
const arm64 = app.children[1]!;
const name = 'docker.io/library/app:1';
const whole = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'written by others' });
const [wholeAmd64, wholeArm64] = whole.children as [BuiltChild, BuiltChild];

interface Tool {
  readonly sandbox: Sandbox;
  run(...args: string[]): Promise<Ran>;
}

async function toolOf(t: Test, program: string): Promise<Tool | undefined> {
  const found = await requireProgram(t, program);
  if (found === undefined) return undefined;
  const sandbox = await createSandbox(t);
  return { sandbox, run: (...args) => sandbox.run(found, ...args) };
}

/** A bundle as a file, and unpacked as a folder. */
async function bundleFor(t: Test): Promise<{ file: string; folder: string }> {
  const { file, near } = await exportEdge(t);
  const folder = near.path('unpacked');
  await mkdir(folder);
  execFileSync('tar', ['-xf', file, '-C', folder]);
  return { file, folder };
}

void t.test('skopeo reads a bundle, image by image', async (t) => {
  const skopeo = await toolOf(t, 'skopeo');
  if (!skopeo) return;
  const { file, folder } = await bundleFor(t);
  const { run, sandbox } = skopeo;
  for (const source of [`oci-archive:${file}:${name}`, `oci:${folder}:${name}`]) {
    const inspected = await run('--override-arch', 'arm64', 'inspect', source);
    t.match(inspected, { code: 0 }, inspected.err);
    t.match(JSON.parse(inspected.out), { Architecture: 'arm64', Os: 'linux', Layers: [arm64.layers[0]!.digest] });
  }
  const copied = join(sandbox.home, 'copy');
  const args = ['--override-arch', 'arm64', 'copy', `oci-archive:${file}:${name}`, `dir:${copied}`];
  t.match(await run(...args), { code: 0 });
  t.same(await readFile(join(copied, 'manifest.json')), arm64.manifest.bytes);
  for (const { digest, bytes } of [arm64.config, ...arm64.layers])
    t.same(await readFile(join(copied, digest.slice(7))), bytes);
  const other = await run(
    '--override-arch',
    'arm64',
    'inspect',
    '--raw',
    `oci-archive:${file}:docker.io/library/web:2`,
  );
  t.equal(other.out, web.index.bytes.toString());
});

void t.test('oras reads a bundle, its signature as well', async (t) => {
  const oras = await toolOf(t, 'oras');
  if (!oras) return;
  const { file, folder } = await bundleFor(t);
  const { run, sandbox } = oras;
  for (const path of [file, folder]) {
    const layout = ['--oci-layout-path', path];
    t.match(await run('manifest', 'fetch', ...layout, name), { code: 0, out: app.index.bytes.toString() });
    t.match(await run('manifest', 'fetch', ...layout, '--platform', 'linux/arm64', name), {
      code: 0,
      out: arm64.manifest.bytes.toString(),
    });
    const signature = `docker.io/library/app:${appSignature.tag}`;
    t.match(await run('manifest', 'fetch', ...layout, signature), {
      code: 0,
      out: appSignature.manifest.bytes.toString(),
    });
  }
  const target = `${join(sandbox.home, 'copy')}:1`;
  const from = ['--from-oci-layout', `${folder}@${arm64.manifest.digest}`];
  t.match(await run('copy', ...from, '--to-oci-layout', target), { code: 0 });
  t.match(await run('manifest', 'fetch', '--oci-layout', target), { out: arm64.manifest.bytes.toString() });
});

void t.test('umoci lists a bundle, and unpacks what is an image of one platform', async (t) => {
  const umoci = await toolOf(t, 'umoci');
  if (!umoci) return;
  const { near } = await exportEdge(t);
  const digest = `app@${arm64.manifest.digest}`;
  const file = near.path('one.tar');
  t.match(await near.run('warm', digest, '--platform', 'linux/arm64', '--set', 'one'), { code: 0 });
  t.match(await near.run('export', '--set', 'one', '-o', file), { code: 0 });
  const folder = join(umoci.sandbox.home, 'layout');
  await mkdir(folder);
  execFileSync('tar', ['-xf', file, '-C', folder]);
  const listed = await umoci.run('ls', '--layout', folder);
  t.match(listed, { code: 0 }, listed.err);
  t.match(listed.out, `docker.io/library/${digest}\n`);
  const target = join(umoci.sandbox.home, 'unpacked');
  const image = `${folder}:docker.io/library/${digest}`;
  const unpacked = await umoci.run('unpack', '--rootless', '--image', image, target);
  t.match(unpacked, { code: 0 }, unpacked.err);
  t.equal(await readFile(join(target, 'rootfs/seed'), 'utf8'), 'app linux/arm64\n');
});

void t.test('crane pushes a bundle to a registry', async (t) => {
  const crane = await toolOf(t, 'crane');
  const program = await requireProgram(t, 'docker-registry');
  if (!crane || program === undefined) return;
  const { near } = await exportEdge(t);
  const file = near.path('one.tar');
  const digest = `app@${arm64.manifest.digest}`;
  t.match(await near.run('warm', digest, '--platform', 'linux/arm64', '--no-referrers', '--set', 'one'), { code: 0 });
  t.match(await near.run('export', '--set', 'one', '--no-referrers', '-o', file), { code: 0 });
  const folder = join(crane.sandbox.home, 'layout');
  await mkdir(folder);
  execFileSync('tar', ['-xf', file, '-C', folder]);
  const { host } = await startDockerRegistry(t, crane.sandbox, program);
  const pushed = await crane.run('push', folder, `${host}/far/app:1`);
  t.match(pushed, { code: 0 }, pushed.err);
  t.match(await crane.run('digest', `${host}/far/app:1`), { code: 0, out: `${arm64.manifest.digest}\n` });
  t.match(await crane.run('validate', '--remote', `${host}/far/app:1`), { code: 0, out: /^PASS/ });
});

for (const program of containerds) {
  void t.test(`ctr images import, ${program}: the platform of a bundle, under its name`, async (t) => {
    const found = await requireProgram(t, program);
    if (found === undefined || !requireRoot(t)) return;
    const { file } = await bundleFor(t);
    const sandbox = await createSandbox(t);
    const { ctr } = await startContainerd(t, sandbox, found);
    const args = ['--platform', 'linux/arm64', '--no-unpack', '--local', file];
    const isNew = (await ctr('images', 'import', '--help')).out.includes('--local');
    const imported = await ctr('images', 'import', ...args.filter((arg) => arg !== '--local' || isNew));
    t.match(imported, { code: 0 }, imported.err);
    const { out } = await ctr('images', 'ls');
    const line = out.split('\n').find((text) => text.startsWith(`${name} `));
    t.match(line, app.index.digest, 'the index keeps its digest');
    t.match(await ctr('content', 'get', arm64.layers[0]!.digest), { code: 0 });
    t.match(await ctr('content', 'get', arm64.manifest.digest), { out: arm64.manifest.bytes.toString() });
  });
}

void t.test('a registry on the far side is filled from a bundle, and is mirrored there', async (t) => {
  const skopeo = await toolOf(t, 'skopeo');
  const program = await requireProgram(t, 'docker-registry');
  if (!skopeo || program === undefined) return;
  const { file } = await bundleFor(t);
  const { host, url } = await startDockerRegistry(t, skopeo.sandbox, program);
  const args = ['--override-arch', 'arm64', 'copy', '--dest-tls-verify=false'];
  const copied = await skopeo.run(...args, `oci-archive:${file}:${name}`, `docker://${host}/library/app:1`);
  t.match(copied, { code: 0 }, copied.err);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': url } });
  const pulled = await mirror.get('/v2/docker.io/library/app/manifests/1');
  t.same(pulled.body, arm64.manifest.bytes);
  const [layer] = arm64.layers;
  t.same((await mirror.get(`/v2/docker.io/library/app/blobs/${layer!.digest}`)).body, layer!.bytes);
});

/** Where programs of others get their image from: all of it, as it is. */
async function originOf(t: Test): Promise<{ host: string }> {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', whole);
  const { host } = new URL((await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } })).url);
  return { host };
}

/** Takes in what a program wrote, and asks for it on the other side. */
async function arrives(
  t: Test,
  path: string,
  args: readonly string[],
  image: { repository: string; tag: string; children: readonly BuiltChild[]; digest?: string },
): Promise<Side> {
  const far = await createSide(t);
  t.match(await far.run('import', path, ...args), { code: 0, err: '' });
  t.match(await far.run('check', '--set', 'default'), { code: 0 });
  const { get } = await startTestMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    store: far.store,
    config: { offline: true },
  });
  const base = `/v2/${image.repository}`;
  const byTag = await get(`${base}/manifests/${image.tag}`);
  t.equal(byTag.status, 200, 'by its tag');
  const digest = byTag.headers['docker-content-digest'];
  if (image.digest !== undefined) t.equal(digest, image.digest);
  t.same((await get(`${base}/manifests/${digest}`)).body, byTag.body, 'by its digest');
  for (const child of image.children)
    for (const blob of [child.config, ...child.layers])
      t.same((await get(`${base}/blobs/${blob.digest}`)).body, blob.bytes, blob.digest);
  return far;
}

const hello = { repository: 'docker.io/library/hello', tag: '1' };

for (const { what, all, children, digest } of [
  { what: 'one platform', all: [], children: [wholeArm64], digest: wholeArm64.manifest.digest },
  { what: 'all platforms', all: ['--all'], children: [wholeAmd64, wholeArm64], digest: whole.index.digest },
]) {
  for (const transport of ['oci-archive', 'oci']) {
    void t.test(`skopeo copy to ${transport}, ${what}: it is taken in`, async (t) => {
      const skopeo = await toolOf(t, 'skopeo');
      if (!skopeo) return;
      const { host } = await originOf(t);
      const path = join(skopeo.sandbox.home, 'written');
      const from = `docker://${host}/docker.io/library/hello:1`;
      const args = ['--override-arch', 'arm64', 'copy', '--src-tls-verify=false', ...all, from];
      const copied = await skopeo.run(...args, `${transport}:${path}:1`);
      t.match(copied, { code: 0 }, copied.err);
      await arrives(t, path, ['--as', 'docker.io/library/hello'], { ...hello, children, digest });
    });
  }
}

void t.test('crane pull to a layout, all platforms: it is taken in', async (t) => {
  const crane = await toolOf(t, 'crane');
  if (!crane) return;
  const { host } = await originOf(t);
  const path = join(crane.sandbox.home, 'written');
  t.match(await crane.run('pull', '--format=oci', `${host}/docker.io/library/hello:1`, path), { code: 0 });
  await arrives(t, path, ['--as', 'docker.io/library/hello:1'], {
    ...hello,
    children: whole.children,
    digest: whole.index.digest,
  });
});

void t.test('oras copy to a layout: it is taken in', async (t) => {
  const oras = await toolOf(t, 'oras');
  if (!oras) return;
  const { host } = await originOf(t);
  const path = join(oras.sandbox.home, 'written');
  const from = ['--from-plain-http', `${host}/docker.io/library/hello:1`];
  t.match(await oras.run('copy', '--recursive', ...from, '--to-oci-layout', `${path}:1`), { code: 0 });
  await arrives(t, path, ['--as', 'docker.io/library/hello'], {
    ...hello,
    children: whole.children,
    digest: whole.index.digest,
  });
});

void t.test('umoci new: a layout that it made, and put a file into, is taken in', async (t) => {
  const umoci = await toolOf(t, 'umoci');
  if (!umoci) return;
  const path = join(umoci.sandbox.home, 'written');
  t.match(await umoci.run('init', '--layout', path), { code: 0 });
  t.match(await umoci.run('new', '--image', `${path}:1`), { code: 0 });
  const held = join(umoci.sandbox.home, 'held');
  await writeFile(held, 'held');
  const inserted = await umoci.run('insert', '--rootless', '--image', `${path}:1`, held, '/held');
  t.match(inserted, { code: 0 }, inserted.err);
  await arrives(t, path, ['--as', 'docker.io/library/hello'], { ...hello, children: [] });
});

void t.test('podman save to an archive: it is taken in', async (t) => {
  const podman = await toolOf(t, 'podman');
  if (!podman || !requireRoot(t)) return;
  const { host } = await originOf(t);
  const { home } = podman.sandbox;
  const storage = ['--root', join(home, 'root'), '--runroot', join(home, 'run'), '--storage-driver', 'vfs'];
  const run = (...args: string[]) => podman.run(...storage, '--tmpdir', join(home, 'tmp'), ...args);
  const origin = `${host}/p/linux-arm64/docker.io/library/hello:1`;
  const pulled = await run('pull', '--tls-verify=false', '--arch', 'arm64', origin);
  t.match(pulled, { code: 0 }, pulled.err);
  t.match(await run('tag', origin, 'docker.io/library/hello:1'), { code: 0 });
  const path = join(home, 'written.tar');
  const saved = await run('save', '--format', 'oci-archive', '-o', path, 'docker.io/library/hello:1');
  t.match(saved, { code: 0 }, saved.err);
  await arrives(t, path, ['--as', 'docker.io/library/hello:1'], { ...hello, children: [] });
});

void t.test('buildah push to an archive: it is taken in', async (t) => {
  const buildah = await toolOf(t, 'buildah');
  if (!buildah || !requireRoot(t)) return;
  const { sandbox } = buildah;
  const storage = ['--root', join(sandbox.home, 'root'), '--runroot', join(sandbox.home, 'run')];
  const run = (...args: string[]) => buildah.run(...storage, '--storage-driver', 'vfs', ...args);
  const { out } = await run('from', 'scratch');
  await sandbox.write('held', 'held');
  t.match(await run('copy', out.trim(), join(sandbox.home, 'held'), '/held'), { code: 0 });
  t.match(await run('commit', out.trim(), 'docker.io/library/hello:1'), { code: 0 });
  const path = join(sandbox.home, 'written.tar');
  const pushed = await run('push', 'docker.io/library/hello:1', `oci-archive:${path}:docker.io/library/hello:1`);
  t.match(pushed, { code: 0 }, pushed.err);
  await arrives(t, path, [], { ...hello, children: [] });
});
