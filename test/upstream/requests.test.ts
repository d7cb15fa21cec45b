import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { createCredentials } from '../../src/upstream/credentials.ts';
import type { Credential } from '../../src/upstream/credentials.ts';
import { retryAfterOf } from '../../src/upstream/answers.ts';
import type { Answer } from '../../src/upstream/answers.ts';
import { createRequester } from '../../src/upstream/requests.ts';
import { toTrouble } from '../../src/upstream/trouble.ts';
import type { Requester, UpstreamOptions } from '../../src/upstream/requests.ts';
import {
  basicHeader,
  closedPort,
  credentialsOf,
  failureOf,
  json,
  makeCertificate,
  password,
  serve,
  serveSockets,
  startProxy,
  testLimits,
  within,
} from '../fixtures/servers.ts';
import type { Answerer, Asked, TestServer } from '../fixtures/servers.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const certificate = await makeCertificate('127.0.0.1', 'localhost');

function requester(t: Teardown, url: string, over: Partial<UpstreamOptions> = {}): Requester {
  const made = createRequester({
    name: 'registry.example',
    url: new URL(url),
    credentials: credentialsOf(undefined),
    trustedHosts: [],
    limits: testLimits,
    now: Date.now,
    ...over,
  });
  t.teardown(() => made.close());
  return made;
}

const manifestPath = '/v2/team/app/manifests/1';
const blobPath = `/v2/team/app/blobs/sha256:${'0'.repeat(64)}`;

function send(from: Requester, path = manifestPath, headers: Record<string, string> = {}): Promise<Answer> {
  return from.send({ method: 'GET', path, headers, repository: 'team/app' });
}

async function textOf(answer: Promise<Answer>): Promise<string> {
  return (await answer).body.text();
}

/** A registry that wants a token of `realm`, here by default, and answers with the token it saw. */
function guarded(realm?: string): Answerer {
  let given = 0;
  return ({ path, headers }, response) => {
    const self = `http://${headers.host}/token`;
    if (path === '/token') return json(response, { token: `token-${++given}` });
    const { authorization } = headers;
    if (!authorization?.startsWith('Bearer ')) {
      return json(response, {}, 401, { 'www-authenticate': `Bearer realm="${realm ?? self}",service="registry"` });
    }
    return void response.end(authorization);
  };
}

function redirect(response: ServerResponse, location: string, status = 307, headers = {}): void {
  response.writeHead(status, { location, ...headers }).end('moved');
}

const secrets = ['authorization', 'cookie', 'proxy-authorization', 'www-authenticate', 'set-cookie'];

function secretsOf({ headers }: Asked): string[] {
  return secrets.filter((name) => headers[name] !== undefined);
}

// ---- Tokens

void t.test('bearer: a realm on the same host is asked once, and its token serves what follows', async (t) => {
  const registry = await serve(t, guarded());
  const upstream = requester(t, registry.url);
  t.equal(await textOf(send(upstream)), 'Bearer token-1');
  t.equal(await textOf(send(upstream, blobPath)), 'Bearer token-1');
  t.same(
    registry.seen.map(({ path, query }) => [path, query.get('scope')]),
    [
      [manifestPath, null],
      ['/token', 'repository:team/app:pull'],
      [manifestPath, null],
      [blobPath, null],
    ],
  );
});

void t.test('bearer: fifty requests at once ask for one token', async (t) => {
  const registry = await serve(t, guarded());
  const upstream = requester(t, registry.url);
  const texts = await Promise.all(Array.from({ length: 50 }, () => textOf(send(upstream))));
  t.same(new Set(texts), new Set(['Bearer token-1']));
  t.equal(registry.seen.filter(({ path }) => path === '/token').length, 1);
});

void t.test('4. bearer: a foreign realm is refused without a connection', async (t) => {
  const stranger = await serve(t, (_, response) => json(response, { token: 'stolen' }));
  for (const realm of [
    `http://127.0.0.1:${stranger.port}/token`,
    `http://localhost:${stranger.port}/token`,
    `http://user:pass@127.0.0.1:${stranger.port}/token`,
    `https://127.0.0.1:${stranger.port}/token`,
    `file:///etc/passwd`,
    `ftp://127.0.0.1:${stranger.port}/token`,
    `//127.0.0.1:${stranger.port}/token`,
  ]) {
    const registry = await serve(t, guarded(realm));
    const upstream = requester(t, registry.url, { credentials: password('ann', 'canary') });
    const trouble = await failureOf(send(upstream));
    t.match(trouble, { kind: 'upstreamUnusable', message: /trustedHosts/ }, realm);
    t.equal(registry.seen.length, 1);
    t.notOk(registry.seen[0]!.headers.authorization, 'nor does the registry get a credential');
  }
  t.equal(stranger.connections, 0);
});

