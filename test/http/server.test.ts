import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generate } from 'selfsigned';
import t from 'tap';
import { Agent } from 'undici';
import { download } from '../fixtures/downloads.ts';
import { fetchAnswer, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

function open(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket));
    socket.once('error', reject);
  });
}

function closed(socket: Socket): Promise<string> {
  let got = '';
  socket.on('data', (chunk) => (got += chunk.toString()));
  socket.on('error', () => undefined);
  return new Promise((resolve) => socket.once('close', () => resolve(got)));
}

void t.test('42. headers that are too many or too slow end the connection', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, {
    upstreams: { x: upstream.url },
    config: { limits: { headerSize: '8KiB' } },
  });
  const port = Number(new URL(mirror.url).port);
  const large = await open(port);
  large.write(`GET /v2/ HTTP/1.1\r\nhost: x\r\nx-padding: ${'x'.repeat(10_000)}\r\n\r\n`);
  t.match(await closed(large), /^HTTP\/1\.1 4\d\d /);
  t.equal((await mirror.get('/v2/')).status, 200, 'others are served');
});

void t.test('an idle connection is kept for longer than clients keep theirs', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, { upstreams: { x: upstream.url } });
  t.match((await mirror.get('/v2/')).headers, { 'keep-alive': 'timeout=75' });
});

void t.test('several listeners, each with its own upstream, one of them with TLS', async (t) => {
  const [one, two] = [await startRegistry(), await startRegistry()];
  t.teardown(one.close);
  t.teardown(two.close);
  const blob = blobOf(Buffer.from('content of two'));
  two.put('team/x', blob);
  const folder = await temporaryFolder(t);
  const pems = await generate([{ name: 'commonName', value: 'localhost' }]);
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  await writeFile(cert, pems.cert);
  await writeFile(key, pems.private);
  const mirror = await startTestMirror(t, {
    upstreams: { one: one.url, two: two.url },
    config: { listen: [{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0', upstream: 'two', tls: { cert, key } }] },
  });
  const dispatcher = new Agent({ connect: { ca: pems.cert, servername: 'localhost' } });
  t.teardown(() => dispatcher.destroy());
  const path = `/v2/team/x/blobs/${blob.digest}`;
  const secure = await fetchAnswer(mirror.urls[1]!.replace('http:', 'https:') + path, { method: 'GET', dispatcher });
  t.same(secure.body, blob.bytes);
  t.equal((await mirror.get(path)).status, 404, 'the first listener asks the default upstream');
});

void t.test('one line in the log for each request, with what was decided and no header of the client', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, { upstreams: { x: upstream.url } });
  await mirror.get('/p/linux-arm64/v2/x/y/manifests/1', { authorization: 'Basic canary' });
  const lines = mirror.log.filter((line) => line.includes('"msg":"request"'));
  t.equal(lines.length, 1);
  t.match(JSON.parse(lines[0]!), {
    status: 404,
    method: 'GET',
    url: '/p/linux-arm64/v2/x/y/manifests/1',
    client: '127.0.0.1',
    id: /^[0-9a-f-]{36}$/,
  });
  t.notMatch(mirror.log.join(''), /canary/);
});

void t.test('what nobody foresaw: 500 without its text, and the reason in the log', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, {
    upstreams: { x: { url: upstream.url, credentials: { username: 'me', passwordFile: '/nowhere/secret' } } },
  });
  upstream.script = (_seen, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' });
    response.end();
    return true;
  };
  const answer = await download(`${mirror.url}/v2/x/y/manifests/1`);
  t.ok(answer.status >= 500);
  t.notMatch(answer.body.toString(), /nowhere/);
  t.match(mirror.log.join(''), /nowhere\/secret/);
});
