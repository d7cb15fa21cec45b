import t from 'tap';
import type { Test } from 'tap';
import { snippets } from '../../src/cli/snippets.ts';
import { asked, clientFiles, closureOf, containerds, createSandbox } from '../fixtures/clients.ts';
import { requireProgram, requireRoot, sizeOf, startContainerd } from '../fixtures/clients.ts';
import type { Containerd, Ran, Sandbox } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltImage } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions, TestMirror } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/arm/v7'];
const [amd64, arm64, arm] = [0, 1, 2] as const;

for (const program of containerds) {
  void t.test(program, async (t) => {
    const found = await requireProgram(t, program);
    const runc = await requireProgram(t, 'runc');
    if (found === undefined || runc === undefined || !requireRoot(t)) return;
    const sandbox = await createSandbox(t);
    const containerd = await startContainerd(t, sandbox, found);
    t.comment(`containerd ${containerd.version}`);
    await suite(t, sandbox, containerd);
  });
}

async function suite(t: Test, sandbox: Sandbox, containerd: Containerd): Promise<void> {
  const rooms = roomsIn(containerd);

  for (const docker of [false, true]) {
    const types = docker ? 'Docker' : 'OCI';
    await t.test(
      `tag, ${types} types: containerd gets its platform, runs it, and nothing else is fetched`,
      async (t) => {
        const { ctr, seed } = rooms();
        const image = buildImage({ platforms, docker, attestations: true, seed });
        const { upstream, mirror } = await mirrored(t, image);
        const files = await clientFiles(sandbox, 'containerd', '--mirror', mirror.url, '--platform', 'linux/amd64');
        t.equal(files[0]!.path, '/etc/containerd/certs.d/_default/hosts.toml');
        const hosts = await writeHosts(sandbox, nowhere, files[0]!.text);
        t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
        t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 0, out: 'hello from linux/amd64\n' });
        t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), image.children[amd64]!.manifest.digest);
        const closure = closureOf(image.children[amd64]!);
        t.same(asked(upstream), [
          'HEAD manifests/1',
          ...[`manifests/${image.index.digest}`, ...closure].map((what) => `GET ${what}`).toSorted(),
        ]);
        t.equal(upstream.sentBytes, sizeOf([image.index, ...contentsOf(image, amd64)]));
      },
    );
  }

  await t.test('tag: arm64 is pulled through the path of arm64, on a machine of another platform', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, attestations: true, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const hosts = await writeHosts(sandbox, nowhere, snippetFor(mirror, 'linux-arm64'));
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1', '--platform', 'linux/arm64'), { code: 0 });
    t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), image.children[arm64]!.manifest.digest);
    t.same(asked(upstream), [
      'HEAD manifests/1',
      ...[`manifests/${image.index.digest}`, ...closureOf(image.children[arm64]!)]
        .map((what) => `GET ${what}`)
        .toSorted(),
    ]);
    t.equal(upstream.sentBytes, sizeOf([image.index, ...contentsOf(image, arm64)]));
  });

  await t.test('header: a hosts.toml that sends Narrows-Platform needs no path', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const hosts = await writeHosts(
      sandbox,
      nowhere,
      `[host."${mirror.url}"]\n  capabilities = ["pull", "resolve"]\n  [host."${mirror.url}".header]\n    Narrows-Platform = "linux/amd64"\n`,
    );
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
    t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), image.children[amd64]!.manifest.digest);
    t.equal(upstream.sentBytes, sizeOf([image.index, ...contentsOf(image, amd64)]));
  });

  await t.test('digest: an index pulled by digest through a narrowing path is the whole original', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, attestations: true, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const hosts = await writeHosts(sandbox, nowhere, snippetFor(mirror, 'linux-amd64'));
    const reference = `docker.io/library/hello@${image.index.digest}`;
    t.match(await pull(ctr, hosts, reference), { code: 0 });
    t.equal(await digestIn(ctr, reference), image.index.digest);
    t.match(await ctr('content', 'get', image.index.digest), { out: image.index.bytes.toString() });
    t.match(await start(ctr, reference), { code: 0, out: 'hello from linux/amd64\n' });
    const [, ...others] = image.children;
    for (const { layers } of others) t.equal(upstream.count('GET blobs', layers[0]!.digest), 0);
  });

  await t.test('digest: a platform pulled by digest is that platform, through the path of any other', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const hosts = await writeHosts(sandbox, nowhere, snippetFor(mirror, 'linux-arm64'));
    const { manifest } = image.children[amd64]!;
    const reference = `docker.io/library/hello@${manifest.digest}`;
    t.match(await pull(ctr, hosts, reference), { code: 0 });
    t.match(await start(ctr, reference), { code: 0, out: 'hello from linux/amd64\n' });
    t.same(
      asked(upstream),
      closureOf(image.children[amd64]!)
        .map((what) => `GET ${what}`)
        .toSorted(),
    );
    t.equal(upstream.sentBytes, sizeOf(contentsOf(image, amd64)));
  });

  await t.test('namespace: one _default folder serves every registry that the mirror knows', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const [hub, ghcr] = [await startTestRegistry(t), await startTestRegistry(t)];
    ghcr.putImage('team/app', 'v2', image);
    const mirror = await startTestMirror(t, { upstreams: { 'docker.io': hub.url, 'ghcr.io': ghcr.url } });
    const hosts = await writeHosts(sandbox, nowhere, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'ghcr.io/team/app:v2'), { code: 0 });
    t.match(await start(ctr, 'ghcr.io/team/app:v2'), { code: 0, out: 'hello from linux/amd64\n' });
    t.same(hub.seen, []);
    t.equal(ghcr.sentBytes, sizeOf([image.index, ...contentsOf(image, amd64)]));
  });

  await t.test(
    'several platforms: a set in the path is an index of these, and its digest outlives the mirror',
    async (t) => {
      const { ctr, seed } = rooms();
      const image = buildImage({ platforms, attestations: true, seed });
      const store = await temporaryFolder(t);
      const { upstream, mirror } = await mirrored(t, image, { store });
      const hosts = await writeHosts(sandbox, nowhere, snippetFor(mirror, 'linux-amd64_linux-arm64'));
      // Fetched without unpacking: an attestation has no file system.
      const fetched = ['content', 'fetch', '--hosts-dir', hosts, '--all-platforms', 'docker.io/library/hello:1'];
      t.match(await ctr(...fetched), { code: 0 });
      const made = await digestIn(ctr, 'docker.io/library/hello:1');
      t.not(made, image.index.digest);
      const { out } = await ctr('content', 'get', made);
      const kept = (JSON.parse(out) as { manifests: { digest: string }[] }).manifests.map(({ digest }) => digest);
      t.same(kept, [
        ...[amd64, arm64].map((child) => image.children[child]!.manifest.digest),
        ...[amd64, arm64].map((child) => image.attestations[child]!.digest),
      ]);
      const { manifest, config, layers } = image.children[arm]!;
      for (const { digest } of [manifest, config, ...layers, image.attestations[arm]!])
        t.notOk(
          upstream.seen.some(({ path }) => path.includes(digest)),
          'the third platform was not asked for',
        );

      await mirror.stop();
      upstream.forget();
      const restarted = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, store });
      const again = await writeHosts(sandbox, nowhere, snippetFor(restarted, 'linux-amd64_linux-arm64'));
      await ctr('images', 'remove', '--sync', 'docker.io/library/hello:1');
      t.match(await ctr('content', 'get', made), { code: 1 }, 'containerd has forgotten it');
      const reference = `docker.io/library/hello@${made}`;
      t.match(await pull(ctr, again, reference), { code: 0 });
      t.match(await start(ctr, reference), { code: 0, out: 'hello from linux/amd64\n' });
      t.equal(upstream.sentBytes, 0);
    },
  );

  await t.test('404: a registry that the mirror does not know is pulled from the server itself', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const direct = await startTestRegistry(t);
    direct.putImage('team/app', '1', image);
    const hosts = await writeHosts(sandbox, direct.url, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'registry.example/team/app:1'), { code: 0 });
    t.match(await start(ctr, 'registry.example/team/app:1'), { code: 0, out: 'hello from linux/amd64\n' });
    t.same(upstream.seen, []);
  });

  await t.test(
    '404: a platform that the image lacks leads to the second endpoint, which has the whole index',
    async (t) => {
      const { ctr, seed } = rooms();
      const image = buildImage({ platforms, seed });
      const { mirror } = await mirrored(t, image);
      const hosts = await writeHosts(sandbox, `${mirror.url}/p/any/v2`, snippetFor(mirror, 'linux-s390x'));
      t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
      t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), image.index.digest);
      t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 0, out: 'hello from linux/amd64\n' });
    },
  );

  await t.test('404: without a second endpoint the pull fails, and leaves no image', async (t) => {
    const { ctr, seed } = rooms();
    const { mirror } = await mirrored(t, buildImage({ platforms, seed }));
    const path = snippetFor(mirror, 'linux-s390x');
    const hosts = await writeHosts(sandbox, `${mirror.url}/p/linux-s390x/v2`, path);
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 1, err: /not found/ });
    t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), '');
  });

  await t.test('5xx: an upstream in trouble leads to the fallback', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image);
    upstream.script = (_seen, response) => {
      refuse(response, 500, 'UNKNOWN');
      return true;
    };
    const direct = await startTestRegistry(t);
    direct.putImage('library/hello', '1', image);
    const hosts = await writeHosts(sandbox, direct.url, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
    t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 0, out: 'hello from linux/amd64\n' });
    t.ok(direct.sentBytes > 0);
  });

  await t.test('5xx: blobs alone can come from the fallback, for their digests are true', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image);
    const { layers, manifest } = image.children[amd64]!;
    upstream.script = ({ path }, response) => {
      if (!path.endsWith(layers[0]!.digest)) return false;
      refuse(response, 503, 'UNAVAILABLE');
      return true;
    };
    const direct = await startTestRegistry(t);
    direct.putImage('library/hello', '1', image);
    const hosts = await writeHosts(sandbox, direct.url, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
    t.equal(await digestIn(ctr, 'docker.io/library/hello:1'), manifest.digest);
    t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 0, out: 'hello from linux/amd64\n' });
    t.same([...new Set(asked(direct))], [`GET blobs/${layers[0]!.digest}`]);
  });

  await t.test('5xx: what was pulled before is served stale, and nobody falls back', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed });
    const { upstream, mirror } = await mirrored(t, image, { config: { tags: { fresh: '0s' } } });
    const direct = await startTestRegistry(t);
    const hosts = await writeHosts(sandbox, direct.url, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
    await ctr('images', 'remove', '--sync', 'docker.io/library/hello:1');
    await upstream.close();
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 0 });
    t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 0, out: 'hello from linux/amd64\n' });
    t.same(direct.seen, []);
  });

  await t.test('wrong bytes: a blob that is not what its digest says never becomes an image', async (t) => {
    const { ctr, seed } = rooms();
    const image = buildImage({ platforms, seed, payloadBytes: 100_000 });
    const { upstream, mirror } = await mirrored(t, image);
    const [layer] = image.children[amd64]!.layers;
    const wrong = Buffer.from(layer!.bytes);
    wrong.writeUInt8(wrong.at(-100)! ^ 1, wrong.length - 100);
    upstream.script = ({ path }, response) => {
      if (!path.endsWith(layer!.digest)) return false;
      response.writeHead(200, { 'content-length': wrong.length }).end(wrong);
      return true;
    };
    const hosts = await writeHosts(sandbox, `${mirror.url}/p/linux-amd64/v2`, snippetFor(mirror, 'linux-amd64'));
    t.match(await pull(ctr, hosts, 'docker.io/library/hello:1'), { code: 1 });
    t.match(await start(ctr, 'docker.io/library/hello:1'), { code: 1 });
    t.match(await ctr('content', 'get', layer!.digest), { code: 1 }, 'containerd does not hold it');
  });
}