void t.test('4. bearer: a realm with a login in it is refused on the registry itself, too', async (t) => {
  const registry = await serve(t, ({ headers }, response) =>
    json(response, {}, 401, { 'www-authenticate': `Bearer realm="http://user:pass@${headers.host}/token"` }),
  );
  t.match(await failureOf(send(requester(t, registry.url))), { kind: 'upstreamUnusable' });
  t.equal(registry.seen.length, 1);
});

void t.test('4. bearer: a foreign realm is asked when trustedHosts names it, with or without its port', async (t) => {
  for (const entry of [(port: number) => `127.0.0.1:${port}`, () => '127.0.0.1']) {
    const service = await serve(t, (_, response) => json(response, { token: 'granted' }));
    const registry = await serve(t, guarded(`${service.url}/token`));
    const upstream = requester(t, registry.url, {
      credentials: password('ann', 'secret'),
      trustedHosts: [entry(service.port)],
    });
    t.equal(await textOf(send(upstream)), 'Bearer granted');
    t.equal(service.seen[0]!.headers.authorization, basicHeader('ann', 'secret'));
  }
});

void t.test('4. bearer: trust in a host at one port is none at another, nor in a name that ends alike', async (t) => {
  const service = await serve(t, (_, response) => json(response, { token: 'stolen' }));
  const registry = await serve(t, guarded(`${service.url}/token`));
  for (const entry of [`127.0.0.1:${service.port + 1}`, '7.0.0.1', '.0.0.1', '0.0.1', '*', '', `:${service.port}`]) {
    const upstream = requester(t, registry.url, { trustedHosts: [entry] });
    t.match(await failureOf(send(upstream)), { kind: 'upstreamUnusable' }, entry);
  }
  t.equal(service.connections, 0);
});

void t.test('4. bearer: from https no realm leads down to http, trusted or not', async (t) => {
  const service = await serve(t, (_, response) => json(response, { token: 'stolen' }));
  const registry = await serve(t, guarded(`${service.url}/token`), certificate);
  const upstream = requester(t, registry.url, { ca: certificate.cert, trustedHosts: ['127.0.0.1'] });
  t.match(await failureOf(send(upstream)), { kind: 'upstreamUnusable' });
  t.equal(service.connections, 0);
});

void t.test('4. bearer: a redirect of the token service is not followed', async (t) => {
  const stranger = await serve(t, (_, response) => json(response, { token: 'stolen' }));
  const registry = await serve(t, (asked, response) =>
    asked.path === '/token' ? redirect(response, `${stranger.url}/token`) : guarded()(asked, response),
  );
  const upstream = requester(t, registry.url, { credentials: password('ann', 's'), trustedHosts: ['127.0.0.1'] });
  t.equal((await send(upstream)).status, 401);
  t.equal(stranger.connections, 0);
});

void t.test('47. 401: one that follows upon a fresh token is the answer, and no loop', async (t) => {
  const registry = await serve(t, ({ path, headers }, response) => {
    if (path === '/token') return json(response, { token: 'useless' });
    return json(response, {}, 401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` });
  });
  const upstream = requester(t, registry.url);
  t.equal((await send(upstream)).status, 401);
  t.same(
    registry.seen.map(({ path }) => path),
    [manifestPath, '/token', manifestPath],
  );
  registry.seen.length = 0;
  t.equal((await send(upstream)).status, 401, 'the next pull tries as much again, and no more');
  t.equal(registry.seen.filter(({ path }) => path === manifestPath).length, 1);
  t.equal(registry.seen.filter(({ path }) => path === '/token').length, 1);
});

void t.test('401: a token that was revoked is replaced in the same request', async (t) => {
  let valid = 1;
  let given = 0;
  const registry = await serve(t, ({ path, headers }, response) => {
    if (path === '/token') return json(response, { token: `token-${++given}` });
    if (headers.authorization === `Bearer token-${valid}`) return void response.end('yours');
    return json(response, {}, 401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` });
  });
  const upstream = requester(t, registry.url);
  t.equal(await textOf(send(upstream)), 'yours');
  valid = 2;
  t.equal(await textOf(send(upstream)), 'yours');
  t.equal(given, 2);
});

void t.test('basic: the credential is sent once it was asked for, and not before', async (t) => {
  const registry = await serve(t, ({ headers }, response) => {
    if (headers.authorization === basicHeader('AWS', 'secret')) return void response.end('yours');
    return json(response, {}, 401, { 'www-authenticate': 'Basic realm="ECR"' });
  });
  const upstream = requester(t, registry.url, { credentials: password('AWS', 'secret') });
  t.equal(await textOf(send(upstream)), 'yours');
  t.equal(await textOf(send(upstream, blobPath)), 'yours');
  t.same(
    registry.seen.map(({ headers }) => headers.authorization),
    [undefined, basicHeader('AWS', 'secret'), basicHeader('AWS', 'secret')],
  );
});

