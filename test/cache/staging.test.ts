import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, readdir, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openStaging } from '../../src/cache/staging.ts';
import type { Staging } from '../../src/cache/staging.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const bytes = noise('staged', 300_000);
const digest = digestOf(bytes);
const nowMs = Date.parse('2026-06-01');
const dayMs = 86_400_000;

async function open(t: Teardown, store: string): Promise<Staging> {
  const staging = await openStaging(store, () => nowMs);
  if (!staging) throw new Error('another one is at it');
  t.teardown(() => staging.close());
  return staging;
}

async function* piecesOf(all: Buffer, pieceBytes = 65_537): AsyncGenerator<Buffer> {
  for (let at = 0; at < all.length; at += pieceBytes) yield all.subarray(at, at + pieceBytes);
}

async function* breaking(all: Buffer): AsyncGenerator<Buffer> {
  yield all;
  throw new Error('the medium has gone bad');
}

const nameOf = (of: Digest) => of.replace(':', '-');

/** What lies there but for the lock. */
async function left(store: string): Promise<string[]> {
  return (await readdir(join(store, 'imports'))).filter((name) => name !== 'lock').toSorted();
}

/** Puts a file there as an import of so many days ago left it. */
async function leave(store: string, name: string, days: number): Promise<void> {
  const path = join(store, 'imports', name);
  await mkdir(join(store, 'imports'), { recursive: true });
  await writeFile(path, 'left');
  const seconds = (nowMs - days * dayMs) / 1000;
  await utimes(path, seconds, seconds);
}

void t.test('staging: what was put is there, whole', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  t.equal(await staging.has(digest), undefined);
  t.equal(await staging.put(digest, bytes.length, piecesOf(bytes)), true);
  t.equal(await staging.has(digest), bytes.length);
  t.same(await staging.all(), [digest]);
  t.same(await left(store), [nameOf(digest)]);
  t.ok((await readFile(staging.pathOf(digest))).equals(bytes));
  t.ok((await staging.read(digest, bytes.length))?.equals(bytes));
  t.equal(await staging.read(digest, bytes.length - 1), undefined, 'what is larger is not read');
});

void t.test('staging: digests of other algorithms, and content of no bytes', async (t) => {
  const staging = await open(t, await temporaryFolder(t));
  const long = digestOf(bytes, 'sha512');
  t.equal(await staging.put(long, bytes.length, piecesOf(bytes)), true);
  t.equal(await staging.put(digestOf(Buffer.from('')), 0, piecesOf(Buffer.alloc(0))), true);
  t.equal(await staging.has(digestOf(Buffer.from(''))), 0);
  t.same((await staging.all()).toSorted(), [digestOf(Buffer.from('')), long].toSorted());
});

void t.test('staging: what is not that of the digest leaves nothing', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  const flipped = Buffer.from(bytes);
  flipped[150_000]! ^= 1;
  for (const [what, said, content] of [
    ['a flipped bit', bytes.length, flipped],
    ['too short', bytes.length, bytes.subarray(1)],
    ['too long', bytes.length, Buffer.concat([bytes, bytes])],
    ['another size than was said', bytes.length - 1, bytes],
    ['nothing', bytes.length, Buffer.alloc(0)],
  ] as const) {
    t.equal(await staging.put(digest, said, piecesOf(content)), false, what);
    t.equal(await staging.check(digest, said, piecesOf(content)), false, what);
    t.equal(await staging.has(digest), undefined, what);
    t.same(await left(store), [], what);
  }
  await t.rejects(staging.put(digest, bytes.length, breaking(bytes)), { message: /gone bad/ });
  t.same(await left(store), []);
});

void t.test('staging: content that turns out wrong leaves the right one that was there', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  await staging.put(digest, bytes.length, piecesOf(bytes));
  t.equal(await staging.put(digest, bytes.length, piecesOf(noise('other', bytes.length))), false);
  t.ok((await staging.read(digest, bytes.length))?.equals(bytes));
  t.same(await left(store), [nameOf(digest)]);
});

void t.test('staging: a check keeps nothing', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  t.equal(await staging.check(digest, bytes.length, piecesOf(bytes)), true);
  t.same(await left(store), []);
});

