import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import type { Pusher } from '../fixtures/push.ts';

const layerType = 'application/vnd.oci.image.layer.v1.tar';
const config = content({}, 'application/vnd.oci.empty.v1+json');
const layer = content(noise('a layer', 1000), layerType);
const { ociManifest, ociIndex, dockerManifest } = mediaTypes;

async function prepare(t: Teardown): Promise<{ mirror: TestMirror; pusher: Pusher }> {
  const mirror = await startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: { repositories: [{ name: 'team/*', hosted: true, push: ['anonymous'] }] },
  });
  const pusher = createPusher(mirror, 'team/x');
  await pusher.blob(config);
  await pusher.blob(layer);
  return { mirror, pusher };
}

function manifestOf(layers: readonly object[], more: object = {}): Content {
  return content(
    { schemaVersion: 2, mediaType: ociManifest, config: descriptor(config), layers, ...more },
    ociManifest,
  );
}

function indexOf(manifests: readonly object[]): Content {
  return content({ schemaVersion: 2, mediaType: ociIndex, manifests }, ociIndex);
}

const times = (count: number) => Array.from({ length: count }, () => descriptor(layer));
const pathOf = (reference: string) => `/v2/team/x/manifests/${reference}`;

void t.test('what is missing: some of it in the sentence, all of it in the detail, each once', async (t) => {
  const { pusher } = await prepare(t);
  const missing = Array.from({ length: 30 }, (_, at) => content(Buffer.from(`missing ${at}`), layerType));
  const answer = await pusher.manifest(manifestOf([layer, ...missing, ...missing].map(descriptor)), 'v1');
  t.equal(answer.status, 400);
  const { errors } = answer.json<{ errors: { message: string; detail: object[] }[] }>();
  t.same(
    errors[0]!.detail,
    missing.map(({ digest }) => ({ digest })),
  );
  t.match(errors[0]!.message, / and 10 more: push that first\.$/);
});

void t.test('layers that are somewhere else need not be here', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const absent = { ...descriptor(content(Buffer.from('elsewhere'), layerType)) };
  const foreign = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
  const manifest = manifestOf([
    { ...absent, urls: ['https://example.com/layer'] },
    { ...absent, mediaType: foreign },
    { ...absent, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' },
  ]);
  t.equal((await pusher.manifest(manifest, 'v1')).status, 201);
  t.ok((await mirror.get(pathOf(manifest.digest))).body.equals(manifest.bytes));
});

void t.test('an index may list blobs, as the caches of builders do, and other indexes', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const cache = indexOf([descriptor(layer), descriptor(config)]);
  t.equal((await pusher.manifest(cache, 'cache')).status, 201);
  const above = indexOf([descriptor(cache)]);
  t.equal((await pusher.manifest(above, 'above')).status, 201);
  t.equal((await mirror.send('DELETE', `/v2/team/x/blobs/${layer.digest}`)).status, 403);
  t.equal((await mirror.send('DELETE', pathOf(cache.digest))).status, 403);
  t.equal((await mirror.send('DELETE', pathOf(above.digest))).status, 202);
  t.equal((await mirror.send('DELETE', pathOf(cache.digest))).status, 202);
  t.equal((await mirror.send('DELETE', `/v2/team/x/blobs/${layer.digest}`)).status, 202);
});

void t.test('an image has no manifest for a layer', async (t) => {
  const { pusher } = await prepare(t);
  const child = manifestOf([]);
  await pusher.manifest(child);
  const answer = await pusher.manifest(manifestOf([descriptor(child)]), 'v1');
  t.match(answer.json(), { errors: [{ code: 'MANIFEST_BLOB_UNKNOWN', detail: [{ digest: child.digest }] }] });
});

void t.test('as many parts as any image has, and no more', async (t) => {
  const { pusher } = await prepare(t);
  t.equal((await pusher.manifest(manifestOf(times(1000)), 'v1')).status, 201);
  t.equal((await pusher.manifest(indexOf(times(1000)), 'v2')).status, 201);
  for (const large of [manifestOf(times(1001)), indexOf(times(1001))]) {
    const answer = await pusher.manifest(large, 'v3');
    t.match(answer.json(), { errors: [{ code: 'MANIFEST_INVALID' }] });
  }
});