void t.test('identity token: it goes to the realm by POST, and only there', async (t) => {
  const registry = await serve(t, guarded());
  const upstream = requester(t, registry.url, { credentials: credentialsOf({ kind: 'identity', token: 'refresh' }) });
  t.equal(await textOf(send(upstream)), 'Bearer token-1');
  const [, asked] = registry.seen;
  t.match(asked, { method: 'POST', target: '/token' });
  t.equal(new URLSearchParams(asked!.body).get('refresh_token'), 'refresh');
  t.notMatch(JSON.stringify(registry.seen.filter((one) => one !== asked)), /refresh/);
});

void t.test('28. token service: an answer without end is cut off', async (t) => {
  const closed = Promise.withResolvers<void>();
  const registry = await serve(t, (asked, response) => {
    if (asked.path !== '/token') return guarded()(asked, response);
    response.on('close', closed.resolve);
    return flood(response);
  });
  t.match(await failureOf(send(requester(t, registry.url))), { status: 502 });
  await within(5000, 'closing the connection', closed.promise);
});

/** Writes for as long as someone reads. */
async function flood(response: ServerResponse): Promise<void> {
  const piece = Buffer.alloc(64 * 1024, 0x20);
  const closed = once(response, 'close');
  while (!response.destroyed) {
    if (!response.write(piece)) await Promise.race([once(response, 'drain'), closed]);
  }
}

function userOf(authorization = ''): string {
  return Buffer.from(authorization.replace('Basic ', ''), 'base64').toString().split(':', 1)[0]!;
}

void t.test(
  '3. tenants: two hundred requests of two upstreams at one registry each carry their own token',
  async (t) => {
    const registry = await serve(t, ({ path, headers }, response) => {
      if (path === '/token') return json(response, { token: `of-${userOf(headers.authorization)}`, expires_in: 60 });
      if (headers.authorization?.startsWith('Bearer ')) return void response.end(headers.authorization);
      return json(response, {}, 401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` });
    });
    const tenants = ['ann', 'bob'].map((user) => requester(t, registry.url, { credentials: password(user, user) }));
    const nobody = requester(t, registry.url);
    const asked = Array.from({ length: 200 }, (_, at) => textOf(send(tenants[at % 2]!)));
    const anonymous = Array.from({ length: 20 }, () => textOf(send(nobody)));
    for (const [at, text] of (await Promise.all(asked)).entries()) {
      if (text !== `Bearer of-${['ann', 'bob'][at % 2]}`) t.fail(`request ${at} carried ${text}`);
    }
    t.same(new Set(await Promise.all(anonymous)), new Set(['Bearer of-']));
    t.equal(registry.seen.filter(({ path }) => path === '/token').length, 3);
  },
);

void t.test('tenants: a repository has a token of its own', async (t) => {
  const registry = await serve(t, ({ path, query, headers }, response) => {
    if (path === '/token') return json(response, { token: Buffer.from(query.get('scope')!).toString('hex') });
    if (headers.authorization) return void response.end(headers.authorization);
    return json(response, {}, 401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` });
  });
  const upstream = requester(t, registry.url, { credentials: password('ann', 's') });
  for (const repository of ['a', 'b']) {
    const answer = upstream.send({ method: 'GET', path: `/v2/${repository}/tags/list`, headers: {}, repository });
    const scope = Buffer.from(`repository:${repository}:pull`).toString('hex');
    t.equal(await textOf(answer), `Bearer ${scope}`);
  }
});

// ---- Redirects

void t.test('5. redirect: manifests and blobs are followed to another host without a secret', async (t) => {
  for (const status of [301, 302, 303, 307, 308]) {
    for (const path of [manifestPath, blobPath]) {
      const storage = await serve(t, (_, response) => void response.end('content'));
      const registry = await serve(t, (asked, response) => {
        if (!asked.headers.authorization?.startsWith('Bearer')) return guarded()(asked, response);
        return redirect(response, `${storage.url}/signed?x=1`, status, { 'set-cookie': 'session=canary' });
      });
      const upstream = requester(t, registry.url, {
        credentials: password('ann', 'secret'),
        trustedHosts: [`127.0.0.1:${storage.port}`],
      });
      const answer = await send(upstream, path, { range: 'bytes=5-', accept: 'application/x' });
      const what = `${status} for ${path}`;
      t.match(answer, { status: 200, redirected: true }, what);
      t.equal(await answer.body.text(), 'content', what);
      t.equal(storage.seen.length, 1, what);
      t.match(storage.seen[0], { method: 'GET', target: '/signed?x=1', headers: { range: 'bytes=5-' } }, what);
      t.same(secretsOf(storage.seen[0]!), [], what);
      t.notMatch(JSON.stringify(storage.seen), /canary|token-1/, what);
    }
  }
});

