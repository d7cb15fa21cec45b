import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import { SignJWT } from 'jose';
import t from 'tap';
import type { Test } from 'tap';
import { createSandbox, requireProgram, requireRoot, startContainerd } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { blobOf, listen, startRegistry } from '../fixtures/registry.ts';

const [secret, shown] = [blobOf(Buffer.from('for those who may')), blobOf(Buffer.from('for everyone'))];
const secretPath = `/v2/up/team/x/blobs/${secret.digest}`;
const shownPath = `/v2/up/open/y/blobs/${shown.digest}`;
const scopeOf = (name: string, actions = 'pull') => `repository:${name}:${actions}`;

async function start(t: Test, access: object = {}, more: object = {}) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('team/x', secret);
  registry.put('open/y', shown);
  const folder = await temporaryFolder(t);
  const htpasswd = join(folder, 'users');
  await writeFile(htpasswd, `alice:${hashSync('s3cret', 4)}\nbob:${hashSync('b0b', 4)}\njwt:${hashSync('j', 4)}\n`);
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: {
      access: { mode: 'token', htpasswd, ...access },
      repositories: [
        { name: 'up/team/*', pull: ['alice', 'ci:*'] },
        { name: 'up/open/*', pull: ['anonymous'] },
        { name: 'here/*', hosted: true, push: ['alice'] },
      ],
      ...more,
    },
  });
  async function tokenFor(login: string | undefined, ...scopes: string[]): Promise<string> {
    const query = scopes.map((scope) => `&scope=${encodeURIComponent(scope)}`).join('');
    const answer = await mirror.get(
      `/token?service=narrows${query}`,
      login === undefined ? {} : { authorization: basic(login) },
    );
    t.equal(answer.status, 200);
    t.equal(answer.headers['cache-control'], 'no-store');
    const { token } = answer.json() as { token: string };
    return `Bearer ${token}`;
  }
  const grant = ({ body, headers }: Form) => mirror.send('POST', '/token', body, headers);
  return { mirror, registry, tokenFor, grant };
}

interface Form {
  readonly body: Buffer;
  readonly headers: Record<string, string>;
}

const post = (form: Record<string, string>): Form => ({
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
  body: Buffer.from(new URLSearchParams(form).toString()),
});

void t.test('token access: the challenge names place, service and scope, and the token fits', async (t) => {
  const { mirror, tokenFor } = await start(t);
  const refused = await mirror.get(secretPath);
  const realm = `${mirror.url}/token`;
  t.equal(refused.status, 401);
  t.equal(
    refused.headers['www-authenticate'],
    `Bearer realm="${realm}",service="narrows",scope="${scopeOf('up/team/x')}"`,
  );
  t.equal((await mirror.get('/v2/')).headers['www-authenticate'], `Bearer realm="${realm}",service="narrows"`);
  const authorization = await tokenFor('alice:s3cret', scopeOf('up/team/x'));
  t.same((await mirror.get(secretPath, { authorization })).body, secret.bytes);
  t.equal((await mirror.get('/v2/', { authorization })).status, 200);
  t.equal((await mirror.get(secretPath, { authorization: basic('alice:s3cret') })).status, 200, 'curl -u');
  t.equal(
    (await mirror.get('/v2/', { authorization: basic('jwt:j') })).status,
    200,
    'without issuers a user like any other',
  );
  t.same((await mirror.get(shownPath)).body, shown.bytes, 'what everyone may read needs no token');
  const nobody = await tokenFor(undefined, scopeOf('up/open/y'), scopeOf('up/team/x'));
  t.equal((await mirror.get(shownPath, { authorization: nobody })).status, 200);
  t.equal((await mirror.get(secretPath, { authorization: nobody })).status, 401, 'that of nobody opens nothing');
});

