import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import {
  asked,
  clientFiles,
  closureOf,
  createSandbox,
  requireProgram,
  requireRoot,
  sizeOf,
} from '../fixtures/clients.ts';
import type { Ran, Sandbox } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltImage } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/arm/v7'];
const image = buildImage({ platforms, attestations: true });
const dockerImage = buildImage({ platforms, docker: true });
const [amd64, arm64, arm] = image.children as [
  BuiltImage['children'][0],
  BuiltImage['children'][0],
  BuiltImage['children'][0],
];

void t.test('skopeo: a name with the platform in it is that platform, byte for byte', async (t) => {
  const skopeo = await clientOf(t, 'skopeo');
  if (!skopeo) return;
  const { sandbox, run, upstream, host } = skopeo;
  const folder = join(sandbox.home, 'image');
  t.match(
    await run(
      'copy',
      '--src-tls-verify=false',
      `docker://${host}/p/linux-arm64/docker.io/library/hello:1`,
      `dir:${folder}`,
    ),
    { code: 0 },
  );
  t.same(await readFile(join(folder, 'manifest.json')), arm64.manifest.bytes);
  for (const blob of [arm64.config, ...arm64.layers])
    t.same(await readFile(join(folder, hexOf(blob.digest))), blob.bytes);
  t.same(asked(upstream), [
    'HEAD manifests/1',
    ...[`manifests/${image.index.digest}`, ...closureOf(arm64)].map((what) => `GET ${what}`).toSorted(),
  ]);
  t.equal(upstream.sentBytes, sizeOf([image.index, arm64.manifest, arm64.config, ...arm64.layers]));

  upstream.forget();
  t.match(
    await run(
      'copy',
      '--src-tls-verify=false',
      `docker://${host}/p/linux-arm64/docker.io/library/hello:1`,
      `dir:${folder}-2`,
    ),
    { code: 0 },
  );
  t.same(upstream.seen, [], 'a second copy asks the upstream nothing');
});

for (const { types, source } of [
  { types: 'OCI', source: image },
  { types: 'Docker', source: dockerImage },
]) {
  void t.test(`skopeo, ${types} types: registries.conf from narrows leads docker.io through the mirror`, async (t) => {
    const skopeo = await clientOf(t, 'skopeo', source);
    if (!skopeo) return;
    const { sandbox, run, upstream } = skopeo;
    await skopeo.configure('linux/arm64');
    const folder = join(sandbox.home, 'image');
    t.match(await run('--override-arch', 'arm64', 'copy', 'docker://docker.io/library/hello:1', `dir:${folder}`), {
      code: 0,
    });
    const child = source.children[1]!;
    t.same(await readFile(join(folder, 'manifest.json')), child.manifest.bytes);
    t.same(
      (await readdir(folder)).toSorted(),
      [...[child.config, ...child.layers].map(({ digest }) => hexOf(digest)), 'manifest.json', 'version'].toSorted(),
    );
    t.equal(upstream.sentBytes, sizeOf([source.index, child.manifest, child.config, ...child.layers]));
  });
}

void t.test('skopeo inspect: shows the platform of the path, under its own digest', async (t) => {
  const skopeo = await clientOf(t, 'skopeo');
  if (!skopeo) return;
  const { run, host } = skopeo;
  const inspect = async (...args: string[]) => {
    const { code, out, err } = await run('inspect', '--tls-verify=false', ...args);
    t.equal(code, 0, err);
    return out;
  };
  t.match(JSON.parse(await inspect(`docker://${host}/p/linux-arm-v7/docker.io/library/hello:1`)), {
    Digest: arm.manifest.digest,
    Architecture: 'arm',
    Os: 'linux',
    Layers: arm.layers.map(({ digest }) => digest),
    RepoTags: ['1'],
  });
  t.equal(
    await inspect('--raw', `docker://${host}/p/linux-arm64/docker.io/library/hello:1`),
    arm64.manifest.bytes.toString(),
  );
  const original = `docker://${host}/p/linux-arm64/docker.io/library/hello@${image.index.digest}`;
  t.equal(await inspect('--raw', original), image.index.bytes.toString(), 'a digest is never narrowed');
  t.match(await run('list-tags', '--tls-verify=false', `docker://${host}/p/linux-arm64/docker.io/library/hello`), {
    code: 0,
    out: /"1"/,
  });
});

void t.test('skopeo: what an image lacks is said in its own words', async (t) => {
  const skopeo = await clientOf(t, 'skopeo');
  if (!skopeo) return;
  const { run, host } = skopeo;
  const inspect = (set: string, name: string) =>
    run('inspect', '--tls-verify=false', `docker://${host}/p/${set}/${name}`);
  t.match(await inspect('linux-s390x', 'docker.io/library/hello:1'), {
    code: 1,
    err: /manifest unknown: .*architecture.*linux\/s390x.*linux\/amd64, linux\/arm64, linux\/arm\/v7/,
  });
  t.match(await inspect('windows-amd64', 'docker.io/library/hello:1'), {
    code: 1,
    err: /manifest unknown: .*operating system.*windows/,
  });
  t.match(await inspect('linux-amd64', 'registry.example/library/hello:1'), { code: 1, err: /registry\.example/ });
});