void t.test(
  '5. redirect: the name of the registry at another port, and another name at its port, are other hosts',
  async (t) => {
    const other = await serve(t, (_, response) => void response.end('other'));
    const registry = await serve(t, (asked, response) => {
      if (asked.headers.host?.startsWith('localhost')) return void response.end('self by another name');
      if (!asked.headers.authorization) return guarded()(asked, response);
      return redirect(
        response,
        asked.path === manifestPath ? other.url : registry.url.replace('127.0.0.1', 'localhost'),
      );
    });
    const upstream = requester(t, registry.url, { trustedHosts: ['127.0.0.1', 'localhost'] });
    t.equal(await textOf(send(upstream)), 'other');
    t.same(secretsOf(other.seen[0]!), []);
    t.equal(await textOf(send(upstream, blobPath)), 'self by another name');
    t.same(secretsOf(registry.seen.at(-1)!), []);
  },
);

void t.test('redirect: within the registry the token goes along, relative locations are understood', async (t) => {
  for (const location of ['/elsewhere', 'elsewhere', '../../elsewhere?a=b', '?a=b']) {
    const registry = await serve(t, (asked, response) => {
      if (!asked.headers.authorization) return guarded()(asked, response);
      if (asked.target === manifestPath) return redirect(response, location);
      return void response.end('moved here');
    });
    const answer = await send(requester(t, registry.url));
    t.match(answer, { status: 200, redirected: false }, location);
    const expected = new URL(location, registry.url + manifestPath);
    t.equal(registry.seen.at(-1)!.target, expected.pathname + expected.search);
    t.equal(registry.seen.at(-1)!.headers.authorization, 'Bearer token-1');
  }
});

void t.test('5. redirect: back at the registry the token is sent again, on the way it is not', async (t) => {
  const other = await serve(t, (_, response) => redirect(response, `${registry.url}/back`));
  const registry: TestServer = await serve(t, (asked, response) => {
    if (!asked.headers.authorization) return guarded()(asked, response);
    if (asked.path === '/back') return void response.end(asked.headers.authorization);
    return redirect(response, other.url);
  });
  const upstream = requester(t, registry.url, { trustedHosts: [`127.0.0.1:${other.port}`] });
  const answer = await send(upstream);
  t.match(answer, { redirected: false });
  t.equal(await answer.body.text(), 'Bearer token-1');
  t.same(secretsOf(other.seen[0]!), []);
});

void t.test('5. redirect: a 401 of another host is its answer; no credential is tried on it', async (t) => {
  const service = await serve(t, (_, response) => json(response, { token: 'x' }));
  const other = await serve(t, (_, response) =>
    json(response, {}, 401, { 'www-authenticate': `Bearer realm="${service.url}/token", Basic realm="x"` }),
  );
  const registry = await serve(t, (_, response) => redirect(response, other.url));
  const upstream = requester(t, registry.url, {
    credentials: password('ann', 'secret'),
    trustedHosts: ['127.0.0.1'],
  });
  t.match(await send(upstream), { status: 401, redirected: true });
  t.equal(other.seen.length, 1);
  t.equal(service.connections, 0);
});

void t.test('5. redirect: five are followed, a sixth is not', async (t) => {
  const registry = await serve(t, ({ query }, response) => {
    const left = Number(query.get('left') ?? 0);
    return left > 0 ? redirect(response, `/v2/?left=${left - 1}`) : void response.end('there');
  });
  const upstream = requester(t, registry.url);
  t.equal(await textOf(send(upstream, '/v2/?left=5')), 'there');
  t.match(await failureOf(send(upstream, '/v2/?left=6')), { kind: 'upstreamUnusable', message: /more than 5/ });
});

void t.test('5. redirect: a loop ends after six requests', async (t) => {
  const registry = await serve(t, (_, response) => redirect(response, manifestPath));
  t.match(await failureOf(send(requester(t, registry.url))), { kind: 'upstreamUnusable' });
  t.equal(registry.seen.length, 6);
});

void t.test('5. redirect: from https none leads down to http, also not by a detour', async (t) => {
  const plain = await serve(t, (_, response) => void response.end('in the clear'));
  const detour = await serve(t, (_, response) => redirect(response, plain.url), certificate);
  const registry = await serve(
    t,
    ({ path }, response) => redirect(response, path === manifestPath ? plain.url : detour.url),
    certificate,
  );
  const upstream = requester(t, registry.url, { ca: certificate.cert, trustedHosts: ['127.0.0.1'] });
  for (const path of [manifestPath, blobPath]) {
    t.match(await failureOf(send(upstream, path)), { kind: 'upstreamUnusable', message: /no safe address/ });
  }
  t.equal(detour.seen.length, 1);
  t.equal(plain.connections, 0);
});

