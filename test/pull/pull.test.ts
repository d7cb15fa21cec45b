import { connect } from 'node:net';
import t from 'tap';
import { Agent } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { filesOf } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, fetchAnswer, startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });

async function stage(t: Teardown) {
  const hub = await startRegistry();
  const lab = await startRegistry();
  t.teardown(hub.close);
  t.teardown(lab.close);
  hub.putImage('library/hello', '1', image);
  lab.putImage('team/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': hub.url, 'lab.example': lab.url } });
  return { hub, lab, mirror };
}

void t.test(
  '25. bad input: the specification’s code, one sentence, nothing asked upstream, nothing stored',
  async (t) => {
    const { hub, lab, mirror } = await stage(t);
    const hex = 'a'.repeat(64);
    const cases: [path: string, status: number, code: string][] = [
      ['/v2/Library/hello/manifests/1', 400, 'NAME_INVALID'],
      ['/v2/library//hello/manifests/1', 400, 'NAME_INVALID'],
      ['/v2/library/../hello/manifests/1', 400, 'NAME_INVALID'],
      ['/v2/library%2Fhello/manifests/1', 400, 'NAME_INVALID'],
      ['/v2/library/%2e%2e/hello/manifests/1', 400, 'NAME_INVALID'],
      [`/v2/${'a/'.repeat(200)}b/manifests/1`, 400, 'NAME_INVALID'],
      [`/v2/x/manifests/${'1'.repeat(5000)}`, 400, 'NAME_INVALID'],
      ['/v2/library/hello/manifests/.hidden', 404, 'MANIFEST_UNKNOWN'],
      [`/v2/library/hello/manifests/${'1'.repeat(129)}`, 404, 'MANIFEST_UNKNOWN'],
      [`/v2/library/hello/manifests/sha256:${hex}a`, 400, 'DIGEST_INVALID'],
      [`/v2/library/hello/manifests/sha256:${hex.toUpperCase()}`, 400, 'DIGEST_INVALID'],
      ['/v2/library/hello/manifests/sha256:..', 400, 'DIGEST_INVALID'],
      [`/v2/library/hello/blobs/md5:${'a'.repeat(32)}`, 400, 'DIGEST_INVALID'],
      [`/v2/library/hello/blobs/${hex}`, 400, 'DIGEST_INVALID'],
      [`/v2/library/hello/referrers/sha512:${hex}`, 400, 'DIGEST_INVALID'],
      ['/v2/library/hello/tags/list?n=-1', 400, 'UNSUPPORTED'],
      ['/v2/library/hello/tags/list?n=abc', 400, 'UNSUPPORTED'],
      ['/v2/_catalog?n=1e9', 400, 'UNSUPPORTED'],
      ['/v2/library/hello/manifests/1?ns=a&ns=b', 400, 'NAME_INVALID'],
      ['/v2/library/hello/manifests/1?ns=evil.example', 404, 'NAME_UNKNOWN'],
      ['/v2/library/hello/manifests/1?ns=127.0.0.1', 404, 'NAME_UNKNOWN'],
      ['/v2/library/hello/manifests/1?ns=user@docker.io', 404, 'NAME_UNKNOWN'],
      ['/v2/evil.example/library/hello/manifests/1', 404, 'NAME_UNKNOWN'],
      ['/p/linux_arm64/v2/library/hello/manifests/1', 404, 'NAME_UNKNOWN'],
      ['/v2/p/linux/docker.io/library/hello/manifests/1', 404, 'NAME_UNKNOWN'],
      ['/', 404, 'NAME_UNKNOWN'],
      ['/v1/_ping', 404, 'NAME_UNKNOWN'],
      ['/v2/library/hello', 404, 'NAME_UNKNOWN'],
      ['/v2/library/hello/manifests/', 404, 'NAME_UNKNOWN'],
      ['/v2/manifests/1', 404, 'NAME_UNKNOWN'],
    ];
    for (const [path, status, code] of cases) {
      const answer = await mirror.get(path, { accept });
      const [error] = answer.json<{ errors: { code: string; message: string }[] }>().errors;
      t.equal(answer.status, status, path.slice(0, 80));
      t.match(answer.headers, { 'content-type': 'application/json' });
      t.equal(error!.code, code, path.slice(0, 80));
      t.match(error!.message, /^[^\n]{15,400}\.$/);
      t.equal((await mirror.head(path, { accept })).status, status);
    }
    const header = await mirror.get('/v2/library/hello/manifests/1', { accept, 'narrows-platform': 'arm64 please' });
    t.match(header, { status: 400 });
    t.equal(hub.seen.length + lab.seen.length, 0);
    t.same(await filesOf(mirror.store), { blobs: [], unfinished: [] });
  },
);

