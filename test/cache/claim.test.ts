import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import { claimFolder } from '../../src/cache/claim.ts';
import type { Claim } from '../../src/cache/claim.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { startStoreProcess } from '../fixtures/store-process.ts';

async function claim(t: Teardown, root: string): Promise<Claim> {
  const made = await claimFolder(root);
  t.teardown(() => made.release());
  return made;
}

async function foldersOf(root: string): Promise<string[]> {
  const entries = await readdir(root, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(root, entry.name));
}

void t.test('claim: gives an empty folder below a root that it makes', async (t) => {
  const root = join(await temporaryFolder(t), 'not', 'yet', 'there');
  const { folder } = await claim(t, root);
  t.equal(dirname(folder), root);
  t.same(await readdir(folder), []);
});

void t.test('claim: each is another folder, and stays while others come and go', async (t) => {
  const root = await temporaryFolder(t);
  const first = await claim(t, root);
  await writeFile(join(first.folder, 'unfinished'), 'x');
  for (let at = 0; at < 5; at++) {
    const next = await claimFolder(root);
    t.not(next.folder, first.folder);
    await next.release();
  }
  t.same(await readdir(first.folder), ['unfinished']);
  t.same(await foldersOf(root), [first.folder]);
});

void t.test('claim: twenty at the same moment all hold, and none sweeps another away', async (t) => {
  const root = await temporaryFolder(t);
  const claims = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const made = await claim(t, root);
      await writeFile(join(made.folder, 'unfinished'), 'x');
      return made;
    }),
  );
  t.equal(new Set(claims.map(({ folder }) => folder)).size, 20);
  for (const { folder } of claims) t.same(await readdir(folder), ['unfinished']);
});

void t.test('release: takes the folder with all that is in it, and leaves nothing', async (t) => {
  const root = await temporaryFolder(t);
  const made = await claimFolder(root);
  await mkdir(join(made.folder, 'below'));
  await writeFile(join(made.folder, 'below', 'unfinished'), 'x');
  await made.release();
  t.same(await readdir(root), []);
});

void t.test('sweep: what nobody holds goes, whatever it is', async (t) => {
  const root = await temporaryFolder(t);
  await mkdir(join(root, 'folder'));
  await writeFile(join(root, 'folder', 'unfinished'), 'x');
  await mkdir(join(root, 'locked'));
  await writeFile(join(root, 'locked.lock'), '');
  await writeFile(join(root, 'alone.lock'), '');
  await writeFile(join(root, 'file'), 'x');
  await writeFile(join(root, 'no-database.lock'), 'this is no lock of SQLite, and nobody can hold it'.repeat(100));
  const { folder } = await claim(t, root);
  t.same(await foldersOf(root), [folder]);
  const left = await readdir(root);
  for (const name of ['folder', 'locked', 'locked.lock', 'alone.lock', 'file']) t.notOk(left.includes(name), name);
});

void t.test('sweep: the folder of another process stays while it lives, and goes when it is killed', async (t) => {
  const path = await temporaryFolder(t);
  const root = join(path, 'tmp');
  const other = startStoreProcess(t, 'hold', path);
  await other.said('ready');
  const [folder = ''] = await foldersOf(root);
  const before = await readdir(root);
  await (await claimFolder(root)).release();
  t.same((await readdir(root)).toSorted(), before.toSorted(), 'all that is its own is untouched');
  t.equal((await readdir(folder)).length, 1);
  other.child.kill('SIGKILL');
  await other.ended;
  const own = await claim(t, root);
  t.same(await foldersOf(root), [own.folder]);
  await t.rejects(stat(`${folder}.lock`), { code: 'ENOENT' });
});

void t.test('sweep: the folders of processes that start at once are all kept', async (t) => {
  const path = await temporaryFolder(t);
  const others = Array.from({ length: 3 }, () => startStoreProcess(t, 'hold', path));
  const own = await claim(t, join(path, 'tmp'));
  await Promise.all(others.map((other) => other.said('ready')));
  const folders = await foldersOf(join(path, 'tmp'));
  t.equal(folders.length, 4);
  for (const folder of folders) t.equal((await readdir(folder)).length, folder === own.folder ? 0 : 1);
});

void t.test('claim: a folder that cannot be written to is an error at once, not a wait for ever', async (t) => {
  const path = await temporaryFolder(t);
  await writeFile(join(path, 'file'), 'in the way');
  await t.rejects(claimFolder(join(path, 'file')));
});