void t.test('redirect: what is no http address is refused', async (t) => {
  let location: string | undefined;
  const registry = await serve(t, (_, response) => {
    response.writeHead(302, location === undefined ? {} : { location }).end();
  });
  const upstream = requester(t, registry.url, { trustedHosts: ['127.0.0.1'] });
  for (location of [
    undefined,
    '',
    'http://',
    'http://[',
    'file:///etc/passwd',
    'ftp://127.0.0.1/',
    'unix:/var/run/docker.sock',
    'data:text/plain,x',
    'javascript:1',
    `http://user:pass@127.0.0.1:${registry.port}/`,
    `http://user@127.0.0.1:${registry.port}/`,
  ]) {
    t.match(await failureOf(send(upstream)), { kind: 'upstreamUnusable' }, String(location));
  }
  t.equal(registry.seen.length, 11, 'and none was followed');
});

/** Each of these is `port` of this machine, or a place where only insiders get. */
const privatePlaces = (port: number) => [
  `http://127.0.0.1:${port}/`,
  `http://127.1:${port}/`,
  `http://2130706433:${port}/`,
  `http://0x7f000001:${port}/`,
  `http://0177.0.0.1:${port}/`,
  `http://127.0.0.1.:${port}/`,
  `http://%31%32%37.0.0.1:${port}/`,
  `http://①②⑦.⓪.⓪.①:${port}/`.normalize('NFKC'),
  `http://0.0.0.0:${port}/`,
  `http://0:${port}/`,
  `http://localhost:${port}/`,
  `http://LOCALHOST:${port}/`,
  `http://[::1]:${port}/`,
  `http://[::ffff:127.0.0.1]:${port}/`,
  `http://[::ffff:7f00:1]:${port}/`,
  `http://[::127.0.0.1]:${port}/`,
  `http://[::]:${port}/`,
  `//127.0.0.1:${port}/`,
  'http://169.254.169.254/latest/meta-data/',
  'http://10.0.0.1/',
  'http://172.16.0.1/',
  'http://192.168.0.1/',
  'http://[fd00:ec2::254]/',
  'http://[fe80::1]/',
];

void t.test('6. redirect: none leads to a private address that nobody named, in whatever spelling', async (t) => {
  const inside = await serve(t, (_, response) => void response.end('secret of the inside'));
  let location = '';
  const registry = await serve(t, (_, response) => redirect(response, location));
  const upstream = requester(t, registry.url);
  for (location of privatePlaces(inside.port)) {
    const trouble = await within(5000, location, failureOf(send(upstream)));
    t.match(trouble, { kind: 'upstreamUnusable', message: /does not dial/ }, location);
  }
  t.equal(inside.connections, 0);
});

void t.test('redirect: a private address that trustedHosts names is followed', async (t) => {
  const storage = await serve(t, (_, response) => void response.end('content'));
  const registry = await serve(t, (_, response) => redirect(response, `http://localhost:${storage.port}/`));
  t.equal(await textOf(send(requester(t, registry.url, { trustedHosts: ['localhost'] }))), 'content');
  const neighbour = requester(t, registry.url, { trustedHosts: [`localhost:${storage.port + 1}`] });
  t.match(await failureOf(send(neighbour)), { kind: 'upstreamUnusable' });
  t.equal(storage.seen.length, 1);
});

// ---- TLS

void t.test("69. tls: an upstream's own authority is trusted for that upstream, and for no other", async (t) => {
  const stranger = await makeCertificate('127.0.0.1');
  const registry = await serve(t, (_, response) => void response.end('over tls'), certificate);
  t.equal(await textOf(send(requester(t, registry.url, { ca: certificate.cert }))), 'over tls');
  for (const [ca, what] of [
    [undefined, 'without an authority'],
    [stranger.cert, 'with that of another'],
  ] as const) {
    const trouble = await failureOf(send(requester(t, registry.url, { ca })));
    t.match(trouble, { kind: 'upstreamUnusable', message: /SELF_SIGNED|UNABLE_TO_VERIFY/ }, what);
  }
  t.equal(registry.seen.length, 1, 'no request before the certificate is known');
});

void t.test('69. tls: a certificate for another name is refused', async (t) => {
  const wrong = await makeCertificate('registry.example');
  const registry = await serve(t, (_, response) => void response.end('x'), wrong);
  const trouble = await failureOf(send(requester(t, registry.url, { ca: wrong.cert })));
  t.match(trouble, { kind: 'upstreamUnusable', message: /ERR_TLS_CERT_ALTNAME_INVALID/ });
  t.equal(registry.seen.length, 0);
});

void t.test("tls: an upstream's authority stands beside those of the system, direct and through a proxy", async (t) => {
  const systems = await makeCertificate('127.0.0.1');
  const before = getCACertificates('default');
  setDefaultCACertificates([...before, systems.cert]);
  t.teardown(() => setDefaultCACertificates(before));
  const proxy = await startProxy(t);
  const registry = await serve(t, (_, response) => void response.end('known to the system'), systems);
  for (const [what, options] of [
    ['direct', {}],
    ['through a proxy', { proxy: proxy.url }],
  ] as const) {
    const upstream = requester(t, registry.url, { ca: certificate.cert, ...options });
    t.equal(await textOf(send(upstream)).catch(String), 'known to the system', what);
  }
});

