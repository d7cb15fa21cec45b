import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import t from 'tap';
import { readCombined, traverse, writeCombined } from '../../src/oci/combined.ts';
import type { Combined } from '../../src/oci/combined.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { isPlatform } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { maxParts, platformImages, readIndexLabels } from '../../src/oci/part.ts';
import type { IndexToWrite, PlatformImage } from '../../src/oci/part.ts';
import { formatPlatform, parsePlatform } from '../../src/oci/platform.ts';
import { broken, indexes, indexIn, manifestIn, publishedImages } from '../fixtures/published.ts';
import type { IndexWithImages } from '../fixtures/published.ts';

const proposal = readFileSync(new URL('../fixtures/combined-2015.json', import.meta.url));

const digest = digestOf(Buffer.from('layer'));
const part = { mediaType: 'application/vnd.docker.container.image.rootfs.diff+x-tar', length: 16_724, digest };
const target = { mediaType: mediaTypes.dockerConfig, length: 7023, digest };
const dependencyType = 'application/vnd.docker.container.image.combined+json';

const linux = (architectures: object) => ({ mediaType: dependencyType, linux: architectures });
const valid = { schemaVersion: 2, target, dependencies: [linux({ amd64: [part] })] };

const read = (value: unknown) => readCombined(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
const platform = (text: string) => parsePlatform(text)!;

/** What a walk finds, in one line; layers by how long they are. */
function walk(document: Combined, wanted: string): string {
  const result = traverse(document, platform(wanted));
  if (result.found !== 'layers') return `${result.found}: ${result.known.join(', ')}`;
  return `${formatPlatform(result.platform)}: ${result.layers.map(({ bytes }) => bytes).join(', ')}`;
}

function imagesOf({ index, manifests }: IndexWithImages): PlatformImage[] {
  const images = new Set(index.manifests.filter((child) => isPlatform(child.platform)).map((child) => child.digest));
  return platformImages(index, (one) => (images.has(one) ? manifests.get(one) : undefined));
}

void t.test('readCombined: the document of the proposal, as it was written', (t) => {
  const document = readCombined(proposal);
  t.match(document.target, {
    mediaType: 'application/vnd.docker.container.image.v1+json',
    bytes: 7023,
    digest: 'sha256:b5b2b2c507a0944348e0303114d8d93aaaa081732b86451d9bce1f432a537bc7',
  });
  t.same(
    document.images.map((image) => formatPlatform(image.platform)),
    ['linux/amd64', 'linux/arm/v7', 'linux/ppc64le', 'windows/amd64', 'windows/arm/v7', 'windows/ppc64le'],
  );
  for (const { layers } of document.images) {
    t.match(layers, [
      { mediaType: part.mediaType, bytes: 16_724 },
      { mediaType: part.mediaType, bytes: 16_724 },
    ]);
  }
  t.same(document.labels, { createdAt: '2015-06-16T16:29:07.952493971-07:00', version: '3.1.4-a159+265' });
  t.same(document.source, JSON.parse(proposal.toString()));
  t.equal(readIndexLabels(document.labels), undefined);
  t.end();
});

void t.test('traverse: the three answers of the walk through the document of the proposal', (t) => {
  const document = readCombined(proposal);
  const cases: [wanted: string, expected: string][] = [
    ['linux/amd64', 'linux/amd64: 16724, 16724'],
    ['windows/ppc64le', 'windows/ppc64le: 16724, 16724'],
    ['windows(10.0.20348.1)/amd64', 'windows/amd64: 16724, 16724'],
    ['linux/arm', 'linux/arm/v7: 16724, 16724'],
    ['linux/arm/v8', 'linux/arm/v7: 16724, 16724'],
    ['linux/arm/v6', 'architecture unknown: amd64, arm/v7, ppc64le'],
    ['linux/s390x', 'architecture unknown: amd64, arm/v7, ppc64le'],
    ['windows/386', 'architecture unknown: amd64, arm/v7, ppc64le'],
    ['freebsd/amd64', 'os unknown: linux, windows'],
  ];
  for (const [wanted, expected] of cases) t.equal(walk(document, wanted), expected, wanted);
  t.same(traverse(document, platform('linux/amd64')), {
    found: 'layers',
    platform: platform('linux/amd64'),
    layers: document.images[0]!.layers,
  });
  t.end();
});

const layer = (length: number) => [{ ...part, length }];

void t.test('traverse: of the variants the best that runs, wherever it stands', (t) => {
  const document = read({
    ...valid,
    dependencies: [
      linux({
        'arm/v5': layer(5),
        'arm/v6': layer(6),
        arm64: layer(64),
        'amd64/v2': layer(2),
        amd64: layer(1),
        'amd64/v3': layer(3),
      }),
    ],
  });
  const cases: [wanted: string, expected: string][] = [
    ['linux/arm/v7', 'linux/arm/v6: 6'],
    ['linux/arm/v6', 'linux/arm/v6: 6'],
    ['linux/arm/v5', 'linux/arm/v5: 5'],
    ['linux/arm64/v8', 'linux/arm64: 64'],
    ['linux/arm64/v9.1', 'linux/arm64: 64'],
    ['linux/amd64', 'linux/amd64: 1'],
    ['linux/amd64/v2', 'linux/amd64/v2: 2'],
    ['linux/amd64/v4', 'linux/amd64/v3: 3'],
    ['linux/386', 'architecture unknown: arm/v5, arm/v6, arm64, amd64/v2, amd64, amd64/v3'],
  ];
  for (const [wanted, expected] of cases) t.equal(walk(document, wanted), expected, wanted);
  t.equal(walk(read({ ...valid, dependencies: [] }), 'linux/amd64'), 'os unknown: ', 'where there is nothing');
  t.end();
});

void t.test('readCombined: keeps what it does not know', (t) => {
  const source = {
    ...valid,
    mediaType: mediaTypes.combined,
    'x-top': { a: [1, 'ü'] },
    target: { ...target, 'x-target': true },
    dependencies: [
      { ...linux({ amd64: [{ ...part, 'x-layer': [] }] }), note: 'x', labels: { a: 'b' }, annotations: {} },
    ],
  };
  const document = read(source);
  t.same(document.source, source);
  t.same(document.target.source, source.target);
  t.same(document.images[0]!.layers[0]!.source, { ...part, 'x-layer': [] });
  t.same(document.labels, {});
  t.end();
});

void t.test(
  'readCombined: a field beside the operating system may be anything but a map, numbers of all spellings',
  (t) => {
    for (const beside of ['"x"', 'null', 'true', '1', '1.0', '1e3', '12345678901234567890', '[]', '[{}]']) {
      const text = JSON.stringify(valid).replace('"linux"', `"x-note":${beside},"linux"`);
      t.doesNotThrow(() => read(text), beside);
    }
    t.end();
  },
);

void t.test('readCombined: platforms in the spelling of today', (t) => {
  const document = read({
    ...valid,
    dependencies: [
      { mediaType: dependencyType, Linux: { x86_64: [part], aarch64: [], 'arm/6': [part] } },
      { mediaType: dependencyType, macOS: { 'arm64/v8': [part] } },
    ],
  });
  t.same(
    document.images.map((image) => formatPlatform(image.platform)),
    ['linux/amd64', 'linux/arm64', 'linux/arm/v6', 'darwin/arm64'],
  );
  t.end();
});

const nested = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;

void t.test('readCombined: refuses what could be read in two ways, or is none', (t) => {
  const dependencies = (...list: unknown[]) => ({ ...valid, dependencies: list });
  const text = JSON.stringify(valid);
  const cases: Record<string, unknown> = {
    nothing: '',
    'no JSON': '{',
    null: 'null',
    'a list': [valid],
    'a byte order mark': `\u{FEFF}${text}`,
    'another version': { ...valid, schemaVersion: 1 },
    'a version in a text': { ...valid, schemaVersion: '2' },
    'no version': { target, dependencies: valid.dependencies },
    'the type of another document': { ...valid, mediaType: mediaTypes.ociIndex },
    'no target': { schemaVersion: 2, dependencies: valid.dependencies },
    'a target whose length is called size': { ...valid, target: { ...target, length: undefined, size: 7023 } },
    'a target with a bad digest': { ...valid, target: { ...target, digest: 'sha256:x' } },
    'a layer whose length is called size': dependencies(linux({ amd64: [{ ...part, length: undefined, size: 1 }] })),
    'a layer whose length is a text': dependencies(linux({ amd64: [{ ...part, length: '1' }] })),
    'a layer of negative length': dependencies(linux({ amd64: [{ ...part, length: -1 }] })),
    'a layer with a bad digest': dependencies(linux({ amd64: [{ ...part, digest: digest.toUpperCase() }] })),
    'a layer that is none': dependencies(linux({ amd64: [null] })),
    'layers that are a map': dependencies(linux({ amd64: { 0: part } })),
    'layers that are a number': text.replace(/\[\{"mediaType":"[^"]*diff.*?\}\]/, '1.0'),
    'no dependencies': { schemaVersion: 2, target },
    'dependencies that are a map': { ...valid, dependencies: valid.dependencies[0] },
    'a dependency that is none': dependencies(null),
    'a dependency without type': dependencies({ linux: { amd64: [part] } }),
    'a dependency of no operating system': dependencies({ mediaType: dependencyType }),
    'labels for an operating system': dependencies({ mediaType: dependencyType, labels: { amd64: 'x' } }),
    'a dependency of two operating systems': dependencies({ ...linux({ amd64: [part] }), windows: { amd64: [part] } }),
    'an operating system without architectures': dependencies(linux({})),
    'an operating system with a slash': dependencies({ mediaType: dependencyType, 'linux/arm': { v7: [part] } }),
    'an operating system with a space before it': dependencies({
      mediaType: dependencyType,
      ' linux': { amd64: [part] },
    }),
    'an operating system without name': dependencies({ mediaType: dependencyType, '': { amd64: [part] } }),
    'an architecture without name': dependencies(linux({ '': [part] })),
    'an architecture of three': dependencies(linux({ 'arm/v7/x': [part] })),
    'an architecture with a space': dependencies(linux({ 'arm v7': [part] })),
    'one operating system in two dependencies': dependencies(linux({ amd64: [part] }), linux({ arm64: [part] })),
    'one operating system in two spellings': dependencies(linux({ amd64: [part] }), {
      mediaType: dependencyType,
      Linux: { arm64: [part] },
    }),
    'arm beside arm/v7': dependencies(linux({ arm: [part], 'arm/v7': [part] })),
    'arm64 beside arm64/v8': dependencies(linux({ arm64: [part], 'arm64/v8': [part] })),
    'amd64 beside x86_64': dependencies(linux({ amd64: [part], x86_64: [part] })),
    'a key twice': text.replace('"target"', '"schemaVersion":2,"target"'),
    'an architecture twice': text.replace('"amd64"', '"amd64":[],"amd64"'),
    'an architecture twice, once in escapes': text.replace('"amd64"', '"\\u0061md64":[],"amd64"'),
    'a key in another case': text.replace('"schemaVersion"', '"SchemaVersion":1,"schemaVersion"'),
    'labels that are a list': { ...valid, labels: [] },
    'labels that are no text': { ...valid, labels: { version: 3 } },
    'labels that are a number': text.replace('{', '{"labels":1.0,'),
    'deep nesting': text.replace('{', `{"x":${nested(64)},`),
    'too many dependencies': dependencies(
      ...Array.from({ length: 257 }, (_, at) => ({ mediaType: dependencyType, [`os${at}`]: { amd64: [part] } })),
    ),
    'too many platforms': dependencies(
      linux(Object.fromEntries(Array.from({ length: 257 }, (_, at) => [`arch${at}`, [part]]))),
    ),
    'too many layers': dependencies(linux({ amd64: Array.from({ length: maxParts + 1 }, () => part) })),
  };
  for (const [what, value] of Object.entries(cases)) {
    t.throws(() => read(value), { name: 'SyntaxError', message: /./ }, what);
  }
  t.doesNotThrow(() => read(valid), 'and takes the one that they are made of');
  t.doesNotThrow(() => read(text.replace('{', `{"x":${nested(63)},`)), 'with what is not quite as deep');
  t.throws(() => read(Buffer.from([0x7b, 0xff, 0x7d]).toString('latin1')), SyntaxError, 'bytes of another encoding');
  t.end();
});

