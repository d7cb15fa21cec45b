import t from 'tap';
import { anonymous, isAmong, nameOf, requireAmong, reservedNames } from '../../src/access/identity.ts';
import type { Identity } from '../../src/access/identity.ts';

const alice: Identity = { user: 'alice', groups: ['ci', 'release'] };
const challenge = 'Basic realm="x"';

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
    [alice, ['*'], false],
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
  t.doesNotThrow(() => requireAmong(alice, ['ci'], challenge, 'No.'));
  t.doesNotThrow(() => requireAmong(anonymous, ['anonymous'], challenge, 'No.'));
  t.doesNotThrow(() => requireAmong(anonymous, ['anonymous'], undefined, 'No.'));
  t.end();
});

void t.test('requireAmong: who has said nothing is asked, where that helps; everyone else is refused', (t) => {
  t.throws(() => requireAmong(anonymous, ['ci'], challenge, 'You may not.'), {
    kind: 'unauthorized',
    status: 401,
    message: /^You may not\. /,
    headers: { 'www-authenticate': challenge },
  });
  const refused: [by: Identity, challenge: string | undefined][] = [
    [anonymous, undefined],
    [alice, challenge],
    [alice, undefined],
  ];
  for (const [by, how] of refused) {
    t.throws(() => requireAmong(by, ['bob'], how, 'You may not.'), {
      kind: 'denied',
      status: 403,
      message: 'You may not.',
      headers: { 'www-authenticate': undefined },
    });
  }
  t.throws(
    () => requireAmong(alice, [], challenge, 'You may not.'),
    { kind: 'denied', code: 'DENIED' },
    'where nobody may',
  );
  t.end();
});
