import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions, Teardown, TestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const image = buildImage({
  platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v6', 'linux/arm/v7'],
  attestations: true,
});
const [amd64, arm64, armV6, armV7] = image.children as [
  BuiltImage['children'][0],
  BuiltImage['children'][0],
  BuiltImage['children'][0],
  BuiltImage['children'][0],
];

async function stage(
  t: Teardown,
  served: BuiltImage = image,
  options: Partial<MirrorOptions> = {},
): Promise<{ upstream: TestRegistry; mirror: TestMirror }> {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', served);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, ...options });
  return { upstream, mirror };
}

const manifestPath = (reference: string, prefix = '') => `${prefix}/v2/docker.io/library/hello/manifests/${reference}`;

interface IndexJson {
  manifests: { digest: string; platform?: { os: string; architecture: string; variant?: string } }[];
}

void t.test('containerd: a tag becomes the image of its platform, and nothing else is asked for', async (t) => {
  const { upstream, mirror } = await stage(t);
  const base = '/p/linux-arm64/v2/library/hello';
  const head = await mirror.head(`${base}/manifests/1?ns=docker.io`, { accept });
  t.match(head, {
    status: 200,
    headers: {
      'content-type': mediaTypes.ociManifest,
      'content-length': String(arm64.manifest.bytes.length),
      'docker-content-digest': arm64.manifest.digest,
      'narrows-view': 'image',
      'narrows-index': image.index.digest,
      'narrows-cache': 'miss',
      'narrows-platform': 'linux/arm64; via=path',
      'oci-namespace': 'docker.io',
    },
  });
  const got = await mirror.get(`${base}/manifests/${arm64.manifest.digest}?ns=docker.io`, { accept });
  t.same(got.body, arm64.manifest.bytes);
  for (const blob of [arm64.config, ...arm64.layers]) {
    t.same((await mirror.get(`${base}/blobs/${blob.digest}?ns=docker.io`)).body, blob.bytes);
  }
  const asked = upstream.seen.map(({ method, path }) => `${method} ${path.split('/').slice(-2).join('/')}`);
  t.same(asked, [
    'HEAD manifests/1',
    `GET manifests/${image.index.digest}`,
    `GET manifests/${arm64.manifest.digest}`,
    `GET blobs/${arm64.config.digest}`,
    `GET blobs/${arm64.layers[0]!.digest}`,
  ]);
});

void t.test('23. every channel that tells a platform: the answer says which it was', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': upstream.url },
    config: {
      listen: [{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0', platforms: 'linux/arm64' }],
      platforms: {
        sets: { edge: ['linux/arm/v7'] },
        hosts: { 'arm.mirror.example': 'linux/arm64' },
        trustUserAgent: true,
      },
    },
  });
  const docker = 'docker/29.7.2 go/go1.26.3 os/linux arch/arm64 UpstreamClient(Docker-Client/29.7.2 \\(darwin\\))';
  const cases: [channel: string, path: string, headers: Record<string, string>, digest: string, via: string][] = [
    ['before /v2', manifestPath('1', '/p/linux-arm64'), {}, arm64.manifest.digest, 'linux/arm64; via=path'],
    [
      'behind /v2',
      '/v2/p/linux-arm64/docker.io/library/hello/manifests/1',
      {},
      arm64.manifest.digest,
      'linux/arm64; via=path',
    ],
    ['a named set', manifestPath('1', '/p/edge'), {}, armV7.manifest.digest, 'linux/arm/v7; via=path'],
    ['host', manifestPath('1'), { host: 'arm.mirror.example:5000' }, arm64.manifest.digest, 'linux/arm64; via=host'],
    ['listener', mirror.urls[1]! + manifestPath('1'), {}, arm64.manifest.digest, 'linux/arm64; via=listener'],
    [
      'header',
      manifestPath('1'),
      { 'narrows-platform': 'linux/arm64' },
      arm64.manifest.digest,
      'linux/arm64; via=header',
    ],
    ['user agent', manifestPath('1'), { 'user-agent': docker }, arm64.manifest.digest, 'linux/arm64; via=user-agent'],
    [
      'path over header',
      manifestPath('1', '/p/linux-amd64'),
      { 'narrows-platform': 'linux/arm64' },
      amd64.manifest.digest,
      'linux/amd64; via=path',
    ],
    ['any', manifestPath('1', '/p/any'), { 'narrows-platform': 'linux/arm64' }, image.index.digest, 'any; via=path'],
  ];
  for (const [channel, path, headers, digest, via] of cases) {
    const answer = await mirror.head(path, { accept, ...headers });
    t.match(answer, { status: 200, headers: { 'docker-content-digest': digest, 'narrows-platform': via } }, channel);
  }
});