void t.test('readCombined: a huge name is not repeated whole in the reason', (t) => {
  const value = { ...valid, dependencies: [linux({ [`${'x'.repeat(100_000)} x`]: [part] })] };
  t.throws(() => read(value), { message: /^.{1,200}$/ });
  t.end();
});

void t.test('readCombined: names that every JavaScript object has are names like others', (t) => {
  for (const name of ['__proto__', 'constructor', 'toString']) {
    const layers = JSON.stringify([part]);
    const text = (os: string, architecture: string) =>
      JSON.stringify(valid).replace(/"linux":.*?\]\}/, `"${os}":{"${architecture}":${layers}}`);
    t.equal(read(text(name, 'amd64')).images[0]!.platform.os, name.toLowerCase());
    t.equal(read(text('linux', name)).images[0]!.platform.architecture, name.toLowerCase());
  }
  t.end();
});

/** Everything that holds for an index and the document made of it. */
function faultOf(published: IndexWithImages): string | undefined {
  const { bytes, mediaType } = published;
  const images = imagesOf(published);
  for (const primary of images.slice(0, 3)) {
    const written = writeCombined({ bytes, mediaType, images, primary });
    if (!writeCombined(structuredCloneOf({ bytes, mediaType, images, primary })).equals(written)) return 'twice two';
    const document = readCombined(written);
    if (document.source['mediaType'] !== mediaTypes.combined) return 'it does not say what it is';
    if (!readIndexLabels(document.labels)?.bytes.equals(bytes)) return 'the index is another';
    if (document.target.digest !== primary.manifest.config.digest) return 'the target is another';
    if (document.target.bytes !== primary.manifest.config.size) return 'the target has another length';
    for (const { platform: wanted } of images) {
      const { osVersion: _version, osFeatures: _features, ...key } = wanted;
      const first = images.find((image) => {
        const { osVersion: _, osFeatures: __, ...other } = image.platform;
        return formatPlatform(other) === formatPlatform(key);
      });
      const found = traverse(document, wanted);
      const layers = found.found === 'layers' ? found.layers.map((layer) => [layer.digest, layer.bytes]) : found;
      const expected = first!.manifest.layers.map((layer) => [layer.digest, layer.size]);
      if (JSON.stringify(layers) !== JSON.stringify(expected)) return `other layers for ${formatPlatform(wanted)}`;
    }
  }
  return undefined;
}

