import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseDocument, readPlatform } from '../../src/oci/manifest.ts';
import type { Index, Manifest } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage } from '../fixtures/images.ts';

const { ociIndex, ociManifest, dockerList, dockerManifest } = mediaTypes;

const read = (value: unknown, contentType: string) =>
  parseDocument(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), contentType);

const describe = (name: string, mediaType: string, more: object = {}) => ({
  mediaType,
  digest: digestOf(Buffer.from(name)),
  size: name.length,
  ...more,
});

const config = describe('config', mediaTypes.ociConfig);
const layer = describe('layer', 'application/vnd.oci.image.layer.v1.tar+gzip');
const child = describe('child', ociManifest, { platform: { os: 'linux', architecture: 'amd64' } });

void t.test('parseDocument: an index gives its children, their platforms in one spelling', (t) => {
  const source = {
    schemaVersion: 2,
    mediaType: ociIndex,
    manifests: [
      describe('a', ociManifest, { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } }),
      describe('b', ociManifest, { platform: { os: 'Linux', architecture: 'x86_64' }, annotations: { a: 'b' } }),
      describe('c', ociManifest, {
        platform: { os: 'windows', architecture: 'amd64', 'os.version': '10.0.20348.5622', 'os.features': ['win32k'] },
      }),
      describe('d', ociManifest),
    ],
  };
  const index = read(source, ociIndex) as Index;
  t.match(index, { kind: 'index', mediaType: ociIndex, artifactType: undefined, source });
  t.same(
    index.manifests.map(({ platform }) => platform),
    [
      { os: 'linux', architecture: 'arm64' },
      { os: 'linux', architecture: 'amd64' },
      { os: 'windows', architecture: 'amd64', osVersion: '10.0.20348.5622', osFeatures: ['win32k'] },
      undefined,
    ],
  );
  t.same(
    index.manifests.map(({ annotations }) => annotations),
    [{}, { a: 'b' }, {}, {}],
  );
  t.same(
    index.manifests.map((descriptor) => descriptor.source),
    source.manifests,
    'and each as it was written',
  );
  t.end();
});

void t.test('parseDocument: a manifest gives its config and layers', (t) => {
  for (const mediaType of [ociManifest, dockerManifest]) {
    const manifest = read({ schemaVersion: 2, mediaType, config, layers: [layer, layer] }, mediaType) as Manifest;
    t.match(manifest, { kind: 'manifest', mediaType, config });
    t.same(
      manifest.layers.map(({ digest, size }) => ({ digest, size })),
      [layer, layer].map(({ digest, size }) => ({ digest, size })),
    );
  }
  t.same((read({ config }, ociManifest) as Manifest).layers, [], 'layers may be left out');
  t.end();
});

void t.test('parseDocument: what the test images hold is read, in both families of types', (t) => {
  for (const docker of [false, true]) {
    const image = buildImage({ platforms: ['linux/amd64', 'linux/arm/v6'], attestations: true, docker });
    const index = parseDocument(image.index.bytes, image.index.mediaType) as Index;
    t.equal(index.mediaType, docker ? dockerList : ociIndex);
    t.same(
      index.manifests.map(({ digest }) => digest),
      [...image.children.map(({ manifest }) => manifest.digest), ...image.attestations.map(({ digest }) => digest)],
    );
    for (const { manifest, config } of image.children) {
      t.match(parseDocument(manifest.bytes, manifest.mediaType), {
        kind: 'manifest',
        config: { digest: config.digest },
      });
    }
  }
  t.end();
});

void t.test('parseDocument: under a type that says nothing, the document says what it is', (t) => {
  const cases: [contentType: string, value: object, expected: object][] = [
    ['', { mediaType: dockerList, manifests: [child] }, { kind: 'index', mediaType: dockerList }],
    ['application/json', { manifests: [child] }, { kind: 'index', mediaType: ociIndex }],
    ['text/plain; charset=utf-8', { config, layers: [layer] }, { kind: 'manifest', mediaType: ociManifest }],
    [
      'application/octet-stream',
      { mediaType: dockerManifest, config },
      { kind: 'manifest', mediaType: dockerManifest },
    ],
    ['application/json', { name: 'x' }, { kind: 'opaque', mediaType: 'application/json' }],
    ['', { name: 'x' }, { kind: 'opaque', mediaType: 'application/octet-stream' }],
    [`${ociIndex}; charset=utf-8`, { manifests: [child] }, { kind: 'index', mediaType: ociIndex }],
    [ociIndex.toUpperCase(), { manifests: [child] }, { kind: 'index', mediaType: ociIndex }],
  ];
  for (const [contentType, value, expected] of cases) t.match(read(value, contentType), expected, contentType);
  t.end();
});

void t.test('parseDocument: an artifactType is told, an empty one is none', (t) => {
  const artifactType = 'application/vnd.example+type';
  t.equal((read({ manifests: [], artifactType }, ociIndex) as Index).artifactType, artifactType);
  t.notOk('artifactType' in read({ manifests: [], artifactType: '' }, ociIndex));
  t.end();
});

