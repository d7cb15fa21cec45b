import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import {
  closureOf,
  createSandbox,
  deleteManifest,
  pushImage,
  requireProgram,
  requireRoot,
  startDockerRegistry,
} from '../fixtures/clients.ts';
import type { DockerRegistry, Sandbox } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/arm/v7'];
const oci = buildImage({ platforms, attestations: true });
const docker = buildImage({ platforms, docker: true });

void t.test('docker-registry: each platform through its path is what a direct pull gives', async (t) => {
  const registry = await registryOf(t);
  const skopeo = await requireProgram(t, 'skopeo');
  if (!registry || skopeo === undefined) return;
  const { sandbox, upstream } = registry;
  await pushImage(upstream, 'library/oci', '1', oci);
  await pushImage(upstream, 'library/docker', '1', docker);
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url } });
  for (const repository of ['library/oci', 'library/docker'])
    for (const { set, flags } of [
      { set: 'linux-amd64', flags: ['--override-arch', 'amd64'] },
      { set: 'linux-arm64', flags: ['--override-arch', 'arm64'] },
      { set: 'linux-arm-v7', flags: ['--override-arch', 'arm', '--override-variant', 'v7'] },
    ]) {
      const folder = join(sandbox.home, repository, set);
      const copy = (host: string, target: string) =>
        sandbox.run(
          skopeo,
          ...flags,
          'copy',
          '--src-tls-verify=false',
          `docker://${host}/${repository}:1`,
          `dir:${folder}${target}`,
        );
      await mkdir(join(sandbox.home, repository), { recursive: true });
      t.match(await copy(upstream.host, '.direct'), { code: 0 });
      t.match(await copy(`${hostOf(mirror)}/p/${set}/lab`, '.mirror'), { code: 0 });
      t.same(await filesIn(`${folder}.mirror`), await filesIn(`${folder}.direct`), `${repository} for ${set}`);
    }
});

void t.test(
  'docker-registry: a platform costs one HEAD, two manifests and its blobs, and then nothing more',
  async (t) => {
    const registry = await registryOf(t);
    const skopeo = await requireProgram(t, 'skopeo');
    if (!registry || skopeo === undefined) return;
    const { sandbox, upstream } = registry;
    await pushImage(upstream, 'library/hello', '1', oci);
    const options = { upstreams: { lab: upstream.url }, store: await temporaryFolder(t) };
    const mirror = await startTestMirror(t, options);
    const copy = (host: string, target: string) =>
      sandbox.run(
        skopeo,
        'copy',
        '--src-tls-verify=false',
        `docker://${host}/p/linux-arm64/lab/library/hello:1`,
        `dir:${sandbox.home}/${target}`,
      );
    await upstream.asked();
    t.match(await copy(hostOf(mirror), 'first'), { code: 0 });
    const [head, ...gets] = await upstream.asked();
    t.equal(head, 'HEAD manifests/1');
    t.same(
      gets.toSorted(),
      [`manifests/${oci.index.digest}`, ...closureOf(oci.children[1]!)].map((what) => `GET ${what}`).toSorted(),
    );
    t.match(await copy(hostOf(mirror), 'second'), { code: 0 });
    t.same(await upstream.asked(), []);
    await mirror.stop();
    const restarted = await startTestMirror(t, options);
    t.match(await copy(hostOf(restarted), 'third'), { code: 0 });
    t.same(await upstream.asked(), [], 'nor after a restart');
    t.same(await filesIn(`${sandbox.home}/third`), await filesIn(`${sandbox.home}/first`));
  },
);

void t.test('90. docker-registry: podman gives an image the same id by the mirror as directly', async (t) => {
  const registry = await registryOf(t);
  const podman = await requireProgram(t, 'podman');
  if (!registry || podman === undefined || !requireRoot(t)) return;
  const { sandbox, upstream } = registry;
  await pushImage(upstream, 'library/hello', '1', docker);
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url } });
  const idOf = async (name: string, reference: string) => {
    const places = ['--root', join(sandbox.home, name, 'root'), '--runroot', join(sandbox.home, name, 'run')];
    const flags = [...places, '--tmpdir', join(sandbox.home, name, 'tmp'), '--storage-driver', 'vfs'];
    const { code, out, err } = await sandbox.run(
      podman,
      ...flags,
      'pull',
      '--quiet',
      '--tls-verify=false',
      '--arch',
      'arm64',
      reference,
    );
    t.equal(code, 0, err);
    return out.trim();
  };
  const id = await idOf('direct', `${upstream.host}/library/hello:1`);
  t.equal(`sha256:${id}`, docker.children[1]!.config.digest);
  t.equal(await idOf('mirror', `${hostOf(mirror)}/p/linux-arm64/lab/library/hello:1`), id);
});

