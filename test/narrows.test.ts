import { spawnSync } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { temporaryFolder } from './fixtures/mirror.ts';

const entry = fileURLToPath(new URL('../src/narrows.js', import.meta.url));

/** Starts the program in a folder, and gives what it says. */
function versionIn(cwd: string, env: Record<string, string>): string {
  const { stdout, stderr } = spawnSync(process.execPath, [entry, '--version'], { cwd, env, encoding: 'utf8' });
  return stdout + stderr;
}

void t.test('compiled code is kept in the home of its user', async (t) => {
  const [home, elsewhere, caches] = [await temporaryFolder(t), await temporaryFolder(t), await temporaryFolder(t)];
  t.match(versionIn(elsewhere, { HOME: home }), /^\d+\.\d+\.\d+\n$/);
  t.same(await readdir(join(home, '.cache')), ['narrows']);
  t.match(versionIn(elsewhere, { HOME: home, XDG_CACHE_HOME: caches }), /^\d+\.\d+\.\d+\n$/);
  t.same(await readdir(caches), ['narrows']);
  t.same(await readdir(elsewhere), []);
});

void t.test('without a home nothing is kept, and nothing is run from where it was started', async (t) => {
  const elsewhere = await temporaryFolder(t);
  for (const env of [{ HOME: '' }, { HOME: 'here' }, { HOME: '', XDG_CACHE_HOME: 'caches' }]) {
    t.match(versionIn(elsewhere, env), /^\d+\.\d+\.\d+\n$/, JSON.stringify(env));
    t.same(await readdir(elsewhere), [], JSON.stringify(env));
  }
});

void t.test('a home that is no folder is no reason not to start', async (t) => {
  const elsewhere = await temporaryFolder(t);
  t.match(versionIn(elsewhere, { HOME: entry }), /^\d+\.\d+\.\d+\n$/);
});
