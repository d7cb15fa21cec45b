import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { filesOf, until } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown, TestAnswer, TestMirror } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

interface Child {
  readonly manifest: Content;
  readonly config: Content;
  readonly own: Content;
}

/** One layer that both platforms have, and one that each has for itself. */
const shared = { ...blobOf(noise('policy shared', 400_000)), mediaType: 'application/vnd.oci.image.layer.v1.tar' };
const [amd64, arm64] = [build('amd64'), build('arm64')];
const index = content(
  {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [
      { ...descriptor(amd64.manifest), platform: { os: 'linux', architecture: 'amd64' } },
      { ...descriptor(arm64.manifest), platform: { os: 'linux', architecture: 'arm64' } },
    ],
  },
  mediaTypes.ociIndex,
);

function build(architecture: string, name = ''): Child {
  const own = { ...blobOf(noise(`policy ${name} ${architecture}`, 700_000)), mediaType: shared.mediaType };
  const config = content({ os: 'linux', architecture, config: { Labels: { name } } }, mediaTypes.ociConfig);
  const layers = [shared, own].map(descriptor);
  const mediaType = mediaTypes.ociManifest;
  const manifest = content({ schemaVersion: 2, mediaType, config: descriptor(config), layers }, mediaType);
  return { manifest, config, own };
}

interface Stage {
  readonly upstream: TestRegistry;
  readonly mirror: TestMirror;
  /** `manifests/1`, `blobs/sha256:…`, for a platform or for nobody in particular. */
  get(what: string, platform?: string): Promise<TestAnswer>;
}

async function prepare(
  t: Teardown,
  cache: Record<string, unknown>,
  over: { store?: string; platforms?: Record<string, unknown> } = {},
): Promise<Stage> {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  for (const one of [amd64, arm64]) for (const held of [one.manifest, one.config, one.own]) upstream.put('x', held);
  upstream.put('x', shared);
  upstream.put('x', index, '1');
  upstream.put('x', index);
  const mirror = await startTestMirror(t, {
    upstreams: { lab: upstream.url },
    config: { cache, platforms: { sets: {}, ...over.platforms } },
    ...(over.store !== undefined && { store: over.store }),
  });
  const get = (what: string, platform?: string) =>
    mirror.get(`${platform === undefined ? '' : `/p/${platform}`}/v2/lab/x/${what}`, { accept });
  return { upstream, mirror, get };
}

const stream = { platforms: ['linux/arm64'], onOther: 'stream' };
const deny = { platforms: ['linux/arm64'], onOther: 'deny' };

function blob({ digest }: Content): string {
  return `blobs/${digest}`;
}

/** As a node pulls: the manifest, and all that it lists. */
async function pull({ get }: Stage, platform: string, { manifest, config, own }: Child, tag = '1'): Promise<boolean> {
  const answers = [await get(`manifests/${tag}`, platform)];
  for (const one of [config, shared, own]) answers.push(await get(blob(one)));
  const wanted = [manifest, config, shared, own];
  return answers.every(({ status, body }, at) => status === 200 && body.equals(wanted[at]!.bytes));
}

/** What lies on the disk of these, once nothing is on its way any more. */
async function kept({ mirror }: Stage, named: Record<string, Content>): Promise<string[]> {
  await until(async () => (await filesOf(mirror.store)).unfinished.length === 0, 'the end of all downloads');
  const names = new Map(Object.entries(named).map(([name, { digest }]) => [digest.slice(7), name]));
  const files = await readdir(join(mirror.store, 'blobs/sha256'));
  return files.map((file) => names.get(file) ?? `unknown ${file}`).toSorted();
}

const everything = {
  index,
  shared,
  'amd64 manifest': amd64.manifest,
  'amd64 config': amd64.config,
  'amd64 layer': amd64.own,
  'arm64 manifest': arm64.manifest,
  'arm64 config': arm64.config,
  'arm64 layer': arm64.own,
};
const ofArm64 = ['arm64 config', 'arm64 layer', 'arm64 manifest', 'index', 'shared'];

