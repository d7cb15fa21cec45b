import t from 'tap';
import { anonymous } from '../../src/access/identity.ts';
import type { Identity } from '../../src/access/identity.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import { entryName, other } from '../../src/push/entries.ts';
import type { Entry } from '../../src/push/entries.ts';
import { checkOwners, ownersOf } from '../../src/push/owners.ts';
import type { OwnerRule } from '../../src/push/owners.ts';

const platform = (text: string) => parsePlatform(text)!;
const rulesOf = (rules: Record<string, string[]>): OwnerRule[] =>
  Object.entries(rules).map(([pattern, owners]) => ({ pattern, owners }));

const entry = (text: string): Entry =>
  text === other
    ? { name: other, children: [] }
    : { name: entryName(platform(text)), platform: platform(text), children: [] };

void t.test('ownersOf: those who are named for the platform, and those who are named for everything', (t) => {
  const rules = rulesOf({
    '*': ['release'],
    'linux/amd64': ['ci', 'alice'],
    'linux/amd64/v3': ['fast', 'ci'],
    'linux/arm': ['arms'],
    'linux/arm/v6': ['pi'],
    'linux/arm64/v8': ['baseline'],
    'windows/amd64': ['win'],
    'Linux/aarch64': ['spelled'],
  });
  const cases: [platform: string | undefined, owners: string[]][] = [
    ['linux/amd64', ['release', 'ci', 'alice']],
    ['linux/amd64/v3', ['release', 'ci', 'alice', 'fast']],
    ['linux/amd64/v2', ['release', 'ci', 'alice']],
    ['linux/arm/v7', ['release', 'arms']],
    ['linux/arm/v6', ['release', 'arms', 'pi']],
    ['linux/arm/v5', ['release', 'arms']],
    ['linux/arm64', ['release', 'baseline', 'spelled']],
    ['linux/arm64/v9', ['release', 'spelled']],
    ['windows(10.0.20348.1)/amd64', ['release', 'win']],
    ['windows/amd64', ['release', 'win']],
    ['windows/arm64', ['release']],
    ['freebsd/amd64', ['release']],
    [undefined, ['release']],
  ];
  for (const [text, expected] of cases) {
    t.same(ownersOf(rules, text === undefined ? undefined : platform(text)), expected, text ?? 'no platform');
  }
  t.same(ownersOf([], platform('linux/amd64')), []);
  t.same(ownersOf(rulesOf({ nonsense: ['x'] }), platform('linux/amd64')), []);
  t.end();
});

void t.test('ownersOf: a pattern with a version of Windows is for its build alone', (t) => {
  const rules = rulesOf({ 'windows(10.0.20348)/amd64': ['ltsc2022'], 'windows(10.0.26100)/amd64': ['ltsc2025'] });
  t.same(ownersOf(rules, platform('windows(10.0.20348.5622)/amd64')), ['ltsc2022']);
  t.same(ownersOf(rules, platform('windows(10.0.26100.1)/amd64')), ['ltsc2025']);
  t.same(ownersOf(rules, platform('windows(10.0.17763.1)/amd64')), []);
  t.end();
});

void t.test('checkOwners: whoever owns all that changes may, by name, by group, or because everyone may', (t) => {
  const rules = rulesOf({
    '*': ['release'],
    'linux/amd64': ['alice', 'ci'],
    'linux/arm64': ['anonymous'],
    'linux/s390x': ['authenticated'],
  });
  const alice: Identity = { user: 'alice', groups: [] };
  const bot: Identity = { user: 'bot', groups: ['ci'] };
  const release: Identity = { user: 'zoe', groups: ['release'] };
  const all = ['linux/amd64', 'linux/arm64', 'linux/s390x', 'linux/ppc64le', other];
  const cases: [by: Identity, changed: string[], refused: string | undefined][] = [
    [alice, [], undefined],
    [alice, ['linux/amd64', 'linux/amd64/v3', 'linux/arm64', 'linux/s390x'], undefined],
    [alice, ['linux/amd64', 'linux/ppc64le'], 'linux/ppc64le'],
    [alice, [other], other],
    [bot, ['linux/amd64'], undefined],
    [bot, ['linux/ppc64le', other], 'linux/ppc64le'],
    [release, all, undefined],
    [anonymous, ['linux/arm64'], undefined],
    [anonymous, ['linux/s390x'], 'linux/s390x'],
    [anonymous, all, 'linux/amd64'],
    [anonymous, [], undefined],
  ];
  for (const [by, changed, refused] of cases) {
    const check = () => checkOwners(rules, by, changed.map(entry));
    const what = `${by.user ?? 'nobody'} at ${changed.join()}`;
    if (refused === undefined) t.doesNotThrow(check, what);
    else t.throws(check, { kind: 'denied', code: 'DENIED', detail: { platform: refused } }, what);
  }
  t.end();
});

void t.test('checkOwners: says whose the platform is', (t) => {
  const rules = rulesOf({ 'linux/amd64': ['alice', 'ci'] });
  const cases: [changed: string, message: string, owners: string[]][] = [
    ['linux/amd64/v2', 'You may not change linux/amd64/v2 here: it belongs to alice, ci.', ['alice', 'ci']],
    ['linux/arm64', 'You may not change linux/arm64 here: it belongs to nobody that the configuration names.', []],
    [other, 'You may not change what is of no platform here: it belongs to nobody that the configuration names.', []],
  ];
  for (const [changed, message, owners] of cases) {
    t.throws(() => checkOwners(rules, { user: 'bob', groups: [] }, [entry(changed)]), {
      kind: 'denied',
      message,
      detail: { owners },
    });
  }
  t.end();
});

void t.test('checkOwners: without rules everyone may, and without owners nobody', (t) => {
  t.doesNotThrow(() => checkOwners(undefined, anonymous, [entry('linux/amd64'), entry(other)]));
  t.throws(() => checkOwners([], { user: 'alice', groups: ['ci'] }, [entry('linux/amd64')]), {
    kind: 'denied',
    code: 'DENIED',
  });
  t.end();
});
