import * as fc from 'fast-check';
import t from 'tap';
import { readAlternates, writeAlternates } from '../../src/oci/alternates.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { isPlatform } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { maxParts, platformImages, readIndexLabels } from '../../src/oci/part.ts';
import type { PlatformImage } from '../../src/oci/part.ts';
import { formatPlatform } from '../../src/oci/platform.ts';
import { broken, indexes, indexIn, manifestIn, publishedImages } from '../fixtures/published.ts';
import type { IndexWithImages } from '../fixtures/published.ts';

const digest = digestOf(Buffer.from('one'));
const layer = { mediaType: 'application/vnd.docker.container.image.rootfs.diff+x-gtar', size: 32_654, digest };
const alternate = {
  mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
  size: 7682,
  digest: digestOf(Buffer.from('two')),
  labels: { architecture: 'arm64', os: 'linux' },
};

/** The document of the proposal. */
const valid = {
  schemaVersion: 2,
  target: {
    mediaType: 'application/vnd.docker.container.image.v1+json',
    size: 7023,
    digest,
    labels: { architecture: 'amd64', os: 'linux' },
  },
  dependencies: [layer, layer],
  alternates: [alternate],
};

const read = (value: unknown) => readAlternates(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));

const placed = (labels: object) => ({ ...alternate, labels });

function imagesOf({ index, manifests }: IndexWithImages): PlatformImage[] {
  const images = new Set(index.manifests.filter((child) => isPlatform(child.platform)).map((child) => child.digest));
  return platformImages(index, (one) => (images.has(one) ? manifests.get(one) : undefined));
}

void t.test('readAlternates: the document of the proposal', (t) => {
  const document = read(valid);
  t.match(document.target, { digest, bytes: 7023, platform: { os: 'linux', architecture: 'amd64' } });
  t.match(document.dependencies, [
    { digest, bytes: 32_654, mediaType: layer.mediaType },
    { digest, bytes: 32_654 },
  ]);
  t.match(document.alternates, [
    {
      digest: alternate.digest,
      bytes: 7682,
      mediaType: mediaTypes.dockerManifest,
      platform: { os: 'linux', architecture: 'arm64' },
      labels: alternate.labels,
    },
  ]);
  t.same(document.labels, {});
  t.same(document.source, valid);
  t.end();
});

void t.test('readAlternates: relabelling makes another the primary', (t) => {
  const relabelled = read({
    ...valid,
    target: { ...valid.target, labels: alternate.labels },
    alternates: [placed(valid.target.labels)],
  });
  t.equal(formatPlatform(relabelled.target.platform), 'linux/arm64');
  t.same(
    relabelled.alternates.map(({ platform }) => formatPlatform(platform)),
    ['linux/amd64'],
  );
  t.end();
});

void t.test('readAlternates: the labels say the platform, in the spelling of today', (t) => {
  const cases: [labels: Record<string, string>, expected: string][] = [
    [{ os: 'linux', architecture: 'arm' }, 'linux/arm/v7'],
    [{ os: 'linux', architecture: 'arm', variant: 'v6' }, 'linux/arm/v6'],
    [{ os: 'Linux', architecture: 'aarch64', variant: 'v8' }, 'linux/arm64'],
    [{ os: 'windows', architecture: 'x86_64', 'os.version': '10.0.20348.1' }, 'windows(10.0.20348.1)/amd64'],
    [{ os: 'linux', architecture: 's390x', variant: '', 'os.version': '' }, 'linux/s390x'],
    [{ os: 'linux', architecture: '386', libc: 'musl ☃' }, 'linux/386'],
  ];
  for (const [labels, expected] of cases) {
    const [only] = read({ ...valid, alternates: [placed(labels)] }).alternates;
    t.equal(formatPlatform(only!.platform), expected);
    t.same(only!.labels, labels, 'and stay as they are');
  }
  t.end();
});

void t.test('readAlternates: keeps what it does not know, and needs no alternates', (t) => {
  const source = {
    ...valid,
    mediaType: mediaTypes.alternates,
    'x-top': [{ ü: null }],
    alternates: [{ ...alternate, 'x-alternate': 1 }],
    labels: { version: '1' },
  };
  const document = read(source);
  t.same(document.source, source);
  t.same(document.alternates[0]!.source, source.alternates[0]);
  t.same(document.labels, { version: '1' });
  t.same(read({ ...valid, alternates: undefined }).alternates, []);
  t.end();
});

