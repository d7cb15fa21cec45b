import * as fc from 'fast-check';
import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseJson } from '../../src/oci/json.ts';
import type { Json } from '../../src/oci/json.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import {
  indexLabels,
  maxParts,
  partJson,
  platformImages,
  readIndexLabels,
  readLabels,
  readPart,
  readParts,
} from '../../src/oci/part.ts';
import type { SizeKey } from '../../src/oci/part.ts';
import { formatPlatform } from '../../src/oci/platform.ts';
import { indexes, indexIn, manifestIn, publishedImages } from '../fixtures/published.ts';

const digest = digestOf(Buffer.from('layer'));
const layer = { mediaType: 'application/vnd.docker.image.rootfs.diff.tar', digest };
const sizeKeys: readonly SizeKey[] = ['size', 'length'];

const json = (value: unknown) => parseJson(Buffer.from(JSON.stringify(value)));
const read = (value: Json | undefined, key: SizeKey = 'size') => readPart(value, key, 'target');

void t.test('readPart: a descriptor under either spelling of its size', (t) => {
  for (const key of sizeKeys) {
    const source = { ...layer, [key]: 7023, labels: { os: 'linux', '': '' }, 'x-unknown': [{ b: 1 }] };
    t.same(read(source, key), {
      mediaType: layer.mediaType,
      digest,
      bytes: 7023,
      labels: { os: 'linux', '': '' },
      source,
    });
    t.same(read({ ...layer, [key]: 0 }, key).labels, {}, 'labels may be left out');
  }
  t.end();
});

void t.test('readPart: the other spelling of the size is no size', (t) => {
  t.throws(() => read({ ...layer, length: 1 }, 'size'), new SyntaxError('target has no size'));
  t.throws(() => read({ ...layer, size: 1 }, 'length'), new SyntaxError('target has no length'));
  t.equal(read({ ...layer, size: 1, length: 2 }, 'length').bytes, 2, 'and beside the right one an unknown field');
  t.end();
});

void t.test('readPart: refuses what is no descriptor, and says where', (t) => {
  const cases: Record<string, [value: unknown, reason: RegExp]> = {
    nothing: [null, /^target is no descriptor$/],
    text: ['x', /no descriptor/],
    'a list': [[layer], /no descriptor/],
    'no mediaType': [{ digest, size: 1 }, /no mediaType/],
    'an empty mediaType': [{ ...layer, mediaType: '', size: 1 }, /no mediaType/],
    'a mediaType without slash': [{ ...layer, mediaType: 'tar', size: 1 }, /no mediaType/],
    'a mediaType with parameters': [{ ...layer, mediaType: 'a/b; c=d', size: 1 }, /no mediaType/],
    'a mediaType of two lines': [{ ...layer, mediaType: 'a/b\nc/d', size: 1 }, /no mediaType/],
    'a mediaType that is a list': [{ ...layer, mediaType: ['a/b'], size: 1 }, /no mediaType/],
    'no digest': [{ mediaType: layer.mediaType, size: 1 }, /no digest/],
    'a digest in upper case': [{ ...layer, digest: digest.toUpperCase(), size: 1 }, /no digest/],
    'a digest that is short': [{ ...layer, digest: digest.slice(0, -1), size: 1 }, /no digest/],
    'a digest of another algorithm': [{ ...layer, digest: `tarsum:${'0'.repeat(64)}`, size: 1 }, /no digest/],
    'a digest that is a path': [{ ...layer, digest: 'sha256:../../x', size: 1 }, /no digest/],
    'no size': [layer, /no size/],
    'a negative size': [{ ...layer, size: -1 }, /no size/],
    'a broken size': [{ ...layer, size: 1.5 }, /no size/],
    'a size in a text': [{ ...layer, size: '1' }, /no size/],
    'a size beyond what is exact': [{ ...layer, size: 2 ** 53 }, /no size/],
    'labels that are a list': [{ ...layer, size: 1, labels: ['os'] }, /labels of target are no map of text/],
    'labels that are nothing': [{ ...layer, size: 1, labels: null }, /no map of text/],
    'a label that is a number': [{ ...layer, size: 1, labels: { os: 1 } }, /no map of text/],
    'a label that is a map': [{ ...layer, size: 1, labels: { os: {} } }, /no map of text/],
  };
  for (const [what, [value, reason]] of Object.entries(cases)) {
    t.throws(() => read(json(value)), { name: 'SyntaxError', message: reason }, what);
  }
  t.throws(() => read(undefined), { name: 'SyntaxError' }, 'left out');
  t.throws(
    () => read(parseJson(Buffer.from(JSON.stringify({ ...layer, size: 0 }).replace(':0', ':1e0')))),
    { name: 'SyntaxError' },
    'a number that is not written as one writes a size',
  );
  t.end();
});

