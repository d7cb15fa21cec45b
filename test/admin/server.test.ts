import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import type { Test } from 'tap';
import { Agent } from 'undici';
import { startAdmin } from '../../src/admin/server.ts';
import type { AdminApi } from '../../src/admin/server.ts';
import { NarrowsError } from '../../src/errors.ts';
import { hexOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltChild } from '../fixtures/images.ts';
import { containerdAccept as accept, fetchAnswer, startTestMirror } from '../fixtures/mirror.ts';
import type { TestAnswer } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true, seed: 'admin' });
const [amd64, arm64] = image.children as [BuiltChild, BuiltChild];

async function prepare(t: Test, api: Partial<AdminApi> = {}) {
  const state = { isReady: true };
  const troubles: unknown[] = [];
  const admin = await startAdmin({
    host: '127.0.0.1',
    port: 0,
    hosts: ['narrows.example'],
    isOffline: () => false,
    isReady: () => state.isReady,
    metrics: () => Promise.resolve({ text: 'a_total 1\n', contentType: 'text/plain; version=0.0.4' }),
    api: {
      live: () => Promise.resolve({ running: [] }),
      inspect: (...asked) => Promise.resolve({ asked }),
      images: (after, count) => Promise.resolve({ after, count }),
      ...api,
    },
    actions: {
      require: () => Promise.resolve(),
      warm: (...asked) => Promise.resolve({ asked }),
      unpin: (image) => Promise.resolve({ image }),
      purge: (image) => Promise.resolve({ image }),
      offline: (isOffline) => Promise.resolve({ isOffline }),
      log: (level) => Promise.resolve({ level }),
    },
    onTrouble: (error) => troubles.push(error),
  });
  const dispatcher = new Agent();
  t.teardown(async () => {
    await dispatcher.destroy();
    await admin.stop();
  });
  const get = (path: string, method: 'GET' | 'HEAD' | 'POST' = 'GET') =>
    fetchAnswer(`http://127.0.0.1:${admin.port}${path}`, { method, dispatcher });
  return { admin, state, troubles, get };
}

function checkRefusal(t: Test, answer: TestAnswer, status: number, code: string, message: RegExp): void {
  t.match(answer, { status, headers: { 'content-type': 'application/json' } });
  const { error } = answer.json<{ error: { code: string; message: string } }>();
  t.match(error, { code, message });
  t.match(error.message, /^[^\n]+\.$/, 'a sentence');
}

