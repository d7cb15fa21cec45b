import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto';
import t from 'tap';
import { anonymous } from '../../src/access/identity.ts';
import { repositoryScope } from '../../src/access/scopes.ts';
import { createTokens, isOwn, issuerOf } from '../../src/access/tokens.ts';

const [key, older] = [randomBytes(32), randomBytes(32)];
const alice = { user: 'alice', groups: ['ci'] };
const scopes = [repositoryScope('up/a', 'pull')];
let nowMs = Date.parse('2026-05-05T05:05:05Z');
const now = () => nowMs;
const options = { keys: [key], service: 'narrows', lifetimeMs: 300_000, now };
const tokens = createTokens(options);

const part = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token of any kind, signed with any secret. */
function forge(header: unknown, claims: unknown, secret: Buffer | string = key, hash = 'sha256'): string {
  const text = `${part(header)}.${part(claims)}`;
  return `${text}.${createHmac(hash, secret).update(text).digest('base64url')}`;
}

void t.test('tokens: what is issued is read as it was, for as long as it says', async (t) => {
  const { token, lifetimeMs } = await tokens.issue(alice, scopes);
  t.same(await tokens.read(token), { ...alice, scopes });
  t.same(await tokens.read((await tokens.issue(anonymous, scopes)).token), { ...anonymous, scopes });
  t.ok(isOwn(token));
  nowMs += lifetimeMs - 1000;
  t.ok(await tokens.read(token));
  nowMs += 1000;
  t.equal(await tokens.read(token), undefined);
});

void t.test('tokens: the first key signs, all are good, and another mirror takes none', async (t) => {
  const rotated = createTokens({ ...options, keys: [older, key] });
  const { token } = await tokens.issue(alice, scopes);
  t.ok(await rotated.read(token), 'of the key before');
  t.equal(await tokens.read((await rotated.issue(alice, scopes)).token), undefined, 'of a key that is not known yet');
  t.equal(await createTokens({ ...options, service: 'other' }).read(token), undefined);
});

/** The last character of a part has bits that say nothing. */
const bytesOf = (text: string) =>
  text
    .split('.')
    .map((one) => Buffer.from(one, 'base64url').toString('hex'))
    .join();

void t.test('64. tokens: forged, bent, stolen and worn ones are nobody', async (t) => {
  const { token } = await tokens.issue(alice, scopes);
  const [head = '', body = '', signature = ''] = token.split('.');
  const iat = Math.floor(nowMs / 1000);
  const claims = { iss: 'narrows', aud: 'narrows', sub: 'root', groups: [], access: [], iat, exp: iat + 60 };
  const header = { alg: 'HS256', typ: 'at+jwt' };
  t.match(await tokens.read(forge(header, claims)), { user: 'root' }, 'this is how one would have to be made');
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const without = (name: string) => Object.fromEntries(Object.entries(claims).filter(([one]) => one !== name));
  const cases: Record<string, string> = {
    nothing: '',
    dots: '..',
    'one part': head,
    'two parts': `${head}.${body}`,
    'four parts': `${token}.x`,
    'no signature': `${head}.${body}.`,
    'half a signature': `${head}.${body}.${signature.slice(0, 20)}`,
    'the signature of another': `${part(header)}.${part(claims)}.${signature}`,
    'another user, same signature': `${head}.${part({ ...claims, sub: 'alice' })}.${signature}`,
    'alg none': forge({ ...header, alg: 'none' }, claims),
    'alg none, no signature': `${part({ ...header, alg: 'none' })}.${part(claims)}.`,
    'alg None': `${part({ ...header, alg: 'None' })}.${part(claims)}.`,
    'no alg': forge({ typ: 'at+jwt' }, claims),
    'alg empty': forge({ ...header, alg: '' }, claims),
    'alg a list': forge({ ...header, alg: ['HS256'] }, claims),
    'alg HS384 with this key': forge({ ...header, alg: 'HS384' }, claims, key, 'sha384'),
    'alg HS512 with this key': forge({ ...header, alg: 'HS512' }, claims, key, 'sha512'),
    'alg RS256 signed as HS256': forge({ ...header, alg: 'RS256' }, claims),
    'alg hs256': forge({ ...header, alg: 'hs256' }, claims),
    'an empty secret': forge(header, claims, ''),
    'the word secret': forge(header, claims, 'secret'),
    'the name of the service': forge(header, claims, 'narrows'),
    'a key of zeros': forge(header, claims, Buffer.alloc(32)),
    'half the key': forge(header, claims, key.subarray(0, 16)),
    'the key in base64': forge(header, claims, key.toString('base64')),
    'a public key as secret': forge(header, claims, publicKey.export({ type: 'spki', format: 'pem' })),
    'a private key as secret': forge(header, claims, privateKey.export({ type: 'pkcs8', format: 'pem' })),
    'kid that is a path': forge({ ...header, kid: '../../dev/null' }, claims, ''),
    'kid that is SQL': forge({ ...header, kid: "x' UNION SELECT 'k" }, claims, 'k'),
    'jwk in the header': forge({ ...header, jwk: { kty: 'oct', k: part('mine') } }, claims, 'mine'),
    'jku in the header': forge({ ...header, jku: 'http://127.0.0.1:1/keys' }, claims, 'mine'),
    'x5u in the header': forge({ ...header, x5u: 'http://127.0.0.1:1/keys' }, claims, 'mine'),
    'a critical extension': forge({ ...header, crit: ['exp'] }, claims),
    'b64 false': forge({ ...header, crit: ['b64'], b64: false }, claims),
    'another kind of token': forge({ ...header, typ: 'JWT' }, claims),
    'no kind': forge({ alg: 'HS256' }, claims),
    'no end': forge(header, without('exp')),
    'no beginning': forge(header, without('iat')),
    'an end that is text': forge(header, { ...claims, exp: '9999999999' }),
    'an end that is null': forge(header, { ...claims, exp: null }),
    'it has ended': forge(header, { ...claims, exp: iat }),
    'it has not begun': forge(header, { ...claims, nbf: iat + 3600 }),
    'of another issuer': forge(header, { ...claims, iss: 'narrows2' }),
    'of no issuer': forge(header, without('iss')),
    'for someone else': forge(header, { ...claims, aud: 'other' }),
    'for nobody': forge(header, without('aud')),
    'claims that are no object': forge(header, '[]'),
    'claims that are no JSON': forge(header, '{'),
    'a header that is no JSON': `x.${body}.${signature}`,
    'padding in it': `${head}=.${body}.${signature}`,
    'a line break in it': `${head}\n.${body}.${signature}`,
    'an encrypted one': `${part({ alg: 'dir', enc: 'A256GCM' })}..x.y.z`,
  };
  for (const [what, forged] of Object.entries(cases)) t.equal(await tokens.read(forged), undefined, what);
  for (let at = 0; at < token.length; at++) {
    const flipped = token[at] === 'A' ? 'B' : 'A';
    const bent = `${token.slice(0, at)}${flipped}${token.slice(at + 1)}`;
    if (token[at] !== '.' && bytesOf(bent) !== bytesOf(token))
      t.equal(await tokens.read(bent), undefined, `bent at ${at}`);
  }
});

void t.test('issuerOf: what a token says, before it is believed', (t) => {
  t.equal(issuerOf(forge({}, { iss: 'https://x' })), 'https://x');
  for (const text of ['', 'x', 'a.b.c', forge({}, '[]'), forge({}, {})]) t.equal(issuerOf(text), undefined, text);
  t.notOk(isOwn(forge({}, { iss: 'https://x' })));
  t.end();
});
