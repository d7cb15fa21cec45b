import type { ServerResponse } from 'node:http';
import t from 'tap';
import type { Test } from 'tap';
import { buildImage } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { blobOf, refuse, startRegistry } from '../fixtures/registry.ts';
import type { Seen, TestRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/s390x'] });
const arm = image.children.find(({ platform }) => platform === 'linux/arm64')!.manifest;
const secret = blobOf(Buffer.from('for those who may'));
const shown = blobOf(Buffer.from('for everyone'));
const blobPath = (repository: string, { digest } = secret) => `/v2/up/${repository}/blobs/${digest}`;
const [alice, bob] = [basic('alice:a'), basic('bob:b')];
const own = { username: 'mirror', password: 'm' };

/** Who may read what at the registry; the mirror itself may read everything. */
type Rights = Record<string, readonly string[]>;

function guard(registry: TestRegistry, rights: Rights) {
  const users: Record<string, string> = { [alice]: 'alice', [bob]: 'bob', [basic('mirror:m')]: 'mirror' };
  registry.script = ({ path, headers }: Seen, response: ServerResponse) => {
    const user = headers.authorization === undefined ? 'anyone' : (users[headers.authorization] ?? 'nobody');
    const [, repository] = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(path) ?? [];
    const isLetIn =
      user === 'mirror' ||
      (repository === undefined ? user === 'alice' || user === 'bob' : rights[user]?.includes(repository));
    if (!isLetIn) refuse(response, 401, 'UNAUTHORIZED', { 'www-authenticate': 'Basic realm="up"' });
    return !isLetIn;
  };
}

async function start(t: Test, more: object = {}) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('team/x', secret);
  registry.putImage('team/x', '1', image);
  registry.put('open/y', shown);
  const rights: Record<string, string[]> = { alice: ['team/x', 'open/y'], bob: ['open/y'], anyone: ['open/y'] };
  guard(registry, rights);
  const clock = { nowMs: Date.now() };
  const mirror = await startTestMirror(t, {
    upstreams: { up: { url: registry.url, credentials: own }, other: { url: registry.url, credentials: own } },
    config: { access: { mode: 'upstream', upstream: { registry: 'up' } }, ...more },
    now: () => clock.nowMs,
  });
  const as = async (authorization: string | undefined, path: string, headers: Record<string, string> = {}) =>
    mirror.get(path, { ...(authorization !== undefined && { authorization }), ...headers });
  return { registry, rights, mirror, as, clock };
}

void t.test('1. the upstream says who may read, whatever is held here', async (t) => {
  const { as, mirror } = await start(t);
  t.same((await as(alice, blobPath('team/x'))).body, secret.bytes);
  const tag = '/v2/p/linux-arm64/up/team/x/manifests/1';
  t.equal((await as(alice, tag)).headers['docker-content-digest'], arm.digest);
  const paths = [
    blobPath('team/x'),
    tag,
    `/v2/up/team/x/manifests/${arm.digest}`,
    `/v2/up/team/x/manifests/${image.index.digest}`,
    `/v2/up/team/x/referrers/${arm.digest}`,
    '/v2/up/team/x/tags/list',
  ];
  const wrong = basic('alice:wrong');
  for (const path of paths) {
    for (const [who, status] of [
      [bob, 403],
      [wrong, 403],
      [undefined, 401],
    ] as const) {
      for (const headers of [{}, { range: 'bytes=0-1' }, { 'if-none-match': `"${secret.digest}"` }]) {
        const answer = await as(who, path, headers);
        t.equal(answer.status, status, path);
        t.notOk(answer.headers['etag'] ?? answer.headers['docker-content-digest']);
        t.notMatch(answer.body.toString(), 'for those');
      }
    }
    const { status, headers } = await as(undefined, path);
    t.equal(status, 401);
    t.match(headers['www-authenticate'], /^Basic /);
    t.equal((await mirror.head(path, { authorization: bob })).status, 403);
  }
  t.equal((await as(bob, blobPath('open/y'))).status, 404, 'held here, and in no repository that he may read');
  t.same((await as(undefined, blobPath('open/y', shown))).body, shown.bytes, 'what anyone may read');
  t.equal((await as(bob, blobPath('open/y', shown))).status, 200);
});

void t.test('2. a right that was taken back ends with its time, and nobody else revives it', async (t) => {
  const { as, registry, rights, clock } = await start(t);
  const status = async (who: string) => (await as(who, blobPath('team/x'))).status;
  t.equal(await status(alice), 200);
  rights['alice'] = ['open/y'];
  rights['bob'] = ['team/x'];
  registry.forget();
  t.equal(await status(alice), 200, 'remembered');
  t.same(registry.seen, [], 'and nobody is asked');
  clock.nowMs += 60_001;
  t.equal(await status(bob), 200);
  t.equal(await status(alice), 403);
  registry.forget();
  t.equal(await status(alice), 403);
  t.same(registry.seen, [], 'a refusal is remembered as well');
  rights['alice'] = ['team/x'];
  clock.nowMs += 10_001;
  t.equal(await status(alice), 200, 'for a shorter time');
});

void t.test('2. while the upstream cannot be asked, nobody may; what is remembered lasts its time', async (t) => {
  const { as, registry, clock } = await start(t);
  const status = async (who: string | undefined, path = blobPath('team/x')) => (await as(who, path)).status;
  t.equal(await status(alice), 200);
  t.equal(await status(undefined, blobPath('open/y', shown)), 200);
  registry.script = (_seen, response) => {
    refuse(response, 503, 'UNAVAILABLE');
    return true;
  };
  t.equal(await status(alice), 200);
  clock.nowMs += 60_001;
  t.equal(await status(alice), 503);
  t.equal(await status(undefined, blobPath('open/y', shown)), 503, 'what anyone could read is no exception');
  await registry.close();
  t.equal(await status(alice), 502);
});

