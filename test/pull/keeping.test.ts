import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { NarrowsError } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseDocument } from '../../src/oci/manifest.ts';
import type { Document } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import type { PlatformSet } from '../../src/oci/platform.ts';
import { createKeeping, isWanted, linksOf } from '../../src/pull/keeping.ts';
import type { KeepRules, Keeping } from '../../src/pull/keeping.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltImage, Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'], attestations: true });
const [amd64, arm64, armv7] = image.children as [BuiltImage['children'][0], ...BuiltImage['children']];

function set(...platforms: string[]): PlatformSet {
  return platforms.map((text) => parsePlatform(text)!);
}

function read({ bytes, mediaType }: Content): Document {
  return parseDocument(bytes, mediaType);
}

async function prepare(t: Teardown, rules: KeepRules): Promise<{ keeping: Keeping; catalog: Catalog }> {
  const catalog = openCatalog(join(await temporaryFolder(t), 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  return { keeping: createKeeping(catalog, rules), catalog };
}

function learnAll(keeping: Keeping, { manifests }: BuiltImage): void {
  for (const manifest of manifests) keeping.learn(manifest.digest, read(manifest));
}

// ---- What documents list

void t.test('links: an index lists its children with their platforms, an image its blobs without', (t) => {
  const links = linksOf(read(image.index));
  t.same(links.slice(0, 3), [
    { child: amd64.manifest.digest, platform: 'linux/amd64' },
    { child: arm64!.manifest.digest, platform: 'linux/arm64' },
    { child: armv7!.manifest.digest, platform: 'linux/arm/v7' },
  ]);
  t.same(linksOf(read(amd64.manifest)), [{ child: amd64.config.digest }, { child: amd64.layers[0]!.digest }]);
  t.same(linksOf({ kind: 'opaque', mediaType: 'application/json' }), []);
  const docker = buildImage({ platforms: ['windows(10.0.20348.1)/amd64'], docker: true });
  t.same(
    linksOf(read(docker.index)).map(({ platform }) => platform),
    ['windows(10.0.20348.1)/amd64'],
  );
  t.end();
});

void t.test('links: what is said about an image is for the platform of the image', (t) => {
  const said = linksOf(read(image.index)).slice(3);
  t.same(
    said.map(({ child, platform }) => [child, platform]),
    image.attestations.map(({ digest }, at) => [digest, image.children[at]!.platform]),
  );
  const about = (subject: string) =>
    content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociIndex,
        manifests: [
          { ...descriptor(amd64.manifest) },
          {
            ...descriptor(image.attestations[0]!),
            platform: { os: 'unknown', architecture: 'unknown' },
            annotations: { 'vnd.docker.reference.digest': subject },
          },
        ],
      },
      mediaTypes.ociIndex,
    );
  for (const subject of [amd64.manifest.digest, digestOf(Buffer.from('elsewhere')), 'no digest at all']) {
    t.same(
      linksOf(read(about(subject))).map(({ platform }) => platform),
      ['unknown', 'unknown'],
      'nobody says for which',
    );
  }
  t.end();
});

// ---- What may be kept

void t.test('wanted: what serves one of those that are kept, or nobody knows whom', (t) => {
  const arm = set('linux/arm64');
  const rows: [platforms: string[], isOpen: boolean, wanted: PlatformSet, is: boolean][] = [
    [['linux/arm64'], false, arm, true],
    [['linux/amd64'], false, arm, false],
    [['linux/amd64', 'linux/arm64'], false, arm, true],
    [['linux/amd64', 'linux/s390x'], false, arm, false],
    [['linux/amd64'], true, arm, true],
    [[], false, arm, true],
    [[], true, arm, true],
    [['linux/amd64'], false, 'any', true],
    [['linux/amd64'], false, set('linux/s390x', 'linux/amd64'), true],
    [['linux/arm64/v8'], false, arm, true],
    [['linux/arm/v6'], false, set('linux/arm/v7'), true],
    [['linux/arm/v7'], false, set('linux/arm/v6'), false],
    [['linux/amd64/v3'], false, set('linux/amd64'), false],
    [['linux/amd64'], false, set('linux/amd64/v3'), true],
    [['windows(10.0.17763.1)/amd64'], false, set('windows(10.0.20348)/amd64'), false],
    [['windows(10.0.20348.9)/amd64'], false, set('windows(10.0.20348.1)/amd64'), true],
    [['windows(10.0.17763.1)/amd64'], false, set('windows/amd64'), true],
    [['what/is/this/then'], false, arm, true],
  ];
  for (const [platforms, isOpen, wanted, is] of rows) {
    t.equal(isWanted({ platforms, isOpen }, wanted), is, `${platforms.join()} for ${JSON.stringify(wanted)}`);
  }
  t.end();
});

