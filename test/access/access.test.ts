import t from 'tap';
import { basicChallenge, certificateAccess, headerAccess, openAccess } from '../../src/access/access.ts';
import type { Check } from '../../src/access/access.ts';
import { anonymous } from '../../src/access/identity.ts';
import { NarrowsError } from '../../src/errors.ts';
import { basic } from '../fixtures/push.ts';

const right = new Map([
  ['alice', 's3cret'],
  ['bob', ''],
  ['carol', 'a:b:c'],
  ['dörte', 'pässwörd ☃'],
]);

/** Who is asked about, in order. */
function accessWith() {
  const asked: string[] = [];
  const check: Check = (credential) => {
    const [user, password] =
      credential.kind === 'password' ? [credential.user, credential.password] : ['bearer', credential.token];
    asked.push(`${user} ${password}`);
    const identity = { user, groups: user === 'alice' ? ['ci'] : [] };
    return Promise.resolve(right.get(user) === password ? identity : undefined);
  };
  return { access: headerAccess(check, () => basicChallenge), asked };
}

const nobody = { ...anonymous, challenge: basicChallenge };
const unauthorized = { kind: 'unauthorized', message: /wrong|certificate/ };

const groupsOfEdges = (user: string) => (user === 'edge-7' ? ['edge'] : []);

const encoded = (text: string) => Buffer.from(text).toString('base64');

void t.test('openAccess: takes everyone for nobody, and looks at no credentials', async (t) => {
  for (const header of [undefined, '', basic('alice:s3cret'), 'Bearer x', 'nonsense']) {
    t.same(await openAccess.identify({ authorization: header }), anonymous);
  }
});

void t.test('headerAccess: without a header one is nobody, with the right one somebody', async (t) => {
  const { access, asked } = accessWith();
  t.same(await access.identify({}), nobody);
  t.same(asked, []);
  t.same(await access.identify({ authorization: basic('alice:s3cret') }), {
    user: 'alice',
    groups: ['ci'],
    challenge: basicChallenge,
  });
  t.same(
    await access.identify({ authorization: basic('bob:') }),
    { user: 'bob', groups: [], challenge: basicChallenge },
    'an empty password',
  );
  t.same(
    await access.identify({ authorization: basic('carol:a:b:c') }),
    { user: 'carol', groups: [], challenge: basicChallenge },
    'a password with colons',
  );
  t.same(
    await access.identify({ authorization: basic('dörte:pässwörd ☃') }),
    { user: 'dörte', groups: [], challenge: basicChallenge },
    'more than ASCII',
  );
  for (const scheme of ['basic', 'BASIC', 'Basic  ', 'bAsIc']) {
    t.match(
      await access.identify({ authorization: `${scheme} ${encoded('alice:s3cret')}` }),
      { user: 'alice' },
      scheme,
    );
  }
  t.match(
    await access.identify({ authorization: `Basic ${encoded('alice:s3cret')}  ` }),
    { user: 'alice' },
    'space behind it',
  );
  t.match(basicChallenge(), /^Basic realm="[^"]+", charset="UTF-8"$/);
});

void t.test('headerAccess: neither user nor password is how some say that they are nobody', async (t) => {
  const { access, asked } = accessWith();
  t.same(await access.identify({ authorization: basic(':') }), nobody);
  t.same(asked, []);
});