void t.test('readAlternates: refuses what could be read in two ways, or is none', (t) => {
  const text = JSON.stringify(valid);
  const alternates = (...list: unknown[]) => ({ ...valid, alternates: list });
  const cases: Record<string, unknown> = {
    nothing: '',
    'a list': [valid],
    'another version': { ...valid, schemaVersion: 1 },
    'the type of the other document': { ...valid, mediaType: mediaTypes.combined },
    'no target': { ...valid, target: undefined },
    'a target whose size is called length': { ...valid, target: { ...valid.target, size: undefined, length: 1 } },
    'a target without labels': { ...valid, target: { ...valid.target, labels: undefined } },
    'a target without os': { ...valid, target: { ...valid.target, labels: { architecture: 'amd64' } } },
    'no dependencies': { ...valid, dependencies: undefined },
    'dependencies that are a map': { ...valid, dependencies: { 0: layer } },
    'a layer without size': { ...valid, dependencies: [{ ...layer, size: undefined }] },
    'a layer with a bad digest': { ...valid, dependencies: [{ ...layer, digest: 'sha256:0' }] },
    'too many layers': { ...valid, dependencies: Array.from({ length: maxParts + 1 }, () => layer) },
    'alternates that are a map': { ...valid, alternates: { 0: alternate } },
    'an alternate whose size is called length': alternates({ ...alternate, size: undefined, length: 1 }),
    'an alternate with a bad digest': alternates({ ...alternate, digest: digest.toUpperCase() }),
    'an alternate without architecture': alternates(placed({ os: 'linux' })),
    'an alternate of an empty os': alternates(placed({ os: '', architecture: 'amd64' })),
    'an os with a slash': alternates(placed({ os: 'linux/arm', architecture: 'v7' })),
    'an architecture with its variant': alternates(placed({ os: 'linux', architecture: 'arm/v7' })),
    'a variant of two words': alternates(placed({ os: 'linux', architecture: 'arm', variant: 'v7 v6' })),
    'a version with brackets': alternates(placed({ os: 'windows', architecture: 'amd64', 'os.version': '(10)' })),
    'a very long os': alternates(placed({ os: 'x'.repeat(65), architecture: 'amd64' })),
    'labels that are no text': alternates(placed({ os: 'linux', architecture: 64 })),
    'labels that are a list': alternates(placed(['linux', 'amd64'])),
    'labels of the document that are no text': { ...valid, labels: { version: 1 } },
    'the platform of the target again': alternates(placed({ os: 'linux', architecture: 'amd64' })),
    'the platform of the target, spelled otherwise': alternates(placed({ os: 'LINUX', architecture: 'x86_64' })),
    'a platform twice': alternates(alternate, { ...alternate, digest }),
    'arm beside arm/v7': alternates(
      placed({ os: 'linux', architecture: 'arm' }),
      placed({ os: 'linux', architecture: 'arm', variant: 'v7' }),
    ),
    'a key twice': text.replace('"target"', '"target":{},"target"'),
    'a label twice': text.replace('"os"', '"os":"windows","os"'),
    'a key in another case': text.replace('"schemaVersion"', '"MediaType":"x","schemaVersion"'),
    'deep nesting': text.replace('{', `{"x":${'['.repeat(64)}${']'.repeat(64)},`),
    'too many alternates': alternates(
      ...Array.from({ length: maxParts + 1 }, (_, at) => placed({ os: 'linux', architecture: `a${at}` })),
    ),
  };
  for (const [what, value] of Object.entries(cases)) {
    t.throws(() => read(value), { name: 'SyntaxError', message: /./ }, what);
  }
  t.end();
});

/** Everything that holds for an index and the document made of it. */
function faultOf(published: IndexWithImages): string | undefined {
  const { bytes, mediaType } = published;
  const images = imagesOf(published);
  for (const primary of images.slice(0, 3)) {
    const written = writeAlternates({ bytes, mediaType, images, primary });
    if (!writeAlternates({ bytes: Buffer.from(bytes), mediaType, images: [...images], primary }).equals(written)) {
      return 'two documents of one index';
    }
    const { target, dependencies, alternates, labels, source } = readAlternates(written);
    if (source['mediaType'] !== mediaTypes.alternates) return 'it does not say what it is';
    if (!readIndexLabels(labels)?.bytes.equals(bytes)) return 'the index is another';
    if (target.digest !== primary.manifest.config.digest) return 'the target is another';
    if (target.labels['narrows.manifest'] !== primary.child.digest) return 'the manifest is another';
    if (formatPlatform(target.platform) !== formatPlatform(primary.platform)) return 'the primary is another';
    const layers = dependencies.map((part) => [part.digest, part.bytes, part.mediaType]);
    const expected = primary.manifest.layers.map((part) => [part.digest, part.size, part.mediaType]);
    if (JSON.stringify(layers) !== JSON.stringify(expected)) return 'the layers are others';
    const others = images.filter((image) => image !== primary);
    const wanted = others.map(({ platform, child }) => [formatPlatform(platform), child.digest, child.size]);
    const found = alternates.map((part) => [formatPlatform(part.platform), part.digest, part.bytes]);
    if (JSON.stringify(found) !== JSON.stringify(wanted)) return 'the alternates are others';
  }
  return undefined;
}

