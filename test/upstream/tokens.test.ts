import t from 'tap';
import { request } from 'undici';
import { createCredentials } from '../../src/upstream/credentials.ts';
import type { Credential, Credentials } from '../../src/upstream/credentials.ts';
import { createAuthorization } from '../../src/upstream/tokens.ts';
import type { Authorization, AuthorizationOptions } from '../../src/upstream/tokens.ts';
import { basicHeader, credentialsOf, failureOf, json, password, serve } from '../fixtures/servers.ts';
import type { Answerer, TestServer } from '../fixtures/servers.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const scope = 'repository:team/app:pull';

interface Stage {
  readonly service: TestServer;
  readonly challenge: string;
  /** Moves with the test alone. */
  readonly clock: { nowMs: number };
  authorization(over?: Partial<AuthorizationOptions>): Authorization;
}

/** A token service, and what asks it; without an answer of its own it gives `token-1`, `token-2`, … */
async function prepare(t: Teardown, answer?: Answerer): Promise<Stage> {
  let given = 0;
  const service = await serve(t, answer ?? ((_, response) => json(response, { token: `token-${++given}` })));
  const clock = { nowMs: 1_000_000 };
  return {
    service,
    challenge: `Bearer realm="${service.url}/token",service="registry.example",scope="${scope}"`,
    clock,
    authorization: (over = {}) =>
      createAuthorization({
        upstream: 'registry.example',
        credentials: credentialsOf(undefined),
        maxTokens: 100,
        isTrustedRealm: (realm) => realm.origin === service.url,
        now: () => clock.nowMs,
        async request({ method, url, headers, body }) {
          const reply = await request(url, { method, headers, ...(body !== undefined && { body }) });
          const retryAfter = reply.headers['retry-after'];
          return {
            status: reply.statusCode,
            text: await reply.body.text(),
            ...(retryAfter !== undefined && { retryAfterS: Number(retryAfter) }),
          };
        },
        ...over,
      }),
  };
}

void t.test('bearer: the challenge is answered with a token for the scope, which is then at hand', async (t) => {
  const { service, challenge, authorization } = await prepare(t);
  const auth = authorization();
  t.equal(await auth.current(scope), undefined, 'nothing is sent before it is asked for');
  t.equal(await auth.answer(scope, challenge, undefined), 'Bearer token-1');
  t.equal(await auth.current(scope), 'Bearer token-1');
  t.equal(service.seen.length, 1);
  const asked = service.seen[0]!;
  t.equal(asked.method, 'GET');
  t.same(Object.fromEntries(asked.query), { service: 'registry.example', scope });
  t.notOk(asked.headers.authorization, 'without a credential, an anonymous token');
});

void t.test('bearer: the scope is the one of the request, whatever a challenge says', async (t) => {
  const { service, authorization } = await prepare(t);
  await authorization().answer(scope, `Bearer realm="${service.url}/token",scope="repository:other:push"`, undefined);
  t.same(service.seen[0]!.query.getAll('scope'), [scope]);
});

void t.test('bearer: a realm keeps the query that it has, and a service that is not named is not sent', async (t) => {
  const { service, authorization } = await prepare(t);
  await authorization().answer(scope, `Bearer realm="${service.url}/token?account=mirror"`, undefined);
  t.same(Object.fromEntries(service.seen[0]!.query), { account: 'mirror', scope });
});

void t.test('bearer: a password goes to the token service as Basic, never into the URL', async (t) => {
  const { service, challenge, authorization } = await prepare(t);
  await authorization({ credentials: password('ann', 'pä:ss') }).answer(scope, challenge, undefined);
  t.equal(service.seen[0]!.headers.authorization, basicHeader('ann', 'pä:ss'));
  t.notMatch(service.seen[0]!.target, /ann/);
});

void t.test('bearer: an identity token goes as a form by POST, with nothing in URL or headers', async (t) => {
  const { service, challenge, authorization } = await prepare(t, (_, response) =>
    json(response, { access_token: 'opened' }),
  );
  const auth = authorization({ credentials: credentialsOf({ kind: 'identity', token: 'refresh+/=' }) });
  t.equal(await auth.answer(scope, challenge, undefined), 'Bearer opened');
  const asked = service.seen[0]!;
  t.equal(asked.method, 'POST');
  t.equal(asked.target, '/token');
  t.equal(asked.headers['content-type'], 'application/x-www-form-urlencoded');
  t.notOk(asked.headers.authorization);
  t.same(Object.fromEntries(new URLSearchParams(asked.body)), {
    grant_type: 'refresh_token',
    refresh_token: 'refresh+/=',
    client_id: 'narrows',
    service: 'registry.example',
    scope,
  });
});

