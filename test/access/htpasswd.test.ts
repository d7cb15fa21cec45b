import { compareSync, getRounds, hashSync } from 'bcryptjs';
import t from 'tap';
import type { Guesses } from '../../src/access/guesses.ts';
import { createHtpasswd, parseHtpasswd } from '../../src/access/htpasswd.ts';
import { NarrowsError } from '../../src/errors.ts';

const alice = hashSync('s3cret', 4);
const bob = hashSync('', 4);

const message = (run: () => unknown): string => {
  try {
    run();
    return '';
  } catch (error) {
    return (error as Error).message;
  }
};

const withCost = (cost: string) => `alice:${alice.replace('$04$', `$${cost}$`)}`;

const unlimited: Guesses = { begin: () => () => undefined };

interface Options {
  readonly guesses?: Guesses;
  readonly maxRemembered?: number;
  /** What each comparison waits for. */
  readonly until?: Promise<void>;
}

/** Users in a map that can change, with all that was compared. */
function passwordsOf(users: Map<string, string>, { maxRemembered = 10, until, guesses = unlimited }: Options = {}) {
  const compared: [password: string, hash: string][] = [];
  const htpasswd = createHtpasswd({
    read: () => Promise.resolve(users),
    async compare(password, hash) {
      compared.push([password, hash]);
      await until;
      return compareSync(password, hash);
    },
    guesses,
    maxRemembered,
  });
  return { ...htpasswd, compared };
}

void t.test('parseHtpasswd: users and their hashes, as htpasswd -B writes them', (t) => {
  const text = `alice:${alice}\n\n# a comment: with a colon\n  bob:${bob.replace('$2b$', '$2y$')}  \r\nCarol.x@y:${bob.replace('$2b$', '$2a$')}`;
  t.same(
    parseHtpasswd(text),
    new Map([
      ['alice', alice],
      ['bob', bob.replace('$2b$', '$2y$')],
      ['Carol.x@y', bob.replace('$2b$', '$2a$')],
    ]),
  );
  t.equal(parseHtpasswd('').size, 0);
  t.equal(parseHtpasswd('\n\n# nobody\n').size, 0);
  t.same([...parseHtpasswd(`__proto__:${alice}`).keys()], ['__proto__']);
  t.end();
});

void t.test('parseHtpasswd: the cost of a hash is limited', (t) => {
  for (const cost of ['04', '05', '10', '14']) t.equal(parseHtpasswd(withCost(cost)).size, 1, cost);
  for (const cost of ['15', '20', '31', '99', '5', '014', '1e']) {
    const told = message(() => parseHtpasswd(withCost(cost)));
    t.match(told, /^line 1 has no bcrypt hash of cost 14 or less/, cost);
  }
  t.end();
});

void t.test('parseHtpasswd: other kinds of hashes are refused in a sentence that has nothing of them', (t) => {
  const hashes: Record<string, string> = {
    'plain text': 's3cret',
    nothing: '',
    'MD5 of Apache': '$apr1$9Cv/OMGj$ZomWQzuQL.3TRCS81A1g/.',
    MD5: '$1$abcdefgh$ZomWQzuQL.3TRCS81A1g/.',
    SHA1: '{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=',
    crypt: 'rqXexS6ZhobKA',
    'SHA-256': '$5$rounds=5000$abcdefgh$w2Kt8ZoFzl8C1lLqOe0rBz3sTt9wz5tLT8c0e7c3Fo4',
    argon2: '$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo',
    'bcrypt of the broken kind': alice.replace('$2b$', '$2x$'),
    'bcrypt without a letter': alice.replace('$2b$', '$2$'),
    'bcrypt, one sign short': alice.slice(0, -1),
    'bcrypt, one sign long': `${alice}a`,
    'bcrypt with more behind it': `${alice}:x`,
    'bcrypt with a sign that it has not': `${alice.slice(0, -1)}=`,
  };
  for (const [what, hash] of Object.entries(hashes)) {
    const told = message(() => parseHtpasswd(`alice:${alice}\nmallory:${hash}`));
    t.match(told, /^line 2 has no bcrypt hash/, what);
    for (let at = 0; at + 4 <= hash.length; at++) {
      if (told.includes(hash.slice(at, at + 4))) t.fail(`${what}: ${told}`);
    }
    t.notMatch(told, 'mallory', what);
  }
  t.end();
});

