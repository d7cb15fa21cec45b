import type { Test } from 'tap';
import type { Change, Ledger } from '../../src/cache/ledger.ts';
import type { Teardown } from '../fixtures/mirror.ts';

export interface LedgerUnderTest {
  readonly ledger: Ledger;
  /** Another one on the same books, as another process has it. */
  another(): Promise<Ledger>;
}

/** Makes an empty ledger. */
export type MakeLedger = (t: Teardown) => Promise<LedgerUnderTest>;

/** What every ledger keeps to, whatever it is made of. */
export async function ledgerContract(t: Test, make: MakeLedger): Promise<void> {
  await t.test('get: what was never written is undefined, in the place of its key', async (t) => {
    const { ledger } = await make(t);
    t.same(await ledger.get('team/x', ['a']), [undefined]);
    await write(ledger, 'team/x', { b: '1' });
    t.same(await ledger.get('team/x', ['a', 'b', 'c', 'b']), [undefined, '1', undefined, '1']);
    t.same(await ledger.get('team/x', []), []);
  });

  await t.test('get: texts come back as they were, whatever is in them', async (t) => {
    const { ledger } = await make(t);
    const texts = ['', ' ', '-', '=', '=x', '""', 'null', 'ünïcode ☃ \u{1f600}', 'a\r\nb', '0', 'x'.repeat(200_000)];
    await write(ledger, 'r', Object.fromEntries(texts.map((text, at) => [`text/${at}`, text])));
    t.same(
      await ledger.get(
        'r',
        texts.map((_, at) => `text/${at}`),
      ),
      texts,
    );
  });

  await t.test('get: many keys at once', async (t) => {
    const { ledger } = await make(t);
    const names = Array.from({ length: 5000 }, (_, at) => `key/${at}`);
    await write(ledger, 'r', Object.fromEntries(names.map((name) => [name, `of ${name}`])));
    t.same(
      await ledger.get('r', names),
      names.map((name) => `of ${name}`),
    );
  });

  await t.test('repositories: each has its own books, and is known while it has entries', async (t) => {
    const { ledger } = await make(t);
    t.same(await ledger.repositories(), []);
    await write(ledger, 'team/b', { key: 'b' });
    await write(ledger, 'team/a', { key: 'a' });
    await write(ledger, 'team/a/key', { key: 'nested' });
    t.same(await ledger.repositories(), ['team/a', 'team/a/key', 'team/b']);
    t.same(await ledger.get('team/a', ['key']), ['a']);
    t.same(await ledger.get('team/b', ['key']), ['b']);
    t.same(await ledger.list('team/a', '', '', 10), [{ key: 'key', value: 'a' }]);
    t.same(await ledger.list('team/c', '', '', 10), []);
    await ledger.commit('team/a', [{ key: 'key', after: null }]);
    t.same(await ledger.get('team/a/key', ['key']), ['nested']);
    t.same(await ledger.get('team/b', ['key']), ['b']);
  });

  await t.test('list: in the order of bytes, not of a language', async (t) => {
    const { ledger } = await make(t);
    const names = ['Z', 'a', 'ab', 'a/b', 'a-b', 'a0', 'B', 'é', 'z', '~', '☃', '\uffee', '\u{1f600}', '0', '10', '9'];
    await write(ledger, 'r', Object.fromEntries(names.map((name) => [name, name])));
    const inBytes = names.toSorted((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
    t.same(await listed(ledger, '', '', 100), inBytes);
    for (const [at, name] of inBytes.entries()) {
      t.same(await listed(ledger, '', name, 100), inBytes.slice(at + 1), `after ${name}`);
    }
  });

  await t.test('list: those of a prefix, to its very edges', async (t) => {
    const { ledger } = await make(t);
    const inside = ['tag/0', 'tag/a', 'tag/a/b', 'tag/é', 'tag/\u{1f600}', 'tag/z~'];
    const outside = ['ta', 'tag', 'tag.', 'tag0', 'tagz', 'Tag/a', 'tah', 'xtag/a', 'tag é', 'z'];
    await write(ledger, 'r', Object.fromEntries([...inside, ...outside].map((name) => [name, name])));
    t.same((await listed(ledger, 'tag/', '', 100)).toSorted(), inside.toSorted());
    t.same(await listed(ledger, 'tag/a/', '', 100), ['tag/a/b']);
    t.same(await listed(ledger, 'none/', '', 100), []);
    t.same(await listed(ledger, 'tag/%', '', 100), [], 'a prefix is no pattern');
    t.same(await listed(ledger, 'tag_', '', 100), []);
    t.same(await listed(ledger, '[t]ag', '', 100), []);
  });

  await t.test('list: page by page, each once, also where the last of a page has gone meanwhile', async (t) => {
    const { ledger } = await make(t);
    const names = Array.from({ length: 25 }, (_, at) => `p/${String(at).padStart(3, '0')}`);
    await write(ledger, 'r', Object.fromEntries([...names, 'o/1', 'q/1'].map((name) => [name, name])));
    const seen: string[] = [];
    for (let after = '', page; (page = await listed(ledger, 'p/', after, 7)).length > 0;) {
      t.ok(page.length <= 7);
      seen.push(...page);
      await ledger.commit('r', [{ key: page.at(-1)!, after: null }]);
      after = page.at(-1)!.slice('p/'.length);
    }
    t.same(seen, names);
    t.same(await listed(ledger, 'p/', '005x', 2), ['p/007', 'p/008'], 'after what is not there');
    t.same(await listed(ledger, 'p/', '', 0), []);
  });

  await t.test('commit: writes, changes and takes away', async (t) => {
    const { ledger } = await make(t);
    t.equal(await ledger.commit('r', [{ key: 'a', after: '1' }]), true);
    t.equal(await ledger.commit('r', [{ key: 'a', after: '2' }]), true);
    t.same(await ledger.get('r', ['a']), ['2']);
    t.same(await ledger.list('r', '', '', 10), [{ key: 'a', value: '2' }]);
    t.equal(await ledger.commit('r', [{ key: 'a', after: null }]), true);
    t.same(await ledger.get('r', ['a']), [undefined]);
    t.same(await ledger.list('r', '', '', 10), []);
    t.equal(await ledger.commit('r', [{ key: 'a', after: null }]), true, 'what is not there may go again');
    t.equal(await ledger.commit('r', []), true, 'nothing at all');
  });

  await t.test('commit: what is expected decides: a text, nothing, or whatever', async (t) => {
    const { ledger } = await make(t);
    const cases: { has: string | null; before?: string | null; fits: boolean }[] = [
      { has: null, fits: true },
      { has: 'x', fits: true },
      { has: null, before: null, fits: true },
      { has: 'x', before: null, fits: false },
      { has: '', before: null, fits: false },
      { has: 'x', before: 'x', fits: true },
      { has: 'x', before: 'X', fits: false },
      { has: 'x', before: '', fits: false },
      { has: '', before: '', fits: true },
      { has: null, before: '', fits: false },
      { has: null, before: 'x', fits: false },
      { has: '-', before: '-', fits: true },
      { has: '-', before: null, fits: false },
      { has: null, before: '-', fits: false },
      { has: '=', before: '', fits: false },
    ];
    for (const { has, before, fits } of cases) {
      for (const after of ['new', '', null]) {
        await ledger.commit('r', [{ key: 'k', after: has }]);
        const what = `${JSON.stringify(has)}, expected ${JSON.stringify(before)}, to be ${JSON.stringify(after)}`;
        t.equal(await ledger.commit('r', [{ key: 'k', ...(before !== undefined && { before }), after }]), fits, what);
        t.same(await ledger.get('r', ['k']), [(fits ? after : has) ?? undefined], what);
      }
    }
  });

  await t.test('commit: a change may be an expectation alone', async (t) => {
    const { ledger } = await make(t);
    await write(ledger, 'r', { read: '1' });
    t.equal(await ledger.commit('r', readingOf('2')), false);
    t.equal(await ledger.commit('r', readingOf(null)), false);
    t.equal(await ledger.commit('r', readingOf('1')), true);
    t.same(await ledger.list('r', '', '', 10), [
      { key: 'read', value: '1' },
      { key: 'written', value: '1' },
    ]);
  });

  await t.test('commit: all or nothing, wherever the one is that does not fit', async (t) => {
    const { ledger } = await make(t);
    const start = { a: '1', b: '1', c: '1', d: '1' };
    await write(ledger, 'r', start);
    for (const wrong of Object.keys(start)) {
      const changes = [
        ...Object.keys(start).map((key) => ({
          key,
          before: key === wrong ? 'other' : '1',
          after: key < 'c' ? '2' : null,
        })),
        { key: 'new', before: null, after: '1' },
      ];
      t.equal(await ledger.commit('r', changes), false);
      t.same(await ledger.get('r', ['a', 'b', 'c', 'd', 'new']), ['1', '1', '1', '1', undefined]);
      t.equal((await ledger.list('r', '', '', 10)).length, 4);
    }
  });

  await t.test('commit: thousands of changes at once', async (t) => {
    const { ledger } = await make(t);
    const names = Array.from({ length: 4000 }, (_, at) => `blob/${String(at).padStart(5, '0')}`);
    t.equal(
      await ledger.commit(
        'r',
        names.map((key) => ({ key, before: null, after: key })),
      ),
      true,
    );
    t.same(await listed(ledger, 'blob/', '', 10_000), names);
    const again = names.map((key, at) => ({ key, before: at === 3999 ? null : key, after: null }));
    t.equal(await ledger.commit('r', again), false);
    t.equal((await listed(ledger, '', '', 10_000)).length, 4000);
  });

  await t.test('commit: of many that expect the same, exactly one wins', async (t) => {
    const { ledger, another } = await make(t);
    const ledgers = [ledger, await another(), await another()];
    for (let round = 0; round < 10; round++) {
      const before = (await ledger.get('r', ['tag']))[0] ?? null;
      const outcomes = await Promise.all(
        Array.from({ length: 12 }, (_, at) =>
          ledgers[at % 3]!.commit('r', [
            { key: 'tag', before, after: `${round} by ${at}` },
            { key: `by/${round}/${at}`, before: null, after: '1' },
          ]),
        ),
      );
      t.equal(outcomes.filter(Boolean).length, 1);
      const winner = outcomes.indexOf(true);
      t.same(await ledger.get('r', ['tag']), [`${round} by ${winner}`]);
      t.same(await listed(ledger, `by/${round}/`, '', 100), [`by/${round}/${winner}`], 'and nothing of the others');
    }
  });

  await t.test('commit: a counter that many move loses no step', async (t) => {
    const { ledger, another } = await make(t);
    const ledgers = [ledger, await another()];
    await Promise.all(Array.from({ length: 40 }, (_, at) => move(ledgers[at % 2]!)));
    t.same(await ledger.get('r', ['count']), ['40']);
  });

  await t.test('another ledger on the same books sees what was committed', async (t) => {
    const { ledger, another } = await make(t);
    const other = await another();
    await write(ledger, 'r', { a: '1' });
    t.same(await other.get('r', ['a']), ['1']);
    t.same(await other.list('r', '', '', 10), [{ key: 'a', value: '1' }]);
    t.same(await other.repositories(), ['r']);
    t.equal(await other.commit('r', [{ key: 'a', before: '1', after: '2' }]), true);
    t.equal(await ledger.commit('r', [{ key: 'a', before: '1', after: '3' }]), false);
    t.same(await ledger.get('r', ['a']), ['2']);
  });
}

async function write(ledger: Ledger, repository: string, entries: Record<string, string>): Promise<void> {
  const changes = Object.entries(entries).map(([key, after]) => ({ key, after }));
  if (!(await ledger.commit(repository, changes))) throw new Error('was not committed');
}

async function listed(ledger: Ledger, prefix: string, after: string, count: number): Promise<string[]> {
  return (await ledger.list('r', prefix, after, count)).map(({ key }) => key);
}

function readingOf(read: string | null): Change[] {
  return [
    { key: 'read', before: read },
    { key: 'gone', before: null },
    { key: 'untouched' },
    { key: 'written', after: '1' },
  ];
}

/** One more, however often others come first. */
async function move(own: Ledger): Promise<void> {
  for (let isMoved = false; !isMoved;) {
    const [now] = await own.get('r', ['count']);
    isMoved = await own.commit('r', [{ key: 'count', before: now ?? null, after: String(Number(now ?? 0) + 1) }]);
  }
}