/** The same, read again from the same bytes. */
function structuredCloneOf({ bytes, mediaType, images, primary }: IndexToWrite): IndexToWrite {
  const again = images.map((image) => ({ ...image, platform: { ...image.platform } }));
  return { bytes: Buffer.from(bytes), mediaType, images: again, primary: again[images.indexOf(primary)]! };
}

void t.test('writeCombined: every published image is found again, and its index byte for byte', (t) => {
  t.equal(publishedImages.length, 16, 'eight images in two families of types');
  for (const published of publishedImages) t.equal(faultOf(published), undefined, published.name);
  t.end();
});

void t.test('writeCombined: so is whatever an index can be', (t) => {
  fc.assert(fc.property(indexes, (index) => faultOf(index) === undefined));
  t.end();
});

void t.test('writeCombined: one dependency for each operating system, in the types of the image', (t) => {
  for (const published of publishedImages.filter(({ name }) => name.includes('hello-world'))) {
    const { bytes, mediaType } = published;
    const images = imagesOf(published);
    const written = writeCombined({ bytes, mediaType, images, primary: images[0]! });
    const { dependencies } = JSON.parse(written.toString()) as { dependencies: Record<string, object>[] };
    const type =
      mediaType === mediaTypes.dockerList ? dependencyType : 'application/vnd.narrows.image.combined.v1+json';
    t.same(
      dependencies.map((dependency) => Object.keys(dependency)),
      [
        ['mediaType', 'linux'],
        ['mediaType', 'windows'],
      ],
    );
    t.same(
      dependencies.map((dependency) => dependency['mediaType']),
      [type, type],
    );
    t.same(Object.keys(dependencies[0]!['linux']!).toSorted(), [
      '386',
      'amd64',
      'arm/v5',
      'arm/v6',
      'arm/v7',
      'arm64',
      'ppc64le',
      'riscv64',
      's390x',
    ]);
    t.same(Object.keys(dependencies[1]!['windows']!), ['amd64'], 'two versions of Windows are one');
    t.match(readIndexLabels(readCombined(written).labels)?.index.manifests, { length: 20 }, 'but in the index');
  }
  t.end();
});

