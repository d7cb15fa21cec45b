import t from 'tap';
import type { NarrowedRecord } from '../../src/cache/records.ts';
import { readAlternates } from '../../src/oci/alternates.ts';
import { readCombined, traverse } from '../../src/oci/combined.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { parseDocument } from '../../src/oci/manifest.ts';
import type { Manifest } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { readIndexLabels } from '../../src/oci/part.ts';
import { formatPlatform } from '../../src/oci/platform.ts';
import { narrowIndex } from '../../src/pull/narrow.ts';
import type { Narrowed } from '../../src/pull/narrow.ts';
import { baseOf, prepare as prepareRead } from '../../src/pull/recipe.ts';
import { buildImage, content } from '../fixtures/images.ts';
import { indexIn, publishedImages } from '../fixtures/published.ts';

const alpine = publishedImages.find(({ name }) => name.includes('alpine'))!;
const caddy = publishedImages.find(({ name }) => name.includes('caddy'))!;
const everything = ({ index }: typeof alpine) => index.manifests.map((_, at) => at);

/** The images of published indexes, as those who ask a registry for them get them. */
const manifestOf = (digest: Digest): Promise<Manifest | undefined> =>
  Promise.resolve(publishedImages.map(({ manifests }) => manifests.get(digest)).find((found) => found !== undefined));

const nothing = () => Promise.resolve(undefined);

interface Unread {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

async function prepare({ bytes, mediaType }: Unread, ...how: Rest): Promise<Narrowed | undefined> {
  return prepareRead({ bytes, mediaType, document: parseDocument(bytes, mediaType) }, ...how);
}

type Rest = Parameters<typeof prepareRead> extends [unknown, ...infer Others] ? Others : never;

const recipe = (kept: readonly number[], more: Partial<NarrowedRecord> = {}): NarrowedRecord => ({
  index: alpine.index.manifests[0]!.digest,
  kept,
  ...more,
});

const platformsIn = (made: Narrowed | undefined) =>
  indexIn(made!.bytes, made!.mediaType).manifests.map(({ platform }) => platform && formatPlatform(platform));

const added = [
  {
    mediaType: mediaTypes.ociManifest,
    digest: digestOf(Buffer.from('riscv')),
    size: 5,
    platform: { os: 'linux', architecture: 'riscv64' },
  },
];

void t.test('prepare: the index with the children that are kept', async (t) => {
  const { index } = alpine;
  for (const kept of [[0], [0, 1], [2, 4, 6], [], everything(alpine)]) {
    const made = await prepare(alpine, recipe(kept), nothing);
    const expected = narrowIndex(
      index,
      kept.map((at) => index.manifests[at]!),
    );
    t.same(made, expected, kept.join());
    t.equal(made!.digest, digestOf(made!.bytes));
  }
});

void t.test('prepare: adds what others have, behind what is kept', async (t) => {
  t.same(platformsIn(await prepare(alpine, recipe([0, 6], { added }), nothing)), [
    'linux/amd64',
    'linux/arm64',
    'linux/riscv64',
  ]);
  const whole = await prepare(alpine, recipe(everything(alpine), { added }), nothing);
  t.equal(platformsIn(whole).length, alpine.index.manifests.length + 1);
  t.same(await prepare(alpine, recipe([0], { added: [] }), nothing), await prepare(alpine, recipe([0]), nothing));
});

void t.test('prepare: a single image is an empty index to add to', async (t) => {
  const { manifest } = buildImage({ platforms: ['linux/amd64'] }).children[0]!;
  const made = await prepare(manifest, recipe([], { added }), nothing);
  t.equal(
    made!.bytes.toString(),
    JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: added }),
  );
  t.same(platformsIn(await prepare(manifest, recipe([0, 7]), nothing)), [], 'what is not there is not kept');
});

void t.test('prepare: nothing is made of what is no manifest of today', async (t) => {
  const opaque = content({ schemaVersion: 1, fsLayers: [] }, 'application/vnd.docker.distribution.manifest.v1+json');
  t.equal(await prepare(opaque, recipe([0]), manifestOf), undefined);
  t.equal(await prepare(opaque, recipe([0], { as: 'combined' }), manifestOf), undefined);
  await t.rejects(prepare({ bytes: Buffer.from('{'), mediaType: mediaTypes.ociIndex }, recipe([0]), manifestOf), {
    kind: 'upstreamManifestInvalid',
    code: 'MANIFEST_INVALID',
  });
  t.equal(baseOf(parseDocument(opaque.bytes, opaque.mediaType)), undefined);
  t.equal(baseOf(alpine.index), alpine.index);
});

void t.test('prepare: the whole index as a document of 2015 carries it byte for byte', async (t) => {
  for (const published of publishedImages) {
    const spaced: Unread = {
      bytes: Buffer.from(JSON.stringify(JSON.parse(published.bytes.toString()), undefined, 3)),
      mediaType: published.mediaType,
    };
    for (const as of ['combined', 'alternates'] as const) {
      const made = await prepare(spaced, recipe(everything(published), { as }), manifestOf);
      const document = as === 'combined' ? readCombined(made!.bytes) : readAlternates(made!.bytes);
      t.equal(made!.mediaType, mediaTypes[as]);
      t.equal(made!.digest, digestOf(made!.bytes));
      t.ok(readIndexLabels(document.labels)!.bytes.equals(spaced.bytes), `${published.name} as ${as}`);
      t.same(await prepare(spaced, recipe(everything(published), { as }), manifestOf), made, 'the same each time');
    }
  }
});