void t.test('a document that says its type itself may come under a general one', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const manifest = manifestOf([descriptor(layer)]);
  for (const [at, mediaType] of [
    'application/json',
    'application/octet-stream',
    `${ociManifest}; charset=utf-8`,
  ].entries()) {
    t.equal((await pusher.manifest({ ...manifest, mediaType }, `v${at}`)).status, 201, mediaType);
    t.match(await mirror.get(pathOf(`v${at}`)), { headers: { 'content-type': ociManifest } }, mediaType);
  }
});

void t.test('one document has one type, whatever it is pushed as later', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const untyped = content({ schemaVersion: 2, config: descriptor(config), layers: [descriptor(layer)] }, ociManifest);
  t.equal((await pusher.manifest(untyped, 'v1')).status, 201);
  const again = await pusher.manifest({ ...untyped, mediaType: dockerManifest }, 'v2');
  const types = await Promise.all(
    ['v1', untyped.digest, ...(again.status === 201 ? ['v2'] : [])].map(
      async (reference) => (await mirror.get(pathOf(reference))).headers['content-type'],
    ),
  );
  t.same([...new Set(types)], [ociManifest]);
});

void t.test('what says something about a manifest stays when that goes', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const subject = manifestOf([descriptor(layer)]);
  const signature = manifestOf([], { subject: descriptor(subject), artifactType: 'application/x' });
  await pusher.manifest(subject, 'v1');
  await pusher.manifest(signature);
  t.equal((await mirror.send('DELETE', pathOf(subject.digest))).status, 202);
  t.equal((await mirror.get(pathOf(signature.digest))).status, 200);
  const referrers = await mirror.get(`/v2/team/x/referrers/${subject.digest}`);
  t.match(referrers.json(), { manifests: [{ digest: signature.digest, artifactType: 'application/x' }] });
});

void t.test('a disk that fails: 503, no tag, and later it is fine', async (t) => {
  const { mirror, pusher } = await prepare(t);
  const manifest = manifestOf([descriptor(layer)]);
  const folder = join(mirror.store, 'blobs/sha256');
  await rename(folder, `${folder}-away`);
  await writeFile(folder, 'no folder');
  const answer = await pusher.manifest(manifest, 'v1');
  t.match(answer, { status: 503, headers: { 'retry-after': /^\d+$/ } });
  t.match(answer.json(), { errors: [{ code: 'UNAVAILABLE', message: /\.$/ }] });
  await rm(folder);
  await rename(`${folder}-away`, folder);
  for (const reference of ['v1', manifest.digest]) t.equal((await mirror.get(pathOf(reference))).status, 404);
  t.equal((await pusher.manifest(manifest, 'v1')).status, 201);
  t.equal((await mirror.get(pathOf('v1'))).status, 200);
});

void t.test('several tags at once: all of them, or none', async (t) => {
  const { mirror } = await prepare(t);
  const missing = manifestOf([descriptor(content(Buffer.from('missing'), layerType))]);
  const put = ({ bytes, digest, mediaType }: Content, query: string) =>
    mirror.send('PUT', `${pathOf(digest)}?${query}`, bytes, { 'content-type': mediaType });
  t.equal((await put(missing, 'tag=a&tag=b')).status, 400);
  const manifest = manifestOf([descriptor(layer)]);
  t.equal((await put(manifest, 'tag=a&tag=.bad')).status, 404);
  t.equal((await mirror.get(pathOf(manifest.digest))).status, 404);
  t.same((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: [] });
  t.equal((await put(manifest, 'tag=a&tag=b&tag=a')).status, 201);
  t.same((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: ['a', 'b'] });
  t.equal(digestOf((await mirror.get(pathOf('b'))).body), manifest.digest);
});