void t.test('headerAccess: what is wrong or not understood is 401, and never nobody', async (t) => {
  const cases: Record<string, string> = {
    empty: '',
    space: ' ',
    'the scheme alone': 'Basic',
    'the scheme and a space': 'Basic ',
    'a wrong password': basic('alice:S3cret'),
    'a password with more behind it': basic('alice:s3cret '),
    'no password': basic('alice:'),
    'no user': basic(':s3cret'),
    'an unknown user': basic('mallory:s3cret'),
    'no colon': basic('alice'),
    'another scheme': `Bearer ${encoded('alice:s3cret')}`,
    'a scheme that begins alike': `Basics ${encoded('alice:s3cret')}`,
    'no scheme': encoded('alice:s3cret'),
    'no space behind the scheme': `Basic${encoded('alice:s3cret')}`,
    'no base64': 'Basic alice:s3cret',
    'base64 for addresses': `Basic ${Buffer.from('alice:>>>???').toString('base64url')}-_`,
    'padding alone': 'Basic ==',
    'two of them': `${basic('alice:s3cret')}, ${basic('alice:s3cret')}`,
    'two in one': `${basic('alice:s3cret')} ${encoded('alice:s3cret')}`,
    'a digest': 'Digest username="alice"',
    'a line break': `${basic('alice:s3cret')}\n`,
    'NUL behind the name': basic('alice\0:s3cret'),
    'bytes that are no UTF-8': `Basic ${Buffer.from([0xff, 0xfe, 0x3a, 0xff]).toString('base64')}`,
  };
  const { access } = accessWith();
  for (const [what, header] of Object.entries(cases)) {
    await t.rejects(
      access.identify({ authorization: header }),
      {
        kind: 'unauthorized',
        status: 401,
        code: 'UNAUTHORIZED',
        message: /^The (?:user or the password|token) is wrong\.$/,
        headers: { 'www-authenticate': basicChallenge() },
      },
      what,
    );
  }
});

void t.test('headerAccess: trouble with checking is told, and is no 401', async (t) => {
  const trouble = new NarrowsError('overloaded', 'Too many.');
  const access = headerAccess(
    () => Promise.reject(trouble),
    () => basicChallenge,
  );
  await t.rejects(access.identify({ authorization: basic('alice:s3cret') }), trouble);
  t.same(await access.identify({}), nobody);
});

void t.test('certificateAccess: the authority says who it is; who logs in is whom they log in as', async (t) => {
  const { access: passwords } = accessWith();
  const access = certificateAccess(passwords, true, groupsOfEdges, (name) => name !== 'edge');
  const certificate = { user: 'edge-7' };
  t.same(await access.identify({}), nobody);
  t.same(await access.identify({ certificate }), { user: 'edge-7', groups: ['edge'] });
  t.match(await access.identify({ certificate, authorization: basic('alice:s3cret') }), { user: 'alice' });
  t.match(await access.identify({ certificate: 'untrusted', authorization: basic('alice:s3cret') }), { user: 'alice' });
  await t.rejects(access.identify({ certificate, authorization: basic('alice:wrong') }), unauthorized);
  await t.rejects(access.identify({ certificate: 'untrusted' }), unauthorized);
  await t.rejects(access.identify({ certificate: { user: 'edge' } }), unauthorized, 'a group is nobody');
});

void t.test('certificateAccess: where nobody can log in, what they send along is not looked at', async (t) => {
  const access = certificateAccess(
    openAccess,
    false,
    () => [],
    () => true,
  );
  t.match(await access.identify({ certificate: { user: 'a' }, authorization: basic('b:c') }), { user: 'a' });
  t.same(await access.identify({ authorization: basic('b:c') }), anonymous);
});

void t.test(
  'headerAccess: a token is asked about as one, and the challenge knows where the client came in',
  async (t) => {
    const access = headerAccess(
      (credential) =>
        Promise.resolve(credential.kind === 'bearer' ? { user: credential.token, groups: [] } : undefined),
      ({ origin }) =>
        () =>
          `Bearer realm="${origin}/token"`,
    );
    for (const token of ['abc', 'a.b-c_d~e+f/g=']) {
      t.match(await access.identify({ authorization: `bearer ${token} ` }), { user: token });
    }
    const origin = 'http://mirror:1';
    const headers = { 'www-authenticate': 'Bearer realm="http://mirror:1/token"' };
    for (const authorization of ['Bearer a b', 'Bearer "a"', 'Bearer', 'Bearer =']) {
      await t.rejects(access.identify({ authorization, origin }), { message: /wrong/, headers }, authorization);
    }
  },
);