/** The name on the certificate that a client has shown. */
function clientOf({ socket }: ServerResponse): unknown {
  return (socket as TLSSocket).getPeerCertificate().subject?.CN;
}

void t.test('tls: 69. a certificate of ours is shown to the registry, and to nobody that it points to', async (t) => {
  const ours = await makeCertificate('mirror.example');
  const names: Record<string, unknown> = {};
  const asking = { ...certificate, requestCert: true, rejectUnauthorized: false };
  const storage = await serve(
    t,
    (_, response) => {
      names['storage'] = clientOf(response) ?? 'nobody';
      response.end('bytes');
    },
    asking,
  );
  const registry = await serve(
    t,
    (_, response) => {
      names['registry'] = clientOf(response) ?? 'nobody';
      redirect(response, `${storage.url}/x`);
    },
    asking,
  );
  const options = { ca: certificate.cert, clientCertificate: ours, trustedHosts: ['127.0.0.1'] };
  t.equal(await textOf(send(requester(t, registry.url, options))), 'bytes');
  t.same(names, { registry: 'mirror.example', storage: 'nobody' }, 'another port of the same machine is another host');
});

// ---- Proxies

void t.test('proxy: http goes through it in absolute form, https through a tunnel', async (t) => {
  const proxy = await startProxy(t);
  const plain = await serve(t, guarded());
  const secure = await serve(t, (_, response) => void response.end('over tls'), certificate);
  const first = requester(t, plain.url, { proxy: proxy.url, credentials: password('ann', 's') });
  t.equal(await textOf(send(first)), 'Bearer token-1');
  t.same(proxy.forwarded, [
    plain.url + manifestPath,
    `${plain.url}/token?service=registry&scope=${encodeURIComponent('repository:team/app:pull')}`,
    plain.url + manifestPath,
  ]);
  t.equal(await textOf(send(requester(t, secure.url, { proxy: proxy.url, ca: certificate.cert }))), 'over tls');
  t.same(proxy.tunnels, [`127.0.0.1:${secure.port}`]);
});

void t.test('proxy: it is that of one upstream, the others go direct', async (t) => {
  const proxy = await startProxy(t);
  const registry = await serve(t, (_, response) => void response.end('x'));
  const before = process.env['http_proxy'];
  process.env['http_proxy'] = proxy.url.href;
  t.teardown(() => (before === undefined ? delete process.env['http_proxy'] : (process.env['http_proxy'] = before)));
  t.equal(await textOf(send(requester(t, registry.url))), 'x');
  t.same([...proxy.forwarded, ...proxy.tunnels], [], 'nor does the environment decide');
});

void t.test('70. proxy: its login is for it alone', async (t) => {
  const proxy = await startProxy(t);
  const url = new URL(proxy.url);
  url.username = 'mirror';
  url.password = 'canary';
  const plain = await serve(t, (_, response) => void response.end('plain'));
  const secure = await serve(t, (_, response) => void response.end('secure'), certificate);
  t.equal(await textOf(send(requester(t, plain.url, { proxy: url }))), 'plain');
  t.equal(await textOf(send(requester(t, secure.url, { proxy: url, ca: certificate.cert }))), 'secure');
  t.same(proxy.authorizations, [basicHeader('mirror', 'canary'), basicHeader('mirror', 'canary')]);
  t.same(secretsOf(secure.seen[0]!), [], 'a tunnel ends at the proxy');
});

void t.test("proxy: the upstream's certificate is verified through it", async (t) => {
  const proxy = await startProxy(t);
  const registry = await serve(t, (_, response) => void response.end('x'), certificate);
  const trouble = await failureOf(send(requester(t, registry.url, { proxy: proxy.url })));
  t.match(trouble, { kind: 'upstreamUnusable' });
  t.equal(registry.seen.length, 0);
});

void t.test('70. proxy: no redirect leads through it to a private address that nobody named', async (t) => {
  const proxy = await startProxy(t);
  const inside = await serve(t, (_, response) => void response.end('secret of the inside'));
  for (const location of [
    `http://127.0.0.1:${inside.port}/`,
    `https://127.0.0.1:${inside.port}/`,
    `http://localhost:${inside.port}/`,
    `http://[::ffff:127.0.0.1]:${inside.port}/`,
  ]) {
    const registry = await serve(t, (_, response) => redirect(response, location));
    const upstream = requester(t, registry.url, { proxy: proxy.url });
    const outcome = await within(5000, location, send(upstream)).then(
      ({ status }) => status,
      (error: unknown) => error,
    );
    t.match(outcome, { kind: 'upstreamUnusable' }, location);
  }
  t.equal(inside.connections, 0);
});