void t.test('65. a method that writes: 405 with what is possible', async (t) => {
  const { mirror } = await stage(t);
  const paths = [
    '/v2/library/hello/manifests/1',
    '/v2/library/hello/blobs/uploads/',
    `/v2/library/hello/blobs/${image.index.digest}`,
  ];
  const agent = new Agent();
  t.teardown(() => agent.destroy());
  for (const method of ['PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS'] as const) {
    for (const path of paths) {
      const answer = await fetchAnswer(mirror.url + path, { method, dispatcher: agent });
      t.match(answer, { status: 405, headers: { allow: /^[A-Z, ]+$/ } }, `${method} ${path}`);
      t.match(answer.json(), { errors: [{ code: 'UNSUPPORTED' }] });
    }
  }
});

void t.test('37. what is not HTTP: 400 and a closed connection', async (t) => {
  const { mirror } = await stage(t);
  const raw = (text: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1', () => socket.write(text));
      let got = '';
      socket.on('data', (chunk) => (got += chunk.toString()));
      socket.on('close', () => resolve(got));
      socket.on('error', reject);
    });
  for (const text of [
    'hello\r\n\r\n',
    'GET /v2/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
    'GET /v2/ HTTP/1.1\r\n\r\n',
  ]) {
    t.match(await raw(text), /^HTTP\/1\.1 400 /, JSON.stringify(text));
  }
});

void t.test('61, 62. where a reference leads: first component, ns, default', async (t) => {
  const { hub, lab, mirror } = await stage(t);
  const cases: [path: string, upstream: typeof hub, namespace: string | undefined][] = [
    ['/v2/lab.example/team/hello/manifests/1', lab, undefined],
    ['/v2/team/hello/manifests/1?ns=lab.example', lab, 'lab.example'],
    ['/v2/library/hello/manifests/1', hub, undefined],
    ['/v2/hello/manifests/1', hub, undefined],
    ['/v2/docker.io/hello/manifests/1', hub, undefined],
    ['/v2/library/hello/manifests/1?ns=docker.io', hub, 'docker.io'],
    ['/v2/library/hello/manifests/1?ns=registry-1.docker.io', hub, 'registry-1.docker.io'],
    ['/v2/library/hello/manifests/1?ns=index.docker.io', hub, 'index.docker.io'],
    ['/p/any/v2/lab.example/team/hello/manifests/1', lab, undefined],
    ['/v2/p/any/lab.example/team/hello/manifests/1', lab, undefined],
  ];
  for (const [path, upstream, namespace] of cases) {
    hub.forget();
    lab.forget();
    const answer = await mirror.get(path, { accept });
    t.equal(answer.status, 200, path);
    t.equal(answer.headers['oci-namespace'], namespace);
    t.equal((upstream === hub ? lab : hub).seen.length, 0, path);
  }
});

void t.test('the ping: 200 at both places of a set, without asking anyone', async (t) => {
  const { hub, mirror } = await stage(t);
  for (const path of ['/v2/', '/v2', '/p/linux-arm64/v2/', '/v2/p/linux-arm64/']) {
    t.match(
      await mirror.get(path),
      { status: 200, headers: { 'docker-distribution-api-version': 'registry/2.0' } },
      path,
    );
  }
  t.equal(hub.seen.length, 0);
});

void t.test('22. HEAD and GET agree in every header', async (t) => {
  const { mirror } = await stage(t);
  const base = '/v2/docker.io/library/hello';
  const layer = image.children[0]!.layers[0]!.digest;
  const paths = [
    `${base}/manifests/1`,
    `${base}/manifests/${image.index.digest}`,
    `/p/linux-arm64${base}/manifests/1`,
    `${base}/blobs/${layer}`,
    `${base}/tags/list`,
    '/v2/',
  ];
  const changing = new Set(['date', 'x-request-id', 'narrows-cache', 'connection', 'keep-alive']);
  const stable = (headers: Record<string, string>) =>
    Object.fromEntries(Object.entries(headers).filter(([name]) => !changing.has(name)));
  for (const path of paths) {
    await mirror.get(path, { accept });
    const [head, got] = [await mirror.head(path, { accept }), await mirror.get(path, { accept })];
    t.same(stable(head.headers), stable(got.headers), path);
    t.equal(head.body.length, 0);
    t.equal(Number(got.headers['content-length']), got.body.length);
  }
});

void t.test('the health of the mirror is told apart from the clients’ listener', async (t) => {
  const { mirror } = await stage(t);
  t.equal((await mirror.get(`${mirror.adminUrl}/healthz`)).status, 200);
  t.equal((await mirror.get(`${mirror.adminUrl}/readyz`)).status, 200);
  t.equal((await mirror.get(`${mirror.adminUrl}/nothing`)).status, 404);
  t.match((await mirror.get(`${mirror.adminUrl}/metrics`)).body.toString(), /narrows_requests_total/);
  t.equal((await mirror.get('/healthz')).status, 404);
});

void t.test('26. sha512: served, verified and refused like sha256', async (t) => {
  const { hub, mirror } = await stage(t);
  const bytes = Buffer.from('some bytes');
  const digest = digestOf(bytes, 'sha512');
  hub.put('library/hello', { bytes, digest, mediaType: 'application/octet-stream' });
  t.same((await mirror.get(`/v2/docker.io/library/hello/blobs/${digest}`)).body, bytes);
});