void t.test('writeCombined: what it writes can be read, however odd the index is', (t) => {
  const cases: Record<string, { platform?: object; layer?: object; config?: object }> = {
    'a layer without type': { layer: { mediaType: undefined } },
    'a layer with a type of more signs': { layer: { mediaType: 'application/vnd.a!b#c' } },
    'a layer with another length': { layer: { length: 'long' } },
    'a layer with labels that are none': { layer: { labels: [1] } },
    'a config with labels that are none': { config: { labels: 1 } },
    'an operating system called labels': { platform: { os: 'labels' } },
    'an operating system of two words': { platform: { os: 'my os' } },
    'a variant with a slash': { platform: { variant: 'v7/x' } },
    'an operating system that stands in the document': { platform: { os: 'mediaType' } },
    'a name that every object has': { platform: { os: '__proto__', architecture: 'constructor' } },
  };
  for (const [what, { platform, layer, config }] of Object.entries(cases)) {
    const { length: size, ...rest } = part;
    const manifestJson = { config: { ...rest, size, ...config }, layers: [{ ...rest, size, ...layer }] };
    const manifest = manifestIn(Buffer.from(JSON.stringify(manifestJson)), mediaTypes.ociManifest);
    const child = { mediaType: mediaTypes.ociManifest, digest, size: 1 };
    const manifests = [
      { ...child, platform: { os: 'linux', architecture: 'amd64' } },
      { ...child, platform: { os: 'linux', architecture: 'arm64', ...platform } },
    ];
    const bytes = Buffer.from(JSON.stringify({ manifests }));
    const images = platformImages(indexIn(bytes, mediaTypes.ociIndex), () => manifest);
    const write = () => writeCombined({ bytes, mediaType: mediaTypes.ociIndex, images, primary: images[0]! });
    t.doesNotThrow(() => readCombined(write()), what);
  }
  t.end();
});

void t.test('readCombined: any bytes are a document or a SyntaxError', (t) => {
  const [published] = publishedImages;
  const images = imagesOf(published!);
  const written = writeCombined({ ...published!, images, primary: images[0]! });
  const anything = fc.oneof(
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    fc.json().map((text) => Buffer.from(text)),
    broken(proposal),
    broken(written),
    broken(Buffer.from(JSON.stringify(valid))),
  );
  let right = 0;
  fc.assert(
    fc.property(anything, (bytes) => {
      try {
        const document = readCombined(bytes);
        right++;
        readIndexLabels(document.labels);
        for (const { platform: wanted } of document.images) traverse(document, wanted);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }),
    { numRuns: 3000 },
  );
  t.ok(right > 0, `${right} of them documents`);
  t.end();
});