void t.test('client address: the network of the caller tells the platform', async (t) => {
  const { mirror } = await stage(t, image, { config: { platforms: { addresses: { '127.0.0.0/8': 'linux/arm64' } } } });
  t.match(await mirror.head(manifestPath('1'), { accept }), {
    headers: { 'docker-content-digest': arm64.manifest.digest, 'narrows-platform': 'linux/arm64; via=address' },
  });
});

void t.test('23. no platform known: the upstream’s bytes', async (t) => {
  const { mirror } = await stage(t);
  const answer = await mirror.get(manifestPath('1'), { accept });
  t.match(answer, {
    status: 200,
    headers: { 'narrows-view': 'verbatim', 'docker-content-digest': image.index.digest },
  });
  t.same(answer.body, image.index.bytes);
  t.notOk('narrows-index' in answer.headers);
  t.notOk('narrows-platform' in answer.headers);
});

void t.test('a set of several platforms: an index of those, with their attestations, the same each time', async (t) => {
  const store = await temporaryFolder(t);
  const { upstream, mirror } = await stage(t, image, { store });
  const path = manifestPath('1', '/p/linux-amd64_linux-arm-v7');
  const head = await mirror.head(path, { accept });
  const answer = await mirror.get(path, { accept });
  t.match(head.headers, { 'narrows-view': 'index', 'narrows-index': image.index.digest });
  t.equal(head.headers['content-length'], String(answer.body.length));
  const digest = digestOf(answer.body);
  t.equal(answer.headers['docker-content-digest'], digest);
  t.equal(head.headers['docker-content-digest'], digest);
  const kept = answer.json<IndexJson>().manifests.map((child) => child.digest);
  // arm/v6 runs on arm/v7: which of the two is for the client to say.
  t.same(
    kept,
    [amd64, armV6, armV7]
      .map((child) => child.manifest.digest)
      .concat([image.attestations[0]!, image.attestations[2]!, image.attestations[3]!].map((one) => one.digest)),
  );

  for (const prefix of ['', '/p/linux-arm64', '/p/any']) {
    const again = await mirror.get(manifestPath(digest, prefix), { accept });
    t.same(again.body, answer.body, `by digest at ${prefix || 'no prefix'}`);
    t.match(again.headers, { 'docker-content-digest': digest, 'narrows-index': image.index.digest });
  }
  await mirror.stop();
  const second = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, store });
  t.same((await second.get(manifestPath(digest), { accept })).body, answer.body, 'after a restart');
  const elsewhere = await second.get(`/v2/docker.io/library/other/manifests/${digest}`, { accept });
  t.equal(elsewhere.status, 404, 'another repository does not have it');
});

void t.test('21. a narrowed index can be made again when all content is gone', async (t) => {
  const { rm } = await import('node:fs/promises');
  const store = await temporaryFolder(t);
  const { upstream, mirror } = await stage(t, image, { store });
  const answer = await mirror.get(manifestPath('1', '/p/linux-amd64_linux-arm64'), { accept });
  await mirror.stop();
  await rm(`${store}/blobs`, { recursive: true });
  const second = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, store });
  t.same((await second.get(manifestPath(digestOf(answer.body)), { accept })).body, answer.body);
});

