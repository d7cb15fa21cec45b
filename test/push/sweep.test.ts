import { join } from 'node:path';
import t from 'tap';
import { anonymous } from '../../src/access/identity.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { createHostedContent } from '../../src/cache/hosted-content.ts';
import type { HostedContent } from '../../src/cache/hosted-content.ts';
import type { Ledger } from '../../src/cache/ledger.ts';
import { openSqliteLedger } from '../../src/cache/sqlite-ledger.ts';
import { openUploads } from '../../src/cache/uploads.ts';
import type { Uploads } from '../../src/cache/uploads.ts';
import { isKind } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parseReference, parseRepositoryName, parseTag } from '../../src/oci/reference.ts';
import { createBlobPushes } from '../../src/push/blobs.ts';
import { createHostedRegistry } from '../../src/push/hosted-registry.ts';
import { createManifestPushes } from '../../src/push/manifests.ts';
import type { PushParts } from '../../src/push/parts.ts';
import { createSweeper } from '../../src/push/sweep.ts';
import type { SweepOptions, Sweeper } from '../../src/push/sweep.ts';
import { content as contentOf, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { openBookedDisk } from '../fixtures/booked-disk.ts';

const hour = 3_600_000;
const maxSteps = 3;
const hosted = { isComposed: false, push: ['anonymous'], owners: undefined, maxSteps };
const away = () => Promise.reject(new Error('away'));
const config = contentOf({}, 'application/vnd.oci.empty.v1+json');

interface Stage {
  readonly ledger: Ledger;
  readonly content: HostedContent;
  readonly catalog: Catalog;
  readonly uploads: Uploads;
  readonly sweeper: Sweeper;
  pass(ms: number): void;
  /** Another sweeper, over books that are told of differently. */
  sweeperOver(ledger: Ledger): Sweeper;
  blob(blob: Pick<Content, 'bytes' | 'digest'>, repository?: string): Promise<void>;
  mount(digest: Digest, to: string): Promise<boolean>;
  manifest(manifest: Content, ...tags: string[]): Promise<void>;
  deleteManifest(digest: Digest): Promise<void>;
  hasBlob(digest: Digest, repository?: string): Promise<boolean>;
  hasManifest(reference: string): Promise<boolean>;
}

async function prepare(t: Teardown, over: Partial<SweepOptions> = {}): Promise<Stage> {
  const path = await temporaryFolder(t);
  let time = Date.now();
  const now = () => time;
  const { catalog, disk } = await openBookedDisk(t, path, now);
  const ledger = openSqliteLedger(join(path, 'hosted.sqlite'));
  t.teardown(() => ledger.close());
  const content = createHostedContent({ disk, catalog, shared: [] });
  const uploads = await openUploads({
    folder: join(path, 'uploads'),
    maxUploads: 100,
    maxBytes: 1e9,
    idleMs: hour,
    now,
    onFull: () => undefined,
  });
  const parts: PushParts = {
    ledger,
    content,
    uploads,
    rules: { hosted: () => hosted, pullersOf: () => ['anonymous'], maxManifestBytes: 1e6 },
    now,
    onPushed: () => Promise.resolve(),
  };
  const blobs = createBlobPushes(parts);
  const manifests = createManifestPushes(parts);
  const registry = createHostedRegistry(ledger, content, 1e6);
  const options = { unusedMs: hour, untaggedMs: Infinity, ...over };
  const place = { repository: 'team/x', rules: hosted, by: anonymous };
  return {
    ledger,
    content,
    catalog,
    uploads,
    sweeper: createSweeper(parts, options),
    sweeperOver: (own) => createSweeper({ ...parts, ledger: own }, options),
    pass: (ms) => void (time += ms),
    async blob({ bytes, digest }, repository = 'team/x') {
      const id = await blobs.begin(repository);
      await blobs.append(repository, id, { from: 0, body: once(bytes) });
      await blobs.finish(repository, id, digest);
    },
    mount: (digest, to) => blobs.mount(to, digest, 'team/x'),
    async manifest({ bytes, mediaType }, ...tags) {
      await manifests.put(place, bytes, mediaType, undefined, tags.map(parseTag));
    },
    deleteManifest: (digest) => manifests.delete(place, digest),
    hasBlob: async (digest, repository = 'team/x') =>
      (await registry.blobHead(parseRepositoryName(repository), digest)) !== undefined,
    hasManifest: async (reference) =>
      (await registry.head(parseRepositoryName('team/x'), parseReference(reference))) !== undefined,
  };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield bytes;
}

function layerOf(seed: string): Content {
  return contentOf(noise(seed, 1000), 'application/vnd.oci.image.layer.v1.tar');
}

function manifestOf(layers: readonly Content[], more: Record<string, unknown> = {}): Content {
  const { ociManifest: mediaType } = mediaTypes;
  const document = { schemaVersion: 2, mediaType, config: descriptor(config), layers: layers.map(descriptor) };
  return contentOf({ ...document, ...more }, mediaType);
}

function indexOf(...children: Content[]): Content {
  const { ociIndex: mediaType } = mediaTypes;
  return contentOf({ schemaVersion: 2, mediaType, manifests: children.map(descriptor) }, mediaType);
}

void t.test('sweep: a blob that nothing names goes when its time is over, and not before', async (t) => {
  const { sweeper, blob, hasBlob, pass } = await prepare(t);
  const layer = layerOf('unused');
  await blob(layer);
  pass(hour);
  t.same(await sweeper.sweep(), { manifests: 0, blobs: 0, bytes: 0 });
  t.equal(await hasBlob(layer.digest), true);
  pass(1);
  t.same(await sweeper.sweep(), { manifests: 0, blobs: 1, bytes: 1000 });
  t.equal(await hasBlob(layer.digest), false);
  t.same(await sweeper.sweep(), { manifests: 0, blobs: 0, bytes: 0 });
});

void t.test('sweep: a blob that is pushed or mounted again has its time again', async (t) => {
  const { sweeper, blob, mount, hasBlob, pass } = await prepare(t);
  const layer = layerOf('again');
  await blob(layer);
  pass(hour);
  await blob(layer);
  t.equal(await mount(layer.digest, 'team/y'), true);
  pass(hour);
  await sweeper.sweep();
  t.equal(await hasBlob(layer.digest), true);
  t.equal(await mount(layer.digest, 'team/y'), true);
  pass(1);
  await sweeper.sweep();
  t.equal(await hasBlob(layer.digest), false);
  t.equal(await hasBlob(layer.digest, 'team/y'), true, 'each repository by itself');
});

void t.test('sweep: what a manifest names stays as long as the manifest', async (t) => {
  const stage = await prepare(t);
  const layer = layerOf('used');
  await stage.blob(config);
  await stage.blob(layer);
  const one = manifestOf([layer]);
  const two = manifestOf([layer, layer], { annotations: { two: '2' } });
  await stage.manifest(one);
  await stage.manifest(two, 'v1');
  stage.pass(100 * hour);
  for (const { digest } of [one, two]) {
    t.same(await stage.sweeper.sweep(), { manifests: 0, blobs: 0, bytes: 0 }, 'untagged ones stay for ever here');
    t.equal(await stage.hasBlob(layer.digest), true);
    await stage.deleteManifest(digest);
  }
  t.match(await stage.sweeper.sweep(), { manifests: 0, blobs: 2 });
  t.equal(await stage.hasBlob(layer.digest), false);
});

void t.test('sweep: manifests that nothing leads to go when their time is over', async (t) => {
  const stage = await prepare(t, { untaggedMs: hour });
  await stage.blob(config);
  const manifests = ['tagged', 'untagged', 'child', 'other child'].map((name) =>
    manifestOf([], { annotations: { name } }),
  );
  const [tagged, untagged, child, otherChild] = manifests as [Content, Content, Content, Content];
  for (const one of manifests) await stage.manifest(one);
  const index = indexOf(child, otherChild);
  await stage.manifest(tagged, 'v1');
  await stage.manifest(index, 'v2');
  stage.pass(hour);
  t.match(await stage.sweeper.sweep(), { manifests: 0 });
  stage.pass(1);
  t.match(await stage.sweeper.sweep(), { manifests: 1 });
  t.equal(await stage.hasManifest(untagged.digest), false);
  for (const { digest } of [tagged, child, otherChild, index]) t.equal(await stage.hasManifest(digest), true);
  await stage.deleteManifest(index.digest);
  await stage.sweeper.sweep();
  for (const { digest } of [child, otherChild]) t.equal(await stage.hasManifest(digest), false);
  t.equal(await stage.hasManifest(tagged.digest), true);
});

void t.test('sweep: what the history of a tag can put back stays', async (t) => {
  const stage = await prepare(t, { untaggedMs: hour });
  await stage.blob(config);
  const steps = Array.from({ length: 5 }, (_, at) => manifestOf([], { annotations: { at: String(at) } }));
  for (const one of steps) await stage.manifest(one, 'v1');
  stage.pass(2 * hour);
  await stage.sweeper.sweep();
  const left = await Promise.all(steps.map(({ digest }) => stage.hasManifest(digest)));
  t.same(left, [false, false, true, true, true]);
});

void t.test('sweep: what says something about a manifest stays as long as that is here', async (t) => {
  const stage = await prepare(t, { untaggedMs: hour });
  await stage.blob(config);
  const image = manifestOf([]);
  const signature = manifestOf([], { subject: descriptor(image), annotations: { kind: 'signature' } });
  const ofNothing = manifestOf([], { subject: { ...descriptor(image), digest: digestOf(Buffer.from('gone')) } });
  await stage.manifest(image, 'v1');
  await stage.manifest(signature);
  await stage.manifest(ofNothing);
  stage.pass(2 * hour);
  await stage.sweeper.sweep();
  t.equal(await stage.hasManifest(signature.digest), true);
  t.equal(await stage.hasManifest(ofNothing.digest), false);
  await stage.deleteManifest(image.digest);
  await stage.sweeper.sweep();
  t.equal(await stage.hasManifest(signature.digest), false);
});

void t.test('sweep: content goes at the second sweep that finds nobody who has it', async (t) => {
  const stage = await prepare(t);
  const layer = layerOf('content');
  await stage.blob(layer);
  await stage.mount(layer.digest, 'team/y');
  const isKept = () => stage.content.kept('').includes(layer.digest);
  const deleteIn = (repository: string) =>
    stage.ledger.commit(repository, [{ key: `blob/${layer.digest}`, after: null }]);
  await deleteIn('team/x');
  for (let round = 0; round < 3; round++) await stage.sweeper.sweep();
  t.equal(isKept(), true, 'another repository has it');
  await deleteIn('team/y');
  await stage.sweeper.sweep();
  t.equal(isKept(), true);
  await stage.sweeper.sweep();
  t.equal(isKept(), false);
  t.same(
    stage.catalog.oldest(10).map(({ digest }) => digest),
    [layer.digest],
  );
  await stage.blob(layer);
  for (let round = 0; round < 3; round++) await stage.sweeper.sweep();
  t.equal(isKept(), true, 'and it may come again');
});

void t.test('sweep: content that comes back between two sweeps stays', async (t) => {
  const stage = await prepare(t);
  const layer = layerOf('back');
  await stage.blob(layer);
  await stage.ledger.commit('team/x', [{ key: `blob/${layer.digest}`, after: null }]);
  await stage.sweeper.sweep();
  await stage.blob(layer);
  for (let round = 0; round < 3; round++) await stage.sweeper.sweep();
  t.equal(stage.content.kept('').includes(layer.digest), true);
});

void t.test('sweep: content that comes back while a sweep looks for it stays', async (t) => {
  const stage = await prepare(t);
  const layer = layerOf('back in the middle');
  await stage.blob(config);
  await stage.blob(layer);
  await stage.ledger.commit('team/x', [{ key: `blob/${layer.digest}`, after: null }]);
  let isBack = true;
  const sweeper = stage.sweeperOver({
    ...stage.ledger,
    async get(repository, keys) {
      const found = await stage.ledger.get(repository, keys);
      if (!isBack && keys.includes(`blob/${layer.digest}`)) {
        isBack = true;
        await stage.blob(layer);
      }
      return found;
    },
  });
  await sweeper.sweep();
  isBack = false;
  await sweeper.sweep();
  t.equal(isBack, true);
  t.equal(await stage.hasBlob(layer.digest), true);
  t.equal(stage.content.kept('').includes(layer.digest), true, 'what a repository has is not to be evicted');
});

void t.test('sweep: thousands of blobs, page by page', async (t) => {
  const stage = await prepare(t);
  const digests = Array.from({ length: 2500 }, (_, at) => digestOf(Buffer.from(String(at))));
  const entry = JSON.stringify({ bytes: 1, atMs: 0 });
  await stage.ledger.commit(
    'team/x',
    digests.map((digest) => ({ key: `blob/${digest}`, after: entry })),
  );
  t.same(await stage.sweeper.sweep(), { manifests: 0, blobs: 2500, bytes: 2500 });
});

void t.test('sweep: a manifest that comes while its blob is on its way out: one of them loses', async (t) => {
  const stage = await prepare(t);
  await stage.blob(config);
  await stage.manifest(manifestOf([]), 'keeps-the-config');
  for (let round = 0; round < 20; round++) {
    const layer = layerOf(`raced ${round}`);
    await stage.blob(layer);
    stage.pass(2 * hour);
    const manifest = manifestOf([layer]);
    const [pushed] = await Promise.allSettled([stage.manifest(manifest, `v${round}`), stage.sweeper.sweep()]);
    const isThere = pushed.status === 'fulfilled';
    if (pushed.status === 'rejected') t.ok(isKind(pushed.reason, 'manifestBlobUnknown'), String(pushed.reason));
    t.equal(await stage.hasBlob(layer.digest), isThere);
    t.equal(await stage.hasManifest(`v${round}`), isThere);
  }
});

void t.test('sweep: uploads that stand still go as well', async (t) => {
  const { uploads, sweeper, pass } = await prepare(t);
  const id = await uploads.begin('team/x');
  await sweeper.sweep();
  t.equal(await uploads.size('team/x', id), 0);
  pass(2 * hour);
  await sweeper.sweep();
  t.equal(await uploads.size('team/x', id), undefined);
});

void t.test('sweep: books that cannot be reached are said, and nothing goes', async (t) => {
  const stage = await prepare(t);
  const layer = layerOf('kept');
  await stage.blob(layer);
  const sweeper = stage.sweeperOver({ get: away, list: away, commit: away, repositories: away });
  for (let round = 0; round < 3; round++)
    await t.rejects(sweeper.sweep(), { kind: 'storeUnavailable', code: 'UNAVAILABLE' });
  t.equal(stage.content.kept('').includes(layer.digest), true);
});
