import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { readAlternates, writeAlternates } from '../../src/oci/alternates.ts';
import { readCombined, writeCombined } from '../../src/oci/combined.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { readConfigPlatform } from '../../src/oci/manifest.ts';
import type { Manifest } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { indexLabels, platformImages } from '../../src/oci/part.ts';
import { formatPlatform } from '../../src/oci/platform.ts';
import { composition } from '../../src/push/compose.ts';
import { imagesOfAlternates, imagesOfCombined } from '../../src/push/described.ts';
import type { DescribedImages, Made } from '../../src/push/described.ts';
import { readPushed } from '../../src/push/pushed.ts';
import { createShelf } from '../../src/push/shelf.ts';
import type { Shelf } from '../../src/push/shelf.ts';
import { buildImage, content, tarOf } from '../fixtures/images.ts';
import type { BuiltImage, Content } from '../fixtures/images.ts';
import { indexIn, manifestIn } from '../fixtures/published.ts';

const dockerTar = 'application/vnd.docker.image.rootfs.diff.tar';
const ociTar = 'application/vnd.oci.image.layer.v1.tar';
const oldTar = 'application/vnd.docker.container.image.rootfs.diff+x-tar';
const oldGzip = 'application/vnd.docker.container.image.rootfs.diff+x-gtar';

/** What is here, in memory. */
function shelfOf(...here: Content[]): Shelf {
  const held = new Map<Digest, Buffer>(here.map(({ digest, bytes }) => [digest, bytes]));
  return createShelf({ read: (digest) => Promise.resolve(held.get(digest)) }, 2 ** 20);
}

const tar = (name: string, mediaType: string = oldTar) => content(tarOf({ [name]: Buffer.from(name) }), mediaType);
const part = ({ mediaType, digest, bytes }: Content, sizeKey: 'size' | 'length' = 'length') => ({
  mediaType,
  [sizeKey]: bytes.length,
  digest,
});

const configOf = (platform: object, mediaType: string = mediaTypes.dockerConfig) =>
  content(
    {
      created: '2015-06-16T16:29:07Z',
      ...platform,
      config: { Entrypoint: ['/hello'] },
      rootfs: { type: 'layers', diff_ids: [digestOf(Buffer.from('another'))] },
      history: [{ created_by: 'hello' }],
      'x-unknown': 1,
    },
    mediaType,
  );

interface Described {
  readonly target: Content;
  /** By operating system and architecture. */
  readonly systems: Record<string, Record<string, Content[]>>;
}

function combinedOf({ target, systems }: Described) {
  const dependencies = Object.entries(systems).map(([os, architectures]) => ({
    mediaType: 'application/vnd.docker.container.image.combined+json',
    [os]: Object.fromEntries(
      Object.entries(architectures).map(([key, layers]) => [key, layers.map((one) => part(one))]),
    ),
  }));
  return readCombined(Buffer.from(JSON.stringify({ schemaVersion: 2, target: part(target), dependencies })));
}

const json = (made: Made) => JSON.parse(made.bytes.toString()) as Record<string, unknown>;

/** The manifest that is made for a platform. */
function manifestFor({ manifests, made }: DescribedImages, platform: string): Manifest {
  const child = manifests.find((one) => formatPlatform(one.platform!) === platform);
  const found = made.find(({ digest }) => digest === child!.digest)!;
  return manifestIn(found.bytes, found.mediaType);
}

const amd64 = configOf({ os: 'linux', architecture: 'amd64' });
const layers = { amd64: tar('amd64'), arm: tar('arm'), common: tar('common') };

void t.test('imagesOfCombined: an image for each platform, the config of the target for its own', async (t) => {
  const document = combinedOf({
    target: amd64,
    systems: {
      linux: { amd64: [layers.common, layers.amd64], 'arm/v6': [layers.common, layers.arm] },
      freebsd: { amd64: [] },
    },
  });
  const described = await imagesOfCombined(document, shelfOf(amd64));
  t.same(
    described.manifests.map(({ platform }) => formatPlatform(platform!)),
    ['linux/amd64', 'linux/arm/v6', 'freebsd/amd64'],
  );
  t.same(
    described.made.map(({ kind }) => kind),
    ['manifest', 'blob', 'manifest', 'blob', 'manifest'],
    'what is named comes before what names it',
  );
  for (const made of described.made) t.equal(made.digest, digestOf(made.bytes));
  for (const { digest, size, mediaType } of described.manifests) {
    const made = described.made.find((one) => one.digest === digest)!;
    t.same([made.kind, made.mediaType, made.bytes.length], ['manifest', mediaType, size]);
    const { config, layers: listed } = manifestIn(made.bytes, made.mediaType);
    t.same(made.uses, [config.digest, ...listed.map((layer) => layer.digest)]);
  }
  const own = manifestFor(described, 'linux/amd64');
  t.match(own, { mediaType: mediaTypes.dockerManifest, config: { digest: amd64.digest, size: amd64.bytes.length } });
  t.same(
    own.layers.map(({ source }) => source),
    [layers.common, layers.amd64].map((one) => ({ mediaType: dockerTar, digest: one.digest, size: one.bytes.length })),
    'layers in the types of today',
  );
  t.same((await imagesOfCombined(document, shelfOf(amd64))).made, described.made, 'the same each time');
});

