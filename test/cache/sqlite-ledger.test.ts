import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openSqliteLedger } from '../../src/cache/sqlite-ledger.ts';
import type { SqliteLedger } from '../../src/cache/sqlite-ledger.ts';
import { ledgerContract } from '../contracts/ledger.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

async function prepare(t: Teardown): Promise<{ path: string; open(): SqliteLedger }> {
  const path = join(await temporaryFolder(t), 'hosted.sqlite');
  const open = () => {
    const ledger = openSqliteLedger(path);
    t.teardown(() => ledger.close());
    return ledger;
  };
  return { path, open };
}

void t.test('the contract', async (t) => {
  await ledgerContract(t, async (t) => {
    const { open } = await prepare(t);
    return { ledger: open(), another: () => Promise.resolve(open()) };
  });
});

void t.test('what was committed is there when the file is opened again', async (t) => {
  const { open } = await prepare(t);
  const first = open();
  await first.commit('team/x', [{ key: 'tag/1', before: null, after: '{"digest":"x"}' }]);
  first.close();
  first.close();
  const second = open();
  t.same(await second.get('team/x', ['tag/1']), ['{"digest":"x"}']);
  t.same(await second.repositories(), ['team/x']);
  t.equal(await second.commit('team/x', [{ key: 'tag/1', before: null, after: '2' }]), false);
});

void t.test('a repository without entries is none', async (t) => {
  const { open } = await prepare(t);
  const ledger = open();
  await ledger.commit('r', [{ key: 'a', after: '1' }]);
  await ledger.commit('r', [{ key: 'a', after: null }]);
  await ledger.commit('other', [{ key: 'a', before: '1', after: '2' }]);
  t.same(await ledger.repositories(), []);
});

void t.test('a file that is no database is left as it is, and said', async (t) => {
  const { path, open } = await prepare(t);
  const odd = Buffer.from('these are no books, and somebody may want them back'.repeat(100));
  await writeFile(path, odd);
  t.throws(open, /not a database/);
  t.ok((await readFile(path)).equals(odd));
});

void t.test('a ledger that is closed rejects, and does not throw at the call', async (t) => {
  const { open } = await prepare(t);
  const ledger = open();
  ledger.close();
  await t.rejects(ledger.get('r', ['a']));
  await t.rejects(ledger.list('r', '', '', 1));
  await t.rejects(ledger.commit('r', [{ key: 'a', after: '1' }]));
  await t.rejects(ledger.repositories());
});