void t.test('64. token access: scope and rights both have to allow it', async (t) => {
  const { mirror, tokenFor } = await start(t);
  const status = async (path: string, authorization: string) => (await mirror.get(path, { authorization })).status;
  const wide = [scopeOf('up/team/x', '*'), scopeOf('here/a', '*'), 'registry:catalog:*'];
  const bob = await tokenFor('bob:b0b', ...wide);
  t.equal(await status(secretPath, bob), 403, 'asking for more gives no more');
  t.equal(await status('/v2/_catalog', bob), 200);
  const other = await tokenFor('alice:s3cret', scopeOf('up/open/y'));
  t.equal(await status(secretPath, other), 401, 'a token for another repository');
  t.equal(await status('/v2/_catalog', other), 401);
  for (const name of ['up/team/x', 'p/linux-arm64/up/team/x']) {
    t.equal(await status(secretPath, await tokenFor('alice:s3cret', scopeOf(name))), 200, name);
  }
  const begin = (authorization: string) =>
    mirror.send('POST', '/v2/here/a/blobs/uploads/', undefined, { authorization });
  t.equal((await begin(await tokenFor('alice:s3cret', scopeOf('here/a')))).status, 401, 'pulling is not pushing');
  const pusher = await tokenFor('alice:s3cret', scopeOf('here/a', 'pull,push'));
  t.equal((await begin(pusher)).status, 202);
  t.equal((await begin(bob)).status, 403);
  const gone = await mirror.send('DELETE', `/v2/here/a/blobs/${secret.digest}`, undefined, { authorization: pusher });
  t.equal(gone.status, 401, 'pushing is not deleting');
  t.match(gone.headers['www-authenticate'], /scope="repository:here\/a:delete"/);
});

void t.test('token access: POST as containerd does it, and what is no question', async (t) => {
  const { mirror, grant } = await start(t);
  const login = { grant_type: 'password', username: 'alice', password: 's3cret' };
  const answer = await grant(post({ ...login, service: 'narrows', client_id: 'c', scope: scopeOf('up/team/x') }));
  const { access_token: token } = answer.json() as { access_token: string };
  t.equal((await mirror.get(secretPath, { authorization: `Bearer ${token}` })).status, 200);
  t.equal((await grant(post({ ...login, password: 'x' }))).status, 401);
  t.equal((await grant(post({ grant_type: 'refresh_token', refresh_token: token }))).status, 401);
  t.equal((await grant(post({ grant_type: 'client_credentials' }))).status, 400);
  t.equal((await grant({ ...post(login), headers: { 'content-type': 'application/json' } })).status, 400);
  t.equal((await grant(post({ ...login, filler: 'x'.repeat(70_000) }))).status, 413);
  t.equal((await mirror.send('DELETE', '/token')).status, 405);
  t.equal((await mirror.get('/tokens')).status, 404);
  t.notMatch(mirror.log.join('\n'), /s3cret/, 'no password is logged');
  t.notMatch(mirror.log.join('\n'), new RegExp(token.slice(-20)), 'and no token');
});

void t.test('token access: replicas with the same key take each other’s tokens, with others they do not', async (t) => {
  const folder = await temporaryFolder(t);
  const key = join(folder, 'key');
  await writeFile(key, randomBytes(32));
  const [one, two, three] = [
    await start(t, { token: { keys: [key] } }),
    await start(t, { token: { keys: [key] } }),
    await start(t),
  ];
  const authorization = await one.tokenFor('alice:s3cret', scopeOf('up/team/x'));
  t.equal((await two.mirror.get(secretPath, { authorization })).status, 200);
  t.equal((await three.mirror.get(secretPath, { authorization })).status, 401);
  const short = join(folder, 'short');
  await writeFile(short, 'secret');
  await t.rejects(start(t, { token: { keys: [short] } }), { message: /fewer than 32 bytes/ });
});