void t.test('health, readiness and metrics, each at its path', async (t) => {
  const { state, get } = await prepare(t);
  t.match(await get('/healthz'), { status: 200, body: Buffer.from('ok\n') });
  t.match(await get('/readyz'), { status: 200 });
  state.isReady = false;
  t.match(await get('/readyz'), { status: 503 }, 'stopping: no new work');
  t.match(await get('/healthz'), { status: 200 }, 'stopping is not dead');
  const metrics = await get('/metrics');
  t.match(metrics, { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' } });
  t.equal(metrics.body.toString(), 'a_total 1\n');
  t.match(await get('/metrics', 'POST'), { status: 405 });
  t.match(await get('/metrics', 'HEAD'), { status: 200, body: Buffer.alloc(0) });
});

void t.test('what is not there says what is', async (t) => {
  const { admin, get } = await prepare(t);
  for (const path of ['/other', '/api', '/api/', '/api/inspect/', '/metrics/x']) {
    t.match(await get(path), { status: 404, body: /There is: \/healthz .*\/api\/images/ }, path);
  }
  const socket = connect(admin.port, '127.0.0.1');
  socket.end('GET //[ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  t.match(await text(socket), /^HTTP\/1\.1 400 [\s\S]*There is: /);
});

void t.test('the API is asked with what stands in the query', async (t) => {
  const { get } = await prepare(t);
  const asked = async (path: string) => (await get(path)).json();
  t.same(await asked('/api/images'), { count: 1000 });
  t.same(await asked('/api/images?n=5&after=a%2Fb:1'), { after: 'a/b:1', count: 5 });
  t.same(await asked('/api/images?n=99999'), { count: 1000 }, 'no page is longer');
  t.same(await asked('/api/inspect?image=x:1&platform=linux/arm64&platform=a,b'), {
    asked: ['x:1', ['linux/arm64', 'a,b']],
  });
  t.same(await asked('/api/inspect?image='), { asked: ['', []] });
  const answer = await get('/api/images');
  t.match(answer.headers, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  t.ok(answer.body.toString().endsWith('}\n'));
  t.match(await get('/api/images', 'HEAD'), { status: 200, body: Buffer.alloc(0) });
  t.match(await get('/api/inspect?image=x', 'POST'), { status: 405 });
  for (const n of ['0', '-1', '1.5', 'x', '', 'NaN', 'Infinity']) {
    checkRefusal(t, await get(`/api/images?n=${n}`), 400, 'UNSUPPORTED', /at least 1/);
  }
  checkRefusal(t, await get('/api/inspect'), 400, 'UNSUPPORTED', /\/api\/inspect\?image=/);
});

void t.test(
  '68. what goes wrong is told with its own status, and what is nobody else’s affair is not told',
  async (t) => {
    const secret = new Error('a secret: 5');
    const { troubles, get } = await prepare(t, {
      inspect: () => Promise.reject(new NarrowsError('upstreamTimeout', 'It took too long.')),
      images: () => Promise.reject(secret),
    });
    checkRefusal(t, await get('/api/inspect?image=x'), 504, 'UNAVAILABLE', /^It took too long\.$/);
    const answer = await get('/api/images');
    checkRefusal(t, answer, 500, 'UNKNOWN', /could not be answered/);
    t.notMatch(answer.body.toString(), 'secret');
    t.same(troubles, [secret], 'but to the log');
  },
);

/** A mirror that a client of arm64 has pulled through. */
async function prepareMirror(t: Test) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  for (const tag of ['1', '2', '10']) registry.putImage('library/app', tag, image);
  registry.putImage('team/tool', 'latest', buildImage({ platforms: ['linux/s390x'], seed: 'tool' }));
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': registry.url, 'quay.io': registry.url },
    config: { platforms: { sets: { edge: ['linux/arm64', 'linux/arm/v7'] } } },
  });
  await mirror.get('/p/linux-arm64/v2/docker.io/library/app/manifests/1', { accept });
  for (const { digest } of [arm64.config, ...arm64.layers]) {
    await mirror.get(`/v2/docker.io/library/app/blobs/${digest}`);
    await until(() => existsSync(join(mirror.store, 'blobs/sha256', hexOf(digest))), 'the blob on the disk');
  }
  registry.forget();
  const get = (path: string) => mirror.get(mirror.adminUrl + path);
  const inspect = (query: string) => get(`/api/inspect?image=${query}`);
  return { registry, mirror, get, inspect };
}

void t.test('/api/inspect: how much of an image is here', async (t) => {
  const { registry, inspect } = await prepareMirror(t);
  const found = await inspect('app:1&platform=linux/amd64&platform=linux/arm64,linux/s390x');
  t.equal(found.status, 200);
  const bytes = [arm64.manifest, arm64.config, ...arm64.layers].reduce((sum, held) => sum + held.bytes.length, 0);
  const missing = { digest: amd64.manifest.digest, bytes: amd64.manifest.bytes.length, kind: 'manifest' };
  t.same(found.json(), {
    image: 'docker.io/library/app:1',
    digest: image.index.digest,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    platforms: [
      {
        platform: 'linux/amd64',
        digest: missing.digest,
        status: 'absent',
        bytes: missing.bytes,
        heldBytes: 0,
        missing: [missing],
      },
      {
        platform: 'linux/arm64',
        digest: arm64.manifest.digest,
        status: 'present',
        bytes,
        heldBytes: bytes,
        missing: [],
      },
      { platform: 'linux/s390x', status: 'not offered', bytes: 0, heldBytes: 0, missing: [] },
    ],
  });
  t.same(registry.seen, []);
  const platforms = async (query: string) =>
    (await inspect(query)).json<{ platforms: { platform: string }[] }>().platforms.map(({ platform }) => platform);
  t.same(await platforms('app:1&platform=edge'), ['linux/arm64', 'linux/arm/v7']);
  t.same(await platforms(`docker.io/library/app@${image.index.digest}`), ['linux/amd64', 'linux/arm64']);
  t.same(await platforms('quay.io/team/tool'), ['linux/s390x']);
  await registry.close();
  t.same(await platforms('app:1&platform=any'), ['linux/amd64', 'linux/arm64']);
});

void t.test('/api/inspect: what cannot be answered is told as JSON, and is never a mistake of ours', async (t) => {
  const { registry, mirror, inspect } = await prepareMirror(t);
  for (const platform of [
    'arm64',
    '',
    'linux/arm64,',
    'linux/',
    '%00',
    '/',
    'linux/arm64%0Ax',
    '__proto__',
    'a/b/c/d',
  ]) {
    checkRefusal(t, await inspect(`app:1&platform=${platform}`), 400, 'UNSUPPORTED', /is no platform such as/);
  }
  const zeros = `sha256:${'0'.repeat(64)}`;
  for (const [query, status, code] of [
    ['app:3', 404, 'MANIFEST_UNKNOWN'],
    ['nothing', 404, 'MANIFEST_UNKNOWN'],
    [`app@${zeros}`, 404, 'MANIFEST_UNKNOWN'],
    [`app:1@${zeros}`, 404, 'MANIFEST_UNKNOWN'],
    ['app:%20x', 404, 'MANIFEST_UNKNOWN'],
    ['elsewhere.example/app:1', 404, 'NAME_UNKNOWN'],
    ['', 400, 'NAME_INVALID'],
    ['UPPER', 400, 'NAME_INVALID'],
    ['%00', 400, 'NAME_INVALID'],
    ['a/../b', 400, 'NAME_INVALID'],
    [`${'a/'.repeat(200)}b`, 400, 'NAME_INVALID'],
    ['app@sha256:5', 400, 'DIGEST_INVALID'],
    ['app@', 400, 'DIGEST_INVALID'],
    ['@', 400, 'NAME_INVALID'],
  ] as const) {
    checkRefusal(t, await inspect(query), status, code, /./);
  }
  registry.script = (_, response) => {
    response.writeHead(200, { 'content-type': 'application/vnd.oci.image.index.v1+json' }).end('rubbish');
    return true;
  };
  checkRefusal(t, await inspect('app:2'), 502, 'MANIFEST_INVALID', /no usable manifest/);
  await registry.close();
  checkRefusal(t, await inspect('app:10'), 502, 'UNAVAILABLE', /docker\.io/);
  t.notOk(mirror.log.some((line) => line.includes('"level":"error"')));
});

interface Page {
  readonly images: { image: string }[];
  readonly next?: string;
}

void t.test('/api/images: the tags that are known here, a page at a time', async (t) => {
  const { registry, mirror, get } = await prepareMirror(t);
  const digest = image.index.digest;
  t.same((await get('/api/images')).json(), { images: [{ image: 'docker.io/library/app:1', digest }] });
  for (const path of [
    'docker.io/library/app/manifests/2',
    'docker.io/library/app/manifests/10',
    'quay.io/team/tool/manifests/latest',
  ])
    t.equal((await mirror.get(`/v2/${path}`, { accept })).status, 200);
  t.equal((await mirror.get('/v2/docker.io/library/app/manifests/nothing', { accept })).status, 404);
  const all: { image: string }[] = [];
  let pages = 0;
  for (let after: string | undefined = ''; after !== undefined; pages++) {
    const page: Page = (await get(`/api/images?n=1&after=${encodeURIComponent(after)}`)).json();
    t.ok(page.images.length <= 1);
    all.push(...page.images);
    after = page.next;
  }
  t.same(
    all.map(({ image }) => image),
    ['docker.io/library/app:1', 'docker.io/library/app:10', 'docker.io/library/app:2', 'quay.io/team/tool:latest'],
    'in the order of names, and "no such tag" is none',
  );
  t.equal(pages, 5, 'it has a page of its own all the same');
  t.same((await get('/api/images')).json(), { images: all }, 'without a next, that is all');
  t.same((await get('/api/images?after=zzz')).json(), { images: [] });
  await registry.close();
  t.same((await get('/api/images?n=4&after=docker.io/library/app:10')).json(), { images: all.slice(2) });
});

void t.test('68. under a name that someone else could point here, nothing is told and nothing is done', async (t) => {
  const { admin, get } = await prepare(t);
  const dispatcher = new Agent();
  t.teardown(() => dispatcher.destroy());
  const ask = (host: string, method: 'GET' | 'POST' = 'GET', headers: Record<string, string> = {}) =>
    fetchAnswer(`http://127.0.0.1:${admin.port}/api/${method === 'GET' ? 'live' : 'log'}`, {
      method,
      dispatcher,
      headers: { host, ...headers },
      ...(method === 'POST' && { body: '{"level":"debug"}' }),
    });
  const json = { 'content-type': 'application/json' };
  for (const host of ['127.0.0.1:5001', 'localhost:5001', '[::1]:5001', 'narrows.example', 'NARROWS.example.:443']) {
    t.equal((await ask(host)).status, 200, host);
    t.equal((await ask(host, 'POST', { ...json, origin: `https://${host}` })).status, 202, `${host}, behind TLS`);
  }
  for (const host of ['evil.example:5001', 'narrows.example.evil', 'localhost.evil', '']) {
    t.equal((await ask(host)).status, 403, host);
    t.equal((await ask(host, 'POST', { ...json, origin: `http://${host}` })).status, 403, host);
  }
  for (const path of ['//x/api/live', '/./api/live', '/%2e/api/live', '/x/../api/live', '//evil.example/api/images']) {
    const url = `http://127.0.0.1:${admin.port}${path}`;
    t.equal(
      (await fetchAnswer(url, { method: 'GET', dispatcher, headers: { host: 'evil.example' } })).status,
      404,
      path,
    );
  }
  t.equal((await get('/healthz')).status, 200);
});
