import { writeFile } from 'node:fs/promises';
import t from 'tap';
import type { Test } from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import {
  createSide,
  entry,
  makeBundle,
  partsOf,
  referrerOf,
  refName,
  repositoryNote,
  signatureOf,
} from '../fixtures/bundles.ts';
import type { MadeBundle, Side } from '../fixtures/bundles.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';

/** Bundles whose every digest is right, and that are wrong in what they say. */
const platforms = ['linux/amd64', 'linux/arm64'];
const image = buildImage({ platforms, seed: 'told' });
const other = buildImage({ platforms, seed: 'else' });
const arm64 = image.children[1]!;
const name = 'docker.io/library/app:1';
const named = { [refName]: name };
const whole = [image.index, ...partsOf(image, 'linux/arm64')];
const signature = signatureOf(image.index);
const sbom = referrerOf(arm64.manifest, 'told');
const [layer] = arm64.layers as [Content];

const said = (over: Record<string, unknown> = {}) => ({
  image: name,
  digest: image.index.digest,
  platforms: ['linux/arm64'],
  referrers: true,
  ...over,
});

const sound: MadeBundle = {
  set: 'edge',
  images: [said()],
  manifests: [
    entry(image.index, named),
    entry(signature.manifest, {
      [refName]: `docker.io/library/app:${signature.tag}`,
      [repositoryNote]: 'docker.io/library/app',
    }),
    entry(sbom.manifest, { [repositoryNote]: 'docker.io/library/app' }),
  ],
  blobs: [...whole, signature.manifest, ...signature.blobs, sbom.manifest, ...sbom.blobs],
};

const without = (...gone: Content[]) => sound.blobs.filter((blob) => !gone.includes(blob));

/** An image of one platform whose manifest is this. */
function imageOf(manifest: Content, blobs: readonly Content[] = [arm64.config, layer]): MadeBundle {
  return {
    images: [said({ digest: manifest.digest })],
    manifests: [entry(manifest, named)],
    blobs: [manifest, ...blobs],
  };
}

const imageManifest = (over: Record<string, unknown>) =>
  content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: descriptor(arm64.config),
      layers: [descriptor(layer)],
      ...over,
    },
    mediaTypes.ociManifest,
  );

const both = imageManifest({ manifests: [descriptor(arm64.manifest)] });
const index = (child: Record<string, unknown>, over: Record<string, unknown> = {}) =>
  content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: [{ ...child, platform: { os: 'linux', architecture: 'arm64' } }],
      ...over,
    },
    mediaTypes.ociIndex,
  );

const called = (text: string): MadeBundle => ({
  ...sound,
  images: [said({ image: text })],
  manifests: [entry(image.index, { [refName]: text }), ...sound.manifests.slice(1)],
});

const noise = content(Buffer.from('no JSON at all'), mediaTypes.ociIndex);

