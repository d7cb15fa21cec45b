import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { SignJWT } from 'jose';
import t from 'tap';
import { createVerifier, fixedKeys } from '../../src/access/issuers.ts';
import { repositoryScope } from '../../src/access/scopes.ts';
import { createTokens, isOwn, issuerOf } from '../../src/access/tokens.ts';
import { bent, nearly, tryMany } from '../fixtures/fuzz.ts';

const key = randomBytes(32);
const nowMs = Date.parse('2026-05-05T05:05:05Z');
const now = () => nowMs;
const tokens = createTokens({ keys: [key], service: 'narrows', lifetimeMs: 300_000, now });
const identity = { user: 'alice', groups: ['ci'] };
const scopes = [repositoryScope('up/a', 'pull')];

const part = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const sign = (text: string, secret: Buffer) =>
  `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;

const names = fc.constantFrom(
  'alg',
  'typ',
  'crit',
  'kid',
  'jwk',
  'jku',
  'b64',
  'enc',
  'iss',
  'aud',
  'sub',
  'exp',
  'iat',
  'nbf',
  'groups',
  'access',
  '__proto__',
);
const said = fc.oneof(
  fc.constantFrom<unknown>(
    'HS256',
    'none',
    'RS256',
    'at+jwt',
    'narrows',
    ['exp'],
    null,
    true,
    false,
    0,
    1e20,
    -1,
    nowMs / 1000,
    'one',
    {},
    [],
  ),
  fc.jsonValue({ maxDepth: 1 }),
);
const maps = fc.dictionary(names, said, { maxKeys: 4 });
const header = { alg: 'HS256', typ: 'at+jwt' };
const seconds = Math.floor(nowMs / 1000);
const claims = { iss: 'narrows', aud: 'narrows', sub: 'root', groups: [], access: [], iat: seconds, exp: seconds + 60 };

/** By someone who does not have the key, and knows everything else. */
const forged = fc
  .tuple(maps, maps, fc.oneof(fc.constant(undefined), fc.jsonValue()), fc.uint8Array({ maxLength: 40 }))
  .map(([heads, bodies, instead, secret]) =>
    sign(`${part({ ...header, ...heads })}.${part(instead ?? { ...claims, ...bodies })}`, Buffer.from(secret)),
  );

void t.test('64. whatever is shown as a token and was not made here is nobody, and throws nothing', async (t) => {
  const garbage = fc
    .array(fc.oneof(fc.json().map(part), fc.string(), fc.base64String()), { maxLength: 6 })
    .map((parts) => parts.join('.'));
  const property = fc.asyncProperty(nearly(fc.oneof(forged, garbage)), async (token) => {
    const own: unknown = isOwn(token);
    return typeof own === 'boolean' && (await tokens.read(token)) === undefined;
  });
  await tryMany(t, property, 4);
});

/** A part's last character has bits that say nothing: what counts are the bytes. */
const bytesOf = (token: string) =>
  token
    .split('.')
    .map((one) => Buffer.from(one, 'base64url').toString('hex'))
    .join('.');

void t.test('64. a token that was changed is nobody, whatever the change', async (t) => {
  const { token } = await tokens.issue(identity, scopes);
  let same = 0;
  const property = fc.asyncProperty(
    fc.oneof({ weight: 20, arbitrary: bent(fc.constant(token)) }, fc.constant(token)),
    async (shown) => {
      const found = await tokens.read(shown);
      if (shown !== token && bytesOf(shown) !== bytesOf(token)) return found === undefined;
      if (found) same++;
      return found === undefined ? shown !== token : JSON.stringify(found) === JSON.stringify({ ...identity, scopes });
    },
  );
  await tryMany(t, property, 4);
  t.ok(same > 0, `${same} were as they had been made`);
});

void t.test('64. what a token says of its issuer is a text, or nothing', (t) => {
  const bodies = fc.oneof(maps, fc.jsonValue()).map((body) => `${part(header)}.${part(body)}.x`);
  let found = 0;
  const property = fc.property(nearly(bodies), (token) => {
    const issuer: unknown = issuerOf(token);
    if (issuer !== undefined) found++;
    return issuer === undefined || typeof issuer === 'string';
  });
  tryMany(t, property);
  t.ok(found > 0, `${found} said one`);
  t.end();
});

const url = 'https://issuer.example';
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const keys = fixedKeys(
  JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'ES256' }] }),
);
const verify = createVerifier(
  [{ url, audience: 'narrows', prefix: 'ci:', userClaim: 'sub', groupsClaim: 'groups', keys }],
  now,
);
const good = { iss: url, aud: 'narrows', sub: 'job', groups: ['a'], iat: seconds, exp: seconds + 60 };

void t.test('64. nobody is who an issuer did not sign for, and no token of it throws', async (t) => {
  const token = await new SignJWT(good).setProtectedHeader({ alg: 'ES256', kid: 'one' }).sign(privateKey);
  const strange = fc
    .tuple(maps, maps, fc.base64String())
    .map(
      ([heads, bodies, end]) =>
        `${part({ alg: 'ES256', kid: 'one', ...heads })}.${part({ ...good, ...bodies })}.${end}`,
    );
  const property = fc.asyncProperty(fc.oneof(bent(fc.constant(token)), nearly(strange)), async (shown) => {
    const found = await verify(shown);
    return bytesOf(shown) === bytesOf(token) || found === undefined;
  });
  await tryMany(t, property, 4);
  t.match(await verify(token), { user: 'ci:job' });
});

void t.test('64. an issuer’s users and groups are texts with its prefix, whatever its tokens say', async (t) => {
  let found = 0;
  const property = fc.asyncProperty(
    fc.dictionary(fc.constantFrom('sub', 'groups', 'x'), said, { maxKeys: 2 }),
    async (changes) => {
      const token = await new SignJWT({ ...good, ...changes })
        .setProtectedHeader({ alg: 'ES256', kid: 'one' })
        .sign(privateKey);
      const who = await verify(token);
      if (!who) return typeof changes['sub'] !== 'string' || changes['sub'] === '';
      found++;
      return [who.user, ...who.groups].every(
        (one) => typeof one === 'string' && one.startsWith('ci:') && one.length > 3,
      );
    },
  );
  await tryMany(t, property, 20);
  t.ok(found > 0, `${found} were someone`);
});