/** Where nothing listens: containerd would else fall back to the registry that a reference names. */
const nowhere = 'http://127.0.0.1:1';

/** A namespace for each test, and images that differ: what one test pulled is no help to the next. */
function roomsIn({ ctr, version }: Containerd): () => { ctr: Ctr; seed: string } {
  let count = 0;
  return () => {
    count += 1;
    const namespace = `room-${count}`;
    return { ctr: (...args) => ctr('--namespace', namespace, ...args), seed: `${version} ${namespace}` };
  };
}

type Ctr = Containerd['ctr'];

async function startTestRegistry(t: Test): Promise<TestRegistry> {
  const registry = await startRegistry();
  t.teardown(registry.close);
  return registry;
}

async function mirrored(
  t: Test,
  image: BuiltImage,
  options: Partial<MirrorOptions> = {},
): Promise<{ upstream: TestRegistry; mirror: TestMirror }> {
  const upstream = await startTestRegistry(t);
  upstream.putImage('library/hello', '1', image);
  return { upstream, mirror: await startTestMirror(t, { ...options, upstreams: { 'docker.io': upstream.url } }) };
}

function snippetFor({ url }: TestMirror, set: string): string {
  return snippets['containerd']!({ mirror: new URL(url), set, registries: [] })[0]!.text;
}