void t.test('parseDocument: what is not understood is opaque, and keeps its type', (t) => {
  const schema1 = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
  const artifact = 'application/vnd.oci.artifact.manifest.v1+json';
  const cases: Record<string, [value: unknown, contentType: string]> = {
    'schema 1': [{ schemaVersion: 1, fsLayers: [], history: [], signatures: [] }, schema1],
    'an OCI artifact manifest': [{ mediaType: artifact, blobs: [layer] }, artifact],
    'an unknown type with an unknown type inside': [{ mediaType: 'a/x' }, 'a/y'],
    'an unknown type with children': [{ manifests: [child] }, 'a/y'],
    'an unknown algorithm in a child': [
      { manifests: [child, { ...child, digest: `blake3:${'0'.repeat(64)}` }] },
      ociIndex,
    ],
    'a digest that is a path': [{ manifests: [{ ...child, digest: 'sha256:../../x' }] }, ociIndex],
    'a child without digest': [{ manifests: [{ mediaType: ociManifest, size: 1 }] }, ociIndex],
    'a child that is no object': [{ manifests: [null] }, ociIndex],
    'a child of negative size': [{ manifests: [{ ...child, size: -1 }] }, ociIndex],
    'a size in a text': [{ manifests: [{ ...child, size: '1' }] }, ociIndex],
    'a broken size': [{ manifests: [{ ...child, size: 1.5 }] }, ociIndex],
    'a size beyond what is exact': [
      '{"manifests":[{"digest":"' + child.digest + '","size":9007199254740993}]}',
      ociIndex,
    ],
    'a manifest without config': [{ layers: [layer] }, ociManifest],
    'a layer without size': [{ config, layers: [{ digest: layer.digest }] }, ociManifest],
    'layers that are no list': [{ config, layers: { 0: layer } }, ociManifest],
  };
  for (const [what, [value, contentType]] of Object.entries(cases)) {
    t.same(read(value, contentType), { kind: 'opaque', mediaType: contentType }, what);
  }
  t.end();
});

void t.test('27. parseDocument: what two readers could take for two things is refused', (t) => {
  const cases: Record<string, [value: unknown, contentType: string]> = {
    'an index with layers': [{ mediaType: ociIndex, manifests: [child], layers: [layer] }, ociIndex],
    'an index with a config': [{ mediaType: ociIndex, manifests: [child], config }, ociIndex],
    'an image with children': [{ mediaType: ociManifest, config, layers: [layer], manifests: [child] }, ociManifest],
    'both under no type': [{ config, manifests: [child] }, 'application/json'],
    'an index called a manifest': [{ manifests: [child] }, ociManifest],
    'a manifest called an index': [{ config, layers: [layer] }, ociIndex],
    'an index without a list': [{ manifests: { 0: child } }, ociIndex],
    'a type outside, another inside': [{ mediaType: ociManifest, manifests: [child] }, ociIndex],
    'Docker outside, OCI inside': [{ mediaType: ociIndex, manifests: [child] }, dockerList],
    'unknown outside, known inside': [{ mediaType: ociIndex, manifests: [child] }, 'application/vnd.example+json'],
    'known outside, unknown inside': [{ mediaType: 'application/vnd.example+json', manifests: [child] }, ociIndex],
    'a list': [[child], ociIndex],
    null: ['null', ociIndex],
    nothing: ['', ociIndex],
    'a page to log in': ['<html><body>Log in</body></html>', 'text/html'],
    'a page called JSON': ['<html></html>', ociIndex],
    'children twice': ['{"manifests":[],"manifests":[{}]}', ociIndex],
    'a byte order mark': ['\u{FEFF}{"manifests":[]}', ociIndex],
  };
  for (const [what, [value, contentType]] of Object.entries(cases)) {
    t.throws(
      () => read(value, contentType),
      { kind: 'upstreamManifestInvalid', code: 'MANIFEST_INVALID', status: 502 },
      what,
    );
  }
  t.end();
});

void t.test('73. parseDocument: names that every JavaScript object has are texts like others', (t) => {
  for (const name of ['__proto__', 'constructor', 'toString']) {
    for (const platform of [
      { os: 'linux', architecture: name },
      { os: name, architecture: 'amd64' },
    ]) {
      const index = read({ manifests: [{ ...child, platform }] }, ociIndex) as Index;
      const lower = { os: platform.os.toLowerCase(), architecture: platform.architecture.toLowerCase() };
      t.same(index.manifests[0]?.platform, lower, JSON.stringify(platform));
    }
  }
  const index = read(
    `{"manifests":[{"digest":"${child.digest}","size":1,"annotations":{"__proto__":"x"}}]}`,
    ociIndex,
  ) as Index;
  t.same(Object.entries(index.manifests[0]!.annotations), [['__proto__', 'x']]);
  t.end();
});

void t.test('readPlatform: is undefined where os or architecture is not told', (t) => {
  const values = [
    undefined,
    null,
    'linux/amd64',
    [],
    {},
    { os: 'linux' },
    { architecture: 'amd64' },
    { os: '', architecture: 'amd64' },
    { os: 'linux', architecture: '' },
    { os: 1, architecture: 'amd64' },
  ];
  for (const value of values) t.equal(readPlatform(value), undefined, JSON.stringify(value));
  t.end();
});

void t.test('readPlatform: overlooks fields of the wrong type', (t) => {
  const platform = { os: 'linux', architecture: 'arm64', variant: 8, 'os.version': 10, 'os.features': 'x' };
  t.same(readPlatform(platform), { os: 'linux', architecture: 'arm64' });
  t.same(readPlatform({ os: 'linux', architecture: 'amd64', 'os.features': ['a', 1, null, 'b'] })?.osFeatures, [
    'a',
    'b',
  ]);
  t.end();
});