void t.test('parseHtpasswd: a line that is none, and a user again, are told by where they stand', (t) => {
  const cases: [text: string, expected: string][] = [
    [`alice:${alice}\nhunter2`, 'line 2 is not of the form user:hash'],
    [`:${alice}`, 'line 1 is not of the form user:hash'],
    [`\n\n${alice}`, 'line 3 is not of the form user:hash'],
    [`alice:${alice}\nbob:${bob}\n\nalice:${bob}`, 'line 4 names a user again'],
    [`alice:${alice}\nalice:${alice}`, 'line 2 names a user again'],
  ];
  for (const [text, expected] of cases)
    t.equal(
      message(() => parseHtpasswd(text)),
      expected,
    );
  t.end();
});

void t.test('check: the right password of a user who is there, and nothing else', async (t) => {
  const { check } = passwordsOf(
    new Map([
      ['alice', alice],
      ['bob', bob],
    ]),
  );
  const cases: [user: string, password: string, expected: boolean][] = [
    ['alice', 's3cret', true],
    ['alice', 'S3cret', false],
    ['alice', '', false],
    ['bob', '', true],
    ['bob', 's3cret', false],
    ['carol', 's3cret', false],
    ['Alice', 's3cret', false],
    ['', '', false],
    ['__proto__', '', false],
    ['constructor', 's3cret', false],
  ];
  for (let round = 0; round < 2; round++) {
    for (const [user, password, expected] of cases) {
      t.equal(await check(user, password), expected, `${user}:${password}`);
    }
  }
});

void t.test('check: a right password is compared once, a wrong one each time', async (t) => {
  const { check, compared } = passwordsOf(new Map([['alice', alice]]));
  for (let round = 0; round < 3; round++) {
    t.ok(await check('alice', 's3cret'));
    t.notOk(await check('alice', 'wrong'));
  }
  t.same(
    compared.map(([password]) => password),
    ['s3cret', 'wrong', 'wrong', 'wrong'],
  );
});

void t.test('check: a user who is not there is compared all the same, with a hash that no password fits', async (t) => {
  const { check, compared } = passwordsOf(new Map([['alice', alice]]));
  t.notOk(await check('mallory', 's3cret'));
  t.notOk(await check('mallory', 's3cret'), 'and again');
  t.equal(compared.length, 2);
  const [[, hash]] = compared as [[string, string]];
  t.not(hash, alice);
  t.match(hash, /^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$/, 'a hash that takes its time');
  t.equal(getRounds(hash), getRounds(alice), 'as long as for those who are there');
  t.doesNotThrow(() => parseHtpasswd(`x:${hash}`));
});

void t.test('check: whatever the comparison says of nobody, nobody is let in', async (t) => {
  const htpasswd = createHtpasswd({
    guesses: unlimited,
    read: () => Promise.resolve(new Map<string, string>()),
    compare: () => Promise.resolve(true),
    maxRemembered: 10,
  });
  for (let round = 0; round < 2; round++) t.equal(await htpasswd.check('mallory', 'x'), false);
});

void t.test('check: the same credentials at once are compared once, others by themselves', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const users = new Map([
    ['alice', alice],
    ['bob', alice],
  ]);
  const { check, compared } = passwordsOf(users, { until: promise });
  const asked = [
    check('alice', 's3cret'),
    check('alice', 's3cret'),
    check('alice', 'wrong'),
    check('bob', 's3cret'),
    check('alice', 's3cret'),
    check('alice', 'wrong'),
  ];
  resolve();
  t.same(await Promise.all(asked), [true, true, false, true, true, false]);
  t.equal(compared.length, 3);
  t.notOk(await check('alice', 'wrong'));
  t.equal(compared.length, 4, 'what was wrong is not remembered');
});