void t.test('token access: an issuer vouches for a job: as Bearer, as password, as identity token', async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  let asked = 0;
  const server = createServer(({ url }, response) => {
    asked++;
    const own = { issuer, jwks_uri: `${issuer}/keys` };
    const keys = [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'EdDSA' }];
    response.end(JSON.stringify(url === '/keys' ? { keys } : own));
  });
  const issuer = `http://127.0.0.1:${await listen(server)}`;
  t.teardown(() => server.close());
  const { mirror, tokenFor, grant } = await start(
    t,
    { issuers: [{ url: issuer, audience: 'mirror', prefix: 'ci:' }] },
    { platforms: { users: { 'ci:edge:*': 'linux/arm64' } } },
  );
  const sign = (sub: string, key = privateKey) =>
    new SignJWT({ sub })
      .setProtectedHeader({ alg: 'EdDSA', kid: 'k' })
      .setIssuer(issuer)
      .setAudience('mirror')
      .setExpirationTime('5m')
      .sign(key);
  const jwt = await sign('edge:7');
  const direct = await mirror.get(secretPath, { authorization: `Bearer ${jwt}` });
  t.same([direct.status, direct.headers['narrows-platform']], [200, 'linux/arm64; via=user']);
  t.equal((await mirror.get(secretPath, { authorization: basic(`jwt:${jwt}`) })).status, 200);
  const authorization = await tokenFor(`jwt:${jwt}`, scopeOf('up/team/x'));
  t.equal((await mirror.get(secretPath, { authorization })).headers['narrows-platform'], 'linux/arm64; via=user');
  const form = { grant_type: 'refresh_token', refresh_token: jwt, service: 'narrows', scope: scopeOf('up/team/x') };
  const { access_token: token } = (await grant(post(form))).json() as { access_token: string };
  t.equal((await mirror.get(secretPath, { authorization: `Bearer ${token}` })).status, 200);
  const forged = await sign('edge:7', generateKeyPairSync('ed25519').privateKey);
  for (const header of [`Bearer ${forged}`, basic(`jwt:${forged}`), basic(`alice:${jwt}`)]) {
    t.equal((await mirror.get(secretPath, { authorization: header })).status, 401);
  }
  t.equal(asked, 2, 'the description and the keys, once');
  t.notMatch(mirror.log.join('\n'), new RegExp(jwt.slice(-20)));
});

void t.test('token access: crane pushes, skopeo and containerd pull', async (t) => {
  const [skopeo, crane] = [await requireProgram(t, 'skopeo'), await requireProgram(t, 'crane')];
  const containerd = await requireProgram(t, '/opt/clients/usr/bin/containerd');
  if (skopeo === undefined || crane === undefined || containerd === undefined || !requireRoot(t)) return;
  const { mirror, registry } = await start(t);
  const sandbox = await createSandbox(t);
  const { host } = new URL(mirror.url);
  const image = buildImage({ platforms: ['linux/amd64'], seed: 'token' });
  const source = await startRegistry();
  t.teardown(() => source.close());
  source.putImage('team/source', '1', image);

  const done = async (program: string, ...args: string[]) => {
    const { code, out, err } = await sandbox.run(program, ...args);
    t.equal(code, 0, `${out}${err}`);
  };
  await done(crane, 'auth', 'login', host, '-u', 'alice', '-p', 's3cret', '--insecure');
  await done(crane, 'copy', '--insecure', `${new URL(source.url).host}/team/source:1`, `${host}/here/b:1`);
  const copy = ['copy', '--override-os=linux', '--override-arch=amd64', '--src-tls-verify=false'];
  const from = `docker://${host}/here/b:1`;
  const to = (name: string) => `oci:${sandbox.home}/${name}`;
  await done(skopeo, ...copy, '--src-creds=alice:s3cret', from, to('pulled'));
  const wrong = await sandbox.run(skopeo, ...copy, '--src-creds=alice:wrong', from, to('wrong'));
  t.match(wrong.err, /unauthorized|authentication/i);
  const other = await sandbox.run(skopeo, ...copy, '--src-creds=bob:b0b', `docker://${host}/up/team/x:1`, to('other'));
  t.match(other.err, /denied|unauthorized/i);
  const { ctr } = await startContainerd(t, sandbox, containerd);
  const fetched = await ctr('content', 'fetch', '--plain-http', '--user', 'alice:s3cret', `${host}/here/b:1`);
  t.equal(fetched.code, 0, fetched.err);
  const refused = await ctr('content', 'fetch', '--plain-http', '--user', 'alice:wrong', `${host}/here/b:1`);
  t.not(refused.code, 0);
  t.equal(registry.seen.filter(({ path }) => path.includes('manifests')).length, 0, 'bob’s question went nowhere');
  t.ok(
    mirror.log.some((line) => line.includes('"POST"') && line.includes('/token')),
    'containerd asks by POST',
  );
});
