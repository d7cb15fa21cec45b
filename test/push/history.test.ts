import t from 'tap';
import { join } from 'node:path';
import { createDiskTier } from '../../src/cache/disk.ts';
import { openCatalog } from '../../src/cache/catalog.ts';
import { createHostedContent } from '../../src/cache/hosted-content.ts';
import { openSqliteLedger } from '../../src/cache/sqlite-ledger.ts';
import { openUploads } from '../../src/cache/uploads.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parseReference, parseRepositoryName, parseTag } from '../../src/oci/reference.ts';
import { createHistory } from '../../src/push/history.ts';
import type { History } from '../../src/push/history.ts';
import { createHostedRegistry } from '../../src/push/hosted-registry.ts';
import { createManifestPushes } from '../../src/push/manifests.ts';
import type { ManifestPushes } from '../../src/push/manifests.ts';
import { buildImage, content as contentOf } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const alice = { user: 'alice', groups: [] };
const nothing = () => Promise.resolve();
const operator = { user: 'operator', groups: [] };
const repository = parseRepositoryName('team/x');

interface Stage {
  readonly history: History;
  readonly manifests: ManifestPushes;
  push(manifest: Content, tag?: string): Promise<void>;
  means(tag?: string): Promise<string | undefined>;
  deleteManifest(manifest: Content): Promise<void>;
  deleteTag(tag: string): Promise<void>;
}

interface Options {
  readonly maxSteps?: number;
  readonly store?: string;
}

async function prepare(t: Teardown, { maxSteps = 5, store }: Options = {}): Promise<Stage> {
  const path = store ?? (await temporaryFolder(t));
  let time = 1000;
  const catalog = openCatalog(join(path, 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  const disk = await createDiskTier({
    path,
    maxVerified: 100,
    maxBufferBytes: 64 * 1024 * 1024,
    maxLeftoverBytes: 2 ** 30,
  });
  t.teardown(() => disk.close());
  const ledger = openSqliteLedger(join(path, 'hosted.sqlite'));
  t.teardown(() => ledger.close());
  const content = createHostedContent({ disk, catalog, shared: [] });
  const hosted = { isComposed: false, push: ['anonymous'], owners: undefined, maxSteps };
  const rules = {
    hosted: (name: string) => (name.startsWith('team/') ? hosted : undefined),
    pullersOf: () => ['anonymous'],
    maxManifestBytes: 1e6,
  };
  const now = () => time++;
  const uploads = await openUploads({
    folder: join(path, 'uploads'),
    maxUploads: 10,
    maxBytes: 1e9,
    idleMs: 1e9,
    now,
    onFull: () => undefined,
  });
  const manifests = createManifestPushes({ ledger, content, uploads, rules, now, onPushed: nothing });
  const registry = createHostedRegistry(ledger, content, 1e6);
  const place = { repository, rules: hosted, by: alice };
  for (const { blob, digest } of blobs) {
    await content.put(digest, blob);
    const entry = JSON.stringify({ bytes: blob.length, atMs: 0 });
    await ledger.commit(repository, [{ key: `blob/${digest}`, after: entry }]);
  }
  return {
    history: createHistory({ ledger, content, rules, now }),
    manifests,
    push: async ({ bytes, mediaType }, tag = 'v1') =>
      void (await manifests.put(place, bytes, mediaType, undefined, [parseTag(tag)])),
    means: async (tag = 'v1') => (await registry.head(repository, parseReference(tag)))?.digest,
    deleteManifest: ({ digest }) => manifests.delete(place, digest),
    deleteTag: (tag) => manifests.deleteTag(place, parseTag(tag)),
  };
}

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });
const blobs = image.blobs.map(({ bytes, digest }) => ({ blob: bytes, digest }));
const [amd64, arm64] = image.children.map(({ manifest }) => manifest) as [Content, Content];

/** The same image under another digest. */
function variant(at: number): Content {
  const document = JSON.parse(amd64.bytes.toString()) as object;
  return contentOf({ ...document, annotations: { at: String(at) } }, mediaTypes.ociManifest);
}

void t.test('history: every meaning of a tag, the newest first, with who, when and what', async (t) => {
  const { history, push } = await prepare(t);
  await push(amd64);
  await push(arm64);
  await push(arm64);
  await push(amd64, 'v2');
  const { steps, current } = await history.of('team/x', 'v1');
  t.match(current, { digest: arm64.digest, mediaType: mediaTypes.ociManifest, step: 2 });
  t.match(steps, [
    { step: 2, digest: arm64.digest, by: 'alice', changed: ['linux/amd64', 'linux/arm64'] },
    { step: 1, digest: amd64.digest, by: 'alice', changed: ['linux/amd64'] },
  ]);
  t.equal(steps.length, 2, 'the same again is no step, and another tag has its own');
  t.ok(steps[0]!.atMs > steps[1]!.atMs);
});

void t.test('history: of what is not there, and of what is not hosted', async (t) => {
  const { history, push } = await prepare(t);
  await push(amd64);
  await t.rejects(history.of('team/x', 'v2'), { code: 'MANIFEST_UNKNOWN' });
  await t.rejects(history.of('team/y', 'v1'), { code: 'MANIFEST_UNKNOWN' });
  await t.rejects(history.of('docker.io/x', 'v1'), { code: 'NAME_UNKNOWN' });
  await t.rejects(history.restore('docker.io/x', 'v1', 1, operator), { code: 'NAME_UNKNOWN' });
  await t.rejects(history.restore('team/y', 'v1', 1, operator), { code: 'MANIFEST_UNKNOWN' });
  for (const step of [0, -1, 2, 1.5, 1e12, NaN]) {
    await t.rejects(history.restore('team/x', 'v1', step, operator), { code: 'MANIFEST_UNKNOWN' }, String(step));
  }
});

