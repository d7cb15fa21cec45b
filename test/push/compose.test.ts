import t from 'tap';
import type { Digest } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { checkTruth, composition, entriesOfTag } from '../../src/push/compose.ts';
import type { Composition } from '../../src/push/compose.ts';
import { entriesOf } from '../../src/push/entries.ts';
import { readPushed } from '../../src/push/pushed.ts';
import { createShelf } from '../../src/push/shelf.ts';
import type { Shelf } from '../../src/push/shelf.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { indexIn } from '../fixtures/published.ts';

/** What is here, in memory. */
function shelfOf(...here: Content[]): Shelf {
  const held = new Map<Digest, Buffer>(here.map(({ digest, bytes }) => [digest, bytes]));
  return createShelf({ read: (digest) => Promise.resolve(held.get(digest)) }, 2 ** 20);
}

const platforms = ['linux/amd64', 'linux/arm/v6', 'windows(10.0.20348.1)/amd64'];
const image = buildImage({ platforms, attestations: true });
const docker = buildImage({ platforms, docker: true });
const shelf = shelfOf(...[image, docker].flatMap(({ manifests, blobs }) => [...manifests, ...blobs]));

const compose = ({ bytes, mediaType, digest }: Content, here = shelf) =>
  composition(readPushed(bytes, mediaType), digest, here);

const told = ({ entries, isPart }: Composition) => ({
  isPart,
  entries: [...entries.values()].map(({ name, children }) => [name, ...children.map(({ digest }) => digest)]),
});

/** An index of some of what `image` has. */
const indexOf = (list: readonly object[], mediaType: string = mediaTypes.ociIndex, fields: object = {}) =>
  content({ schemaVersion: 2, mediaType, manifests: list, ...fields }, mediaType);

const listed = indexIn(image.index.bytes, image.index.mediaType).manifests.map(({ source }) => source);
const [amd64, arm, , aboutAmd64, aboutArm] = listed as [object, object, object, object, object];