function denial({ status, body }: TestAnswer): string {
  const { errors } = JSON.parse(body.toString()) as { errors: { code: string; message: string }[] };
  return `${status} ${errors[0]!.code} ${errors[0]!.message}`;
}

function refusalOf({ digest }: Content, platform = 'linux/amd64'): string {
  return `403 DENIED This mirror serves linux/arm64 alone; ${digest} is for ${platform}.`;
}

void t.test('stream: another platform gets its bytes, and leaves nothing of its own', async (t) => {
  const stage = await prepare(t, stream);
  for (let round = 1; round <= 2; round++) {
    t.ok(await pull(stage, 'linux-amd64', amd64));
    t.same(await kept(stage, everything), ['index']);
    t.equal(stage.upstream.count('GET blobs', amd64.own.digest), round, 'each time from the upstream');
  }
  t.ok(await pull(stage, 'linux-arm64', arm64));
  t.same(await kept(stage, everything), ofArm64);
  stage.upstream.forget();
  t.ok(await pull(stage, 'linux-arm64', arm64));
  t.equal(stage.upstream.count('GET blobs'), 0, 'what is kept is here');
  t.ok(await pull(stage, 'linux-amd64', amd64));
  t.equal(stage.upstream.count('GET blobs', shared.digest), 0, 'also for those who share it');
  t.same(await kept(stage, everything), ofArm64);
});

void t.test('stream: a shared layer is kept, whoever asks for it, once it is known to be shared', async (t) => {
  const stage = await prepare(t, stream);
  t.equal((await stage.get('manifests/1', 'linux-arm64')).status, 200);
  t.ok(await pull(stage, 'linux-amd64', amd64));
  t.same(await kept(stage, everything), ['arm64 config', 'arm64 manifest', 'index', 'shared']);
});

void t.test('stream: many at once share one download of what is not kept', async (t) => {
  const stage = await prepare(t, stream);
  await stage.get('manifests/1', 'linux-amd64');
  stage.upstream.forget();
  stage.upstream.blobBytesPerSecond = 2_000_000;
  const all = await Promise.all(Array.from({ length: 20 }, () => stage.get(blob(amd64.own))));
  t.ok(all.every(({ body }) => body.equals(amd64.own.bytes)));
  t.ok(stage.upstream.count('GET blobs') < 5, `${stage.upstream.count('GET blobs')} downloads`);
  t.same(await kept(stage, everything), ['index']);
});

void t.test('stream: by digest, as clients that choose for themselves', async (t) => {
  const stage = await prepare(t, stream);
  t.ok((await stage.get('manifests/1')).body.equals(index.bytes));
  for (const { manifest, config, own } of [amd64, arm64]) {
    t.ok((await stage.get(`manifests/${manifest.digest}`)).body.equals(manifest.bytes));
    for (const one of [config, own]) t.ok((await stage.get(blob(one))).body.equals(one.bytes));
  }
  t.same(
    await kept(stage, everything),
    ofArm64.filter((name) => name !== 'shared'),
  );
});

void t.test('stream: a part of what is not kept', async (t) => {
  const { mirror, ...stage } = await prepare(t, stream);
  await stage.get('manifests/1', 'linux-amd64');
  const path = `/v2/lab/x/${blob(amd64.own)}`;
  const part = await mirror.get(path, { range: 'bytes=600000-600099' });
  t.equal(part.status, 206);
  t.ok(part.body.equals(amd64.own.bytes.subarray(600_000, 600_100)));
  t.match(await mirror.head(path), { status: 200, headers: { 'content-length': '700000' } });
  t.same(await kept({ mirror, ...stage }, everything), ['index']);
});