void t.test(
  '90. skopeo copy --all: through any, the whole index arrives under its own digest, and each part is fetched once',
  async (t) => {
    const skopeo = await clientOf(t, 'skopeo');
    if (!skopeo) return;
    const { sandbox, run, upstream, host } = skopeo;
    const layout = join(sandbox.home, 'layout');
    t.match(
      await run(
        'copy',
        '--all',
        '--src-tls-verify=false',
        `docker://${host}/p/any/docker.io/library/hello:1`,
        `oci:${layout}:1`,
      ),
      { code: 0 },
    );
    for (const part of [...image.manifests, ...image.blobs])
      t.same(await readFile(join(layout, 'blobs/sha256', hexOf(part.digest))), part.bytes);
    const gets = asked(upstream).filter((what) => what.startsWith('GET'));
    t.equal(new Set(gets).size, gets.length);
    t.equal(
      upstream.sentBytes,
      sizeOf([...image.manifests, ...new Map(image.blobs.map((blob) => [blob.digest, blob])).values()]),
    );
  },
);

void t.test('skopeo: in the index of a set, a client finds its platform, and the third is never fetched', async (t) => {
  const skopeo = await clientOf(t, 'skopeo');
  if (!skopeo) return;
  const { sandbox, run, upstream, host } = skopeo;
  const layout = join(sandbox.home, 'layout');
  const reference = `docker://${host}/p/linux-amd64_linux-arm64/docker.io/library/hello:1`;
  t.match(await run('copy', '--all', '--src-tls-verify=false', reference, `oci:${layout}:1`), { code: 0 });
  const held = await readdir(join(layout, 'blobs/sha256'));
  for (const { manifest, config, layers } of [amd64, arm64])
    for (const { digest } of [manifest, config, ...layers]) t.ok(held.includes(hexOf(digest)));
  for (const what of closureOf(arm)) t.notOk(asked(upstream).includes(`GET ${what}`));
  t.match(await run('--override-arch', 'arm64', 'inspect', '--tls-verify=false', reference), {
    code: 0,
    out: /"Architecture": "arm64"/,
  });
});

void t.test('30. skopeo: a mirror whose upstream is in trouble is passed over', async (t) => {
  const skopeo = await clientOf(t, 'skopeo');
  if (!skopeo) return;
  const { sandbox, run, upstream, direct } = skopeo;
  await skopeo.configure('linux/amd64');
  upstream.script = (_seen, response) => {
    refuse(response, 503, 'UNAVAILABLE');
    return true;
  };
  const folder = join(sandbox.home, 'image');
  t.match(await run('--override-arch', 'amd64', 'copy', 'docker://docker.io/library/hello:1', `dir:${folder}`), {
    code: 0,
  });
  t.same(await readFile(join(folder, 'manifest.json')), amd64.manifest.bytes);
  t.ok(upstream.seen.length > 0);
  t.ok(direct.sentBytes > 0);
});

void t.test('skopeo: a blob whose download breaks off upstream arrives whole', async (t) => {
  const large = buildImage({ platforms, payloadBytes: 2_000_000, seed: 'broken off' });
  const skopeo = await clientOf(t, 'skopeo', large);
  if (!skopeo) return;
  const { sandbox, run, upstream, host } = skopeo;
  const [layer] = large.children[0]!.layers;
  let breaks = 0;
  upstream.script = ({ path, headers }, response) => {
    if (!path.endsWith(layer!.digest) || headers.range !== undefined) return false;
    breaks += 1;
    response.writeHead(200, { 'content-length': layer!.bytes.length });
    response.write(layer!.bytes.subarray(0, 1_000_000), () => response.destroy());
    return true;
  };
  const folder = join(sandbox.home, 'image');
  t.match(
    await run(
      'copy',
      '--src-tls-verify=false',
      `docker://${host}/p/linux-amd64/docker.io/library/hello:1`,
      `dir:${folder}`,
    ),
    { code: 0 },
  );
  t.same(await readFile(join(folder, hexOf(layer!.digest))), layer!.bytes);
  t.equal(breaks, 1);
});