let folders = 0;

/** A folder for `--hosts-dir`. `server` is what containerd falls back to. */
async function writeHosts(sandbox: Sandbox, server: string, text: string): Promise<string> {
  folders += 1;
  const folder = `certs.d-${folders}`;
  await sandbox.write(`${folder}/_default/hosts.toml`, `server = "${server}"\n\n${text}`);
  return `${sandbox.home}/${folder}`;
}

function pull(ctr: Ctr, hosts: string, reference: string, ...more: string[]): Promise<Ran> {
  return ctr('images', 'pull', '--snapshotter', 'native', '--hosts-dir', hosts, ...more, reference);
}

function start(ctr: Ctr, reference: string): Promise<Ran> {
  return ctr('run', '--rm', '--snapshotter', 'native', reference, `hello-${process.hrtime.bigint()}`);
}

/** The digest under which containerd keeps an image; empty for none. */
async function digestIn(ctr: Ctr, reference: string): Promise<string> {
  const { out } = await ctr('images', 'list', `name==${reference}`);
  return /sha256:[0-9a-f]{64}(?=\s)/.exec(out.split('\n')[1]?.replace(reference, '') ?? '')?.[0] ?? '';
}

function contentsOf({ children }: BuiltImage, child: number) {
  const { manifest, config, layers } = children[child]!;
  return [manifest, config, ...layers];
}
