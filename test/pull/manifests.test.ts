import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { filesOf } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64'] });
const child = image.children[0]!;

async function stage(t: Teardown) {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const get = (reference: string) => mirror.get(`/v2/docker.io/library/hello/manifests/${reference}`, { accept });
  return { upstream, mirror, get };
}

function padded(bytes: number) {
  const empty = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [], annotations: { padding: '' } };
  const frame = Buffer.from(JSON.stringify(empty)).length;
  return content({ ...empty, annotations: { padding: 'x'.repeat(bytes - frame) } }, mediaTypes.ociIndex);
}

void t.test('28. manifests up to the limit are served, larger ones refused, by tag and by digest', async (t) => {
  const { upstream, mirror, get } = await stage(t);
  const large = padded(4 * 1024 * 1024);
  const tooLarge = padded(5 * 1024 * 1024);
  upstream.put('library/hello', large, 'large');
  upstream.put('library/hello', tooLarge, 'too-large');
  t.same((await get('large')).body, large.bytes);
  t.same((await get(large.digest)).body, large.bytes);
  for (const reference of ['too-large', tooLarge.digest]) {
    const refused = await get(reference);
    t.equal(refused.status, 502, reference);
    t.match(refused.json(), { errors: [{ code: 'MANIFEST_INVALID', message: /larger than 4194304 bytes/ }] });
  }
  t.notOk((await filesOf(mirror.store)).blobs.some((name) => name.includes(tooLarge.digest.slice(7))));
});

void t.test('8. wrong bytes for a digest: 502, nothing kept, the good ones come next time', async (t) => {
  const { upstream, mirror, get } = await stage(t);
  upstream.script = (seen, response) => {
    if (seen.method !== 'GET') return false;
    const wrong = Buffer.from(image.index.bytes);
    wrong[10]! ^= 1;
    response.writeHead(200, { 'content-type': image.index.mediaType, 'content-length': wrong.length });
    response.end(wrong);
    return true;
  };
  for (const reference of ['1', image.index.digest]) t.equal((await get(reference)).status, 502);
  t.same((await filesOf(mirror.store)).blobs, []);
  upstream.script = undefined;
  t.same((await get('1')).body, image.index.bytes);
});

void t.test('27. a document that is two things at once: refused by tag, passed on untouched by digest', async (t) => {
  const { upstream, get } = await stage(t);
  const both = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: [{ ...descriptor(child.manifest), platform: { os: 'linux', architecture: 'amd64' } }],
      config: descriptor(child.config),
      layers: child.layers.map(descriptor),
    },
    mediaTypes.ociIndex,
  );
  upstream.put('library/hello', both, 'both');
  const refused = await get('both');
  t.equal(refused.status, 502);
  t.match(refused.json(), { errors: [{ code: 'MANIFEST_INVALID' }] });
  const passed = await get(both.digest);
  t.same(passed.body, both.bytes);
  t.equal(passed.headers['content-type'], mediaTypes.ociIndex);
});

void t.test('a type that nobody knows goes out under its own name', async (t) => {
  const { upstream, get } = await stage(t);
  const strange = content(
    { schemaVersion: 2, mediaType: 'application/vnd.example.thing+json' },
    'application/vnd.example.thing+json',
  );
  upstream.put('library/hello', strange, 'strange');
  upstream.put('library/hello', strange);
  t.match(await get('strange'), { status: 200, headers: { 'content-type': 'application/vnd.example.thing+json' } });
});

void t.test('a plain file server’s types: the document says what it is', async (t) => {
  const { upstream, get } = await stage(t);
  upstream.put('library/hello', { ...image.index, mediaType: 'application/octet-stream' }, 'plain');
  upstream.put('library/hello', { ...image.index, mediaType: 'application/octet-stream' }, image.index.digest);
  t.equal((await get('plain')).headers['content-type'], mediaTypes.ociIndex);
});

void t.test('many clients of one digest: one GET upstream', async (t) => {
  const { upstream, get } = await stage(t);
  const all = await Promise.all(Array.from({ length: 50 }, () => get(child.manifest.digest)));
  t.ok(all.every(({ body }) => body.equals(child.manifest.bytes)));
  t.equal(upstream.count('GET manifests'), 1);
});

void t.test('an unknown digest: 404 MANIFEST_UNKNOWN', async (t) => {
  const { get } = await stage(t);
  const unknown = await get(content({ nothing: true }, 'x').digest);
  t.match(unknown, { status: 404 });
  t.match(unknown.json(), { errors: [{ code: 'MANIFEST_UNKNOWN' }] });
});

void t.test('88. a layer is no manifest, and a manifest no layer: each is asked for where it belongs', async (t) => {
  const { upstream, mirror, get } = await stage(t);
  const layer = child.layers[0]!;
  await get(child.manifest.digest);
  await mirror.get(`/v2/docker.io/library/hello/blobs/${layer.digest}`);
  t.match(await get(layer.digest), { status: 404 });
  const path = `/v2/docker.io/library/hello/blobs/${child.manifest.digest}`;
  t.equal((await mirror.head(path)).status, 404);
  t.equal((await get(child.manifest.digest)).headers['content-type'], mediaTypes.ociManifest);
  t.equal(upstream.count('GET manifests', child.manifest.digest), 1);
});
