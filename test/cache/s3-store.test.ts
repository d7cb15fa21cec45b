import { spawnSync } from 'node:child_process';
import { cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { TierAway } from '../../src/cache/breaker.ts';
import type { S3Object, S3Store } from '../../src/cache/s3-store.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { bucket, openTestS3, startS3 } from '../fixtures/s3.ts';
import type { S3Asked } from '../fixtures/s3.ts';
import { closedPort, failureOf, within } from '../fixtures/servers.ts';

const bytes = noise('s3 store', 300_000);

t.setTimeout(60_000);

/** One question of each kind. */
function askAll(store: S3Store): Promise<unknown>[] {
  return [
    store.head('a'),
    store.read('a', 0),
    store.put('b', bytes),
    store.beginParts('c'),
    store.touch('a'),
    store.delete(['b']),
    listAll(store, ''),
    store.check(),
  ];
}

async function listAll(store: S3Store, prefix: string): Promise<S3Object[][]> {
  const pages: S3Object[][] = [];
  for await (const page of store.list(prefix)) pages.push(page);
  return pages;
}

/** `check` says what it is about in a sentence of its own. */
function areAway(failures: readonly Error[]): boolean {
  return failures.every((error) => error instanceof TierAway || error.cause instanceof TierAway);
}

async function readFrom(store: S3Store, key: string, from: number): Promise<Buffer> {
  return buffer(await store.read(key, from));
}

// ---- What it is for

void t.test('objects: what is put is found, read from any place, listed and deleted', async (t) => {
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3);
  await t.resolves(store.check());
  t.equal(await store.head('a/b'), undefined);
  await t.rejects(store.read('a/b', 0), { name: 'NoSuchKey' });
  const before = Date.now();
  await store.put('a/b', bytes);
  const object = await store.head('a/b');
  t.match(object, { key: 'a/b', bytes: bytes.length });
  t.ok(Math.abs(object!.changedAtMs - before) < 5000);
  for (const from of [0, 1, 150_000, bytes.length - 1]) {
    t.ok((await readFrom(store, 'a/b', from)).equals(bytes.subarray(from)), `from ${from}`);
  }
  await store.put('a/empty', Buffer.alloc(0));
  t.match(await store.head('a/empty'), { bytes: 0 });
  t.match((await listAll(store, 'a/')).flat(), [
    { key: 'a/b', bytes: bytes.length },
    { key: 'a/empty', bytes: 0 },
  ]);
  await store.delete(['a/b', 'a/empty', 'never']);
  await store.delete([]);
  t.same(await s3.keys(), []);
  t.same(changes, []);
});

void t.test('parts: become visible when they are finished, and leave nothing when they are given up', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const [finished, aborted] = [await store.beginParts('finished'), await store.beginParts('aborted')];
  for (const parts of [finished, aborted]) {
    for (let at = 0; at < bytes.length; at += 100_000) await parts.put(bytes.subarray(at, at + 100_000));
  }
  t.same(await s3.keys(), []);
  t.equal(await store.head('finished'), undefined);
  await finished.finish();
  await aborted.abort();
  t.same(await s3.keys(), ['finished']);
  t.same(await s3.uploads(), []);
  t.ok((await readFrom(store, 'finished', 0)).equals(bytes));
});

void t.test('touch: makes an object new, and leaves its bytes', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const key = 'with spaces/ä+b';
  await s3.put(key, bytes, 1e9);
  await store.touch(key);
  t.ok(Date.now() - (await store.head(key))!.changedAtMs < 5000);
  t.ok((await readFrom(store, key, 0)).equals(bytes));
});

void t.test('list: goes on from page to page, over what its prefix begins', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const keys = Array.from({ length: 25 }, (_, at) => `in/${String(at).padStart(3, '0')}`);
  await Promise.all([...keys, 'before', 'in', 'inner/x', 'within/y'].map((key) => s3.put(key, Buffer.from(key))));
  s3.pageSize = 10;
  const pages = await listAll(store, 'in/');
  t.same(
    pages.map((page) => page.length),
    [10, 10, 5],
  );
  t.same(
    pages.flat().map(({ key }) => key),
    keys,
  );
  t.same(await listAll(store, 'none/'), [[]]);
});

void t.test('54. list: one that is cut off and does not say where to go on throws', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const xml = `<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key>
    <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents></ListBucketResult>`;
  s3.fault = ({ query }) => (query.has('list-type') ? { status: 200, xml } : undefined);
  await t.rejects(listAll(store, ''), /cut off without a token/);
});