void t.test('imagesOfCombined: the config that is made says the platform and its layers, and no history', async (t) => {
  const document = combinedOf({
    target: amd64,
    systems: { linux: { amd64: [layers.amd64], 'arm/v6': [layers.common, layers.arm] } },
  });
  const described = await imagesOfCombined(document, shelfOf(amd64));
  const { config } = manifestFor(described, 'linux/arm/v6');
  const blob = described.made.find(({ digest }) => digest === config.digest)!;
  t.same([blob.kind, blob.mediaType, blob.bytes.length, blob.uses], ['blob', mediaTypes.dockerConfig, config.size, []]);
  t.same(json(blob), {
    created: '2015-06-16T16:29:07Z',
    os: 'linux',
    architecture: 'arm',
    variant: 'v6',
    config: { Entrypoint: ['/hello'] },
    rootfs: { type: 'layers', diff_ids: [layers.common.digest, layers.arm.digest] },
    'x-unknown': 1,
  });
});

void t.test('imagesOfCombined: nothing of the platform of the target is left in the config of another', async (t) => {
  const target = configOf({
    os: 'windows',
    architecture: 'arm64',
    variant: 'v9',
    'os.version': '10.0.20348.1',
    'os.features': ['win32k'],
  });
  const document = combinedOf({ target, systems: { linux: { amd64: [layers.amd64] } } });
  const [config] = (await imagesOfCombined(document, shelfOf(target))).made;
  t.same(readConfigPlatform(config!.bytes), { os: 'linux', architecture: 'amd64' });
});

void t.test('imagesOfCombined: the config of a version of Windows is that of Windows there', async (t) => {
  const target = configOf({ os: 'windows', architecture: 'amd64', 'os.version': '10.0.20348.1' });
  const packed = content(gzipSync(layers.amd64.bytes), oldGzip);
  const document = combinedOf({ target, systems: { windows: { amd64: [packed] } } });
  const described = await imagesOfCombined(document, shelfOf(target));
  t.equal(manifestFor(described, formatPlatform(described.manifests[0]!.platform!)).config.digest, target.digest);
});

void t.test('imagesOfCombined: a config can be made for plain tars only', async (t) => {
  const packed = content(gzipSync(layers.arm.bytes), oldGzip);
  for (const mediaType of [oldTar, dockerTar, ociTar]) {
    const plain = { ...layers.arm, mediaType };
    const document = combinedOf({ target: amd64, systems: { linux: { amd64: [packed], arm64: [plain] } } });
    t.equal((await imagesOfCombined(document, shelfOf(amd64))).manifests.length, 2, mediaType);
  }
  for (const mediaType of [oldGzip, `${dockerTar}.gzip`, `${ociTar}+gzip`, `${ociTar}+zstd`, 'application/x-tar']) {
    const other = { ...packed, mediaType };
    const own = combinedOf({ target: amd64, systems: { linux: { amd64: [other] } } });
    t.equal((await imagesOfCombined(own, shelfOf(amd64))).manifests.length, 1, 'its own platform needs none made');
    const document = combinedOf({
      target: amd64,
      systems: { linux: { amd64: [other], arm64: [layers.common, other] } },
    });
    await t.rejects(
      imagesOfCombined(document, shelfOf(amd64)),
      { kind: 'manifestInvalid', code: 'MANIFEST_INVALID', message: /not for linux\/arm64.*plain tars; push that/ },
      mediaType,
    );
  }
});

void t.test('imagesOfCombined: the document of the proposal', async (t) => {
  const proposal = JSON.parse(
    readFileSync(new URL('../fixtures/combined-2015.json', import.meta.url), 'utf8'),
  ) as object;
  const target = { ...part(amd64), mediaType: 'application/vnd.docker.container.image.v1+json' };
  const pushed = content({ ...proposal, target }, mediaTypes.combined);
  const composed = await composition(readPushed(pushed.bytes, pushed.mediaType), pushed.digest, shelfOf(amd64));
  t.equal(composed.isPart, true);
  t.same(
    [...composed.entries.keys()],
    ['linux/amd64', 'linux/arm/v7', 'linux/ppc64le', 'windows/amd64', 'windows/arm/v7', 'windows/ppc64le'],
  );
  t.equal(composed.made.filter(({ kind }) => kind === 'blob').length, 5);
  t.equal(composed.made.filter(({ kind }) => kind === 'manifest').length, 6);
});