void t.test('view: index at a listener: even one platform is answered with an index', async (t) => {
  const { mirror } = await stage(t, image, { config: { listen: [{ address: '127.0.0.1:0', view: 'index' }] } });
  const answer = await mirror.get(manifestPath('1', '/p/linux-arm64'), { accept });
  t.equal(answer.headers['narrows-view'], 'index');
  t.same(
    answer.json<IndexJson>().manifests.map((child) => child.digest),
    [arm64.manifest.digest, image.attestations[1]!.digest],
  );
});

void t.test('22. by digest: never rewritten, at any endpoint', async (t) => {
  const { mirror } = await stage(t);
  for (const prefix of ['', '/p/linux-arm64', '/p/linux-amd64_linux-arm64', '/p/any']) {
    const answer = await mirror.get(manifestPath(image.index.digest, prefix), { accept });
    t.same(answer.body, image.index.bytes, prefix);
    t.match(answer.headers, { 'narrows-view': 'verbatim', 'docker-content-digest': image.index.digest });
  }
});

void t.test('a platform that the image does not have: 404 that tells the os from the architecture', async (t) => {
  const { mirror } = await stage(t);
  const of = async (set: string) => {
    const answer = await mirror.get(manifestPath('1', `/p/${set}`), { accept });
    t.equal(answer.status, 404);
    return answer.json<{ errors: [{ code: string; message: string }] }>().errors[0];
  };
  const os = await of('windows-amd64');
  t.match(os, {
    code: 'MANIFEST_UNKNOWN',
    message: /does not support the operating system of windows\/amd64; there is: linux\/amd64, linux\/arm64/,
  });
  const architecture = await of('linux-s390x');
  t.match(architecture, {
    code: 'MANIFEST_UNKNOWN',
    message: /supports the operating system linux, but not the architecture of linux\/s390x/,
  });
});

void t.test('onMissing: verbatim passes the index on', async (t) => {
  const { mirror } = await stage(t, image, { config: { platforms: { onMissing: 'verbatim' } } });
  const answer = await mirror.get(manifestPath('1', '/p/linux-s390x'), { accept });
  t.same(answer.body, image.index.bytes);
});

void t.test('a client that takes no index: its platform, else the primary one', async (t) => {
  const { mirror } = await stage(t, image, {
    config: { repositories: [{ name: 'docker.io/library/second', primary: 'linux/arm64' }] },
  });
  const old = { accept: mediaTypes.ociManifest };
  t.match(await mirror.head(manifestPath('1'), old), {
    headers: { 'docker-content-digest': amd64.manifest.digest, 'narrows-view': 'image' },
  });
  t.match(await mirror.head(manifestPath('1', '/p/linux-arm64'), old), {
    headers: { 'docker-content-digest': arm64.manifest.digest },
  });
  t.match(await mirror.head(manifestPath('1', '/p/any'), old), {
    headers: { 'docker-content-digest': amd64.manifest.digest },
  });
  t.match(await mirror.head(manifestPath('1'), { accept: '*/*' }), {
    headers: { 'docker-content-digest': image.index.digest },
  });
});

void t.test('the primary platform of a repository is its own', async (t) => {
  const { mirror } = await stage(t, image, {
    config: { repositories: [{ name: 'docker.io/library/hello', primary: 'linux/arm64' }] },
  });
  const answer = await mirror.head(manifestPath('1'), { accept: mediaTypes.ociManifest });
  t.equal(answer.headers['docker-content-digest'], arm64.manifest.digest);
});

void t.test('a child whose config says another platform: the whole index, counted and logged', async (t) => {
  const lying = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], lies: { 'linux/arm64': 'linux/amd64' } });
  const { mirror } = await stage(t, lying);
  for (let round = 0; round < 2; round++) {
    const answer = await mirror.get(manifestPath('1', '/p/linux-arm64'), { accept });
    t.match(answer.headers, { 'narrows-view': 'verbatim', 'docker-content-digest': lying.index.digest });
  }
  const metrics = (await mirror.get(`${mirror.adminUrl}/metrics`)).body.toString();
  t.match(metrics, /narrows_platform_lies_total 2/);
  t.ok(mirror.log.some((line) => line.includes(lying.children[1]!.manifest.digest) && line.includes('warn')));
});