void t.test('keeping: where everything is kept, nothing is asked', async (t) => {
  const { keeping, catalog } = await prepare(t, { platforms: 'any', onOther: 'deny' });
  t.equal(keeping.isChoosy, false);
  learnAll(keeping, image);
  for (const one of [...image.manifests, ...image.blobs]) t.equal(keeping.mayKeep(one.digest), true);
  t.same(catalog.served(amd64.layers[0]!.digest).platforms, ['linux/amd64'], 'but learnt, for what comes later');
});

void t.test('keeping: stream passes on what serves others alone', async (t) => {
  const { keeping } = await prepare(t, { platforms: set('linux/arm64'), onOther: 'stream' });
  t.equal(keeping.isChoosy, true);
  for (const one of [...image.manifests, ...image.blobs])
    t.equal(keeping.mayKeep(one.digest), true, 'nothing is known');
  learnAll(keeping, image);
  const may = (all: readonly Content[]) => all.map(({ digest }) => keeping.mayKeep(digest));
  t.same(may([image.index, arm64!.manifest, arm64!.config, ...arm64!.layers]), [true, true, true, true]);
  t.same(may([amd64.manifest, amd64.config, ...amd64.layers]), [false, false, false]);
  t.same(may([armv7!.manifest, armv7!.config, ...armv7!.layers]), [false, false, false]);
  t.same(may(image.attestations), [false, true, false]);
  t.equal(keeping.mayKeep(digestOf(Buffer.from('stranger'))), true);
});

void t.test('keeping: deny refuses it, in one sentence that names the platform', async (t) => {
  const { keeping } = await prepare(t, { platforms: set('linux/arm64', 'linux/arm/v7'), onOther: 'deny' });
  learnAll(keeping, image);
  for (const one of [arm64!.manifest, armv7!.config, image.index]) t.equal(keeping.mayKeep(one.digest), true);
  for (const one of [amd64.manifest, amd64.config, ...amd64.layers, image.attestations[0]!]) {
    const refusal = t.throws(() => keeping.mayKeep(one.digest), NarrowsError) as NarrowsError;
    t.match(refusal, {
      kind: 'denied',
      status: 403,
      code: 'DENIED',
      message: `This mirror serves linux/arm64,linux/arm/v7 alone; ${one.digest} is for linux/amd64.`,
    });
  }
});

void t.test('keeping: what another image needs as well is kept, as soon as that is known', async (t) => {
  const { keeping } = await prepare(t, { platforms: set('linux/arm64'), onOther: 'stream' });
  learnAll(keeping, image);
  const layer = amd64.layers[0]!;
  t.equal(keeping.mayKeep(layer.digest), false);
  const other = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: descriptor(arm64!.config),
      layers: [descriptor(layer)],
    },
    mediaTypes.ociManifest,
  );
  keeping.learn(other.digest, read(other));
  t.equal(keeping.mayKeep(layer.digest), true, 'it may be for anyone');
  keeping.learnPlatform(other.digest, 'linux/amd64');
  t.equal(keeping.mayKeep(layer.digest), false, 'it is for the same');
  keeping.learnPlatform(other.digest, 'linux/arm64');
  t.equal(keeping.mayKeep(layer.digest), true, 'it is for one that is kept');
});

void t.test('keeping: an image is unplaced until an index or its config tells', async (t) => {
  const { keeping } = await prepare(t, { platforms: set('linux/arm64'), onOther: 'stream' });
  const manifest = amd64.manifest;
  t.equal(keeping.isUnplaced(manifest.digest), true);
  keeping.learn(manifest.digest, read(manifest));
  t.equal(keeping.isUnplaced(manifest.digest), true, 'it lists blobs, which says nothing of itself');
  t.equal(keeping.mayKeep(amd64.layers[0]!.digest), true);
  keeping.learnPlatform(manifest.digest, 'linux/amd64');
  t.equal(keeping.isUnplaced(manifest.digest), false);
  t.equal(keeping.mayKeep(amd64.layers[0]!.digest), false);
  t.equal(keeping.isUnplaced(arm64!.manifest.digest), true);
  keeping.learn(image.index.digest, read(image.index));
  t.equal(keeping.isUnplaced(arm64!.manifest.digest), false);
});