void t.test('imagesOfAlternates: the primary as it is described, the others as they are', async (t) => {
  for (const isDocker of [true, false]) {
    const target = { ...amd64, mediaType: isDocker ? mediaTypes.dockerConfig : mediaTypes.ociConfig };
    const type = isDocker ? mediaTypes.dockerManifest : mediaTypes.ociManifest;
    const other = content({ x: 1 }, type);
    const packed = content(gzipSync(layers.arm.bytes), oldGzip);
    const pushed = content(
      {
        schemaVersion: 2,
        target: { ...part(target, 'size'), labels: { architecture: 'amd64', os: 'linux' } },
        dependencies: [part(packed, 'size'), part({ ...layers.common, mediaType: 'application/x-other' }, 'size')],
        alternates: [
          { ...part(other, 'size'), labels: { architecture: 'arm', os: 'linux', variant: 'v6' } },
          { ...part(other, 'size'), labels: { architecture: 'amd64', os: 'windows', 'os.version': '10.0.20348.1' } },
        ],
      },
      mediaTypes.alternates,
    );
    const { manifests, made } = await imagesOfAlternates(readAlternates(pushed.bytes), shelfOf());
    const [primary] = made as [Made];
    t.equal(made.length, 1);
    t.match(primary, { kind: 'manifest', mediaType: type, digest: digestOf(primary.bytes) });
    t.same(json(primary), {
      schemaVersion: 2,
      mediaType: type,
      config: { mediaType: target.mediaType, digest: target.digest, size: target.bytes.length },
      layers: [
        { mediaType: `${dockerTar}.gzip`, digest: packed.digest, size: packed.bytes.length },
        { mediaType: 'application/x-other', digest: layers.common.digest, size: layers.common.bytes.length },
      ],
    });
    t.same(
      manifests.map(({ source }) => source),
      [
        {
          mediaType: type,
          digest: primary.digest,
          size: primary.bytes.length,
          platform: { architecture: 'amd64', os: 'linux' },
        },
        { ...part(other, 'size'), platform: { architecture: 'arm', os: 'linux', variant: 'v6' } },
        { ...part(other, 'size'), platform: { architecture: 'amd64', os: 'windows', 'os.version': '10.0.20348.1' } },
      ],
    );
    const composed = await composition(readPushed(pushed.bytes, pushed.mediaType), pushed.digest, shelfOf());
    t.equal(composed.isPart, true);
    t.same([...composed.entries.keys()], ['linux/amd64', 'linux/arm/v6', 'windows(10.0.20348)/amd64']);
    t.same(composed.made, made);
  }
});

const forms = {
  combined: {
    write: writeCombined,
    images: (bytes: Buffer, shelf: Shelf) => imagesOfCombined(readCombined(bytes), shelf),
  },
  alternates: {
    write: writeAlternates,
    images: (bytes: Buffer, shelf: Shelf) => imagesOfAlternates(readAlternates(bytes), shelf),
  },
};

const platforms = ['linux/amd64', 'linux/arm/v6', 'windows(10.0.20348.1)/amd64', 'windows(10.0.26100.1)/amd64'];

/** What a mirror would answer for an image, primary first or another. */
function written(image: BuiltImage, form: keyof typeof forms, primary = 0): Buffer {
  const { bytes, mediaType } = image.index;
  const manifests = new Map(image.children.map(({ manifest }) => [manifest.digest, manifest]));
  const images = platformImages(indexIn(bytes, mediaType), (digest) => {
    const manifest = manifests.get(digest);
    return manifest && manifestIn(manifest.bytes, manifest.mediaType);
  });
  return forms[form].write({ bytes, mediaType, images, primary: images[primary]! });
}

void t.test('a document that carries its index is that index, and nothing is made', async (t) => {
  for (const docker of [false, true]) {
    const image = buildImage({ platforms, attestations: true, docker });
    const shelf = shelfOf(...image.manifests, ...image.blobs);
    for (const [name, form] of Object.entries(forms)) {
      for (const primary of [0, 1, 3]) {
        const described = await form.images(written(image, name as keyof typeof forms, primary), shelf);
        t.same(described.manifests, indexIn(image.index.bytes, image.index.mediaType).manifests, name);
        t.same(described.made, []);
      }
    }
    for (const form of ['combined', 'alternates'] as const) {
      const pushed = content(written(image, form), mediaTypes[form]);
      const composed = await composition(readPushed(pushed.bytes, pushed.mediaType), pushed.digest, shelf);
      t.equal(composed.isPart, true, 'it speaks of its platforms');
      t.equal(
        [...composed.entries.values()].flatMap(({ children }) => children).length,
        8,
        'with what is said of them',
      );
    }
  }
});

