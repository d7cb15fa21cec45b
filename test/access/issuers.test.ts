import { createHmac, generateKeyPairSync } from 'node:crypto';
import { SignJWT } from 'jose';
import type { JWK } from 'jose';
import t from 'tap';
import { createVerifier, fixedKeys, remoteKeys } from '../../src/access/issuers.ts';

const url = 'https://issuer.example';
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = (kid: string, key = publicKey): JWK => ({ ...(key.export({ format: 'jwk' }) as JWK), kid, alg: 'RS256' });
const setOf = (...keys: JWK[]) => JSON.stringify({ keys });
const nowMs = Date.now();
const now = () => nowMs;
const issuer = {
  url,
  audience: 'narrows',
  prefix: 'ci:',
  userClaim: 'sub',
  groupsClaim: 'groups',
  keys: fixedKeys(setOf(jwk('one'))),
};
const verify = createVerifier([issuer], now);

interface Change {
  readonly claims?: Record<string, unknown>;
  readonly header?: Record<string, unknown>;
  readonly key?: typeof privateKey;
}

function sign({ claims, header, key = privateKey }: Change = {}): Promise<string> {
  const iat = Math.floor(nowMs / 1000);
  return new SignJWT({ iss: url, aud: 'narrows', sub: 'job', groups: ['a', 'b'], iat, exp: iat + 60, ...claims })
    .setProtectedHeader({ alg: 'RS256', kid: 'one', ...header })
    .sign(key);
}

void t.test('createVerifier: user and groups, with what tells them from those of others before them', async (t) => {
  t.same(await verify(await sign()), { user: 'ci:job', groups: ['ci:a', 'ci:b'] });
  t.same(await verify(await sign({ claims: { groups: 'one' } })), { user: 'ci:job', groups: ['ci:one'] });
  t.same(await verify(await sign({ claims: { groups: [1, null, '', {}, 'x'] } })), {
    user: 'ci:job',
    groups: ['ci:x'],
  });
  t.same(await verify(await sign({ claims: { aud: ['other', 'narrows'] } })), {
    user: 'ci:job',
    groups: ['ci:a', 'ci:b'],
  });
  const byName = createVerifier([{ ...issuer, userClaim: 'name', groupsClaim: 'teams' }], now);
  t.same(await byName(await sign({ claims: { name: 'n', teams: ['t'] } })), { user: 'ci:n', groups: ['ci:t'] });
});

const head = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

void t.test('64. createVerifier: what an issuer did not say of someone, for us, now, is nobody', async (t) => {
  const iat = Math.floor(nowMs / 1000);
  const changes: Record<string, Change> = {
    'another key': { key: stranger.privateKey },
    'another key id': { header: { kid: 'two' } },
    'another issuer': { claims: { iss: 'https://other.example' } },
    'a slash more': { claims: { iss: `${url}/` } },
    'no issuer': { claims: { iss: undefined } },
    'for someone else': { claims: { aud: 'sts.amazonaws.com' } },
    'for nobody': { claims: { aud: undefined } },
    'it has ended': { claims: { exp: iat - 31 } },
    'no end': { claims: { exp: undefined } },
    'it has not begun': { claims: { nbf: iat + 60 } },
    'no user': { claims: { sub: undefined } },
    'an empty user': { claims: { sub: '' } },
    'a user that is a number': { claims: { sub: 7 } },
    'a user that is a list': { claims: { sub: ['job'] } },
    'PS256 with a key for RS256': { header: { alg: 'PS256' } },
  };
  for (const [what, change] of Object.entries(changes)) t.equal(await verify(await sign(change)), undefined, what);
  const [, body] = (await sign()).split('.');
  const withSecret = (secret: string) => {
    const text = `${head({ alg: 'HS256', kid: 'one' })}.${body}`;
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
  };
  for (const [what, token] of Object.entries({
    'none as algorithm': `${head({ alg: 'none' })}.${body}.`,
    'the public key as secret': withSecret(publicKey.export({ type: 'spki', format: 'pem' })),
    'the JWK as secret': withSecret(JSON.stringify(jwk('one'))),
    'very long': await sign({ claims: { filler: 'x'.repeat(20_000) } }),
    nothing: '',
  })) {
    t.equal(await verify(token), undefined, what);
  }
  t.ok(await verify(await sign({ claims: { exp: iat - 29 } })), 'clocks differ a little');
});

/** An issuer that is asked by address; what it answers can be changed. */
function remote(answers: Record<string, string | Error>, jwks?: URL) {
  const asked: string[] = [];
  let clockMs = nowMs;
  const keys = remoteKeys({
    issuer: url,
    jwks,
    now: () => clockMs,
    fetch(at) {
      asked.push(at.href);
      const answer = answers[at.href] ?? new Error('404');
      return typeof answer === 'string' ? Promise.resolve(answer) : Promise.reject(answer);
    },
  });
  const check = createVerifier([{ ...issuer, keys }], now);
  return { asked, check, answers, later: (ms: number) => (clockMs += ms) };
}

const description = `${url}/.well-known/openid-configuration`;
const home = `${url}/keys`;
const described = JSON.stringify({ issuer: url, jwks_uri: home });

void t.test('remoteKeys: found by the description once, and not asked again for each token', async (t) => {
  const { asked, check } = remote({ [description]: described, [home]: setOf(jwk('one')) });
  const tokens = await Promise.all(Array.from({ length: 20 }, () => sign()));
  for (const identity of await Promise.all(tokens.map((token) => check(token)))) t.match(identity, { user: 'ci:job' });
  t.same(asked, [description, home]);
});

void t.test('64. remoteKeys: a flood of unknown key ids is one more question', async (t) => {
  const { asked, check } = remote({ [home]: setOf(jwk('one')) }, new URL(home));
  t.ok(await check(await sign()));
  for (let at = 0; at < 200; at++) {
    t.equal(await check(await sign({ header: { kid: `k${at}` }, key: stranger.privateKey })), undefined);
  }
  t.same(asked, [home], 'the keys are fresh: not even one');
});

void t.test('remoteKeys: an issuer in trouble is 503 and left alone for a while', async (t) => {
  const { asked, check, answers, later } = remote({});
  const unavailable = { kind: 'issuerUnavailable', status: 503, retryAfterS: 5, message: /issuer\.example/ };
  for (let at = 0; at < 20; at++) await t.rejects(check(await sign()), unavailable);
  t.same(asked, [description]);
  later(5001);
  answers[description] = JSON.stringify({ issuer: 'https://evil.example', jwks_uri: home });
  await t.rejects(check(await sign()), unavailable, 'it describes itself as another');
  later(5001);
  answers[description] = described;
  answers[home] = setOf(jwk('one'));
  t.match(await check(await sign()), { user: 'ci:job' });
});