void t.test(
  '3. what a caller shows goes to its registry alone, and what is the mirror\u2019s own is shown for nobody',
  async (t) => {
    const { as, registry } = await start(t);
    await as(alice, '/v2/other/team/x/tags/list');
    const shownTo = registry.seen.map(({ headers }) => headers.authorization);
    t.same([...new Set(shownTo)], [undefined], 'to another registry the caller is anyone');
    registry.forget();
    t.equal((await as(bob, '/v2/up/team/x/tags/list')).status, 403);
    t.notOk(
      registry.seen.some(({ headers }) => headers.authorization === basic('mirror:m')),
      'who may not read causes no question of the mirror\u2019s own',
    );
  },
);

void t.test('66. a right is that of one user with one password for one repository', async (t) => {
  const { as, rights, registry } = await start(t);
  registry.put('team', secret);
  rights['anyone'] = [];
  t.equal((await as(alice, blobPath('team/x'))).status, 200);
  for (const who of ['alice:', 'alic:ea', 'alice:aa', ':alicea', 'alice:a:', 'ALICE:a']) {
    t.equal((await as(basic(who), blobPath('team/x'))).status, 403, who);
  }
  t.equal((await as(alice, blobPath('team'))).status, 403, 'another repository');
});

void t.test('a tag narrowed here, and its new digest, are the right of whom the original is', async (t) => {
  const { as, clock } = await start(t);
  const path = '/v2/p/linux-amd64_linux-arm64/up/team/x/manifests';
  const found = await as(alice, `${path}/1`);
  t.equal(found.status, 200);
  clock.nowMs += 60_001;
  const digest = found.headers['docker-content-digest']!;
  t.equal(
    (await as(alice, `${path}/${digest}`)).status,
    200,
    'asked for by digest when the right has to be asked again',
  );
  t.equal((await as(bob, `${path}/${digest}`)).status, 403);
});

void t.test('logging in is looked at, and a list of repositories shows what was just allowed', async (t) => {
  const { as } = await start(t);
  t.equal((await as(undefined, '/v2/')).status, 401);
  t.equal((await as(basic('alice:wrong'), '/v2/')).status, 401);
  t.equal((await as('Bearer abc', '/v2/')).status, 401);
  t.equal((await as(alice, '/v2/')).status, 200);
  await as(alice, '/v2/up/team/x/manifests/1');
  const repositories = async (who: string) =>
    (await as(who, '/v2/_catalog')).json<{ repositories: string[] }>().repositories;
  t.same(await repositories(alice), ['up/team/x']);
  t.same(await repositories(bob), []);
});

void t.test('63. who tries passwords at a registry through the mirror is told to wait', async (t) => {
  const { as, registry } = await start(t, { limits: { wrongPasswords: 5 } });
  const statuses: number[] = [];
  for (let at = 0; at < 8; at++) statuses.push((await as(basic(`alice:${at}`), blobPath('team/x'))).status);
  t.same(statuses, [403, 403, 403, 403, 403, 429, 429, 429]);
  t.equal(registry.count('HEAD blobs'), 10, 'each once without and once with the password');
});

void t.test(
  'a registry with a token service is asked with the caller\u2019s password, for that repository',
  async (t) => {
    const { as, registry } = await start(t);
    const asked: string[] = [];
    registry.script = ({ path, query, headers }, response) => {
      if (path === '/token') {
        asked.push(`${headers.authorization === alice ? 'alice' : 'else'} ${query.get('scope') ?? 'none'}`);
        response.end(JSON.stringify({ token: headers.authorization === alice ? 'good' : 'poor' }));
        return true;
      }
      if (headers.authorization === 'Bearer good') return false;
      refuse(response, 401, 'UNAUTHORIZED', {
        'www-authenticate': `Bearer realm="${registry.url}/token",service="up"`,
      });
      return true;
    };
    t.equal((await as(alice, '/v2/')).status, 200);
    t.equal((await as(bob, '/v2/')).status, 401);
    t.same(asked, ['alice none', 'else none']);
    t.equal((await as(bob, '/v2/up/team/x/tags/list')).status, 403);
    t.equal(asked[2], 'else repository:team/x:pull');
  },
);

void t.test('a registry that knows no HEAD says by GET who may', async (t) => {
  const { as, registry } = await start(t);
  const { script } = registry;
  registry.script = (seen, response) => {
    if (seen.method !== 'HEAD') return script!(seen, response);
    response.writeHead(405).end();
    return true;
  };
  t.equal((await as(bob, '/v2/up/team/x/manifests/1')).status, 403);
  t.equal((await as(alice, '/v2/up/team/x/manifests/1')).status, 200);
  t.equal((await as(bob, blobPath('team/x'))).status, 403);
});

void t.test('66. who may see the tags of a repository may not pull from it for that', async (t) => {
  const { as, registry } = await start(t);
  const { script } = registry;
  registry.script = (seen, response) => {
    const isList = seen.path.endsWith('/tags/list') && seen.headers.authorization === bob;
    return isList ? false : script!(seen, response);
  };
  t.equal((await as(alice, '/v2/up/team/x/manifests/1')).status, 200);
  t.equal((await as(bob, '/v2/up/team/x/tags/list')).status, 200);
  t.equal((await as(bob, '/v2/up/team/x/manifests/1')).status, 403);
  t.equal((await as(bob, blobPath('team/x'))).status, 403);
  t.equal((await as(bob, '/v2/up/team/x/tags/list')).status, 200, 'and goes on seeing them');
});
