import { readFileSync } from 'node:fs';
import t from 'tap';
import { readAlternates } from '../../src/oci/alternates.ts';
import { readCombined, traverse } from '../../src/oci/combined.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { readIndexLabels } from '../../src/oci/part.ts';
import { formatPlatform, parsePlatform } from '../../src/oci/platform.ts';
import { buildImage, content, tarOf } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { containerdAccept, startTestMirror } from '../fixtures/mirror.ts';
import type { MirrorOptions, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const image = buildImage({
  platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7', 'windows(10.0.20348.1)/amd64'],
  attestations: true,
  indexFields: { annotations: { 'org.example': 'kept' }, 'x-unknown': [1, 2] },
});
const [amd64, arm64] = image.children as [BuiltChild, BuiltChild];
const tag = '/v2/docker.io/library/hello/manifests/1';
const forms = ['combined', 'alternates'] as const;

async function stage(t: Parameters<typeof startTestMirror>[0], over: Partial<MirrorOptions> = {}) {
  const registry: TestRegistry = await startRegistry();
  t.teardown(registry.close);
  registry.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': registry.url }, ...over });
  return { registry, mirror };
}

function off(registry: TestRegistry): void {
  registry.script = (_seen, response) => {
    response.destroy();
    return true;
  };
}

for (const form of forms) {
  void t.test(`${form}: who names it by its type gets it, and nobody else`, async (t) => {
    const { mirror } = await stage(t);
    const accept = mediaTypes[form];
    for (const asked of [accept, `${accept};q=0.5, */*`, `${mediaTypes.ociIndex}, ${accept}`]) {
      const answer = await mirror.get(tag, { accept: asked });
      t.match(
        answer.headers,
        { 'content-type': accept, 'narrows-view': form, 'narrows-index': image.index.digest },
        asked,
      );
      t.equal(content(answer.body, accept).digest, answer.headers['docker-content-digest']);
      const head = await mirror.head(tag, { accept: asked });
      t.match(head.headers, {
        'docker-content-digest': answer.headers['docker-content-digest']!,
        'content-length': String(answer.body.length),
      });
    }
    for (const asked of ['*/*', 'application/*', `${accept};q=0, */*`, containerdAccept, undefined]) {
      const answer = await mirror.get(tag, asked === undefined ? {} : { accept: asked });
      t.equal(answer.headers['docker-content-digest'], image.index.digest, asked ?? 'no header');
    }
  });

  void t.test(`${form}: by its digest from then on, without the upstream, after a restart`, async (t) => {
    const { mirror, registry } = await stage(t);
    const made = await mirror.get(tag, { accept: mediaTypes[form] });
    const digest = made.headers['docker-content-digest']!;
    off(registry);
    await mirror.stop();
    const again = await startTestMirror(t, { upstreams: { 'docker.io': registry.url }, store: mirror.store });
    const answer = await again.get(tag.replace(/1$/, digest));
    t.match(answer, { status: 200, headers: { 'content-type': mediaTypes[form], 'narrows-view': form } });
    t.same(answer.body, made.body);
  });

  void t.test(`${form}: by its digest from another replica`, { skip: !hasRedis }, async (t) => {
    const redis = await startRedis(t);
    const config = { cache: { redis: { url: redis.url, timeout: '5s' } } };
    const { mirror, registry } = await stage(t, { config });
    const made = await mirror.get(tag, { accept: mediaTypes[form] });
    off(registry);
    const other = await startTestMirror(t, { upstreams: { 'docker.io': registry.url }, config });
    const answer = await other.get(tag.replace(/1$/, made.headers['docker-content-digest']!));
    t.equal(answer.status, 200);
    t.same(answer.body, made.body);
  });

  void t.test(`${form}: a listener for it answers so, but to those who would not understand it`, async (t) => {
    const { mirror } = await stage(t, {
      config: { listen: [{ address: '127.0.0.1:0', view: form, platforms: ['linux/arm64'] }] },
    });
    const ask = async (accept?: string) => (await mirror.get(tag, accept === undefined ? {} : { accept })).headers;
    t.match(await ask(), { 'content-type': mediaTypes[form] });
    t.match(await ask('*/*'), { 'content-type': mediaTypes[form] });
    t.match(await ask(mediaTypes.ociManifest), { 'docker-content-digest': arm64.manifest.digest });
  });
}

void t.test('combined: the walk by os and architecture ends at the layers, which are there', async (t) => {
  const { mirror } = await stage(t);
  const { body } = await mirror.get(tag, { accept: mediaTypes.combined });
  const document = readCombined(body);
  for (const child of image.children) {
    const walked = traverse(document, parsePlatform(child.platform)!);
    if (walked.found !== 'layers') throw new Error(`${child.platform} is not there`);
    t.same(
      walked.layers.map(({ digest, bytes }) => [digest, bytes]),
      child.layers.map((layer) => [layer.digest, layer.bytes.length]),
    );
    for (const { digest } of walked.layers)
      t.match(await mirror.head(`/v2/docker.io/library/hello/blobs/${digest}`), { status: 200 });
  }
  t.match(traverse(document, parsePlatform('linux/s390x')!), { found: 'architecture unknown' });
  t.match(traverse(document, parsePlatform('plan9/amd64')!), { found: 'os unknown', known: ['linux', 'windows'] });
  t.same(readIndexLabels(document.labels)?.bytes, image.index.bytes, 'nothing of the index is lost');
});

void t.test(
  'alternates: the primary, and the others beside it; relabelling changes the primary and nothing else',
  async (t) => {
    const { mirror, registry } = await stage(t);
    const { body } = await mirror.get(tag, { accept: mediaTypes.alternates });
    const document = readAlternates(body);
    t.match(document.target, { digest: amd64.config.digest, labels: { os: 'linux', architecture: 'amd64' } });
    t.same(
      document.dependencies.map(({ digest }) => digest),
      amd64.layers.map(({ digest }) => digest),
    );
    t.same(
      document.alternates.map(({ platform, digest }) => [formatPlatform(platform), digest]),
      image.children.slice(1).map(({ platform, manifest }) => [platform, manifest.digest]),
    );
    t.same(readIndexLabels(document.labels)?.bytes, image.index.bytes);

    const relabelled = await startTestMirror(t, {
      upstreams: { 'docker.io': registry.url },
      config: { repositories: [{ name: 'docker.io/library/hello', primary: 'linux/arm64' }] },
    });
    const old = mediaTypes.ociManifest;
    t.equal((await mirror.get(tag, { accept: old })).headers['docker-content-digest'], amd64.manifest.digest);
    t.equal((await relabelled.get(tag, { accept: old })).headers['docker-content-digest'], arm64.manifest.digest);
    const now = readAlternates((await relabelled.get(tag, { accept: mediaTypes.alternates })).body);
    t.equal(now.target.digest, arm64.config.digest);
    for (const accept of [containerdAccept, mediaTypes.ociIndex]) {
      t.equal((await relabelled.get(tag, { accept })).headers['docker-content-digest'], image.index.digest);
    }
    for (const set of ['linux-amd64', 'linux-arm-v7', 'linux-amd64_linux-arm64']) {
      const [one, other] = await Promise.all(
        [mirror, relabelled].map(({ get }) => get(`/p/${set}${tag}`, { accept: containerdAccept })),
      );
      t.equal(one!.headers['docker-content-digest'], other!.headers['docker-content-digest'], set);
    }
  },
);

void t.test('documents of a set of platforms hold these and no others', async (t) => {
  const { mirror } = await stage(t);
  for (const form of forms) {
    const { body, headers } = await mirror.get(`/p/linux-arm64_linux-arm-v7${tag}`, { accept: mediaTypes[form] });
    const { labels } = form === 'combined' ? readCombined(body) : readAlternates(body);
    const held = readIndexLabels(labels)!.index.manifests.flatMap(({ platform }) =>
      platform ? formatPlatform(platform) : [],
    );
    t.same(held, ['linux/arm64', 'linux/arm/v7', 'unknown/unknown', 'unknown/unknown']);
    t.equal(headers['narrows-index'], image.index.digest);
  }
  const missing = await mirror.get(`/p/linux-s390x${tag}`, { accept: mediaTypes.combined });
  t.match(missing, { status: 404 });
});

const byDigest = (one: object, other: object) => JSON.stringify(one).localeCompare(JSON.stringify(other));
const withLength = ({ bytes, digest, mediaType }: Content) => ({ mediaType, length: bytes.length, digest });
const withSize = ({ bytes, digest, mediaType }: Content) => ({ mediaType, size: bytes.length, digest });

/** A repository where pushes to a tag are put together. */
async function composed(t: Parameters<typeof startTestMirror>[0]): Promise<TestMirror> {
  return startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: { repositories: [{ name: 'team/*', hosted: true, compose: true, push: ['anonymous'] }] },
  });
}

