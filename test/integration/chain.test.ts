import t from 'tap';
import type { Test } from 'tap';
import { snippets } from '../../src/cli/snippets.ts';
import {
  containerds,
  createSandbox,
  requireProgram,
  requireRoot,
  sizeOf,
  startContainerd,
} from '../fixtures/clients.ts';
import { startFaultProxy } from '../fixtures/fault-proxy.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/s390x'];
const image = buildImage({ platforms, payloadBytes: 3_000_000, attestations: true, seed: 'chain' });
const amd = image.children[0]!;

t.setTimeout(180_000);

/** A registry, a hub before it, a thin line, and an edge that keeps amd64 alone. */
async function start(t: Test, kept: unknown = ['linux/amd64']) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('library/hello', '1', image);
  const hub = await startTestMirror(t, { upstreams: { 'docker.io': registry.url } });
  const line = await startFaultProxy(t, hub.url);
  const edge = await startTestMirror(t, {
    upstreams: { 'docker.io': { url: `http://127.0.0.1:${line.port}`, hub: true } },
    config: { cache: { platforms: kept } },
  });
  return { registry, hub, line, edge };
}

/** The platforms that an index names, without those of attestations. */
function platformsIn(index: Buffer): string[] {
  const { manifests } = JSON.parse(index.toString()) as {
    manifests: { platform: { os: string; architecture: string } }[];
  };
  return manifests
    .map(({ platform: { os, architecture } }) => `${os}/${architecture}`)
    .filter((name) => name !== 'unknown/unknown');
}

/** What the hub was asked, in the order of its log. */
function askedOf(hub: TestMirror): string[] {
  const lines = hub.log.map((line) => JSON.parse(line) as { msg: string; method?: string; url?: string });
  return lines.filter(({ msg }) => msg === 'request').map(({ method, url }) => `${method} ${url}`);
}

for (const program of containerds) {
  void t.test(`${program}: through edge and hub, one platform crosses the line, and each digest once`, async (t) => {
    const found = await requireProgram(t, program);
    if (found === undefined || !(await requireProgram(t, 'runc')) || !requireRoot(t)) return;
    const { hub, line, edge } = await start(t);
    line.suffer({ latencyMs: 100, bytesPerSecond: 5_000_000 });
    const sandbox = await createSandbox(t);
    const { ctr } = await startContainerd(t, sandbox, found);
    const hosts = snippets['containerd']!({ mirror: new URL(edge.url), set: 'linux-amd64', registries: [] })[0]!.text;
    await sandbox.write('certs.d/_default/hosts.toml', `server = "http://127.0.0.1:1"\n\n${hosts}`);
    const reference = 'docker.io/library/hello:1';
    const options = ['--snapshotter', 'native', '--hosts-dir', `${sandbox.home}/certs.d`];
    t.match(await ctr('images', 'pull', ...options, reference), { code: 0 });
    t.match(await ctr('run', '--rm', '--snapshotter', 'native', reference, 'one'), { out: 'hello from linux/amd64\n' });
    const asked = askedOf(hub);
    t.equal(asked.filter((question) => question.startsWith('HEAD')).length, 1, 'one HEAD, of the tag');
    t.equal(new Set(asked).size, asked.length, 'each digest once');
    t.ok(asked.every((question) => question.endsWith('?ns=docker.io')));
    const closure = sizeOf([amd.manifest, amd.config, ...amd.layers]);
    const passed = line.passedBytes;
    t.comment(`${passed} bytes crossed the line, the image has ${closure}`);
    t.ok(passed >= closure && passed <= closure * 1.01, `${passed} of ${closure}`);
  });
}

void t.test(
  'chain: what is not of the platforms that are kept is said to be missing, and never taken for them',
  async (t) => {
    const { edge } = await start(t);
    const tag = '/v2/library/hello/manifests/1';
    const image64 = await edge.get(`/p/linux-amd64${tag}`, { accept });
    t.equal(image64.headers['docker-content-digest'], amd.manifest.digest);
    const missing = await edge.get(`/p/linux-arm64${tag}`, { accept });
    t.equal(missing.status, 404);
    t.match(missing.json(), { errors: [{ code: 'MANIFEST_UNKNOWN', message: /linux\/amd64/ }] });
    const whole = await edge.get(tag, { accept });
    t.same(platformsIn(whole.body), ['linux/amd64'], 'who says nothing gets what there is');
    const original = await edge.get(`/v2/library/hello/manifests/${image.index.digest}`, { accept });
    t.same(original.body, image.index.bytes, 'by digest nothing is narrowed');
  },
);

void t.test('chain: an edge that keeps all platforms asks for all of them', async (t) => {
  const { hub, edge } = await start(t, 'all');
  const whole = await edge.get('/v2/library/hello/manifests/1', { accept });
  t.equal(whole.headers['docker-content-digest'], image.index.digest);
  t.same(askedOf(hub).length, 2);
});

void t.test('chain: several platforms are one index, and what is said about them comes along', async (t) => {
  const { edge } = await start(t, ['linux/amd64', 'linux/arm64']);
  const tag = '/v2/library/hello/manifests/1';
  const both = await edge.get(`/p/linux-amd64_linux-arm64${tag}`, { accept });
  t.same(platformsIn(both.body), ['linux/amd64', 'linux/arm64']);
  t.match(both.body.toString(), /attestation-manifest/);
  const arm = await edge.get(`/p/linux-arm64${tag}`, { accept });
  t.equal(arm.headers['docker-content-digest'], image.children[1]!.manifest.digest);
});

void t.test('chain: a hub that is gone leaves what the edge has', async (t) => {
  const { hub, edge, line } = await start(t);
  const tag = '/p/linux-amd64/v2/library/hello/manifests/1';
  for (const { digest } of [amd.config, ...amd.layers]) {
    await edge.get(tag, { accept });
    await edge.get(`/v2/library/hello/blobs/${digest}`);
  }
  line.suffer({ isDown: true });
  await hub.stop();
  t.equal((await edge.get(tag, { accept })).status, 200);
  for (const { digest, bytes } of [amd.config, ...amd.layers]) {
    t.same((await edge.get(`/v2/library/hello/blobs/${digest}`)).body, bytes);
  }
});
