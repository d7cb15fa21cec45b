import t from 'tap';
import type { Change, Ledger } from '../../src/cache/ledger.ts';
import { NarrowsError } from '../../src/errors.ts';
import { reachable, transact } from '../../src/push/draft.ts';

/** Books in memory, with all that was asked of them. */
function createBooks(entries: Record<string, string> = {}) {
  const texts = new Map(Object.entries(entries));
  const asked: string[][] = [];
  const commits: Change[][] = [];
  const ledger: Ledger = {
    get(_repository, keys) {
      asked.push([...keys]);
      return Promise.resolve(keys.map((key) => texts.get(key)));
    },
    list: () => Promise.resolve([]),
    commit(_repository, changes) {
      commits.push([...changes]);
      const fits = changes.every(({ key, before }) => before === undefined || (texts.get(key) ?? null) === before);
      for (const { key, after } of fits ? changes : []) {
        if (after === null) texts.delete(key);
        else if (after !== undefined) texts.set(key, after);
      }
      return Promise.resolve(fits);
    },
    repositories: () => Promise.resolve([]),
  };
  return { ledger, texts, asked, commits };
}

void t.test('transact: writes at once what was written, and returns what the action returns', async (t) => {
  const { ledger, texts, commits } = createBooks({ gone: '1' });
  const result = await transact(ledger, 'team/app', (draft) => {
    draft.set('a', { b: ['ü', null] });
    draft.set('c', '');
    draft.set('c', 'last');
    draft.delete('gone');
    return Promise.resolve(draft.repository);
  });
  t.equal(result, 'team/app');
  t.same(Object.fromEntries(texts), { a: '{"b":["ü",null]}', c: '"last"' });
  t.equal(commits.length, 1);
});

const byKey = (one: Change, other: Change) => (one.key < other.key ? -1 : 1);

void t.test('transact: everything that was read is a condition, and nothing else is', async (t) => {
  const { ledger, commits } = createBooks({ a: '1', b: '2' });
  await transact(ledger, 'r', async (draft) => {
    t.equal(await draft.get('a'), 1);
    t.equal(await draft.get('none'), undefined);
    t.same(await draft.getMany(['b', 'nothing', 'b']), [2, undefined, 2]);
    draft.set('b', 3);
    draft.set('new', 4);
    draft.delete('none');
  });
  t.same(commits[0]!.toSorted(byKey), [
    { key: 'a', before: '1' },
    { key: 'b', before: '2', after: '3' },
    { key: 'new', after: '4' },
    { key: 'none', before: null, after: null },
    { key: 'nothing', before: null },
  ]);
});

void t.test('transact: reads its own writes', async (t) => {
  const { ledger, texts } = createBooks({ a: '1', b: '2' });
  await transact(ledger, 'r', async (draft) => {
    draft.set('a', 10);
    draft.delete('b');
    draft.set('c', [1]);
    t.equal(await draft.get('a'), 10);
    t.same(await draft.getMany(['a', 'b', 'c', 'd']), [10, undefined, [1], undefined]);
    draft.set('b', 20);
    draft.delete('c');
    t.same(await draft.getMany(['a', 'b', 'c']), [10, 20, undefined]);
  });
  t.same(Object.fromEntries(texts), { a: '10', b: '20' });
});

void t.test('transact: asks for each key once, several in one question', async (t) => {
  const { ledger, asked } = createBooks({ a: '1', b: '2' });
  await transact(ledger, 'r', async (draft) => {
    await draft.getMany(['a', 'b']);
    await draft.get('a');
    await draft.getMany(['b', 'c']);
    await draft.getMany([]);
    await draft.get('c');
  });
  t.same(asked, [['a', 'b'], ['c']]);
});

void t.test('transact: what only reads writes nothing', async (t) => {
  const { ledger, commits } = createBooks({ a: '1' });
  t.equal(await transact(ledger, 'r', (draft) => draft.get('a')), 1);
  t.same(commits, []);
});