for (const form of forms) {
  void t.test(`${form}: what was answered can be pushed, and is the same index`, async (t) => {
    const { mirror } = await stage(t);
    const { body } = await mirror.get(tag, { accept: mediaTypes[form] });
    const target = await composed(t);
    const pusher = createPusher(target, 'team/app');
    const document = content(body, mediaTypes[form]);
    const early = await pusher.manifest(document, '1');
    t.match(early, { status: 400 });
    t.match(early.json(), { errors: [{ code: 'MANIFEST_BLOB_UNKNOWN' }] });
    await pusher.image(image, 'whole');
    t.match(await pusher.manifest(document, '1'), {
      status: 201,
      headers: { 'docker-content-digest': document.digest },
    });
    const { manifests } = (await target.get('/v2/team/app/manifests/1')).json() as { manifests: object[] };
    const own = JSON.parse(image.index.bytes.toString()) as { manifests: { digest: string }[] };
    t.same(manifests.toSorted(byDigest), own.manifests.toSorted(byDigest));
    t.same((await target.get(`/v2/team/app/manifests/${document.digest}`)).body, body);

    const changed = content(
      body.toString().replace(arm64.layers[0]!.digest, amd64.layers[0]!.digest),
      mediaTypes[form],
    );
    if (form === 'combined') {
      const answer = await pusher.manifest(content(Buffer.from(changed.bytes.toString()), mediaTypes[form]), '2');
      t.match(answer, { status: 400 }, 'what its labels do not say');
    }
  });
}