void t.test('staging: one at a time on a store, and the next when it is closed', async (t) => {
  const store = await temporaryFolder(t);
  const first = (await openStaging(store, () => nowMs))!;
  await first.put(digest, bytes.length, piecesOf(bytes));
  await writeFile(join(store, 'imports', 'sha256-unfinished.part'), 'being written');
  t.equal(await openStaging(store, () => nowMs + 365 * dayMs), undefined);
  t.same(await left(store), [nameOf(digest), 'sha256-unfinished.part'].toSorted(), 'and nothing of it was swept');
  const elsewhere = await open(t, await temporaryFolder(t));
  t.same(await elsewhere.all(), [], 'another store is another matter');
  first.close();
  const next = await open(t, store);
  t.equal(await next.has(digest), bytes.length);
});

void t.test(
  'staging: a process that is killed frees it, and what it had read whole need not be read again',
  async (t) => {
    const store = await temporaryFolder(t);
    const other = await startProcess(t, store);
    t.equal(await openStaging(store, () => nowMs), undefined, 'while it lives');
    t.same(await left(store), [nameOf(otherDigest), `${nameOf(digest)}.part`].toSorted());
    other.kill('SIGKILL');
    await once(other, 'close');
    const staging = await open(t, store);
    t.same(await left(store), [nameOf(otherDigest)], 'what it had not is gone');
    t.equal(await staging.has(otherDigest), 5);
  },
);

const otherDigest = digestOf(Buffer.from('whole'));

/** A process that has put one content and is in the middle of another. */
async function startProcess(t: Teardown, store: string) {
  const program = `
    import { openStaging } from ${JSON.stringify(new URL('../../src/cache/staging.ts', import.meta.url).href)};
    const staging = await openStaging(${JSON.stringify(store)}, () => ${nowMs});
    async function* whole() { yield Buffer.from('whole'); }
    if (!(await staging.put('${otherDigest}', 5, whole()))) throw new Error('not put');
    async function* endless() {
      yield Buffer.alloc(1000);
      process.stdout.write('ready');
      await new Promise(() => setInterval(() => undefined, 1000));
    }
    await staging.put('${digest}', 5000, endless());
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child;
}

void t.test('staging: what is unfinished goes at the start, and what nobody went on with for a week', async (t) => {
  const store = await temporaryFolder(t);
  await leave(store, nameOf(digest), 6.9);
  await leave(store, nameOf(digestOf(Buffer.from('old'))), 7.1);
  await leave(store, `${nameOf(digestOf(Buffer.from('fresh')))}.part`, 0);
  await leave(store, 'something else', 0);
  await leave(store, 'something old', 8);
  await leave(store, 'lock', 100);
  await truncate(join(store, 'imports', 'lock'));
  const staging = await open(t, store);
  t.same(await left(store), [nameOf(digest), 'something else'].toSorted());
  t.ok((await readdir(join(store, 'imports'))).includes('lock'));
  t.same(await staging.all(), [digest], 'what is no digest is nothing that was staged');
});

void t.test('staging: what was not right is taken away, the rest stays', async (t) => {
  const staging = await open(t, await temporaryFolder(t));
  await staging.put(digest, bytes.length, piecesOf(bytes));
  await staging.put(otherDigest, 5, piecesOf(Buffer.from('whole')));
  await staging.discard([otherDigest, digestOf(Buffer.from('never there'))]);
  t.same(await staging.all(), [digest]);
});

void t.test('staging: cleared, all of it is gone but the lock, which still holds', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  await staging.put(digest, bytes.length, piecesOf(bytes));
  await staging.clear();
  t.same(await readdir(join(store, 'imports')), ['lock']);
  t.equal(await openStaging(store, () => nowMs), undefined);
  t.equal(await staging.put(digest, bytes.length, piecesOf(bytes)), true, 'and it can be used on');
});

void t.test('staging: a link in its place is not read through', async (t) => {
  const store = await temporaryFolder(t);
  const staging = await open(t, store);
  await writeFile(join(store, 'secret'), 'secret');
  await symlink(join(store, 'secret'), staging.pathOf(digest));
  t.equal(await staging.read(digest, 100), undefined);
});

void t.test('staging: a store that cannot be written to is an error, not another import', async (t) => {
  const store = await temporaryFolder(t);
  await writeFile(join(store, 'imports'), 'in the way');
  await t.rejects(openStaging(store, () => nowMs));
});