void t.test('prepare: a part of the index as a document of 2015 carries that part', async (t) => {
  for (const as of ['combined', 'alternates'] as const) {
    const made = await prepare(caddy, recipe([0, 1, 15], { as, added }), manifestOf);
    const { labels } = as === 'combined' ? readCombined(made!.bytes) : readAlternates(made!.bytes);
    const narrowed = await prepare(caddy, recipe([0, 1, 15], { added }), manifestOf);
    t.ok(readIndexLabels(labels)!.bytes.equals(narrowed!.bytes), as);
  }
  const made = await prepare(caddy, recipe([0, 1, 15], { as: 'combined', added }), manifestOf);
  t.same(
    readCombined(made!.bytes).images.map(({ platform }) => formatPlatform(platform)),
    ['linux/amd64', 'windows/amd64'],
    'an image that cannot be read is in the index alone',
  );
});

void t.test('prepare: the layers of every platform are found', async (t) => {
  for (const published of publishedImages) {
    const made = await prepare(published, recipe(everything(published), { as: 'combined' }), manifestOf);
    const document = readCombined(made!.bytes);
    for (const { platform, digest } of published.index.manifests.filter((one) => one.platform?.os === 'linux')) {
      const found = traverse(document, platform!);
      const layers = found.found === 'layers' ? found.layers.map((layer) => layer.digest) : [found.found];
      const expected = published.manifests.get(digest)!.layers.map((layer) => layer.digest);
      if (layers.join() !== expected.join()) t.fail(`${published.name}: ${formatPlatform(platform!)}`);
    }
    t.equal(new Set(document.images.map(({ platform }) => platform.architecture)).has('unknown'), false);
  }
});

void t.test('prepare: the primary is the one of that platform, else the first', async (t) => {
  const cases: [primary: string | undefined, expected: string][] = [
    [undefined, 'linux/amd64'],
    ['linux/arm64', 'linux/arm64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm/v6', 'linux/arm/v6'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/v8', 'linux/amd64'],
    ['windows(10.0.20348.1)/amd64', 'windows(10.0.20348.5622)/amd64'],
    ['linux/mips', 'linux/amd64'],
    ['nonsense', 'linux/amd64'],
  ];
  for (const [primary, expected] of cases) {
    const asked = (as: 'combined' | 'alternates') =>
      prepare(caddy, recipe(everything(caddy), { as, ...(primary !== undefined && { primary }) }), manifestOf);
    const alternates = readAlternates((await asked('alternates'))!.bytes);
    t.equal(formatPlatform(alternates.target.platform), expected, primary ?? 'none named');
    t.notOk(alternates.alternates.some(({ platform }) => formatPlatform(platform) === expected));
    t.equal(readCombined((await asked('combined'))!.bytes).target.digest, alternates.target.digest);
  }
});

void t.test('prepare: without a single image there is no document', async (t) => {
  for (const as of ['combined', 'alternates'] as const) {
    t.equal(await prepare(alpine, recipe(everything(alpine), { as }), nothing), undefined);
    t.equal(await prepare(alpine, recipe([], { as }), manifestOf), undefined);
    t.equal(await prepare(alpine, recipe([1, 3], { as }), manifestOf), undefined, 'what is said is no image');
  }
});

void t.test('prepare: asks for images alone, each by its type, and not for all at once', async (t) => {
  const platforms = Array.from({ length: 30 }, (_, at) => `linux/arch${at}`);
  const image = buildImage({ platforms, attestations: true, docker: true });
  const manifests = new Map(image.children.map(({ manifest }) => [manifest.digest, manifest]));
  const asked: string[] = [];
  let running = 0;
  let most = 0;
  const made = await prepare(
    image.index,
    recipe(
      image.manifests.slice(1).map((_, at) => at),
      { as: 'alternates' },
    ),
    async (digest, mediaType) => {
      asked.push(`${digest} ${mediaType}`);
      most = Math.max(most, ++running);
      await Promise.resolve();
      running--;
      const { bytes } = manifests.get(digest)!;
      return parseDocument(bytes, mediaType) as Manifest;
    },
  );
  t.same(
    asked,
    image.children.map(({ manifest }) => `${manifest.digest} ${mediaTypes.dockerManifest}`),
  );
  t.ok(most > 1 && most <= 8, `${most} at once`);
  t.equal(readAlternates(made!.bytes).alternates.length, 29);
});

void t.test('prepare: trouble with an image is trouble, and no smaller document', async (t) => {
  const trouble = new Error('away');
  const failing = (digest: Digest) =>
    digest === alpine.index.manifests[4]!.digest ? Promise.reject(trouble) : manifestOf(digest);
  await t.rejects(prepare(alpine, recipe(everything(alpine), { as: 'combined' }), failing), trouble);
  await t.resolves(prepare(alpine, recipe([0, 1], { as: 'combined' }), failing));
});