const plainLayer = 'application/vnd.docker.container.image.rootfs.diff+x-tar';

function plainTar(text: string): Content {
  return content(tarOf({ text: Buffer.from(text) }), plainLayer);
}

void t.test('combined, as it was written in 2015: pushed, it is an image for each of its platforms', async (t) => {
  const target = await composed(t);
  const pusher = createPusher(target, 'team/app');
  const layers = { amd64: plainTar('amd64'), arm: plainTar('arm'), ppc64le: plainTar('ppc64le') };
  const config = content(
    {
      os: 'linux',
      architecture: 'amd64',
      config: { Cmd: ['/text'] },
      rootfs: { type: 'layers', diff_ids: [layers.amd64.digest] },
    },
    mediaTypes.dockerConfig,
  );
  const old = JSON.parse(readFileSync(new URL('../fixtures/combined-2015.json', import.meta.url), 'utf8')) as object;
  const document = content(
    {
      ...old,
      target: withLength(config),
      dependencies: [
        {
          mediaType: 'application/vnd.docker.container.image.combined+json',
          linux: Object.fromEntries(
            Object.entries(layers).map(([architecture, layer]) => [architecture, [withLength(layer)]]),
          ),
        },
      ],
    },
    mediaTypes.combined,
  );
  for (const blob of [config, ...Object.values(layers)]) t.match(await pusher.blob(blob), { status: 201 });
  t.match(await pusher.manifest(document, '3.1.4'), { status: 201 });
  for (const [architecture, layer] of Object.entries(layers)) {
    const set = architecture === 'arm' ? 'linux-arm-v7' : `linux-${architecture}`;
    const answer = await target.get(`/p/${set}/v2/team/app/manifests/3.1.4`, { accept: containerdAccept });
    t.match(
      answer,
      { status: 200, headers: { 'narrows-view': 'image', 'content-type': mediaTypes.dockerManifest } },
      set,
    );
    const manifest = answer.json() as { config: { digest: string }; layers: { digest: string; mediaType: string }[] };
    t.match(manifest.layers, [{ digest: layer.digest, mediaType: 'application/vnd.docker.image.rootfs.diff.tar' }]);
    const { body } = await target.get(`/v2/team/app/blobs/${manifest.config.digest}`);
    t.match(JSON.parse(body.toString()), {
      os: 'linux',
      architecture,
      config: { Cmd: ['/text'] },
      rootfs: { diff_ids: [layer.digest] },
    });
  }
});

void t.test('alternates, as it was written in 2015: pushed, the primary is an image beside the others', async (t) => {
  const target = await composed(t);
  const pusher = createPusher(target, 'team/app');
  await pusher.child(arm64, arm64.manifest.digest);
  for (const blob of [amd64.config, ...amd64.layers]) await pusher.blob(blob);
  const document = {
    schemaVersion: 2,
    target: { ...withSize(amd64.config), labels: { architecture: 'amd64', os: 'linux' } },
    dependencies: amd64.layers.map(withSize),
    alternates: [{ ...withSize(arm64.manifest), labels: { architecture: 'arm64', os: 'linux' } }],
  };
  t.match(await pusher.manifest(content(document, mediaTypes.alternates), '1'), { status: 201 });
  for (const child of [amd64, arm64]) {
    const set = child.platform.replace('/', '-');
    const answer = await target.get(`/p/${set}/v2/team/app/manifests/1`, { accept: containerdAccept });
    const manifest = answer.json() as { config: { digest: string } };
    t.equal(manifest.config.digest, child.config.digest);
  }
  const lie = { ...document, target: { ...document.target, labels: { architecture: 's390x', os: 'linux' } } };
  const refused = await pusher.manifest(content(lie, mediaTypes.alternates), '1');
  t.match(refused, { status: 400 });
  t.match(refused.json(), { errors: [{ code: 'MANIFEST_INVALID', message: /linux\/s390x.*linux\/amd64/ }] });
});