const evil: Record<string, MadeBundle> = {
  'index.json names an image that is not there': { ...sound, blobs: without(image.index) },
  'index.json names another image that is not there': {
    ...sound,
    manifests: [...sound.manifests, entry(other.index, { [refName]: 'docker.io/library/other:1' })],
  },
  'index.json names a signature that is not there': { ...sound, blobs: without(signature.manifest) },
  'index.json names an SBOM that is not there': { ...sound, blobs: without(sbom.manifest) },
  'a layer is absent': { ...sound, blobs: without(layer) },
  'a config is absent': { ...sound, blobs: without(arm64.config) },
  'the manifest of its platform is absent': { ...sound, blobs: without(arm64.manifest) },
  'the layer of a signature is absent': { ...sound, blobs: without(signature.blobs[1]!) },
  'the layer of an SBOM is absent': { ...sound, blobs: without(sbom.blobs[1]!) },
  'a layer of another size': imageOf(
    imageManifest({ layers: [{ ...descriptor(layer), size: layer.bytes.length + 1 }] }),
  ),
  'a config of another size': imageOf(imageManifest({ config: { ...descriptor(arm64.config), size: 1 } })),
  'a manifest of another size': imageOf(
    index({ ...descriptor(arm64.manifest), size: 5 }),
    partsOf(image, 'linux/arm64'),
  ),
  'another size in index.json': { ...sound, manifests: [{ ...entry(image.index, named), size: 7 }] },
  'another size of a signature in index.json': {
    ...sound,
    manifests: [sound.manifests[0]!, { ...sound.manifests[1]!, size: 7 }, sound.manifests[2]!],
  },
  'a manifest that is an index and an image': imageOf(both, [arm64.manifest, arm64.config, layer]),
  'an index that is an image as well': imageOf(
    index(descriptor(arm64.manifest), { config: descriptor(arm64.config), layers: [] }),
    partsOf(image, 'linux/arm64'),
  ),
  'an index whose manifest is an index and an image': imageOf(index(descriptor(both)), [
    both,
    arm64.manifest,
    arm64.config,
    layer,
  ]),
  'a manifest that says another type than it is said to be': imageOf({
    ...imageManifest({}),
    mediaType: mediaTypes.ociIndex,
  }),
  'an index that is no JSON': imageOf(noise, []),
  'an index whose manifest is no JSON': imageOf(index({ ...descriptor(noise), mediaType: mediaTypes.ociManifest }), [
    noise,
  ]),
  'a registry that is not configured': called('registry.example/org/app:1'),
  'a repository that is hosted here': called('team/app:1'),
  'a signature of a repository that is hosted here': {
    ...sound,
    manifests: [
      sound.manifests[0]!,
      entry(signature.manifest, { [repositoryNote]: 'team/app', [refName]: `team/app:${signature.tag}` }),
    ],
  },
  'a platform that is not in it': { ...sound, images: [said({ platforms: ['linux/amd64'] })] },
  'all platforms, and only one is in it': { ...sound, images: [said({ platforms: ['any'] })] },
  'a platform that is none': { ...sound, images: [said({ platforms: ['nonsense'] })] },
  'no platform at all': { ...sound, images: [said({ platforms: [] })], blobs: [image.index] },
  'a blob that is listed twice': { ...sound, blobs: [...sound.blobs, layer] },
  'a blob that is listed twice, with other bytes the second time': {
    ...sound,
    blobs: [...sound.blobs, { ...layer, bytes: Buffer.alloc(layer.bytes.length, 1) }],
  },
  'a blob that is not what its name says': {
    ...sound,
    blobs: [...without(layer), { ...layer, bytes: Buffer.alloc(layer.bytes.length, 1) }],
  },
  'a name that leads above': called('docker.io/../../etc:1'),
  'a name that begins above': called('../docker.io/library/app:1'),
  'a name that is a path of the machine': called('/etc/passwd:1'),
  'a name with an empty part': called('docker.io//app:1'),
  'a name with a line end': called('docker.io/library/app:1\n'),
  'a name in capitals': called('docker.io/library/APP:1'),
  'a tag that is none': called('docker.io/library/app:-1'),
  'a digest that is none': called('docker.io/library/app@sha256:../../x'),
  'a name with the digest of something else': called(`docker.io/library/app@${other.index.digest}`),
  'a repository with path tricks': {
    ...sound,
    manifests: [sound.manifests[0]!, entry(signature.manifest, { [repositoryNote]: 'docker.io/../x' })],
  },
  'one tag, two images': {
    ...sound,
    manifests: [entry(other.index, named), ...sound.manifests],
    blobs: [...sound.blobs, other.index, ...partsOf(other, 'linux/arm64')],
  },
  'one tag, an image and something about it': {
    ...sound,
    manifests: [...sound.manifests, entry(other.index, { [refName]: name, [repositoryNote]: 'docker.io/library/app' })],
    blobs: [...sound.blobs, other.index, ...partsOf(other, 'linux/arm64')],
  },
  'the contents say another digest of the image': { ...sound, images: [said({ digest: other.index.digest })] },
  'the contents name an image that index.json does not': {
    ...sound,
    images: [said(), said({ image: 'docker.io/library/other:1', digest: other.index.digest })],
  },
  'index.json names an image that the contents do not': {
    ...sound,
    manifests: [...sound.manifests, entry(other.index, { [refName]: 'docker.io/library/other:1' })],
    blobs: [...sound.blobs, other.index, ...partsOf(other, 'linux/arm64')],
  },
  'no image at all': { ...sound, images: [], manifests: [] },
  'no index.json': { ...sound, contents: { files: [] } },
  'a file with a path out of it': {
    ...sound,
    contents: { files: [{ path: '../x', digest: image.index.digest, bytes: image.index.bytes.length }] },
  },
  'a set that is called like a path': { ...sound, set: '../edge' },
  'a set with a blank in its name': { ...sound, set: 'edge docker.io/library/app' },
  'a set with control characters': { ...sound, set: 'edge\u001b[2J' },
  'a set without a name': { ...sound, set: '' },
};

function hostingSide(t: Test): Promise<Side> {
  return createSide(t, undefined, {
    repositories: [{ name: 'team/*', hosted: true, push: ['anonymous'] }],
  });
}

void t.test('the bundle that they all are made of is sound', async (t) => {
  const far = await hostingSide(t);
  await writeFile(far.path('sound.tar'), makeBundle(sound));
  t.match(await far.run('import', far.path('sound.tar')), { code: 0, err: '' });
  t.match(await far.run('check', '--set', 'edge'), { code: 0 });
});

void t.test(
  '35. a bundle that contradicts itself, or says what may not be, is refused, and nothing of it is kept',
  async (t) => {
    const far = await hostingSide(t);
    const before = await far.seen();
    t.same(before, { files: ['blobs/sha256', 'blobs/sha512'], sets: [[]] });
    let side = far;
    for (const [what, made] of Object.entries(evil)) {
      await writeFile(side.path('evil.tar'), makeBundle(made));
      const refused = await side.run('import', side.path('evil.tar'));
      t.match(
        refused,
        { code: 1, out: '', err: /^Refused, and nothing of it was kept\. [\x20-\x7e]+: [\x20-\x7e]+[^.]\.\n$/ },
        what,
      );
      t.comment(refused.err.trim());
      if (refused.code === 0) side = await hostingSide(t);
      else t.strictSame(await side.seen(), before, `${what}: nothing of it is there`);
    }
  },
);

void t.test('what contradicts itself does not change what is here', async (t) => {
  const far = await hostingSide(t);
  await writeFile(far.path('sound.tar'), makeBundle(sound));
  t.match(await far.run('import', far.path('sound.tar')), { code: 0 });
  const before = await far.seen();
  for (const what of [
    'a platform that is not in it',
    'index.json names another image that is not there',
    'a blob that is not what its name says',
  ]) {
    await writeFile(far.path('evil.tar'), makeBundle(evil[what]!));
    t.match(await far.run('import', far.path('evil.tar')), { code: 1, out: '' }, what);
    t.strictSame(await far.seen(), before, what);
  }
});
