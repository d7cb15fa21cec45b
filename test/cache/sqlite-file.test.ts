import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { openDatabase, openOrReplace } from '../../src/cache/sqlite-file.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const schema = 'PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY)';
const source = new URL('../../src/cache/sqlite-file.ts', import.meta.url).href;

/** Opens a file as soon as its standard input says so, and says what came of it. */
const program = `
  import { openDatabase } from ${JSON.stringify(source)};
  process.stdout.write('ready\\n');
  process.stdin.once('data', (path) => {
    try {
      openDatabase(String(path), ${JSON.stringify(schema)}, 1).close();
      console.log('opened');
    } catch (error) {
      console.log(error.message);
    }
    process.exit();
  });
`;

void t.test('processes that start together all open the file', async (t) => {
  const folder = await temporaryFolder(t);
  for (let round = 0; round < 8; round++) {
    const children = Array.from({ length: 6 }, () =>
      spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
    t.teardown(() => children.forEach((child) => child.kill('SIGKILL')));
    await Promise.all(children.map(({ stdout }) => once(stdout, 'readable')));
    for (const { stdin } of children) stdin.write(join(folder, `${round}.sqlite`));
    const said = await Promise.all(children.map(({ stdout }) => text(stdout)));
    t.same(
      said,
      children.map(() => 'ready\nopened\n'),
    );
  }
});

void t.test('one that another holds for a moment is waited for', async (t) => {
  const path = join(await temporaryFolder(t), 'held.sqlite');
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { DatabaseSync } from 'node:sqlite';
       const database = new DatabaseSync(${JSON.stringify(path)});
       database.exec('BEGIN EXCLUSIVE');
       console.log('held');
       setTimeout(() => process.exit(), 500);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.teardown(() => holder.kill('SIGKILL'));
  await once(holder.stdout, 'data');
  openDatabase(path, schema, 1).close();
  t.pass('opened');
});

void t.test('a file that is no database is set aside where it can be learnt again, and nowhere else', async (t) => {
  const path = join(await temporaryFolder(t), 'x.sqlite');
  await writeFile(path, 'this is a letter, not a database; '.repeat(100));
  t.throws(() => openDatabase(path, schema, 1), /not a database/);
  t.match(await readFile(path, 'utf8'), /^this is a letter/, 'it is as it was');
  const database: DatabaseSync = openOrReplace(path, schema, 1);
  database.exec("INSERT INTO things VALUES ('a')");
  database.close();
  t.match(await readFile(`${path}.broken`, 'utf8'), /^this is a letter/);
});