void t.test('bearer: access_token goes before token, and either alone will do', async (t) => {
  for (const [reply, header] of [
    [{ token: 'a' }, 'Bearer a'],
    [{ access_token: 'b' }, 'Bearer b'],
    [{ token: 'a', access_token: 'b' }, 'Bearer b'],
    [{ token: 'a', access_token: null }, 'Bearer a'],
    [{ token: 'a', access_token: '' }, 'Bearer a'],
    [{ token: '', access_token: 'b' }, 'Bearer b'],
  ] as const) {
    const { challenge, authorization } = await prepare(t, (_, response) => json(response, reply));
    t.equal(await authorization().answer(scope, challenge, undefined), header, JSON.stringify(reply));
  }
});

void t.test('47. single flight: fifty pulls of a repository ask for one token', async (t) => {
  const { service, challenge, authorization } = await prepare(t);
  const auth = authorization();
  const headers = await Promise.all(Array.from({ length: 50 }, () => auth.answer(scope, challenge, undefined)));
  t.same(new Set(headers), new Set(['Bearer token-1']));
  t.equal(service.seen.length, 1);
});

void t.test('47. single flight: fifty pulls whose token ran out, or was refused, ask for one token', async (t) => {
  const { service, challenge, clock, authorization } = await prepare(t);
  const auth = authorization();
  await auth.answer(scope, challenge, undefined);
  clock.nowMs += 60_000;
  const renewed = await Promise.all(Array.from({ length: 50 }, () => auth.current(scope)));
  t.same(new Set(renewed), new Set(['Bearer token-2']));
  t.equal(service.seen.length, 2);
  const refused = await Promise.all(Array.from({ length: 50 }, () => auth.answer(scope, challenge, 'Bearer token-2')));
  t.same(new Set(refused), new Set(['Bearer token-3']));
  t.equal(service.seen.length, 3);
});

void t.test('47. single flight: a failure is not kept for the next to come', async (t) => {
  let calls = 0;
  const { challenge, authorization } = await prepare(t, (_, response) =>
    ++calls === 1 ? json(response, {}, 503) : json(response, { token: 'late' }),
  );
  const auth = authorization();
  const first = await Promise.allSettled([1, 2, 3].map(() => auth.answer(scope, challenge, undefined)));
  t.same(
    first.map(({ status }) => status),
    ['rejected', 'rejected', 'rejected'],
  );
  t.equal(calls, 1);
  t.equal(await auth.answer(scope, challenge, undefined), 'Bearer late');
});

void t.test('47. expiry: a token is renewed when nine tenths of its life are over', async (t) => {
  let given = 0;
  const { service, challenge, clock, authorization } = await prepare(t, (_, response) =>
    json(response, { token: `token-${++given}`, expires_in: 1000 }),
  );
  const auth = authorization();
  await auth.answer(scope, challenge, undefined);
  clock.nowMs += 899_999;
  t.equal(await auth.current(scope), 'Bearer token-1');
  clock.nowMs += 1;
  t.equal(await auth.current(scope), 'Bearer token-2', 'without another 401');
  t.equal(service.seen.length, 2);
});

void t.test(
  '47. expiry: what a service does not say, or says wrongly, is a minute; and no token is kept for longer than a day',
  async (t) => {
    const minute = 54_000;
    for (const [expiresIn, keptMs] of [
      [undefined, minute],
      [null, minute],
      [0, minute],
      [-5, minute],
      ['soon', minute],
      [{}, minute],
      ['300', 270_000],
      [300.5, 270_450],
      [1e12, 24 * 3600 * 900],
    ] as const) {
      let given = 0;
      const { challenge, clock, authorization } = await prepare(t, (_, response) =>
        json(response, { token: `token-${++given}`, expires_in: expiresIn }),
      );
      const auth = authorization();
      await auth.answer(scope, challenge, undefined);
      clock.nowMs += keptMs - 1;
      t.equal(await auth.current(scope), 'Bearer token-1', `expires_in ${JSON.stringify(expiresIn)}: kept`);
      clock.nowMs += 1;
      t.equal(await auth.current(scope), 'Bearer token-2', `expires_in ${JSON.stringify(expiresIn)}: renewed`);
    }
  },
);

void t.test('refused: a token that another request got meanwhile is tried before a new one is asked for', async (t) => {
  const { service, challenge, authorization } = await prepare(t);
  const auth = authorization();
  await auth.answer(scope, challenge, undefined);
  t.equal(await auth.answer(scope, challenge, 'Bearer older'), 'Bearer token-1');
  t.equal(service.seen.length, 1);
});