void t.test('transact: begins again with what has changed meanwhile', async (t) => {
  const { ledger, texts, commits } = createBooks({ count: '0' });
  const seen: (number | undefined)[] = [];
  const result = await transact(ledger, 'r', async (draft) => {
    const count = await draft.get<number>('count');
    seen.push(count);
    draft.set(`round/${seen.length}`, 1);
    draft.set('count', count! + 1);
    if (seen.length < 4) texts.set('count', String(seen.length * 10));
    return count;
  });
  t.same(seen, [0, 10, 20, 30]);
  t.equal(result, 30);
  t.equal(commits.length, 4);
  t.same(Object.fromEntries(texts), { count: '31', 'round/4': '1' }, 'nothing of the rounds that were lost');
});

void t.test('transact: what was read and not written decides too', async (t) => {
  const { ledger, texts } = createBooks({ rule: '"old"' });
  let rounds = 0;
  await transact(ledger, 'r', async (draft) => {
    const rule = await draft.get('rule');
    if (rounds++ === 0) texts.set('rule', '"new"');
    draft.set('copy', rule);
  });
  t.equal(rounds, 2);
  t.equal(texts.get('copy'), '"new"');
  await transact(ledger, 'r', async (draft) => {
    const none = await draft.get('absent');
    if (rounds++ === 2) texts.set('absent', '1');
    draft.set('copy', none ?? null);
  });
  t.equal(texts.get('copy'), '1', 'also that something was not there');
});

void t.test('transact: many at one key all come to an end, and none is lost', async (t) => {
  const { ledger, texts } = createBooks({ count: '0' });
  const add = () =>
    transact(ledger, 'r', async (draft) => {
      const count = (await draft.get<number>('count'))!;
      await Promise.resolve();
      draft.set('count', count + 1);
      return count;
    });
  const counts = await Promise.all(Array.from({ length: 20 }, add));
  t.equal(texts.get('count'), '20');
  t.same(
    counts.toSorted((one, other) => one - other),
    Array.from({ length: 20 }, (_, at) => at),
  );
});

void t.test('transact: a ledger that never agrees is overloaded in the end', async (t) => {
  let rounds = 0;
  const ledger = { ...createBooks().ledger, commit: () => Promise.resolve(false) };
  const running = transact(ledger, 'team/app', (draft) => {
    rounds++;
    draft.set('a', 1);
    return Promise.resolve();
  });
  await t.rejects(running, { kind: 'overloaded', status: 503, message: /team\/app/, retryAfterS: Number });
  t.ok(rounds > 20, `${rounds} rounds`);
});

void t.test('transact: an action that fails writes nothing, and is not begun again', async (t) => {
  const { ledger, texts, commits } = createBooks();
  let rounds = 0;
  const failing = transact(ledger, 'r', (draft) => {
    rounds++;
    draft.set('a', 1);
    return Promise.reject(new NarrowsError('denied', 'No.'));
  });
  await t.rejects(failing, { kind: 'denied', message: 'No.' });
  t.equal(rounds, 1);
  t.same([texts.size, commits.length], [0, 0]);
});

void t.test('transact: trouble with the ledger is not taken for "not there"', async (t) => {
  const trouble = new Error('disk full');
  const { ledger } = createBooks();
  const deaf = { ...ledger, get: () => Promise.reject(trouble) };
  const mute = { ...ledger, commit: () => Promise.reject(trouble) };
  const expected = { kind: 'storeUnavailable', status: 503, cause: trouble, message: /^(?!.*disk full)/ };
  await t.rejects(
    transact(deaf, 'r', (draft) => draft.get('a')),
    expected,
  );
  const set = transact(mute, 'r', (draft) => {
    draft.set('a', 1);
    return Promise.resolve();
  });
  await t.rejects(set, expected);
  const own = new NarrowsError('overloaded', 'Too many.');
  await t.rejects(
    reachable(() => Promise.reject(own)),
    own,
  );
  t.equal(await reachable(() => Promise.resolve(1)), 1);
});