void t.test('what is not an index of images goes out as it is', async (t) => {
  const nested = content(
    { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [descriptor(image.index)] },
    mediaTypes.ociIndex,
  );
  const artifact = buildImage({
    platforms: ['linux/amd64', 'linux/arm64'],
    indexFields: { artifactType: 'application/vnd.example' },
  });
  const nameless = content(
    { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [descriptor(amd64.manifest)] },
    mediaTypes.ociIndex,
  );
  const { upstream, mirror } = await stage(t);
  const cases = { nested, artifact: artifact.index, nameless, single: amd64.manifest };
  for (const [tag, held] of Object.entries(cases)) {
    upstream.put('library/hello', held, tag);
    const answer = await mirror.get(manifestPath(tag, '/p/linux-arm64'), { accept });
    t.same(answer.body, held.bytes, tag);
    t.match(answer.headers, { 'narrows-view': 'verbatim', 'docker-content-digest': held.digest });
  }
});

void t.test('Docker’s list and manifests are narrowed as OCI’s are, under their own types', async (t) => {
  const docker = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], docker: true });
  const { mirror } = await stage(t, docker);
  t.match(await mirror.head(manifestPath('1', '/p/linux-arm64'), { accept }), {
    headers: {
      'content-type': mediaTypes.dockerManifest,
      'docker-content-digest': docker.children[1]!.manifest.digest,
    },
  });
});

void t.test(
  'Windows: twins that differ in their version are for the client to choose, a version in the set chooses',
  async (t) => {
    const windows = buildImage({
      platforms: ['windows(10.0.17763.1)/amd64', 'windows(10.0.20348.1)/amd64', 'linux/amd64'],
    });
    const { mirror } = await stage(t, windows, {
      config: { platforms: { sets: { win: ['windows(10.0.20348)/amd64'] } } },
    });
    t.match(await mirror.head(manifestPath('1', '/p/windows-amd64'), { accept }), {
      headers: { 'docker-content-digest': windows.index.digest },
    });
    t.match(await mirror.head(manifestPath('1', '/p/win'), { accept }), {
      headers: { 'docker-content-digest': windows.children[1]!.manifest.digest },
    });
  },
);

void t.test('23. If-None-Match: 304 for one’s own view alone', async (t) => {
  const { mirror } = await stage(t);
  const path = manifestPath('1', '/p/linux-arm64');
  const { etag } = (await mirror.get(path, { accept })).headers;
  t.equal((await mirror.get(path, { accept, 'if-none-match': etag! })).status, 304);
  t.equal((await mirror.get(manifestPath('1', '/p/linux-amd64'), { accept, 'if-none-match': etag! })).status, 200);
});

void t.test('an index that a child is missing from upstream: 404 that says so', async (t) => {
  const { upstream, mirror } = await stage(t);
  upstream.delete('library/hello', arm64.manifest.digest);
  const answer = await mirror.get(manifestPath('1', '/p/linux-arm64'), { accept });
  t.equal(answer.status, 404);
  t.match(answer.body.toString(), /lists .* does not hold it/);
});

void t.test('one child listed for two platforms: the narrowed index is answerable by its digest', async (t) => {
  const { upstream, mirror } = await stage(t);
  const entry = (child: typeof amd64, architecture: string) => ({
    ...descriptor(child.manifest),
    platform: { os: 'linux', architecture },
  });
  const twice = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: [entry(amd64, 'amd64'), entry(amd64, '386'), entry(arm64, 'arm64')],
    },
    mediaTypes.ociIndex,
  );
  upstream.put('library/hello', twice, 'twice');
  const answer = await mirror.get(manifestPath('twice', '/p/linux-amd64_linux-arm64'), { accept });
  t.equal(answer.json<IndexJson>().manifests.length, 2);
  t.same((await mirror.get(manifestPath(digestOf(answer.body)), { accept })).body, answer.body);
});