void t.test('deny: 403 in one sentence that names the platform, by tag and by digest', async (t) => {
  const stage = await prepare(t, deny);
  t.equal(denial(await stage.get('manifests/1', 'linux-amd64')), refusalOf(amd64.manifest));
  t.equal(denial(await stage.get(`manifests/${amd64.manifest.digest}`)), refusalOf(amd64.manifest));
  for (const one of [amd64.config, amd64.own]) t.equal(denial(await stage.get(blob(one))), refusalOf(one));
  t.equal((await stage.mirror.head(`/v2/lab/x/manifests/${amd64.manifest.digest}`)).status, 403);
  t.equal(stage.upstream.count('GET blobs', amd64.own.digest), 0, 'nothing is downloaded for it');
  t.same(await kept(stage, everything), ['index']);
  t.ok((await stage.get('manifests/1')).body.equals(index.bytes), 'the index is for everyone');
  t.ok(await pull(stage, 'linux-arm64', arm64));
  t.same(await kept(stage, everything), ofArm64);
  t.equal((await stage.get(blob(shared))).status, 200);
});

void t.test('deny: what was learnt is known after a restart', async (t) => {
  const store = await temporaryFolder(t);
  const first = await prepare(t, deny, { store });
  await first.get('manifests/1', 'linux-amd64');
  await first.mirror.stop();
  const second = await prepare(t, deny, { store });
  t.equal(denial(await second.get(blob(amd64.own))), refusalOf(amd64.own));
  t.equal(second.upstream.count('GET blobs'), 0);
});

void t.test('deny: what was kept under other rules is refused as well', async (t) => {
  const store = await temporaryFolder(t);
  const first = await prepare(t, { platforms: 'all' }, { store });
  t.ok(await pull(first, 'linux-amd64', amd64));
  t.ok(await pull(first, 'linux-arm64', arm64));
  await first.mirror.stop();
  const second = await prepare(t, deny, { store });
  t.equal(denial(await second.get('manifests/1', 'linux-amd64')), refusalOf(amd64.manifest));
  for (const one of [amd64.config, amd64.own]) t.equal(denial(await second.get(blob(one))), refusalOf(one));
  t.equal((await second.mirror.head(`/v2/lab/x/${blob(amd64.own)}`)).status, 403);
  t.ok(await pull(second, 'linux-arm64', arm64));
});

// ---- What no index lists

void t.test('an image without an index is placed by its config', async (t) => {
  const images = { amd: build('amd64', 'alone'), arm: build('arm64', 'alone') };
  const names = {
    shared,
    ...Object.fromEntries(
      Object.entries(images).flatMap(([name, { manifest, config, own }]) => [
        [`${name} manifest`, manifest],
        [`${name} config`, config],
        [`${name} layer`, own],
      ]),
    ),
  };
  const fill = ({ upstream }: Stage) => {
    for (const [name, { manifest, config, own }] of Object.entries(images)) {
      for (const held of [manifest, config, own]) upstream.put('x', held);
      upstream.put('x', manifest, name);
    }
  };
  const stage = await prepare(t, stream);
  fill(stage);
  t.ok(await pull(stage, 'linux-amd64', images.amd, 'amd'));
  t.same(await kept(stage, names), ['amd config'], 'what told, and nothing else');
  stage.upstream.forget();
  t.ok(await pull(stage, 'linux-amd64', images.amd, 'amd'), 'and again');
  t.same(await kept(stage, names), ['amd config']);
  t.ok(await pull(stage, 'linux-arm64', images.arm, 'arm'));
  t.same(await kept(stage, names), ['amd config', 'arm config', 'arm layer', 'arm manifest', 'shared']);

  const strict = await prepare(t, deny);
  fill(strict);
  t.equal(denial(await strict.get('manifests/amd')), refusalOf(images.amd.manifest));
  t.equal(denial(await strict.get(`manifests/${images.amd.manifest.digest}`)), refusalOf(images.amd.manifest));
  t.equal(denial(await strict.get(blob(images.amd.own))), refusalOf(images.amd.own));
  t.ok(await pull(strict, 'linux-arm64', images.arm, 'arm'));
});

