import { randomBytes } from 'node:crypto';
import t from 'tap';
import { basicChallenge, headerAccess } from '../../src/access/access.ts';
import { createTokenService } from '../../src/access/token-service.ts';
import { createTokens } from '../../src/access/tokens.ts';
import { basic } from '../fixtures/push.ts';

const nowMs = Date.parse('2026-05-05T05:05:05Z');
const tokens = createTokens({ keys: [randomBytes(32)], service: 'narrows', lifetimeMs: 90_500, now: () => nowMs });
const service = createTokenService({
  logins: headerAccess(
    (one) =>
      Promise.resolve(
        one.kind === 'password' && one.password === 'right' ? { user: one.user, groups: ['g'] } : undefined,
      ),
    () => basicChallenge,
  ),
  tokens,
  keyOf: (name, fallback) => (name.startsWith('no/') ? undefined : `${fallback ?? 'docker.io'}/${name}`),
});

interface Given {
  readonly token: string;
  readonly access_token: string;
  readonly expires_in: number;
  readonly issued_at: string;
}

async function ask(authorization: string | undefined, scopes: string[], fallback?: string) {
  const given = JSON.parse(await service.answer({ asker: { authorization }, scopes }, fallback)) as Given;
  return { given, identity: await tokens.read(given.token) };
}

void t.test('token service: as clients read it, for what was asked, under the name that is looked up', async (t) => {
  const { given, identity } = await ask(basic('alice:right'), [
    'repository:a:pull repository:no/b:pull',
    'registry:catalog:*',
  ]);
  t.equal(given.access_token, given.token);
  t.same([given.expires_in, given.issued_at], [90, '2026-05-05T05:05:05.000Z']);
  t.same(identity, {
    user: 'alice',
    groups: ['g'],
    scopes: [
      { type: 'repository', name: 'docker.io/a', actions: ['pull'] },
      { type: 'registry', name: 'catalog', actions: ['*'] },
    ],
  });
  const other = await ask(basic('alice:right'), ['repository:a:pull'], 'ghcr.io');
  t.match(other.identity?.scopes, [{ name: 'ghcr.io/a' }], 'what stands for no registry is the listener’s own');
});

void t.test('token service: nobody gets a token of nobody; who is wrong gets none', async (t) => {
  t.same((await ask(undefined, ['repository:a:pull'])).identity?.user, undefined);
  t.same((await ask(basic(':'), [])).identity, { groups: [], scopes: [] });
  await t.rejects(ask(basic('alice:wrong'), []), {
    message: /wrong/,
    status: 401,
    headers: { 'www-authenticate': basicChallenge() },
  });
});

void t.test('64. token service: a token is no way to the next one', async (t) => {
  const { given } = await ask(basic('alice:right'), ['repository:a:pull']);
  await t.rejects(ask(`Bearer ${given.token}`, ['repository:a:push']), { message: /wrong/, status: 401 });
});