void t.test('composition: an image is the platform that its config says', async (t) => {
  for (const { children } of [image, docker]) {
    for (const [at, name] of ['linux/amd64', 'linux/arm/v6', 'windows(10.0.20348)/amd64'].entries()) {
      const { manifest } = children[at]!;
      const composed = await compose(manifest);
      t.same(told(composed), { isPart: true, entries: [[name, manifest.digest]] });
      t.same(composed.made, []);
      const [child] = composed.entries.get(name)!.children;
      t.match(child!.source, { ...descriptor(manifest), platform: { os: name.split(/[/(]/)[0]! } });
    }
  }
});

void t.test('composition: what is for no platform is the whole, and no image', async (t) => {
  const [statement] = image.attestations as [Content];
  t.same(told(await compose(statement)), { isPart: false, entries: [['other', statement.digest]] });
  const empty = content({}, 'application/vnd.oci.empty.v1+json');
  const artifact = content(
    { mediaType: mediaTypes.ociManifest, artifactType: 'application/x', config: descriptor(empty), layers: [] },
    mediaTypes.ociManifest,
  );
  t.same(told(await compose(artifact, shelfOf())), { isPart: false, entries: [['other', artifact.digest]] });
});

void t.test('composition: an index of one platform with what is said about it is a part', async (t) => {
  const [one, two] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
  const [saidOne, saidTwo] = image.attestations as [Content, Content];
  const cases: Record<string, [index: Content, isPart: boolean]> = {
    'with its attestation': [indexOf([amd64, aboutAmd64]), true],
    'with its attestation before it': [indexOf([aboutAmd64, amd64]), true],
    'with two': [indexOf([amd64, aboutAmd64, aboutAmd64]), true],
    without: [indexOf([amd64]), false],
    'with that of another': [indexOf([amd64, aboutArm]), false],
    'with that of another too': [indexOf([amd64, aboutAmd64, aboutArm]), false],
    'with something of no platform': [indexOf([amd64, aboutAmd64, descriptor(two.manifest)]), false],
    'of two platforms': [indexOf([amd64, aboutAmd64, arm, aboutArm]), false],
    'of attestations alone': [indexOf([aboutAmd64]), false],
    'of nothing': [indexOf([]), false],
  };
  for (const [what, [index, isPart]] of Object.entries(cases)) {
    const composed = await compose(index);
    t.equal(composed.isPart, isPart, what);
    t.same(composed.entries, entriesOf(indexIn(index.bytes, index.mediaType)), what);
    t.same(composed.made, []);
  }
  t.same(told(await compose(indexOf([amd64, aboutAmd64]))).entries, [
    ['linux/amd64', one.manifest.digest, saidOne.digest],
  ]);
  t.same(told(await compose(indexOf([arm, aboutArm]))).entries, [
    ['linux/arm/v6', two.manifest.digest, saidTwo.digest],
  ]);
});

void t.test('composition: a plain index is the whole, a Docker list the platforms that it has', async (t) => {
  t.equal((await compose(image.index)).isPart, false);
  t.equal((await compose(docker.index)).isPart, true);
  t.same(
    [...(await compose(docker.index)).entries.keys()],
    ['linux/amd64', 'linux/arm/v6', 'windows(10.0.20348)/amd64'],
  );
  t.equal((await compose(indexOf([amd64], mediaTypes.dockerList))).isPart, true, 'of one platform too');
  t.equal((await compose(indexOf([], mediaTypes.dockerList))).isPart, true, 'and of none');
});

void t.test('composition: what should be here and is not is trouble, and no answer', async (t) => {
  await t.rejects(compose(image.children[0]!.manifest, shelfOf()), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
  const failing = createShelf({ read: () => Promise.reject(new Error('EIO')) }, 2 ** 20);
  await t.rejects(compose(image.children[0]!.manifest, failing), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
});

void t.test(
  'entriesOfTag: of an index its entries, of an image its own, of anything else one without platform',
  async (t) => {
    const index = await entriesOfTag(image.index, shelf);
    t.same(index.entries, entriesOf(indexIn(image.index.bytes, image.index.mediaType)));
    t.equal(index.index?.mediaType, mediaTypes.ociIndex);
    const { manifest } = image.children[1]!;
    const single = await entriesOfTag(manifest, shelf);
    t.same([...single.entries.keys()], ['linux/arm/v6']);
    t.equal(single.index, undefined);
    t.same(single.entries, (await compose(manifest)).entries, 'the same as when it is pushed');
    const form = content({ schemaVersion: 2 }, mediaTypes.combined);
    t.match(
      [...(await entriesOfTag(form, shelfOf(form))).entries.values()],
      [{ name: 'other', platform: undefined, children: [{ digest: form.digest, mediaType: mediaTypes.combined }] }],
    );
    await t.rejects(entriesOfTag(image.index, shelfOf()), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
  },
);

const check = (...list: object[]) =>
  checkTruth(entriesOf(indexIn(indexOf(list).bytes, mediaTypes.ociIndex)).values(), shelf, () => Promise.resolve(true));

const as = (child: object, platform: object) => ({ ...child, platform });

void t.test('checkTruth: an index that calls an image something else is refused', async (t) => {
  await t.resolves(check(...listed), 'all of it');
  await t.resolves(check(as(arm, { os: 'linux', architecture: 'arm' })), 'another variant is a matter of taste');
  await t.resolves(check(as(amd64, { os: 'linux', architecture: 'amd64', 'os.version': '5' })));
  await t.resolves(check(aboutAmd64), 'what is said about an image says nothing itself');
  const [{ manifest }] = image.children as [(typeof image.children)[0]];
  const lies: [child: object, platform: object, message: RegExp][] = [
    [amd64, { os: 'linux', architecture: 'arm64' }, /for linux\/arm64, and the image itself is for linux\/amd64/],
    [amd64, { os: 'windows', architecture: 'amd64' }, /for windows\/amd64, and the image itself is for linux\/amd64/],
    [arm, { os: 'linux', architecture: 'amd64' }, /the image itself is for linux\/arm\/v6/],
  ];
  for (const [child, platform, message] of lies) {
    const refused = { kind: 'manifestInvalid', status: 400, message };
    await t.rejects(check(as(child, platform)), refused);
    await t.rejects(check(...listed.slice(2), as(child, platform)), refused, 'beside others');
  }
  await t.rejects(check(as(amd64, { os: 'linux', architecture: 'arm64' })), { message: new RegExp(manifest.digest) });
  const unknown = {
    ...descriptor(content({ x: 1 }, mediaTypes.ociManifest)),
    platform: { os: 'linux', architecture: 'x' },
  };
  await t.rejects(check(unknown), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
});

void t.test('checkTruth: a child that is not what the index calls it is refused too', async (t) => {
  const [{ manifest, layers }] = image.children as [(typeof image.children)[0]];
  const platform = { os: 'linux', architecture: 'amd64' };
  const cases: Record<string, object> = {
    'an OCI image called one of Docker': { ...descriptor(manifest), mediaType: mediaTypes.dockerManifest, platform },
    'an image called an index': { ...descriptor(manifest), mediaType: mediaTypes.ociIndex, platform },
    'a layer called an image': { ...descriptor(layers[0]!), mediaType: mediaTypes.ociManifest, platform },
  };
  for (const [what, child] of Object.entries(cases)) {
    const index = indexIn(indexOf([child]).bytes, mediaTypes.ociIndex);
    await t.rejects(
      checkTruth(entriesOf(index).values(), shelf, () => Promise.resolve(true)),
      { kind: 'manifestInvalid', code: 'MANIFEST_INVALID' },
      what,
    );
  }
});