void t.test('proxy: the limits of an upstream hold through it', async (t) => {
  const proxy = await startProxy(t);
  const limits = { ...testLimits, connectTimeoutMs: 300, headersTimeoutMs: 300 };
  const silent = await serve(t, () => undefined);
  const silentSecure = await serve(t, () => undefined, certificate);
  const deaf = await serveSockets(t, () => undefined);
  const through = (url: string, by = proxy.url) =>
    failureOf(send(requester(t, url, { proxy: by, limits, ca: certificate.cert })));
  const outcomes = {
    http: through(silent.url),
    https: through(silentSecure.url),
    'a proxy that says nothing': through(silentSecure.url, new URL(`http://127.0.0.1:${deaf.port}`)),
    'no TLS behind the tunnel': through(`https://127.0.0.1:${deaf.port}`),
  };
  await Promise.all(
    Object.entries(outcomes).map(async ([what, outcome]) => {
      const trouble = await within(3000, what, outcome).catch((error: unknown) => error);
      t.match(trouble, { kind: 'upstreamTimeout' }, what);
    }),
  );
});

void t.test('proxy: a broken connection is tried once more with the same target', async (t) => {
  const targets: string[] = [];
  const proxy = await serveSockets(t, (socket) => {
    socket.once('data', (head: Buffer) => {
      targets.push(head.toString().split(' ', 2)[1]!);
      if (targets.length === 1) return socket.resetAndDestroy();
      return socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok');
    });
  });
  const upstream = requester(t, 'http://registry.example', { proxy: new URL(`http://127.0.0.1:${proxy.port}`) });
  t.equal(await textOf(send(upstream)), 'ok');
  t.same(targets, [`http://registry.example${manifestPath}`, `http://registry.example${manifestPath}`]);
});