void t.test('refused: the same token again is no answer, so that two refusals are no loop', async (t) => {
  const { challenge, authorization } = await prepare(t, (_, response) => json(response, { token: 'same' }));
  const auth = authorization();
  t.equal(await auth.answer(scope, challenge, undefined), 'Bearer same');
  t.equal(await auth.answer(scope, challenge, 'Bearer same'), undefined);
});

void t.test('32. refused: the credential is asked for again, so that a rotated secret takes effect', async (t) => {
  const secrets = ['old', 'new'];
  const { service, challenge, authorization } = await prepare(t);
  const credentials = createCredentials(
    () => Promise.resolve({ kind: 'password', username: 'ann', password: secrets.shift()! }),
    () => 0,
  );
  const auth = authorization({ credentials });
  await auth.answer(scope, challenge, undefined);
  await auth.answer(scope, challenge, 'Bearer token-1');
  t.same(
    service.seen.map(({ headers }) => headers.authorization),
    [basicHeader('ann', 'old'), basicHeader('ann', 'new')],
  );
});

void t.test('basic: the credential itself is the answer, and stays at hand', async (t) => {
  const { clock, service, authorization } = await prepare(t);
  const auth = authorization({ credentials: password('AWS', 'secret') });
  t.equal(await auth.answer(scope, 'Basic realm="ECR"', undefined), basicHeader('AWS', 'secret'));
  clock.nowMs += 365 * 24 * 3600_000;
  t.equal(await auth.current(scope), basicHeader('AWS', 'secret'));
  t.equal(await auth.answer(scope, 'Basic realm="ECR"', basicHeader('AWS', 'secret')), undefined, 'but not twice');
  t.equal(service.seen.length, 0);
});

void t.test('basic: without a password there is no answer', async (t) => {
  const { authorization } = await prepare(t);
  t.equal(await authorization().answer(scope, 'Basic realm="x"', undefined), undefined);
  const auth = authorization({ credentials: credentialsOf({ kind: 'identity', token: 'refresh' }) });
  t.equal(await auth.answer(scope, 'Basic realm="x"', undefined), undefined);
});

void t.test('challenge: Bearer goes before Basic in whatever order, case and company', async (t) => {
  const { service, authorization } = await prepare(t);
  for (const header of [
    `Basic realm="x", Bearer realm="${service.url}/token"`,
    `Negotiate, bearer realm="${service.url}/token", basic realm="x"`,
    `BEARER error="invalid_token",REALM="${service.url}/token"`,
  ]) {
    const auth = authorization({ credentials: password('ann', 'secret') });
    t.match(await auth.answer(scope, header, undefined), /^Bearer token-/, header);
  }
});

void t.test('challenge: none, and one of another kind, have no answer', async (t) => {
  const { service, authorization } = await prepare(t);
  const auth = authorization({ credentials: password('ann', 'secret') });
  for (const header of [undefined, '', 'Negotiate', 'Digest realm="x", nonce="y"', '"', ',,,', 'realm="x"']) {
    t.equal(await auth.answer(scope, header, undefined), undefined, String(header));
  }
  t.equal(service.seen.length, 0);
});

void t.test('4. realm: one that is not trusted is not asked, and the message says how to trust it', async (t) => {
  const { service, authorization } = await prepare(t);
  const stranger = await serve(t, (_, response) => json(response, { token: 'stolen' }));
  const auth = authorization({ credentials: password('ann', 'canary') });
  for (const [realm, named] of [
    [`${stranger.url}/token`, `127.0.0.1:${stranger.port}`],
    [`${service.url.replace('127.0.0.1', 'localhost')}/token`, 'localhost'],
    ['https://evil.example/token?secret=canary', 'evil.example'],
    ['https://canary@evil.example/token', 'evil.example'],
    ['/token', 'no usable address'],
    ['', 'no usable address'],
    ['http://', 'no usable address'],
  ] as const) {
    const failure = await auth.answer(scope, `Bearer realm="${realm}"`, undefined).catch((error: unknown) => error);
    t.match(failure, { kind: 'upstreamUnusable', message: named }, realm);
    t.match((failure as Error).message, /trustedHosts/);
    t.notMatch((failure as Error).message, /canary/);
  }
  t.match(await failureOf(auth.answer(scope, 'Bearer service="x"', undefined)), { kind: 'upstreamUnusable' });
  t.equal(stranger.connections, 0);
  t.equal(service.seen.length, 0);
});

