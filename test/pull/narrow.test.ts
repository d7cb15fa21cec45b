import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseDocument } from '../../src/oci/manifest.ts';
import type { Descriptor, Index } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { narrowIndex } from '../../src/pull/narrow.ts';
import { buildImage } from '../fixtures/images.ts';

const image = buildImage({
  platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7', 'windows(10.0.20348.1)/amd64'],
  attestations: true,
  indexFields: { annotations: { 'org.example': 'kept' }, 'x-unknown': [{ b: 1, a: 2 }] },
});

const read = (bytes: Uint8Array, mediaType: string = mediaTypes.ociIndex) => parseDocument(bytes, mediaType) as Index;
const original = read(image.index.bytes);

/** Every choice of children that an index of eight has. */
const choices = Array.from({ length: 2 ** original.manifests.length }, (_, bits) =>
  original.manifests.filter((_child, at) => bits & (1 << at)),
);

void t.test('narrowIndex: keeps the chosen children and everything else, in the order of the original', (t) => {
  for (const keep of choices) {
    const narrowed = narrowIndex(original, keep);
    const expected = { ...original.source, manifests: keep.map(({ source }) => source) };
    if (narrowed.bytes.toString() !== JSON.stringify(expected)) t.fail(`${keep.length} children`);
    if (narrowed.mediaType !== original.mediaType) t.fail(narrowed.mediaType);
  }
  const { bytes } = narrowIndex(original, original.manifests.slice(1, 2));
  const arm64 = image.children[1]!.manifest;
  const written = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [
      {
        mediaType: arm64.mediaType,
        digest: arm64.digest,
        size: arm64.bytes.length,
        platform: { architecture: 'arm64', os: 'linux' },
      },
    ],
    annotations: { 'org.example': 'kept' },
    'x-unknown': [{ b: 1, a: 2 }],
  });
  t.equal(bytes.toString(), written);
  t.end();
});

void t.test('21. narrowIndex: the digest is that of the bytes', (t) => {
  for (const keep of choices.filter((_, at) => at % 17 === 0)) {
    const { bytes, digest } = narrowIndex(original, keep);
    t.equal(digest, digestOf(bytes));
  }
  t.end();
});

void t.test('21. narrowIndex: the same choice gives the same bytes, in whatever order it is told', (t) => {
  for (const keep of choices) {
    const again = read(Buffer.from(image.index.bytes));
    const digests = new Set(keep.map(({ digest }) => digest));
    const same = again.manifests.filter(({ digest }) => digests.has(digest)).toReversed();
    if (narrowIndex(again, same).digest !== narrowIndex(original, keep).digest) t.fail(`${keep.length} children`);
  }
  t.not(narrowIndex(original, choices[1]!).digest, narrowIndex(original, choices[2]!).digest);
  t.equal(
    new Set(choices.map((keep) => narrowIndex(original, keep).digest)).size,
    choices.length,
    'and another choice others',
  );
  t.end();
});

void t.test('narrowIndex: narrowing what is narrowed changes nothing', (t) => {
  for (const keep of choices) {
    const once = narrowIndex(original, keep);
    const reread = read(once.bytes);
    if (!narrowIndex(reread, reread.manifests).bytes.equals(once.bytes)) t.fail(`${keep.length} children`);
    const fewer = narrowIndex(reread, reread.manifests.slice(1));
    if (!fewer.bytes.equals(narrowIndex(original, keep.slice(1)).bytes))
      t.fail(`${keep.length} children, in two steps`);
  }
  t.equal(choices.length, 256);
  t.end();
});

void t.test('29. narrowIndex: a child of another index is not taken in', (t) => {
  const stranger = read(buildImage({ platforms: ['linux/amd64'], seed: 'other' }).index.bytes).manifests[0]!;
  const [first] = original.manifests as [Descriptor];
  t.same(read(narrowIndex(original, [stranger, first]).bytes).manifests, [first]);
  t.end();
});

void t.test('narrowIndex: a list that was written with space between is compact, and Docker stays Docker', (t) => {
  const docker = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], docker: true });
  const spaced = Buffer.from(JSON.stringify(JSON.parse(docker.index.bytes.toString()), undefined, 3));
  const list = read(spaced, mediaTypes.dockerList);
  const { bytes, mediaType } = narrowIndex(list, list.manifests);
  t.same(bytes, docker.index.bytes);
  t.equal(mediaType, mediaTypes.dockerList);
  t.end();
});

void t.test('narrowIndex: texts and numbers are written as they were', (t) => {
  const digest = digestOf(Buffer.from('x'));
  const child = (more: string) => `{"digest":"${digest}","size":2,${more}}`;
  const kept = child('"big":12345678901234567890,"one":1.0,"annotations":{"__proto__":"p","ü":"\u{1F40B}"}');
  const text = `{"schemaVersion":2,"x":1e400,"__proto__":{"a":-0},"manifests":[${child('"a":1')},${kept}],"z":null}`;
  const index = read(Buffer.from(text));
  const { bytes } = narrowIndex(index, index.manifests.slice(1));
  t.equal(bytes.toString(), `{"schemaVersion":2,"x":1e400,"__proto__":{"a":-0},"manifests":[${kept}],"z":null}`);
  t.end();
});

void t.test('narrowIndex: one digest under two platforms can be told apart', (t) => {
  const child = { mediaType: mediaTypes.ociManifest, digest: digestOf(Buffer.from('runs everywhere')), size: 9 };
  const twins = ['amd64', 'arm64'].map((architecture) => ({ ...child, platform: { os: 'linux', architecture } }));
  const index = read(Buffer.from(JSON.stringify({ manifests: twins })));
  const narrowed = read(narrowIndex(index, index.manifests.slice(1)).bytes);
  t.same(
    narrowed.manifests.map(({ platform }) => platform),
    [{ os: 'linux', architecture: 'arm64' }],
  );
  t.end();
});
