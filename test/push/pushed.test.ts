import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { indexLabels } from '../../src/oci/part.ts';
import { digestFor, invalid, readPushed, referrerOf } from '../../src/push/pushed.ts';
import { buildImage } from '../fixtures/images.ts';

const { ociIndex, ociManifest, ociConfig, dockerList, dockerManifest, combined, alternates } = mediaTypes;

const digest = (name: string) => digestOf(Buffer.from(name));
const describe = (name: string, mediaType: string, more: object = {}) => ({
  mediaType,
  digest: digest(name),
  size: name.length,
  ...more,
});
const needed = (name: string) => ({ digest: digest(name), bytes: name.length });

const read = (value: unknown, contentType: string) =>
  readPushed(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), contentType);

const config = describe('config', ociConfig);
const layer = describe('layer one', 'application/vnd.oci.image.layer.v1.tar+gzip');
const child = describe('child', ociManifest, { platform: { os: 'linux', architecture: 'amd64' } });

const labels = { os: 'linux', architecture: 'amd64' };
const target = describe('target', ociConfig, { length: 6, labels });
const part = describe('part', 'application/vnd.oci.image.layer.v1.tar', { length: 4 });
const other = describe('other one', ociManifest, { labels: { os: 'linux', architecture: 'arm64' } });
const combinedJson = {
  schemaVersion: 2,
  target,
  dependencies: [{ mediaType: 'application/x', linux: { amd64: [part], arm64: [part, part] } }],
};
const alternatesJson = { schemaVersion: 2, target, dependencies: [part], alternates: [other] };

void t.test('readPushed: an image needs its config and its layers', (t) => {
  for (const mediaType of [ociManifest, dockerManifest]) {
    const value = { schemaVersion: 2, mediaType, config, layers: [layer, layer] };
    const pushed = read(value, mediaType);
    t.match(pushed, { mediaType, document: { kind: 'manifest' }, subject: undefined });
    t.same(pushed.blobs, [needed('config'), needed('layer one'), needed('layer one')]);
    t.same(pushed.manifests, []);
    t.equal(pushed.bytes.toString(), JSON.stringify(value));
  }
  t.same(read({ mediaType: ociManifest, config }, '').mediaType, ociManifest, 'the type may be told inside alone');
  t.same(read({ config, layers: [] }, `${ociManifest}; charset=utf-8`).mediaType, ociManifest);
  t.end();
});