void t.test('readParts: a list of them, each named by its place, and not without end', (t) => {
  const part = { ...layer, size: 1 };
  t.equal(readParts([part, part], 'size', 'alternates').length, 2);
  t.same(readParts([], 'size', 'alternates'), []);
  t.equal(
    readParts(
      Array.from({ length: maxParts }, () => part),
      'size',
      'x',
    ).length,
    maxParts,
  );
  const cases: [value: Json | undefined, reason: string][] = [
    [[part, { ...part, size: -1 }], 'x[1] has no size'],
    [undefined, 'x is no list'],
    [{ 0: part }, 'x is no list'],
    [null, 'x is no list'],
    [Array.from({ length: maxParts + 1 }, () => part), `x has more than ${maxParts} entries`],
  ];
  for (const [value, reason] of cases) t.throws(() => readParts(value, 'size', 'x'), new SyntaxError(reason));
  t.end();
});

void t.test('readLabels: a number is no map of text, however it is spelled', (t) => {
  for (const text of ['1', '1.0', '1e2', '12345678901234567890', '-0']) {
    t.throws(() => readLabels(parseJson(Buffer.from(text)), 'x'), { name: 'SyntaxError' }, text);
  }
  t.end();
});

void t.test('partJson: a descriptor of today in the spelling of then', (t) => {
  const source = {
    mediaType: mediaTypes.ociManifest,
    size: 5,
    'x-first': { a: [1] },
    digest,
    platform: { os: 'linux', architecture: 'amd64' },
    annotations: { a: 'b' },
  };
  const [child] = indexIn(Buffer.from(JSON.stringify({ manifests: [source] })), mediaTypes.ociIndex).manifests;
  for (const key of sizeKeys) {
    const expected = {
      mediaType: mediaTypes.ociManifest,
      [key]: 5,
      digest,
      'x-first': { a: [1] },
      annotations: { a: 'b' },
    };
    t.equal(JSON.stringify(partJson(child!, key)), JSON.stringify(expected));
    t.equal(read(json(expected), key).bytes, 5, 'and is read again');
  }
  t.end();
});

void t.test('partJson: the size is that of the descriptor, whatever stands in fields that nobody knows', (t) => {
  const manifest = manifestIn(
    Buffer.from(JSON.stringify({ config: { ...layer, size: 5, length: 6 }, layers: [] })),
    mediaTypes.ociManifest,
  );
  for (const key of sizeKeys) t.equal(partJson(manifest.config, key)[key], 5, key);
  t.end();
});

void t.test('readIndexLabels: gives back the index that indexLabels took, byte for byte', (t) => {
  for (const { name, bytes, mediaType, index } of publishedImages) {
    t.same(readIndexLabels(indexLabels(bytes, mediaType)), { bytes, index }, name);
  }
  fc.assert(
    fc.property(indexes, ({ bytes, mediaType }) => {
      const again = JSON.parse(JSON.stringify(indexLabels(bytes, mediaType))) as Record<string, string>;
      return readIndexLabels(again)!.bytes.equals(bytes);
    }),
  );
  t.end();
});