void t.test('what nobody can place is kept, and refused to nobody', async (t) => {
  for (const rules of [stream, deny]) {
    const stage = await prepare(t, rules);
    const { upstream, get } = stage;
    const stranger = blobOf(noise('policy stranger', 10_000));
    const data = { ...blobOf(noise('policy data', 10_000)), mediaType: 'application/vnd.example.data' };
    const empty = content({}, 'application/vnd.oci.empty.v1+json');
    const artifact = content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        artifactType: 'application/vnd.example',
        config: descriptor(empty),
        layers: [descriptor(data)],
      },
      mediaTypes.ociManifest,
    );
    const mute = build('', 'mute');
    const listed = build('', 'listed');
    const plain = content(
      { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [descriptor(listed.manifest)] },
      mediaTypes.ociIndex,
    );
    for (const held of [stranger, data, empty, plain]) upstream.put('x', held);
    for (const { manifest, config, own } of [mute, listed]) {
      for (const held of [manifest, config, own]) upstream.put('x', held);
    }
    upstream.put('x', artifact, 'artifact');
    upstream.put('x', mute.manifest, 'mute');
    upstream.put('x', plain, 'plain');
    for (const [what, held] of [
      [blob(stranger), stranger],
      ['manifests/artifact', artifact],
      [blob(data), data],
      ['manifests/mute', mute.manifest],
      [blob(mute.own), mute.own],
      ['manifests/plain', plain],
      [`manifests/${listed.manifest.digest}`, listed.manifest],
      [blob(listed.own), listed.own],
    ] as const) {
      t.ok((await get(what)).body.equals(held.bytes), `${rules.onOther}: ${what}`);
    }
    const images = Object.entries({ mute, listed }).flatMap(([name, { manifest, config, own }]) => [
      [`${name} manifest`, manifest] as const,
      [`${name} config`, config] as const,
      [`${name} layer`, own] as const,
    ]);
    const names = { stranger, artifact, data, plain, ...Object.fromEntries(images) };
    t.same(await kept(stage, names), Object.keys(names).toSorted());
  }
});

void t.test('74. what is said about an image goes where the image goes', async (t) => {
  const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true });
  const stage = await prepare(t, stream);
  stage.upstream.putImage('x', 'attested', image);
  await stage.get('manifests/attested');
  const [ofAmd, ofArm] = image.attestations;
  for (const one of image.attestations) {
    t.ok((await stage.get(`manifests/${one.digest}`)).body.equals(one.bytes));
  }
  t.same(await kept(stage, { index: image.index, 'about amd64': ofAmd!, 'about arm64': ofArm! }), [
    'about arm64',
    'index',
  ]);
});

// ---- What is kept

void t.test('named sets say what is kept, and lists of them', async (t) => {
  const sets = { edge: ['linux/arm64', 'linux/arm/v7'], servers: ['linux/amd64'] };
  for (const [platforms, all] of [
    ['edge', ofArm64],
    [['edge'], ofArm64],
    [['edge', 'linux/s390x'], ofArm64],
    [['edge', 'servers'], Object.keys(everything).toSorted()],
    ['all', Object.keys(everything).toSorted()],
    ['any', Object.keys(everything).toSorted()],
  ] as const) {
    const stage = await prepare(t, { platforms, onOther: 'stream' }, { platforms: { sets } });
    t.ok(await pull(stage, 'linux-arm64', arm64));
    t.ok(await pull(stage, 'linux-amd64', amd64));
    t.same(await kept(stage, everything), all, JSON.stringify(platforms));
  }
});

void t.test('all: nothing is asked of an image without an index', async (t) => {
  const stage = await prepare(t, { platforms: 'all', onOther: 'deny' });
  stage.upstream.put('x', amd64.manifest, 'alone');
  t.equal((await stage.get('manifests/alone')).status, 200);
  t.equal(stage.upstream.count('GET blobs'), 0);
});