void t.test('history: a step is put back as a new one', async (t) => {
  const { history, push, means } = await prepare(t);
  await push(amd64);
  await push(arm64);
  const step = await history.restore('team/x', 'v1', 1, operator);
  const wanted = {
    step: 3,
    digest: amd64.digest,
    by: 'operator',
    restored: 1,
    changed: ['linux/arm64', 'linux/amd64'],
  };
  t.match(step, wanted);
  t.equal(await means(), amd64.digest);
  const { steps, current } = await history.of('team/x', 'v1');
  t.match(steps[0], wanted);
  t.equal(current.step, 3);
  t.same(
    steps.map(({ digest }) => digest),
    [amd64.digest, arm64.digest, amd64.digest],
  );
  await history.restore('team/x', 'v1', 2, operator);
  t.equal(await means(), arm64.digest);
  await push(amd64);
  t.equal((await history.of('team/x', 'v1')).current.step, 5);
});

void t.test('history: only so many steps', async (t) => {
  const { history, push } = await prepare(t, { maxSteps: 3 });
  for (let at = 0; at < 8; at++) await push(variant(at));
  const { steps } = await history.of('team/x', 'v1');
  t.same(
    steps.map(({ step }) => step),
    [8, 7, 6],
  );
  await t.rejects(history.restore('team/x', 'v1', 5, operator), { code: 'MANIFEST_UNKNOWN' });
  t.match(await history.restore('team/x', 'v1', 6, operator), { step: 9, digest: variant(5).digest });
});

void t.test('history: what a tag means already is put back without a step', async (t) => {
  const { history, push, means } = await prepare(t, { maxSteps: 1 });
  await push(variant(0));
  t.match(await history.restore('team/x', 'v1', 1, operator), { step: 1, restored: undefined });
  t.equal(await means(), variant(0).digest);
  t.equal((await history.of('team/x', 'v1')).steps.length, 1);
});

void t.test('history: fewer steps than before are fewer, from the next push on', async (t) => {
  const store = await temporaryFolder(t);
  const before = await prepare(t, { maxSteps: 6, store });
  for (let at = 0; at < 6; at++) await before.push(variant(at));
  t.equal((await before.history.of('team/x', 'v1')).steps.length, 6);
  const after = await prepare(t, { maxSteps: 2, store });
  await after.push(variant(6));
  t.same(
    (await after.history.of('team/x', 'v1')).steps.map(({ step }) => step),
    [7, 6],
  );
});

void t.test('history: goes with its tag, and what comes later begins anew', async (t) => {
  for (const fewer of [false, true]) {
    const store = await temporaryFolder(t);
    const before = await prepare(t, { maxSteps: 5, store });
    for (let at = 0; at < 4; at++) await before.push(variant(at));
    const { history, push, deleteTag } = await prepare(t, { maxSteps: fewer ? 2 : 5, store });
    await deleteTag('v1');
    await t.rejects(history.of('team/x', 'v1'), { code: 'MANIFEST_UNKNOWN' });
    for (let step = 1; step <= 4; step++) {
      const what = `step ${step}, ${fewer ? 'with fewer steps than before' : ''}`;
      await t.rejects(history.restore('team/x', 'v1', step, operator), { code: 'MANIFEST_UNKNOWN' }, what);
    }
    await push(variant(9));
    const { steps } = await history.of('team/x', 'v1');
    t.same(
      steps.map(({ step, digest }) => [step, digest]),
      [[1, variant(9).digest]],
    );
  }
});

void t.test('history: a manifest that is deleted is a step no more, and none that can be put back', async (t) => {
  const { history, push, deleteManifest } = await prepare(t);
  await push(amd64);
  await push(arm64);
  await deleteManifest(amd64);
  t.same(
    (await history.of('team/x', 'v1')).steps.map(({ digest }) => digest),
    [arm64.digest],
  );
  await t.rejects(history.restore('team/x', 'v1', 1, operator), { code: 'MANIFEST_UNKNOWN' });
  t.equal((await history.of('team/x', 'v1')).current.digest, arm64.digest);
});

void t.test('history: of many that push and put back at once, each is one step', async (t) => {
  const { history, push } = await prepare(t, { maxSteps: 100 });
  await push(variant(0));
  await Promise.all([
    ...Array.from({ length: 10 }, (_, at) => push(variant(at + 1))),
    ...Array.from({ length: 5 }, () => history.restore('team/x', 'v1', 1, operator)),
  ]);
  const { steps, current } = await history.of('team/x', 'v1');
  // Put back while it is what the tag means, it is no step.
  t.ok(steps.length >= 11 && steps.length <= 16, `${steps.length}`);
  t.same(
    steps.map(({ step }) => step),
    steps.map((_, at) => steps.length - at),
  );
  for (const [at, { digest }] of steps.slice(1).entries()) t.not(digest, steps[at]!.digest);
  t.equal(steps[0]!.digest, current.digest);
  t.equal(new Set(steps.map(({ digest }) => digest)).size, 11);
});