void t.test('readIndexLabels: labels of others carry no index, and broken ones are refused', (t) => {
  t.equal(readIndexLabels({}), undefined);
  t.equal(readIndexLabels({ version: '1', 'narrows.index.type': mediaTypes.ociIndex }), undefined);
  const index = JSON.stringify({ mediaType: mediaTypes.dockerList, manifests: [] });
  t.match(
    readIndexLabels({ 'narrows.index': index }),
    { index: { mediaType: mediaTypes.dockerList } },
    'the type may be told by the index alone',
  );
  const cases: Record<string, string>[] = [
    { 'narrows.index': '' },
    { 'narrows.index': '{}' },
    { 'narrows.index': '[]', 'narrows.index.type': mediaTypes.ociIndex },
    { 'narrows.index': index, 'narrows.index.type': mediaTypes.ociIndex },
    { 'narrows.index': index, 'narrows.index.type': 'no type' },
    { 'narrows.index': '{"manifests":[],"manifests":[]}', 'narrows.index.type': mediaTypes.ociIndex },
    {
      'narrows.index': JSON.stringify({ config: { ...layer, size: 1 } }),
      'narrows.index.type': mediaTypes.ociManifest,
    },
    { 'narrows.index': JSON.stringify({ manifests: [{ digest: 'x' }] }), 'narrows.index.type': mediaTypes.ociIndex },
  ];
  for (const labels of cases) t.throws(() => readIndexLabels(labels), { name: 'SyntaxError' }, JSON.stringify(labels));
  t.end();
});

void t.test('readIndexLabels: any text is an index or a SyntaxError', (t) => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.json()),
      fc.constantFrom(...Object.values(mediaTypes), '', 'x'),
      (text, type) => {
        try {
          readIndexLabels({ 'narrows.index': text, 'narrows.index.type': type });
        } catch (error) {
          if (!(error instanceof SyntaxError)) throw error;
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.end();
});

void t.test('platformImages: each platform of a published image once, in the order of its index', (t) => {
  for (const { name, index, manifests } of publishedImages) {
    const isImage = (digest: string) =>
      index.manifests.some((child) => child.digest === digest && child.platform?.os !== 'unknown');
    const images = platformImages(index, (digest) => (isImage(digest) ? manifests.get(digest) : undefined));
    const listed = index.manifests.filter(({ platform }) => platform?.os !== 'unknown');
    t.same(
      images.map(({ child }) => child.digest),
      listed.map(({ digest }) => digest),
      name,
    );
    for (const { child, manifest, platform } of images) {
      if (manifest !== manifests.get(child.digest) || platform !== child.platform) t.fail(`${name}: ${child.digest}`);
    }
  }
  t.end();
});

const child = (name: string, more: object = {}) => ({
  mediaType: mediaTypes.ociManifest,
  digest: digestOf(Buffer.from(name)),
  size: 1,
  ...more,
});

void t.test('platformImages: of twins the first, and nothing that is no image or for no platform', (t) => {
  const platform = { os: 'linux', architecture: 'arm64' };
  const manifests = [
    child('nested', { platform: { os: 'linux', architecture: 'amd64' } }),
    child('no platform'),
    child('first', { platform }),
    child('twin', { platform: { ...platform, variant: 'v8' } }),
    child('first', { platform: { os: 'linux', architecture: 'arm' } }),
    child('old', { platform: { os: 'windows', architecture: 'amd64', 'os.version': '10.0.17763.1' } }),
    child('new', { platform: { os: 'windows', architecture: 'amd64', 'os.version': '10.0.20348.1' } }),
  ];
  const index = indexIn(Buffer.from(JSON.stringify({ manifests })), mediaTypes.ociIndex);
  const config = Buffer.from(JSON.stringify({ config: { ...layer, size: 1 }, layers: [] }));
  const manifest = manifestIn(config, mediaTypes.ociManifest);
  const nested = digestOf(Buffer.from('nested'));
  const images = platformImages(index, (digest) => (digest === nested ? undefined : manifest));
  t.same(
    images.map(({ platform, child }) => [formatPlatform(platform), manifests[index.manifests.indexOf(child)]?.digest]),
    [
      ['linux/arm64', digestOf(Buffer.from('first'))],
      ['linux/arm/v7', digestOf(Buffer.from('first'))],
      ['windows(10.0.17763.1)/amd64', digestOf(Buffer.from('old'))],
      ['windows(10.0.20348.1)/amd64', digestOf(Buffer.from('new'))],
    ],
  );
  t.end();
});