void t.test('token service: what it refuses has no answer, what troubles it is trouble', async (t) => {
  let status = 200;
  const { challenge, authorization } = await prepare(t, (_, response) =>
    json(response, { token: 'x' }, status, { 'retry-after': '7' }),
  );
  for (status of [201, 301, 302, 400, 401, 403, 404, 405]) {
    t.equal(await authorization().answer(scope, challenge, undefined), undefined, String(status));
  }
  for (status of [500, 502, 503, 504]) {
    const failure = { kind: 'upstreamUnavailable' };
    t.match(await failureOf(authorization().answer(scope, challenge, undefined)), failure, String(status));
  }
  status = 429;
  t.match(await failureOf(authorization().answer(scope, challenge, undefined)), {
    kind: 'rateLimited',
    retryAfterS: 7,
  });
});

void t.test('31. token service: it is left alone for as long as it said when it limited the rate', async (t) => {
  let status = 429;
  const { service, challenge, clock, authorization } = await prepare(t, (_, response) =>
    json(response, { token: 'x' }, status, { 'retry-after': '7' }),
  );
  const auth = authorization();
  t.match(await failureOf(auth.answer(scope, challenge, undefined)), { kind: 'rateLimited', retryAfterS: 7 });
  clock.nowMs += 2000;
  t.match(await failureOf(auth.answer(scope, challenge, undefined)), { kind: 'rateLimited', retryAfterS: /^[56]$/ });
  t.match(await failureOf(auth.answer('repository:other:pull', challenge, undefined)), { kind: 'rateLimited' });
  t.equal(service.seen.length, 1, 'one question in all');
  status = 200;
  clock.nowMs += 5701;
  t.equal(await auth.answer(scope, challenge, undefined), 'Bearer x');
});

void t.test('token service: an answer without a token that fits a header is refused', async (t) => {
  let text = '';
  const { challenge, authorization } = await prepare(t, (_, response) => void response.end(text));
  for (text of [
    '',
    '<html>Sign in</html>',
    'null',
    '[]',
    '"token"',
    '{}',
    '{"token":""}',
    '{"token":7}',
    '{"token":{}}',
    String.raw`{"token":"canary\r\nX-Evil: 1"}`,
    String.raw`{"token":"canary canary"}`,
    String.raw`{"token":"canary\u0000"}`,
    '{"token":"canaryä"}',
  ]) {
    const failure = await authorization()
      .answer(scope, challenge, undefined)
      .catch((error: unknown) => error);
    t.match(failure, { kind: 'upstreamUnusable' }, text);
    t.notMatch((failure as Error).message, /canary/);
  }
});

void t.test('tokens: each scope has its own', async (t) => {
  const { service, challenge, authorization } = await prepare(t, ({ query }, response) =>
    json(response, { token: query.get('scope') }),
  );
  const auth = authorization();
  const scopes = ['repository:a:pull', 'repository:b:pull', 'repository:a/b:pull'];
  await Promise.all(scopes.map((one) => auth.answer(one, challenge, undefined)));
  for (const one of scopes) t.equal(await auth.current(one), `Bearer ${one}`);
  t.equal(service.seen.length, 3);
});

void t.test('tokens: no more are kept than the limit says', async (t) => {
  const { challenge, authorization } = await prepare(t);
  const auth = authorization({ maxTokens: 2 });
  for (const one of ['a', 'b', 'c']) await auth.answer(one, challenge, undefined);
  t.equal(await auth.current('a'), undefined);
  t.equal(await auth.current('b'), 'Bearer token-2');
  t.equal(await auth.current('c'), 'Bearer token-3');
});

void t.test('3. tokens: two authorizations share nothing, though their scopes and realm are one', async (t) => {
  const { service, challenge, authorization } = await prepare(t, ({ headers }, response) =>
    json(response, { token: Buffer.from(headers.authorization ?? 'nobody').toString('hex') }),
  );
  const tenants: Credentials[] = [password('ann', '1'), password('bob', '2'), credentialsOf(undefined)];
  const expected = [basicHeader('ann', '1'), basicHeader('bob', '2'), 'nobody'];
  const auths = tenants.map((credentials) => authorization({ credentials }));
  await Promise.all(auths.map((auth) => auth.answer(scope, challenge, undefined)));
  for (const [at, auth] of auths.entries()) {
    t.equal(await auth.current(scope), `Bearer ${Buffer.from(expected[at]!).toString('hex')}`);
  }
  t.equal(service.seen.length, 3);
});

void t.test('credentials: trouble in getting them is not "no credential"', async (t) => {
  const { service, challenge, authorization } = await prepare(t);
  const credentials = createCredentials(
    () => Promise.reject<Credential>(new Error('the helper failed')),
    () => 0,
  );
  t.match(await failureOf(authorization({ credentials }).answer(scope, challenge, undefined)), {
    kind: 'upstreamUnusable',
    message: /credentials for registry.example/,
    cause: { message: 'the helper failed' },
  });
  t.equal(service.seen.length, 0, 'no anonymous token in its place');
});