void t.test('proxy: its refusal is trouble, and neither an answer of the registry nor "not found"', async (t) => {
  for (const status of ['407 Proxy Authentication Required', '403 Forbidden', '404 Not Found']) {
    const proxy = await serveSockets(t, (socket) => {
      socket.once('data', () => socket.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`));
    });
    const upstream = requester(t, 'https://registry.example', { proxy: new URL(`http://127.0.0.1:${proxy.port}`) });
    t.match(await within(5000, status, failureOf(send(upstream))), { kind: 'upstreamUnusable' }, status);
  }
});

// ---- What is sent, and what goes wrong below HTTP

void t.test('request: says who asks, wants the bytes as they are, and keeps the path of the upstream', async (t) => {
  const registry = await serve(t, (_, response) => void response.end('x'));
  await send(requester(t, `${registry.url}/prefix/`), manifestPath, { accept: 'application/x' });
  await send(requester(t, `${registry.url}/prefix`), manifestPath);
  t.match(registry.seen[0], {
    method: 'GET',
    target: `/prefix${manifestPath}`,
    headers: { 'user-agent': 'narrows', 'accept-encoding': 'identity', accept: 'application/x' },
  });
  t.equal(registry.seen[1]!.target, `/prefix${manifestPath}`);
});

void t.test('connection: one that is refused is trouble that names the reason', async (t) => {
  const trouble = await failureOf(send(requester(t, `http://127.0.0.1:${await closedPort()}`)));
  t.match(trouble, { kind: 'upstreamUnusable', status: 502, message: /ECONNREFUSED/ });
});

void t.test('connection: one that the registry had closed meanwhile is replaced without a word', async (t) => {
  let requests = 0;
  const server = await serveSockets(t, (socket) => {
    let onThisOne = 0;
    socket.on('data', () => {
      requests++;
      if (++onThisOne === 2) return socket.resetAndDestroy();
      return socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    });
  });
  const upstream = requester(t, `http://127.0.0.1:${server.port}`, { limits: { ...testLimits, maxConnections: 1 } });
  t.equal(await textOf(send(upstream)), 'ok');
  t.equal(await textOf(send(upstream)), 'ok');
  t.equal(requests, 3);
});

void t.test('38. connection: one that always breaks is tried twice, and no more', async (t) => {
  for (const end of ['resetAndDestroy', 'destroy'] as const) {
    let requests = 0;
    const server = await serveSockets(t, (socket) => {
      socket.on('data', () => {
        requests++;
        socket[end]();
      });
    });
    const trouble = await failureOf(send(requester(t, `http://127.0.0.1:${server.port}`)));
    t.match(trouble, { kind: 'upstreamUnusable' }, end);
    t.equal(requests, 2, end);
  }
});

void t.test('connection: a POST that broke is not sent twice', async (t) => {
  const posts: Socket[] = [];
  const registry = await serve(t, (asked, response) => {
    if (asked.method !== 'POST') return guarded()(asked, response);
    posts.push(response.socket!);
    return void response.socket!.resetAndDestroy();
  });
  const upstream = requester(t, registry.url, { credentials: credentialsOf({ kind: 'identity', token: 'refresh' }) });
  t.match(await failureOf(send(upstream)), { kind: 'upstreamUnusable' });
  t.equal(posts.length, 1);
});

function rawAnswer(text: string): string {
  return `HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`;
}

void t.test('38. connection: a second answer that nobody asked for is never that of the next request', async (t) => {
  const server = await serveSockets(t, (socket) => {
    let answered = 0;
    socket.on('data', () => {
      socket.write(answered++ === 0 ? rawAnswer('true') + rawAnswer('poison') : rawAnswer('true'));
    });
  });
  const upstream = requester(t, `http://127.0.0.1:${server.port}`, { limits: { ...testLimits, maxConnections: 1 } });
  for (let at = 0; at < 5; at++) t.equal(await textOf(send(upstream)), 'true');
});

void t.test('connection: no more than the limit are open at once', async (t) => {
  const held: ServerResponse[] = [];
  const registry = await serve(t, (_, response) => {
    if (held.length === 3) {
      response.end('x');
      return;
    }
    // The first three wait for each other, so that three connections are open.
    held.push(response);
    if (held.length === 3) for (const one of held) one.end('x');
  });
  const upstream = requester(t, registry.url, { limits: { ...testLimits, maxConnections: 3 } });
  await Promise.all(Array.from({ length: 10 }, () => textOf(send(upstream))));
  t.equal(registry.seen.length, 10);
  t.equal(registry.connections, 3);
});

void t.test('12. time: a registry that sends no head is a timeout', async (t) => {
  const registry = await serve(t, () => undefined);
  const upstream = requester(t, registry.url, { limits: { ...testLimits, headersTimeoutMs: 200 } });
  const trouble = await within(4000, 'the timeout', failureOf(send(upstream)));
  t.match(trouble, { kind: 'upstreamTimeout', status: 504 });
  t.equal(registry.seen.length, 1, 'and is not asked again');
});

void t.test('42. time: a registry that does not finish its handshake is a timeout', async (t) => {
  const deaf = await serveSockets(t, () => undefined);
  const upstream = requester(t, `https://127.0.0.1:${deaf.port}`, {
    limits: { ...testLimits, connectTimeoutMs: 200 },
  });
  t.match(await within(4000, 'the timeout', failureOf(send(upstream))), { kind: 'upstreamTimeout' });
});

void t.test('12. time: a body that stalls is broken off', async (t) => {
  const registry = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-length': 4 });
    response.write('ab');
  });
  const upstream = requester(t, registry.url, { limits: { ...testLimits, stallTimeoutMs: 200 } });
  const answer = await send(upstream);
  const trouble = await within(4000, 'the timeout', failureOf(answer.body.text()));
  t.match(toTrouble(trouble, 'registry.example'), { kind: 'upstreamTimeout' });
});

void t.test('credentials: trouble in getting them is trouble of the upstream, without the secret', async (t) => {
  const registry = await serve(t, guarded());
  const credentials = createCredentials(
    () => Promise.reject<Credential>(new Error('docker-credential-x failed (1)')),
    Date.now,
  );
  const trouble = await failureOf(send(requester(t, registry.url, { credentials })));
  t.type(trouble, NarrowsError);
  t.match(trouble, { kind: 'upstreamUnusable', cause: { message: 'docker-credential-x failed (1)' } });
});

void t.test('observer: is told of every answer and of every trouble', async (t) => {
  const told: string[] = [];
  const registry = await serve(t, guarded());
  const onAnswer = (upstream: string, outcome: string) => told.push(`${upstream} ${outcome}`);
  await send(requester(t, registry.url, { onAnswer }));
  await failureOf(send(requester(t, `http://127.0.0.1:${await closedPort()}`, { onAnswer })));
  t.same(told, ['registry.example 401', 'registry.example 200', 'registry.example upstreamUnusable']);
});

void t.test('close: ends what runs, and nothing is sent after', async (t) => {
  const asked = Promise.withResolvers<void>();
  const registry = await serve(t, () => asked.resolve());
  const upstream = requester(t, registry.url);
  const running = failureOf(send(upstream));
  await asked.promise;
  await upstream.close();
  t.match(await running, { kind: 'upstreamUnusable' });
  t.match(await failureOf(send(upstream)), { kind: 'upstreamUnusable' });
  t.equal(registry.seen.length, 1);
});

void t.test('Retry-After: seconds and dates, and nothing else', (t) => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  const cases: [text: string | undefined, seconds: number | undefined][] = [
    [undefined, undefined],
    ['', undefined],
    ['soon', undefined],
    ['0', 0],
    ['7', 7],
    ['3600', 3600],
    ['Thu, 01 Jan 2026 00:00:30 GMT', 30],
    ['Thursday, 01-Jan-26 00:00:30 GMT', 30],
    ['Wed, 31 Dec 2025 23:59:59 GMT', 0],
  ];
  for (const [text, seconds] of cases) {
    const headers = text === undefined ? {} : { 'retry-after': text };
    t.equal(retryAfterOf(headers, now), seconds, String(text));
  }
  t.end();
});
