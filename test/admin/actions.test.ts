import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import type { Test } from 'tap';
import { Agent } from 'undici';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, fetchAnswer, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { startRegistry } from '../fixtures/registry.ts';

const platforms = ['linux/amd64', 'linux/arm64'];
const image = buildImage({ platforms, seed: 'actions' });
const arm = image.children[1]!;
const sibling = buildImage({ platforms, seed: 'sibling' });
const json = { 'content-type': 'application/json' };

async function start(t: Test, act: readonly string[] = ['anonymous'], more: object = {}) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/app', '1', image);
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: { admin: { act }, ...more },
  });
  const dispatcher = new Agent();
  t.teardown(() => dispatcher.destroy());
  const post = (path: string, body: unknown, headers: Record<string, string> = json) =>
    fetchAnswer(mirror.adminUrl + path, {
      method: 'POST',
      headers,
      dispatcher,
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  const get = async <T>(path: string) =>
    (await fetchAnswer(mirror.adminUrl + path, { method: 'GET', dispatcher })).json<T & object>();
  const statusOf = async () => {
    const { platforms: all } = await get<{ platforms: { platform: string; status: string }[] }>(
      '/api/inspect?image=up/team/app:1',
    );
    return Object.fromEntries(all.map(({ platform, status }) => [platform, status]));
  };
  return { registry, mirror, post, get, statusOf };
}

/** The last byte of a blob is with its client before its copy has its name. */
async function armIsHere(statusOf: () => Promise<Record<string, string>>): Promise<void> {
  await until(async () => (await statusOf())['linux/arm64'] === 'present', 'its copies');
}

const everything: [path: string, body: object][] = [
  ['/api/warm', { image: 'up/team/app:1', platforms: ['linux/arm64'] }],
  ['/api/unpin', { image: 'up/team/app:1' }],
  ['/api/purge', { image: 'up/team/app:1' }],
  ['/api/offline', { offline: true }],
  ['/api/log', { level: 'debug' }],
];

void t.test('68. actions: nobody may who is not named, and nothing is done', async (t) => {
  const { registry, post, get } = await start(t, []);
  for (const [path, body] of everything) t.match(await post(path, body), { status: 403 }, path);
  t.match(await get('/api/live'), { mayAct: false, isOffline: false });
  t.same(registry.seen, []);
});

void t.test('68. actions: who is named has to log in, and others are told that they may not', async (t) => {
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `ops:${hashSync('o', 4)}\nalice:${hashSync('a', 4)}\n`);
  const { post, get } = await start(t, ['ops'], { access: { mode: 'basic', htpasswd } });
  for (const [path, body] of everything) {
    const asked = await post(path, body);
    t.match(asked, { status: 401, headers: { 'www-authenticate': /^Basic / } }, path);
    t.equal((await post(path, body, { ...json, authorization: basic('alice:a') })).status, 403, path);
    t.equal((await post(path, body, { ...json, authorization: basic('ops:x') })).status, 401, path);
  }
  t.match(await get('/api/live'), { mayAct: true, isOffline: false });
  t.equal((await post('/api/log', { level: 'debug' }, { ...json, authorization: basic('ops:o') })).status, 202);
});

void t.test('68. actions: a token for pulling does nothing here', async (t) => {
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `ops:${hashSync('o', 4)}\n`);
  const { mirror, post, get } = await start(t, ['ops'], { access: { mode: 'token', htpasswd } });
  const login = { authorization: basic('ops:o') };
  const { token } = (await mirror.get('/token?scope=repository:up/team/app:pull', login)).json<{ token: string }>();
  for (const [path, body] of everything) {
    t.equal((await post(path, body, { ...json, authorization: `Bearer ${token}` })).status, 403, path);
  }
  t.match(await get('/api/live'), { isOffline: false });
  t.equal((await post('/api/log', { level: 'debug' }, { ...json, ...login })).status, 202, 'the password does');
});

void t.test('68. actions: pages of other sites, forms and rubbish do nothing', async (t) => {
  const { registry, post, get } = await start(t);
  const [path, body] = everything[0]!;
  const foreign = [
    { ...json, origin: 'https://evil.example' },
    { ...json, 'sec-fetch-site': 'cross-site' },
  ];
  for (const headers of foreign) t.equal((await post(path, body, headers)).status, 403);
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', '']) {
    t.equal((await post(path, body, { 'content-type': type })).status, 400, type);
  }
  const rubbish = ['', '[]', 'null', '{', '{"image":7}', '{"image":""}', '{"image":"up/team/app:1","platforms":[]}'];
  for (const text of rubbish) t.equal((await post(path, text)).status, 400, text);
  t.equal((await post(path, 'x'.repeat(70_000))).status, 413);
  t.equal((await post(path, { image: 'up/team/app:1', platforms: ['no/platform/at/all'] })).status, 400);
  t.equal((await post(path, { image: 'nowhere.example/x:1', platforms })).status, 404);
  t.equal((await post('/api/log', { level: 'loud' })).status, 400);
  t.equal((await post('/api/offline', { offline: 'yes' })).status, 400);
  t.equal((await post('/api/nothing', {})).status, 405);
  t.match(await get('/api/live'), { isOffline: false });
  t.same(registry.seen, []);
});