void t.test('delete: an object that may not be deleted is no deleted one', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  const xml = `<?xml version="1.0"?><DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code>
    <Message>Access Denied</Message></Error></DeleteResult>`;
  s3.fault = ({ query }) => (query.has('delete') ? { status: 200, xml } : undefined);
  await t.rejects(store.delete(['a', 'b']), /AccessDenied/);
});

void t.test('read: a store that ignores the range is not read from the wrong place', async (t) => {
  const s3 = await startS3(t);
  const { store } = await openTestS3(t, s3);
  s3.fault = () => ({ status: 200, xml: 'the whole of it' });
  await t.rejects(store.read('a', 5), { message: 'the store answers all to bytes=5-' });
  t.equal((await readFrom(store, 'a', 0)).toString(), 'the whole of it', 'from the start it does not matter');
});

void t.test('54. read: a body that is cut is never whole', async (t) => {
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3);
  await s3.put('a', bytes);
  for (const cutAt of [0, 1, 150_000, bytes.length - 1]) {
    s3.fault = () => ({ cutAt });
    await t.rejects(readFrom(store, 'a', 0), `cut at ${cutAt}`);
  }
  s3.fault = undefined;
  t.ok((await readFrom(store, 'a', 0)).equals(bytes));
  t.same(changes, [], 'one body says nothing of the store');
});

// ---- Why it cannot be used

void t.test('check: says in one sentence why the bucket cannot be used', async (t) => {
  const s3 = await startS3(t);
  const port = await closedPort();
  const stranger = { accessKeyId: 'stranger', secretAccessKey: 'S3RVER' };
  const refused = 'the bucket narrows may not be used with these credentials';
  const cases = [
    { over: { bucket: 'nowhere' }, says: /^there is no bucket nowhere$/ },
    { over: { credentials: stranger }, says: new RegExp(`^${refused}$`) },
    {
      over: { endpoint: `http://127.0.0.1:${port}` },
      says: new RegExp(`^[^\n]*ECONNREFUSED 127\\.0\\.0\\.1:${port}$`),
    },
    { over: { endpoint: `http://localhost:${port}` }, says: new RegExp(`^[^\n]*ECONNREFUSED[^\n]*:${port}[^\n]*$`) },
    { over: { endpoint: 'http://nowhere.invalid' }, says: /^[^\n]*nowhere\.invalid$/ },
  ];
  for (const { over, says } of cases) {
    const { store } = await openTestS3(t, s3, over);
    const failure = await failureOf(within(5000, 'the check', store.check()));
    t.match(failure.message, says, JSON.stringify(over));
  }
  // s3rver believes every signature of a key that it knows; to a HEAD, no store says more than a status.
  for (const [fault, says] of [
    [{ status: 403, code: 'SignatureDoesNotMatch' }, refused],
    [{ status: 301, code: 'PermanentRedirect' }, 'the store answers 301 when asked for the bucket narrows'],
    [{ status: 503, code: 'SlowDown' }, 'the store answers 503 when asked for the bucket narrows'],
    ['hang', 'nothing came for 300 ms'],
  ] as const) {
    s3.fault = () => fault;
    const { store } = await openTestS3(t, s3, { stallMs: 300 });
    t.equal((await failureOf(store.check())).message, says);
  }
});

void t.test('a missing bucket: nothing is found in it, and what is put there is no copy', async (t) => {
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3, { bucket: 'nowhere' });
  t.equal(await store.head('a'), undefined);
  t.ok((await failureOf(store.put('a', bytes))) instanceof TierAway);
  t.match(changes, [{ name: 'NoSuchBucket' }]);
});

void t.test('the package is missing: the start says how to get it', async (t) => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const folder = await temporaryFolder(t);
  for (const part of ['src', 'config', 'package.json'])
    await cp(join(root, part), join(folder, part), { recursive: true });
  await mkdir(join(folder, 'node_modules'));
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== '@aws-sdk') await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  }
  await writeFile(join(folder, 'narrows.yaml'), `cache: { s3: { bucket: ${bucket} } }`);
  const args = [
    'src/narrows.js',
    'serve',
    '--config',
    'narrows.yaml',
    '--listen',
    '127.0.0.1:0',
    '--admin',
    '127.0.0.1:0',
  ];
  const done = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', timeout: 20_000 });
  t.equal(done.status, 1);
  t.match(done.stderr, /^[^\n]*cache\.s3 needs the package @aws-sdk\/client-s3: npm install @aws-sdk\/client-s3\n$/);
});

