import t from 'tap';
import { anonymous, isAmong, may, nameOf, requireAmong, reservedNames } from '../../src/access/identity.ts';
import type { Identity } from '../../src/access/identity.ts';
import { formatScope, repositoryScope } from '../../src/access/scopes.ts';
import type { Scope } from '../../src/access/scopes.ts';

const alice: Identity = { user: 'alice', groups: ['ci', 'release'] };
const challenge = (missing?: Scope) => `Basic realm="x"${missing ? ` ${formatScope(missing)}` : ''}`;
const nobody: Identity = { ...anonymous, challenge };

void t.test('isAmong: by name, by group, by having said who one is, or because everyone is', (t) => {
  const cases: [by: Identity, names: string[], expected: boolean][] = [
    [alice, [], false],
    [alice, ['alice'], true],
    [alice, ['bob', 'alice'], true],
    [alice, ['ci'], true],
    [alice, ['release', 'bob'], true],
    [alice, ['Alice'], false],
    [alice, ['ali'], false],
    [alice, ['CI'], false],
    [alice, ['authenticated'], true],
    [alice, ['anonymous'], true],
    [alice, ['*'], true],
    [alice, ['al*e'], true],
    [alice, ['*ice'], true],
    [alice, ['a*l*e'], true],
    [alice, ['al*lice'], false],
    [alice, ['a*lic'], false],
    [alice, ['rel*'], true],
    [alice, ['b*'], false],
    [anonymous, ['*'], false],
    [alice, [''], false],
    [alice, ['undefined'], false],
    [anonymous, [], false],
    [anonymous, ['anonymous'], true],
    [anonymous, ['bob', 'anonymous'], true],
    [anonymous, ['authenticated'], false],
    [anonymous, ['alice', 'ci'], false],
    [anonymous, ['undefined'], false],
    [anonymous, [''], false],
    [{ user: 'bob', groups: [] }, ['ci'], false],
    [{ user: 'bob', groups: [] }, ['authenticated'], true],
    [{ groups: ['ci'] }, ['ci'], false],
  ];
  for (const [by, names, expected] of cases) {
    t.equal(isAmong(by, names), expected, `${JSON.stringify(by)} in ${names.join()}`);
  }
  t.end();
});

void t.test('nameOf: the user, or that there is none', (t) => {
  t.equal(nameOf(alice), 'alice');
  t.equal(nameOf(anonymous), 'anonymous');
  t.ok(reservedNames.includes(nameOf(anonymous)), 'which no user can be called');
  t.ok(reservedNames.includes('authenticated'));
  t.end();
});

void t.test('requireAmong: who is among them passes', (t) => {
  t.doesNotThrow(() => requireAmong(alice, ['ci'], 'No.'));
  t.doesNotThrow(() => requireAmong(nobody, ['anonymous'], 'No.'));
  t.doesNotThrow(() => requireAmong(anonymous, ['anonymous'], 'No.'));
  t.end();
});

void t.test('requireAmong: who has said nothing is asked, where that helps; everyone else is refused', (t) => {
  t.throws(() => requireAmong(nobody, ['ci'], 'You may not.', repositoryScope('a', 'pull')), {
    kind: 'unauthorized',
    status: 401,
    message: /^You may not\. /,
    headers: { 'www-authenticate': 'Basic realm="x" repository:a:pull' },
  });
  for (const by of [anonymous, alice, { ...alice, challenge }]) {
    t.throws(() => requireAmong(by, ['bob'], 'You may not.'), {
      kind: 'denied',
      status: 403,
      message: 'You may not.',
      headers: { 'www-authenticate': undefined },
    });
  }
  t.throws(
    () => requireAmong({ ...alice, challenge }, [], 'You may not.'),
    { kind: 'denied', code: 'DENIED' },
    'where nobody may',
  );
  t.end();
});

const asks = (who: Identity, names: string[], scope: Scope) => () => requireAmong(who, names, 'No.', scope);

void t.test('requireAmong: a token is good for what it says, within what its user may', (t) => {
  const by: Identity = { ...alice, challenge, scopes: [repositoryScope('a', 'pull'), repositoryScope('b', 'push')] };
  t.doesNotThrow(asks(by, ['alice'], repositoryScope('a', 'pull')));
  for (const scope of [repositoryScope('a', 'push'), repositoryScope('b', 'pull'), repositoryScope('c', 'pull')]) {
    const wanted = { kind: 'unauthorized', message: /token/, headers: { 'www-authenticate': challenge(scope) } };
    t.throws(asks(by, ['alice'], scope), wanted, formatScope(scope));
    t.throws(asks({ ...nobody, scopes: by.scopes! }, ['anonymous'], scope), wanted, 'nobody is held to it as well');
    t.notOk(may(by, ['alice'], scope));
  }
  t.throws(asks(by, ['bob'], repositoryScope('a', 'pull')), { kind: 'denied', message: 'No.' }, 'no token widens');
  t.ok(may(alice, ['ci'], repositoryScope('c', 'delete')), 'without a token everything that one may');
  t.end();
});
