import * as fc from 'fast-check';
import t from 'tap';
import {
  blobPath,
  contentsPath,
  layoutFile,
  readContents,
  readIndex,
  signaturePath,
  writeContents,
  writeIndex,
} from '../../src/airgap/bundle.ts';
import type { Contents, LayoutEntry } from '../../src/airgap/bundle.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { hexDigest } from '../fixtures/bundles.ts';

const one = digestOf(Buffer.from('one'));
const two = digestOf(Buffer.from('two'), 'sha512');

const contents: Contents = {
  set: 'edge',
  images: [
    { image: 'docker.io/library/app:1', digest: one, platforms: ['linux/arm64'], referrers: true },
    { image: `ghcr.io/org/app@${one}`, digest: one, platforms: ['any'], referrers: false },
  ],
  files: [
    { path: 'oci-layout', digest: digestOf(layoutFile), bytes: layoutFile.length },
    { path: 'index.json', digest: one, bytes: 3 },
  ],
  blobs: [
    { digest: one, bytes: 3 },
    { digest: two, bytes: 0 },
  ],
  needs: [{ digest: two, bytes: Number.MAX_SAFE_INTEGER }],
  since: [one],
};

/** As somebody writes it whose digest is right. */
function said(value: unknown): { bytes: Buffer; path: string } {
  const bytes = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
  return { bytes, path: `narrows/${hexDigest(bytes)}.json` };
}

function read(value: unknown): Contents {
  const { bytes, path } = said(value);
  return readContents(bytes, path);
}

void t.test('contents are read as they were written, and the same are the same bytes', (t) => {
  const { bytes, digest } = writeContents(contents);
  t.same(readContents(bytes, contentsPath(digest)), contents);
  t.same(writeContents(structuredClone(contents)).bytes, bytes);
  t.equal(digest, digestOf(bytes));
  const { set: _, ...unnamed } = contents;
  const again = writeContents(unnamed);
  t.same(readContents(again.bytes, contentsPath(again.digest)), unnamed, 'without a set');
  t.end();
});

void t.test('25. names of entries are made of digests', (t) => {
  t.equal(blobPath(one), `blobs/sha256/${one.slice(7)}`);
  t.equal(blobPath(two), `blobs/sha512/${two.slice(7)}`);
  t.equal(contentsPath(one), `narrows/${one.slice(7)}.json`);
  t.equal(signaturePath(one), `narrows/${one.slice(7)}.sig`);
  t.equal(layoutFile.toString(), '{"imageLayoutVersion":"1.0.0"}');
  t.end();
});

void t.test('a byte that was changed is found, and so is another name', (t) => {
  const { bytes, digest } = writeContents(contents);
  const path = contentsPath(digest);
  const expected = { name: 'BundleError', message: `${path}: is not what its name says: it was changed on the way` };
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1;
    t.throws(() => readContents(changed, path), expected);
  }
  t.throws(() => readContents(bytes.subarray(0, -1), path), expected);
  t.throws(() => readContents(Buffer.concat([bytes, Buffer.from('\n')]), path), expected);
  for (const other of [contentsPath(one), `./${path}`, path.toUpperCase(), path.replace('.json', '')])
    t.throws(() => readContents(bytes, other), { name: 'BundleError', message: /: is not what its name says/ });
  t.end();
});

void t.test('84. what another version wrote is refused', (t) => {
  for (const version of [0, 2, '1', null, true, [1]])
    t.throws(() => read({ ...contents, narrowsBundle: version }), {
      name: 'BundleError',
      message: /^narrows\/[0-9a-f]{64}\.json: is of another version of narrows$/,
    });
  for (const other of [contents, [], 'null', '1', '"text"', {}])
    t.throws(() => read(other), { name: 'BundleError', message: /: is of another version of narrows$/ });
  t.end();
});

void t.test('what is no JSON is refused', (t) => {
  for (const text of ['', '{', '{"narrowsBundle":1', "{'a':1}", '\0'])
    t.throws(() => read(text), { name: 'BundleError', message: /: is no JSON$/ }, JSON.stringify(text));
  t.end();
});