void t.test('readPushed: layers that stay with their publisher are not needed', (t) => {
  const foreign = [
    describe('urls', layer.mediaType, { urls: ['https://example.com/layer'] }),
    describe('foreign', 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
    describe('nondistributable', 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'),
  ];
  const { blobs } = read({ config, layers: [foreign[0], layer, ...foreign.slice(1)] }, ociManifest);
  t.same(blobs, [needed('config'), needed('layer one')]);
  t.end();
});

void t.test('readPushed: an index needs its children', (t) => {
  for (const mediaType of [ociIndex, dockerList]) {
    const pushed = read({ mediaType, manifests: [child, describe('about', ociManifest)] }, mediaType);
    t.match(pushed, { mediaType, document: { kind: 'index' } });
    t.same(pushed.blobs, []);
    t.same(pushed.manifests, [
      { ...needed('child'), isImage: true },
      { ...needed('about'), isImage: false },
    ]);
  }
  t.same(read({ manifests: [] }, ociIndex).manifests, []);
  t.end();
});

void t.test('readPushed: what it refers to is told, and need not be here', (t) => {
  for (const value of [{ config, layers: [layer] }, { manifests: [child] }]) {
    const type = 'config' in value ? ociManifest : ociIndex;
    const pushed = read({ ...value, subject: describe('subject', ociManifest) }, type);
    t.equal(pushed.subject, digest('subject'));
    t.notOk([...pushed.blobs, ...pushed.manifests].some((one) => one.digest === digest('subject')));
    t.notOk('subject' in read(value, type));
  }
  t.end();
});

void t.test(
  'readPushed: the documents of 2015 need their parts, and the children of the index that they carry',
  (t) => {
    const one = read(combinedJson, combined);
    t.match(one, { mediaType: combined, document: { kind: 'combined' } });
    t.same(
      one.blobs.map((blob) => [blob.digest, blob.bytes]),
      [
        [digest('target'), 6],
        [digest('part'), 4],
        [digest('part'), 4],
        [digest('part'), 4],
      ],
    );
    t.same(one.manifests, []);
    const two = read(alternatesJson, `${alternates.toUpperCase()} ; charset=utf-8`);
    t.match(two, { mediaType: alternates, document: { kind: 'alternates' } });
    t.same(
      two.blobs.map((blob) => blob.digest),
      [digest('target'), digest('part')],
    );
    t.same(
      two.manifests.map((manifest) => [manifest.digest, manifest.bytes]),
      [[digest('other one'), 9]],
    );
    const carried = indexLabels(Buffer.from(JSON.stringify({ manifests: [child] })), ociIndex);
    t.same(read({ ...combinedJson, labels: carried }, combined).manifests, [{ ...needed('child'), isImage: true }]);
    t.match(read({ ...alternatesJson, labels: carried }, alternates).manifests, [
      { digest: digest('other one') },
      needed('child'),
    ]);
    t.end();
  },
);

void t.test('readPushed: refuses what is no manifest of one meaning', (t) => {
  const schema1 = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
  const cases: Record<string, [value: unknown, contentType: string]> = {
    nothing: ['', ociManifest],
    'no JSON': ['{', ociIndex],
    'a list': [[child], ociIndex],
    'a key twice': ['{"manifests":[],"manifests":[]}', ociIndex],
    'a key in another case': ['{"manifests":[],"Manifests":[]}', ociIndex],
    'an index and an image at once': [{ manifests: [child], config }, ociIndex],
    'a type outside, another inside': [{ mediaType: ociManifest, config }, dockerManifest],
    'an index called a manifest': [{ manifests: [child] }, ociManifest],
    'a type that is none': [{ manifests: [child] }, 'a b'],
    'schema 1': [{ schemaVersion: 1, fsLayers: [] }, schema1],
    'no type at all': [{ name: 'x' }, ''],
    'a child with an unknown digest': [{ manifests: [{ ...child, digest: `blake3:${'0'.repeat(64)}` }] }, ociIndex],
    'a child of negative size': [{ manifests: [{ ...child, size: -1 }] }, ociIndex],
    'an image without config': [{ layers: [layer] }, ociManifest],
    'a layer without size': [{ config, layers: [{ digest: layer.digest }] }, ociManifest],
    'a subject that is none': [{ config, subject: 'sha256:x' }, ociManifest],
    'a subject with a bad digest': [{ manifests: [], subject: { digest: 'x', size: 1 } }, ociIndex],
    'a combined document called an index': [combinedJson, ociIndex],
    'an index called a combined document': [{ manifests: [child] }, combined],
    'a combined document whose lengths are called size': [
      { ...combinedJson, target: { ...target, length: undefined } },
      combined,
    ],
    'an alternates document without os': [{ ...alternatesJson, target: { ...target, labels: {} } }, alternates],
    'an alternates document called combined': [alternatesJson, combined],
    'a carried index that is none': [{ ...combinedJson, labels: { 'narrows.index': '{}' } }, combined],
    'a carried index that is no JSON': [{ ...alternatesJson, labels: { 'narrows.index': '{' } }, alternates],
    'a carried image': [
      { ...alternatesJson, labels: indexLabels(Buffer.from(JSON.stringify({ config })), ociManifest) },
      alternates,
    ],
  };
  for (const [what, [value, contentType]] of Object.entries(cases)) {
    t.throws(
      () => read(value, contentType),
      { kind: 'manifestInvalid', code: 'MANIFEST_INVALID', status: 400, message: /^This is no usable manifest: .+\.$/ },
      what,
    );
  }
  t.throws(() => read({ schemaVersion: 1 }, schema1), { message: new RegExp(`${schema1.replace('+', '\\+')} is not`) });
  t.throws(() => read({ layers: [layer] }, ociManifest), { message: /a descriptor in it is not valid/ });
  t.end();
});

void t.test('readPushed: what the test images hold is taken', (t) => {
  for (const docker of [false, true]) {
    const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true, docker });
    const index = readPushed(image.index.bytes, image.index.mediaType);
    t.same(
      index.manifests.map((one) => one.digest).toSorted(),
      image.manifests
        .slice(1)
        .map((one) => one.digest)
        .toSorted(),
    );
    for (const { manifest, config, layers } of image.children) {
      t.same(
        readPushed(manifest.bytes, manifest.mediaType).blobs,
        [config, ...layers].map((blob) => ({ digest: blob.digest, bytes: blob.bytes.length })),
      );
    }
  }
  t.end();
});

void t.test('referrerOf: as the specification lists it', (t) => {
  const type = 'application/vnd.example.sbom+json';
  const subject = describe('subject', ociManifest);
  const cases: [value: object, contentType: string, expected: object][] = [
    [{ config, layers: [], subject }, ociManifest, { artifactType: ociConfig }],
    [{ config, layers: [], subject, artifactType: type }, ociManifest, { artifactType: type }],
    [{ config, layers: [], subject, artifactType: '' }, ociManifest, { artifactType: ociConfig }],
    [{ manifests: [], subject }, ociIndex, {}],
    [{ manifests: [], subject, artifactType: type }, ociIndex, { artifactType: type }],
    [
      { config, subject, annotations: { a: 'b', c: 1 } },
      ociManifest,
      { artifactType: ociConfig, annotations: { a: 'b' } },
    ],
    [{ manifests: [], subject, annotations: {} }, ociIndex, {}],
  ];
  for (const [value, contentType, expected] of cases) {
    const pushed = read(value, contentType);
    const own = digestOf(pushed.bytes);
    t.same(referrerOf(pushed, own), { mediaType: contentType, digest: own, size: pushed.bytes.length, ...expected });
  }
  t.end();
});

void t.test('digestFor: by the algorithm that the client named', (t) => {
  const bytes = Buffer.from('x');
  t.equal(digestFor(bytes, undefined), digestOf(bytes));
  t.equal(digestFor(bytes, digest('y')), digestOf(bytes));
  t.equal(digestFor(bytes, digestOf(Buffer.from('y'), 'sha512')), digestOf(bytes, 'sha512'));
  const cause = new SyntaxError('x');
  t.match(invalid('it is blue', cause), { kind: 'manifestInvalid', message: /: it is blue\.$/, cause });
  t.end();
});