const swapped = (bytes: Buffer, from: Content, to: Content) => {
  // Not in the label, whose quotes are escaped.
  const text = bytes.toString().replaceAll(`"digest":"${from.digest}"`, `"digest":"${to.digest}"`);
  if (text === bytes.toString()) throw new Error('nothing to change');
  return text;
};

void t.test('a document that says something else than the index that it carries is refused', async (t) => {
  const image = buildImage({ platforms, attestations: true });
  const fewer = buildImage({ platforms: platforms.slice(0, 2) });
  const shelf = shelfOf(...[image, fewer].flatMap(({ manifests, blobs }) => [...manifests, ...blobs]));
  const [one, two] = image.children as [BuiltImage['children'][0], BuiltImage['children'][0]];
  type Tree = Record<string, unknown>;
  const changed = (bytes: Buffer, change: (tree: Tree) => void) => {
    const tree = JSON.parse(bytes.toString()) as Tree;
    change(tree);
    return JSON.stringify(tree);
  };
  const combined = written(image, 'combined');
  const alternates = written(image, 'alternates');
  const linux = (tree: Tree) => (tree['dependencies'] as { linux: Record<string, object[]> }[])[0]!.linux;
  const listOf = (tree: Tree, key: string) => tree[key] as (Tree & { labels: Tree })[];
  const carrying = (content: Content) => (tree: Tree) =>
    (tree['labels'] = indexLabels(content.bytes, content.mediaType));
  const cases: [form: keyof typeof forms, what: string, text: string][] = [
    ['combined', 'another layer', swapped(combined, one.layers[0]!, two.layers[0]!)],
    ['combined', 'a config that is no config', swapped(combined, one.config, one.layers[0]!)],
    ['combined', 'a platform less', changed(combined, (tree) => delete linux(tree)['arm/v6'])],
    ['combined', 'a platform more', changed(combined, (tree) => (linux(tree)['s390x'] = linux(tree)['amd64']!))],
    ['combined', 'a layer more', changed(combined, (tree) => linux(tree)['amd64']!.push(linux(tree)['arm/v6']![0]!))],
    [
      'combined',
      'two platforms exchanged',
      changed(combined, (tree) => {
        const all = linux(tree);
        [all['amd64'], all['arm/v6']] = [all['arm/v6']!, all['amd64']!];
      }),
    ],
    ['combined', 'another index', changed(combined, carrying(fewer.index))],
    ['alternates', 'another layer', swapped(alternates, one.layers[0]!, two.layers[0]!)],
    ['alternates', 'another config', swapped(alternates, one.config, two.config)],
    ['alternates', 'another image', swapped(alternates, two.manifest, one.manifest)],
    ['alternates', 'an alternate less', changed(alternates, (tree) => listOf(tree, 'alternates').pop())],
    ['alternates', 'a layer less', changed(alternates, (tree) => listOf(tree, 'dependencies').pop())],
    [
      'alternates',
      'an alternate for another platform',
      changed(alternates, (tree) => (listOf(tree, 'alternates')[0]!.labels['architecture'] = 's390x')),
    ],
    [
      'alternates',
      'a primary for another platform',
      changed(alternates, (tree) => ((tree['target'] as { labels: Tree }).labels['architecture'] = 's390x')),
    ],
    ['alternates', 'another index', changed(alternates, carrying(fewer.index))],
  ];
  for (const [form, what, text] of cases) {
    await t.rejects(
      forms[form].images(Buffer.from(text), shelf),
      { kind: 'manifestInvalid', code: 'MANIFEST_INVALID', message: /the index in its labels says something else/ },
      `${form}: ${what}`,
    );
  }
  const reordered = changed(alternates, (tree) => (tree['alternates'] = listOf(tree, 'alternates').toReversed()));
  await t.resolves(forms.alternates.images(Buffer.from(reordered), shelf), 'another order is no contradiction');
  const other = Buffer.from(swapped(combined, one.config, two.config));
  await t.resolves(forms.combined.images(other, shelf), 'nor is another primary');
});

void t.test('the config of the target has to be here', async (t) => {
  const document = combinedOf({ target: amd64, systems: { linux: { amd64: [layers.amd64] } } });
  await t.rejects(imagesOfCombined(document, shelfOf()), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
});