void t.test('podman: registries.conf from narrows; the image has the id and the digest of its platform', async (t) => {
  const podman = await clientOf(t, 'podman');
  if (!podman || !requireRoot(t)) return;
  const { sandbox, upstream, direct } = podman;
  const run = (...args: string[]) => podman.run(...storageOf(sandbox), '--tmpdir', join(sandbox.home, 'tmp'), ...args);
  await podman.configure('linux/arm64');
  t.match(await run('pull', '--quiet', '--arch', 'arm64', 'docker.io/library/hello:1'), {
    code: 0,
    out: `${hexOf(arm64.config.digest)}\n`,
  });
  const { out } = await run('image', 'inspect', 'docker.io/library/hello:1');
  t.match(JSON.parse(out), [
    {
      Id: hexOf(arm64.config.digest),
      Digest: arm64.manifest.digest,
      RepoDigests: [`docker.io/library/hello@${arm64.manifest.digest}`],
      Architecture: 'arm64',
      Os: 'linux',
    },
  ]);
  t.equal(upstream.sentBytes, sizeOf([image.index, arm64.manifest, arm64.config, ...arm64.layers]));
  t.same(direct.seen, []);
});

void t.test('podman: two platforms of one image live side by side, each by its path', async (t) => {
  const podman = await clientOf(t, 'podman');
  if (!podman || !requireRoot(t)) return;
  const { sandbox, host } = podman;
  const run = (...args: string[]) => podman.run(...storageOf(sandbox), '--tmpdir', join(sandbox.home, 'tmp'), ...args);
  for (const { set, arch, child } of [
    { set: 'linux-amd64', arch: 'amd64', child: amd64 },
    { set: 'linux-arm64', arch: 'arm64', child: arm64 },
  ]) {
    const reference = `${host}/p/${set}/docker.io/library/hello:1`;
    t.match(await run('pull', '--quiet', '--tls-verify=false', '--arch', arch, reference), {
      code: 0,
      out: `${hexOf(child.config.digest)}\n`,
    });
    t.match(await run('image', 'inspect', '--format', '{{.Os}}/{{.Architecture}} {{.Digest}}', reference), {
      out: `linux/${arch} ${child.manifest.digest}\n`,
    });
  }
});

void t.test('buildah: FROM for another platform builds on that platform, by way of the mirror', async (t) => {
  const buildah = await clientOf(t, 'buildah');
  if (!buildah || !requireRoot(t)) return;
  const { sandbox, upstream, direct } = buildah;
  const run = (...args: string[]) => buildah.run(...storageOf(sandbox), ...args);
  await buildah.configure('linux/arm64');
  const file = await sandbox.write('Containerfile', 'FROM docker.io/library/hello:1\nLABEL built=here\n');
  t.match(await run('build', '--platform', 'linux/arm64', '--tag', 'built:1', '--file', file, sandbox.home), {
    code: 0,
  });
  const { out } = await run('inspect', '--type', 'image', 'built:1');
  const built = JSON.parse(out) as {
    OCIv1: { architecture: string; rootfs: { diff_ids: string[] } };
    Manifest: string;
  };
  t.equal(built.OCIv1.architecture, 'arm64');
  const [base] = (JSON.parse(arm64.config.bytes.toString()) as typeof built.OCIv1).rootfs.diff_ids;
  t.equal(built.OCIv1.rootfs.diff_ids[0], base);
  t.match(JSON.parse(built.Manifest), {
    annotations: { 'org.opencontainers.image.base.digest': arm64.manifest.digest },
  });
  t.equal(upstream.sentBytes, sizeOf([image.index, arm64.manifest, arm64.config, ...arm64.layers]));
  t.same(direct.seen, []);
});

interface Client {
  readonly sandbox: Sandbox;
  readonly upstream: TestRegistry;
  /** What the client itself would ask without a mirror, in the place of docker.io. */
  readonly direct: TestRegistry;
  readonly mirror: TestMirror;
  /** As references name the mirror. */
  readonly host: string;
  run(...args: string[]): Promise<Ran>;
  /** Puts the file that `narrows client` prints into its place. */
  configure(platform: string): Promise<void>;
}

async function clientOf(t: Test, name: string, source: BuiltImage = image): Promise<Client | undefined> {
  const program = await requireProgram(t, name);
  if (program === undefined) return undefined;
  const sandbox = await createSandbox(t);
  const [upstream, direct] = [await startRegistry(), await startRegistry()];
  t.teardown(upstream.close);
  t.teardown(direct.close);
  for (const registry of [upstream, direct]) registry.putImage('library/hello', '1', source);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } });
  return {
    sandbox,
    upstream,
    direct,
    mirror,
    host: new URL(mirror.url).host,
    run: (...args) => sandbox.run(program, ...args),
    async configure(platform) {
      const [file] = await clientFiles(
        sandbox,
        'podman',
        '--mirror',
        mirror.url,
        '--platform',
        platform,
        '--registry',
        'docker.io',
      );
      const text = file!.text.replace(
        'location = "docker.io"',
        `location = "${new URL(direct.url).host}"\ninsecure = true`,
      );
      await sandbox.write(`.config/containers/registries.conf.d/${basename(file!.path)}`, text);
    },
  };
}

/** Images in a folder that goes with the test; `vfs` needs nothing of the kernel. */
function storageOf({ home }: Sandbox): string[] {
  return ['--root', join(home, 'root'), '--runroot', join(home, 'run'), '--storage-driver', 'vfs'];
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}