void t.test('wrong shapes are refused, or are nothing', (t) => {
  const whole = { narrowsBundle: 1, ...contents };
  const noBlob = /^narrows\/[0-9a-f]{64}\.json: lists what is no blob$/;
  for (const key of ['files', 'blobs', 'needs'])
    for (const entry of [
      null,
      'text',
      [],
      {},
      { digest: one },
      { bytes: 3 },
      { digest: 'sha256:12', bytes: 3 },
      { digest: one.toUpperCase(), bytes: 3 },
      { digest: `${one}\n`, bytes: 3 },
      { digest: `sha256:${'../'.repeat(21)}x`, bytes: 3 },
      { digest: one, bytes: -1 },
      { digest: one, bytes: 1.5 },
      { digest: one, bytes: 2 ** 53 },
      { digest: one, bytes: '3' },
      { digest: one, bytes: null },
    ])
      t.throws(
        () => read({ ...whole, [key]: [entry] }),
        { name: 'BundleError', message: noBlob },
        JSON.stringify(entry),
      );
  for (const entry of [
    null,
    'text',
    {},
    { image: 'a' },
    { digest: one },
    { image: 1, digest: one },
    { image: 'a', digest: 'b' },
  ])
    t.throws(() => read({ ...whole, images: [entry] }), { name: 'BundleError', message: /: names no image$/ });
  const refused = (change: object, message: RegExp) =>
    t.throws(() => read({ ...whole, ...change }), { name: 'BundleError', message }, JSON.stringify(change));
  for (const set of ['', 'a b', '../edge', 'edge\u001b[2J', 7]) refused({ set }, /: names a set that is no name$/);
  for (const platforms of [[], ['x'], 'any'])
    refused({ images: [{ image: 'a', digest: one, platforms }] }, /: names an image for no platform$/);
  refused({ blobs: [contents.blobs[0], contents.blobs[0]] }, /: lists a blob twice$/);
  refused({ files: contents.files.toReversed() }, /: lists other files than a layout has$/);
  refused({ files: [] }, /: lists other files than a layout has$/);
  t.end();
});

void t.test('an index is read as it was written', (t) => {
  const entries: LayoutEntry[] = [
    {
      mediaType: 'application/vnd.oci.image.index.v1+json',
      digest: one,
      bytes: 3,
      annotations: { 'org.opencontainers.image.ref.name': 'docker.io/library/app:1' },
    },
    { mediaType: 'a/b', digest: two, bytes: 0, artifactType: 'application/spdx+json', annotations: {} },
  ];
  t.strictSame(readIndex(writeIndex(entries)), entries);
  t.match(JSON.parse(writeIndex(entries).toString()), {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      { digest: one, size: 3 },
      { digest: two, size: 0, artifactType: 'application/spdx+json' },
    ],
  });
  t.strictSame(readIndex(writeIndex([])), []);
  t.end();
});

const index = (...manifests: unknown[]) => Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));

void t.test('an index of others may say more, or less', (t) => {
  t.strictSame(
    readIndex(index({ digest: one, size: 3, platform: { os: 'linux' }, annotations: { a: 'b', c: 1, d: null } })),
    [{ mediaType: '', digest: one, bytes: 3, annotations: { a: 'b' } }],
  );
  t.strictSame(readIndex(index({ digest: one, size: 3, annotations: 'text' }))[0]?.annotations, {});
  for (const entry of [
    {},
    null,
    { digest: one },
    { digest: '../x', size: 1 },
    { digest: one, size: -1 },
    { digest: one, size: 1e300 },
  ])
    t.throws(() => readIndex(index(entry)), { name: 'BundleError', message: 'index.json: lists what is no blob' });
  t.end();
});

void t.test('what is no index of a layout is refused', (t) => {
  for (const text of ['{}', '[]', 'null', '{"manifests":{}}', '{"manifests":null}'])
    t.throws(() => readIndex(Buffer.from(text)), { name: 'BundleError', message: 'index.json: lists no manifests' });
  for (const text of ['', '{', '{"manifests":[],"manifests":[]}', '\ufeff{}', '{"a":"\xff"}', '['.repeat(100)])
    t.throws(() => readIndex(Buffer.from(text, 'latin1')), {
      name: 'BundleError',
      message: /^index\.json: is no index: /,
    });
  fc.assert(
    fc.property(fc.json(), (text) => {
      try {
        t.ok(Array.isArray(readIndex(Buffer.from(text))));
      } catch (error) {
        t.match(error, { name: 'BundleError', message: /^index\.json: / });
      }
    }),
    { numRuns: 200 },
  );
  t.end();
});