void t.test('actions: warm fetches a platform in the background and keeps it; unpin lets it go', async (t) => {
  const { mirror, post, statusOf } = await start(t);
  const begun = await post('/api/warm', { image: 'up/team/app:1', platforms: ['linux/arm64'] });
  t.match(begun, { status: 202 });
  t.match(begun.json(), { image: 'up/team/app:1', set: 'default', status: 'is being warmed' });
  await until(() => mirror.log.some((line) => line.includes('"msg":"warmed"')), 'the end of warming');
  t.same(await statusOf(), { 'linux/amd64': 'absent', 'linux/arm64': 'present' });
  t.match((await post('/api/unpin', { image: 'up/team/app:1' })).json(), { sets: ['default'] });
  t.match((await post('/api/unpin', { image: 'up/team/app:1' })).json(), { sets: [] });
});

void t.test('actions: purge takes away what is that image\u2019s alone, and the next pull asks again', async (t) => {
  const { registry, mirror, post, statusOf } = await start(t);
  registry.putImage('team/other', '1', sibling);
  for (const name of ['app', 'other']) {
    const path = `/p/linux-arm64/v2/up/team/${name}`;
    // Twice: what is given again a moment after is taken away as well.
    for (let time = 0; time < 3; time++) await mirror.get(`${path}/manifests/1`, { accept });
    const { config, layers } = (name === 'app' ? image : sibling).children[1]!;
    for (const { digest } of [config, ...layers]) t.equal((await mirror.get(`${path}/blobs/${digest}`)).status, 200);
  }
  await armIsHere(statusOf);
  const purged = await post('/api/purge', { image: 'up/team/app:1' });
  t.match(purged, { status: 202 });
  registry.forget();
  t.match(await statusOf(), { 'linux/arm64': 'absent' });
  t.equal((await mirror.get('/p/linux-arm64/v2/up/team/app/manifests/1', { accept })).status, 200);
  t.equal(registry.count('GET manifests', arm.manifest.digest), 1, 'fetched again');
  registry.forget();
  for (const { digest } of sibling.children[1]!.layers) {
    t.equal((await mirror.get(`/v2/up/team/other/blobs/${digest}`)).status, 200);
  }
  t.same(registry.seen, [], 'another image is as it was');
  t.equal((await post('/api/purge', { image: 'up/team/unknown:1' })).status, 404);
});

void t.test('actions: purge by a digest that another repository has takes nothing away', async (t) => {
  const { registry, mirror, post, statusOf } = await start(t);
  const path = '/p/linux-arm64/v2/up/team/app';
  await mirror.get(`${path}/manifests/1`, { accept });
  for (const { digest } of [arm.config, ...arm.layers]) await mirror.get(`${path}/blobs/${digest}`);
  await armIsHere(statusOf);
  const purged = await post('/api/purge', { image: `up/no/such@${image.index.digest}` });
  t.equal(purged.status, 404);
  registry.forget();
  t.match(await statusOf(), { 'linux/arm64': 'present' });
  t.same(registry.seen, []);
});

void t.test('actions: purge leaves what a set holds, and what is hosted here', async (t) => {
  const { mirror, post, statusOf } = await start(t, ['anonymous'], {
    repositories: [{ name: 'here/*', hosted: true, push: ['anonymous'] }],
  });
  await post('/api/warm', { image: 'up/team/app:1', platforms: ['linux/arm64'] });
  await until(() => mirror.log.some((line) => line.includes('"msg":"warmed"')), 'the end of warming');
  t.match((await post('/api/purge', { image: 'up/team/app:1' })).json(), { blobs: 0 });
  t.match(await statusOf(), { 'linux/arm64': 'present' });
  t.equal((await post('/api/purge', { image: 'here/app:1' })).status, 403);
});

void t.test('77. actions: offline from now on, and online again', async (t) => {
  const { registry, mirror, post, get } = await start(t);
  t.equal((await post('/api/offline', { offline: true })).status, 202);
  t.match(await get('/api/live'), { isOffline: true });
  t.equal((await mirror.get('/v2/up/team/app/manifests/1')).status, 404);
  t.same(registry.seen, []);
  t.equal((await post('/api/offline', { offline: false })).status, 202);
  t.equal((await mirror.get('/v2/up/team/app/manifests/1')).status, 200);
});

void t.test('actions: offline is refused where the upstream says what callers may read', async (t) => {
  const { post, get } = await start(t, ['anonymous'], { access: { mode: 'upstream', upstream: { registry: 'up' } } });
  t.equal((await post('/api/offline', { offline: true })).status, 400);
  t.match(await get('/api/live'), { isOffline: false });
});

void t.test('actions: the level of the log, at once', async (t) => {
  const { mirror, post } = await start(t);
  await post('/api/log', { level: 'error' });
  const lines = () => mirror.log.filter((line) => line.includes('"msg":"request"')).length;
  const before = lines();
  await mirror.get('/v2/');
  t.equal(lines(), before);
  await post('/api/log', { level: 'info' });
  await mirror.get('/v2/');
  await until(() => lines() === before + 1, 'a line');
});