void t.test(
  'docker-registry, filled by skopeo: crane finds the same index through any, and its parts in a set',
  async (t) => {
    const registry = await registryOf(t);
    const [skopeo, crane] = [await requireProgram(t, 'skopeo'), await requireProgram(t, 'crane')];
    if (!registry || skopeo === undefined || crane === undefined) return;
    const { sandbox, upstream } = registry;
    await pushImage(upstream, 'first', '1', oci);
    const layout = `oci:${join(sandbox.home, 'layout')}:1`;
    t.match(
      await sandbox.run(skopeo, 'copy', '--all', '--src-tls-verify=false', `docker://${upstream.host}/first:1`, layout),
      { code: 0 },
    );
    t.match(
      await sandbox.run(
        skopeo,
        'copy',
        '--all',
        '--dest-tls-verify=false',
        layout,
        `docker://${upstream.host}/team/app/web:2`,
      ),
      { code: 0 },
    );
    const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url } });
    const through = (set: string) => `${hostOf(mirror)}/p/${set}/lab/team/app/web:2`;
    t.match(await sandbox.run(crane, 'digest', through('any')), { code: 0, out: `${oci.index.digest}\n` });
    const { out } = await sandbox.run(crane, 'manifest', through('linux-amd64_linux-arm-v7'));
    const { manifests } = JSON.parse(out) as { manifests: { digest: string }[] };
    t.same(
      manifests.map(({ digest }) => digest),
      [
        ...[0, 2].map((child) => oci.children[child]!.manifest.digest),
        ...[0, 2].map((child) => oci.attestations[child]!.digest),
      ],
    );
    t.match(await sandbox.run(crane, 'copy', through('linux-amd64_linux-arm-v7'), `${upstream.host}/narrowed:2`), {
      code: 0,
    });
    t.match(await sandbox.run(crane, 'manifest', `${upstream.host}/narrowed:2`), { code: 0, out });
  },
);

void t.test(
  'docker-registry: a tag that moves is seen, one that goes is 404, and none of it is asked for by GET',
  async (t) => {
    const registry = await registryOf(t);
    if (!registry) return;
    const { upstream } = registry;
    await pushImage(upstream, 'library/hello', '1', oci);
    const mirror = await startTestMirror(t, {
      upstreams: { lab: upstream.url },
      config: { tags: { fresh: '0s', missing: '0s' } },
    });
    const path = '/p/linux-amd64/v2/library/hello/manifests/1';
    const head = () => mirror.head(path, { accept });
    t.match(await head(), {
      status: 200,
      headers: { 'docker-content-digest': oci.children[0]!.manifest.digest, 'narrows-cache': 'miss' },
    });
    await upstream.asked();
    t.match(await head(), { status: 200, headers: { 'narrows-cache': 'revalidated' } });
    t.same(await upstream.asked(), ['HEAD manifests/1']);
    await pushImage(upstream, 'library/hello', '1', docker);
    t.match(await head(), {
      status: 200,
      headers: { 'docker-content-digest': docker.children[0]!.manifest.digest, 'narrows-cache': 'miss' },
    });
    await upstream.asked();
    await deleteManifest(upstream, 'library/hello', docker.index.digest);
    t.match(await mirror.get(path, { accept }), { status: 404, body: /MANIFEST_UNKNOWN/ });
    t.same(await upstream.asked(), [`DELETE manifests/${docker.index.digest}`, 'HEAD manifests/1']);
  },
);

void t.test('docker-registry: once it is gone, what was pulled is still served', async (t) => {
  const registry = await registryOf(t);
  const skopeo = await requireProgram(t, 'skopeo');
  if (!registry || skopeo === undefined) return;
  const { sandbox, upstream } = registry;
  await pushImage(upstream, 'library/hello', '1', oci);
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url }, config: { tags: { fresh: '0s' } } });
  const copy = (set: string) =>
    sandbox.run(
      skopeo,
      'copy',
      '--src-tls-verify=false',
      `docker://${hostOf(mirror)}/p/${set}/lab/library/hello:1`,
      `dir:${sandbox.home}/${set}`,
    );
  t.match(await copy('linux-amd64'), { code: 0 });
  await upstream.stop();
  t.match(await copy('linux-amd64'), { code: 0 });
  t.match(await mirror.head('/p/linux-amd64/v2/library/hello/manifests/1', { accept }), {
    status: 200,
    headers: { 'narrows-cache': 'stale' },
  });
  t.match(await copy('linux-arm64'), { code: 1 }, 'what was not pulled is not there, and that is said');
  t.match(await mirror.get('/p/linux-arm64/v2/library/hello/manifests/1', { accept }), { status: /^50[234]$/ });
});