// ---- Trouble

void t.test('54. hangs: whoever asked is sent away within the patience, whoever asks then at once', async (t) => {
  const stallMs = 600;
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3, { stallMs });
  await s3.put('a', bytes);
  await store.head('a');
  s3.fault = () => 'hang';
  const start = performance.now();
  const failures = await within(5000, 'being sent away', Promise.all(askAll(store).map(failureOf)));
  const ms = performance.now() - start;
  t.ok(areAway(failures), String(failures));
  t.ok(ms >= stallMs - 1 && ms < 3 * stallMs, `after ${ms} ms`);
  t.equal(changes.length, 1);
  const asked = s3.seen.length;
  const later = performance.now();
  for (let at = 0; at < 20; at++) t.ok(areAway(await Promise.all(askAll(store).map(failureOf))));
  t.ok(performance.now() - later < stallMs, 'nobody waits any more');
  t.ok(s3.seen.length - asked <= 1, 'and the store is left alone, but for a probe');
  s3.fault = undefined;
  await until(() => changes.length === 2, 'the store');
  t.equal(changes[1], undefined);
  t.ok((await readFrom(store, 'a', 0)).equals(bytes));
  await t.resolves(store.put('b', bytes));
});

void t.test('hangs: an upload that nobody takes is given up within the patience', async (t) => {
  const stallMs = 600;
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3, { stallMs });
  s3.fault = ({ method }) => (method === 'PUT' ? 'hang' : undefined);
  const start = performance.now();
  t.ok((await within(5000, 'the upload', failureOf(store.put('a', bytes)))) instanceof TierAway);
  const ms = performance.now() - start;
  t.ok(ms >= stallMs - 1 && ms < 4 * stallMs, `after ${ms} ms`);
  await until(() => changes.length === 2, 'the store');
});

void t.test('gone: whoever asks is sent away at once, and the store that comes again is used', async (t) => {
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3, { stallMs: 10_000 });
  await s3.put('a', bytes);
  for (let round = 1; round <= 2; round++) {
    await s3.stop();
    const start = performance.now();
    t.ok(areAway(await Promise.all(askAll(store).map(failureOf))));
    t.ok(performance.now() - start < 3000, 'long before the patience ends');
    t.equal(changes.length, 2 * round - 1);
    await s3.restart();
    await until(() => changes.length === 2 * round, 'the store');
    t.match(await store.head('a'), { bytes: bytes.length });
  }
});

void t.test(
  '54. answers: those of a store that cannot do its work count as away, and are not asked again',
  async (t) => {
    for (const [status, code] of [
      [503, 'SlowDown'],
      [500, 'InternalError'],
      [403, 'AccessDenied'],
      [404, 'NoSuchBucket'],
    ] as const) {
      const s3 = await startS3(t);
      const { store, changes } = await openTestS3(t, s3);
      s3.fault = () => ({ status, code });
      t.match(await failureOf(store.put('a', bytes)), { name: 'TierAway', cause: { name: code } }, code);
      t.equal(s3.seen.length, 1, 'asked once');
      t.match(changes, [{ name: code }]);
      s3.fault = undefined;
      await until(() => changes.length === 2, 'the store');
      await t.resolves(store.put('a', bytes));
    }
  },
);

void t.test('answers: a refusal of one object is a refusal, and everything else goes on', async (t) => {
  const s3 = await startS3(t);
  const { store, changes } = await openTestS3(t, s3);
  for (const [status, code] of [
    [400, 'EntityTooLarge'],
    [404, 'NoSuchKey'],
    [412, 'PreconditionFailed'],
    [416, 'InvalidRange'],
  ] as const) {
    s3.fault = ({ key }: S3Asked) => (key === 'a' ? { status, code } : undefined);
    await t.rejects(store.read('a', 0), { name: code });
    await t.rejects(store.put('a', bytes), { name: code });
    await t.resolves(store.put('b', bytes));
  }
  t.same(changes, []);
});

void t.test('close: whoever asks then is sent away', async (t) => {
  const { store } = await openTestS3(t, await startS3(t));
  store.close();
  t.ok(areAway(await Promise.all(askAll(store).map(failureOf))));
});