void t.test('66. check: names and passwords do not run into each other', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const users = new Map([
    ['a', hashSync('b,1:c', 4)],
    ['a,5:b', hashSync('c', 4)],
  ]);
  const { check, compared } = passwordsOf(users, { until: promise });
  const asked = [check('a', 'b,1:c'), check('a,5:b', 'c'), check('ab', 'c'), check('a', 'bc')];
  resolve();
  t.same(await Promise.all(asked), [true, true, false, false]);
  t.equal(compared.length, 4);
});

void t.test('check: a new password is asked for as soon as the file has it, and who is gone is gone', async (t) => {
  const users = new Map([['alice', alice]]);
  const { check } = passwordsOf(users);
  t.ok(await check('alice', 's3cret'));
  users.set('alice', hashSync('other', 4));
  t.notOk(await check('alice', 's3cret'));
  t.ok(await check('alice', 'other'));
  users.delete('alice');
  t.notOk(await check('alice', 'other'));
  t.notOk(await check('alice', 's3cret'));
});

void t.test('check: remembers so many, the last ones', async (t) => {
  const users = new Map(['a', 'b', 'c'].map((user) => [user, alice]));
  const { check, compared } = passwordsOf(users, { maxRemembered: 2 });
  for (const user of ['a', 'b', 'c', 'c', 'b', 'a']) t.ok(await check(user, 's3cret'), user);
  t.equal(compared.length, 4);
});

void t.test('check: trouble is told, and remembered by nobody', async (t) => {
  let trouble: Error | undefined = new NarrowsError('overloaded', 'Too many.');
  const htpasswd = createHtpasswd({
    guesses: unlimited,
    read: () => Promise.resolve(new Map([['alice', alice]])),
    compare: (password, hash) => (trouble ? Promise.reject(trouble) : Promise.resolve(compareSync(password, hash))),
    maxRemembered: 10,
  });
  const both = await Promise.allSettled([htpasswd.check('alice', 's3cret'), htpasswd.check('alice', 's3cret')]);
  t.same(
    both.map((one) => one.status === 'rejected' && (one.reason as unknown)),
    [trouble, trouble],
  );
  trouble = undefined;
  t.ok(await htpasswd.check('alice', 's3cret'));
  const unread = createHtpasswd({
    guesses: unlimited,
    read: () => Promise.reject(new Error('gone')),
    compare: () => Promise.resolve(true),
    maxRemembered: 1,
  });
  await t.rejects(unread.check('alice', 's3cret'), { message: 'gone' });
});

void t.test('check: 63. a guess is one that was wrong; who was let in before stays in', async (t) => {
  const said: string[] = [];
  let isOpen = true;
  const { check, compared } = passwordsOf(new Map([['alice', alice]]), {
    guesses: {
      begin(address) {
        if (!isOpen) throw new NarrowsError('rateLimited', 'Too many.');
        said.push(`begin ${address}`);
        return () => said.push(`right ${address}`);
      },
    },
  });
  t.equal(await check('alice', 'wrong', 'a'), false);
  t.same(said.splice(0), ['begin a']);
  t.equal(await check('mallory', 's3cret', 'b'), false);
  t.same(said.splice(0), ['begin b'], 'someone who does not exist');
  t.same(await Promise.all([1, 2, 3].map(() => check('alice', 's3cret', 'c'))), [true, true, true]);
  t.same(said.splice(0), ['begin c', 'right c'], 'the same at once is one');
  isOpen = false;
  const before = compared.length;
  t.equal(await check('alice', 's3cret', 'a'), true);
  await t.rejects(check('alice', 'other', 'a'), { kind: 'rateLimited', message: 'Too many.' });
  t.equal(compared.length, before, 'nothing is compared for one guess too many');
});

void t.test('check: 63. what could not be compared was no guess', async (t) => {
  let taken = 0;
  const trouble = new NarrowsError('overloaded', 'Too many passwords wait to be checked.');
  const { check } = createHtpasswd({
    read: () => Promise.resolve(new Map([['alice', alice]])),
    compare: () => Promise.reject(trouble),
    guesses: {
      begin() {
        taken += 1;
        return () => (taken -= 1);
      },
    },
    maxRemembered: 1,
  });
  await t.rejects(check('alice', 's3cret'), trouble);
  t.equal(taken, 0);
});