void t.test(
  'docker-registry: crane lists its tags through the mirror, also those that were never pulled',
  async (t) => {
    const registry = await registryOf(t);
    const crane = await requireProgram(t, 'crane');
    if (!registry || crane === undefined) return;
    const { sandbox, upstream } = registry;
    for (const tag of ['1', '1.1', 'latest']) await pushImage(upstream, 'library/hello', tag, docker);
    const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url } });
    const { code, out } = await sandbox.run(crane, 'ls', `${hostOf(mirror)}/p/linux-arm64/lab/library/hello`);
    t.equal(code, 0);
    t.same(out.trim().split('\n').toSorted(), ['1', '1.1', 'latest']);
    t.match(await sandbox.run(crane, 'ls', `${hostOf(mirror)}/lab/library/none`), { code: 1, err: /NAME_UNKNOWN/ });
  },
);

void t.test('docker-registry, which has no referrers API: what oras attaches by a tag is discovered', async (t) => {
  const registry = await registryOf(t);
  const oras = await requireProgram(t, 'oras');
  if (!registry || oras === undefined) return;
  const { sandbox, upstream } = registry;
  await pushImage(upstream, 'library/hello', '1', oci);
  const sbom = await sandbox.write('sbom.json', '{"packages":[]}');
  const attach = [
    'attach',
    '--plain-http',
    '--disable-path-validation',
    '--artifact-type',
    'application/vnd.example.sbom',
  ];
  t.match(await sandbox.run(oras, ...attach, `${upstream.host}/library/hello:1`, `${sbom}:application/json`), {
    code: 0,
  });
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url } });
  const discover = async (host: string) => {
    const { code, out, err } = await sandbox.run(
      oras,
      'discover',
      '--plain-http',
      '--format',
      'json',
      `${host}/library/hello:1`,
    );
    t.equal(code, 0, err);
    return (JSON.parse(out) as { referrers: { digest: string; artifactType: string }[] }).referrers.map(
      ({ digest, artifactType }) => ({ digest, artifactType }),
    );
  };
  const direct = await discover(upstream.host);
  t.match(direct, [{ artifactType: 'application/vnd.example.sbom' }]);
  t.same(await discover(`${hostOf(mirror)}/p/any/lab`), direct);
  t.same(
    await discover(`${hostOf(mirror)}/p/linux-amd64_linux-arm64/lab`),
    direct,
    'and for the index narrowed from it',
  );
  t.same(await discover(`${hostOf(mirror)}/p/linux-amd64/lab`), []);
});

void t.test('docker-registry with a password: the mirror knows it, its clients need not', async (t) => {
  const passwords = join(await temporaryFolder(t), 'htpasswd');
  // robot:secret
  await writeFile(passwords, 'robot:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n');
  const registry = await registryOf(t, `auth: { htpasswd: { realm: lab, path: ${passwords} } }\n`);
  const skopeo = await requireProgram(t, 'skopeo');
  if (!registry || skopeo === undefined) return;
  const { sandbox, upstream } = registry;
  const authorization = `Basic ${Buffer.from('robot:secret').toString('base64')}`;
  await pushImage(upstream, 'library/hello', '1', oci, { authorization });
  const inspect = (host: string) =>
    sandbox.run(skopeo, 'inspect', '--tls-verify=false', `docker://${host}/library/hello:1`);
  t.match(await inspect(upstream.host), { code: 1 }, 'it does ask for a password');

  const knowing = await startTestMirror(t, {
    upstreams: { lab: { url: upstream.url, credentials: { username: 'robot', password: 'secret' } } },
  });
  const { code, out } = await inspect(`${hostOf(knowing)}/p/linux-arm64/lab`);
  t.equal(code, 0);
  t.match(JSON.parse(out), { Architecture: 'arm64', Digest: oci.children[1]!.manifest.digest });
  t.notMatch(knowing.log.join('\n'), /secret|cm9ib3Q6c2VjcmV0/, 'and keeps it to itself');

  const guessing = await startTestMirror(t, {
    upstreams: { lab: { url: upstream.url, credentials: { username: 'robot', password: 'wrong' } } },
  });
  t.match(await inspect(`${hostOf(guessing)}/p/linux-arm64/lab`), { code: 1, err: /credentials/ });
  const answer = await guessing.get('/v2/library/hello/manifests/1', { accept });
  t.match(answer, { status: 403, body: /DENIED/ });
});

async function registryOf(t: Test, extra = ''): Promise<{ sandbox: Sandbox; upstream: DockerRegistry } | undefined> {
  const program = await requireProgram(t, 'docker-registry');
  if (program === undefined) return undefined;
  const sandbox = await createSandbox(t);
  return { sandbox, upstream: await startDockerRegistry(t, sandbox, program, extra) };
}

function hostOf({ url }: { url: string }): string {
  return new URL(url).host;
}

async function filesIn(folder: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(folder)).toSorted();
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const)));
}