void t.test('writeAlternates: every published image is found again, and its index byte for byte', (t) => {
  for (const published of publishedImages) t.equal(faultOf(published), undefined, published.name);
  t.end();
});

void t.test('writeAlternates: so is whatever an index can be', (t) => {
  fc.assert(fc.property(indexes, (index) => faultOf(index) === undefined));
  t.end();
});

void t.test('writeAlternates: a single image has no alternates', (t) => {
  const manifest = manifestIn(Buffer.from(JSON.stringify({ config: layer, layers: [layer] })), mediaTypes.ociManifest);
  const manifests = [
    {
      mediaType: mediaTypes.ociManifest,
      digest,
      size: 1,
      platform: { os: 'linux', architecture: 'arm', variant: 'v6' },
    },
  ];
  const bytes = Buffer.from(JSON.stringify({ manifests }));
  const images = platformImages(indexIn(bytes, mediaTypes.ociIndex), () => manifest);
  const written = writeAlternates({ bytes, mediaType: mediaTypes.ociIndex, images, primary: images[0]! });
  const part = { mediaType: layer.mediaType, size: layer.size, digest };
  t.equal(
    written.toString(),
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.alternates,
      target: {
        ...part,
        labels: { architecture: 'arm', os: 'linux', variant: 'v6', 'narrows.manifest': digest },
      },
      dependencies: [part],
      alternates: [],
      labels: { 'narrows.index': bytes.toString(), 'narrows.index.type': mediaTypes.ociIndex },
    }),
  );
  t.end();
});

void t.test('writeAlternates: what it writes can be read, however odd the index is', (t) => {
  const cases: Record<string, { platform?: object; layer?: object; child?: object }> = {
    'a layer without type': { layer: { mediaType: undefined } },
    'a layer with labels that are none': { layer: { labels: [1] } },
    'a layer with a length': { layer: { length: 1 } },
    'a child with labels that are none': { child: { labels: [1] } },
    'a child without type': { child: { mediaType: undefined } },
    'an operating system of two words': { platform: { os: 'my os' } },
    'a variant with a slash': { platform: { variant: 'v7/x' } },
    'a version of two words': { platform: { 'os.version': '11 23H2' } },
    'a very long architecture': { platform: { architecture: 'x'.repeat(65) } },
    'a name that every object has': { platform: { os: '__proto__', architecture: 'constructor' } },
  };
  for (const [what, { platform, layer: more, child }] of Object.entries(cases)) {
    const document = Buffer.from(JSON.stringify({ config: layer, layers: [{ ...layer, ...more }] }));
    const manifest = manifestIn(document, mediaTypes.ociManifest);
    const common = { mediaType: mediaTypes.ociManifest, digest, size: 1 };
    const manifests = [
      { ...common, platform: { os: 'linux', architecture: 'amd64' } },
      { ...common, ...child, platform: { os: 'linux', architecture: 'arm64', ...platform } },
    ];
    const bytes = Buffer.from(JSON.stringify({ manifests }));
    const images = platformImages(indexIn(bytes, mediaTypes.ociIndex), () => manifest);
    const write = () => writeAlternates({ bytes, mediaType: mediaTypes.ociIndex, images, primary: images[0]! });
    t.doesNotThrow(() => readAlternates(write()), what);
  }
  t.end();
});

void t.test('readAlternates: any bytes are a document or a SyntaxError', (t) => {
  const [published] = publishedImages;
  const images = imagesOf(published!);
  const anything = fc.oneof(
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    fc.json().map((text) => Buffer.from(text)),
    broken(Buffer.from(JSON.stringify(valid))),
    broken(writeAlternates({ ...published!, images, primary: images[0]! })),
  );
  let right = 0;
  fc.assert(
    fc.property(anything, (bytes) => {
      try {
        const { labels } = readAlternates(bytes);
        right++;
        readIndexLabels(labels);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }),
    { numRuns: 3000 },
  );
  t.ok(right > 0, `${right} of them documents`);
  t.end();
});
