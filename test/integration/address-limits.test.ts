import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import t from 'tap';
import { startTestMirror } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const blob = blobOf(Buffer.from('content'));

void t.test('42. an address with too many connections gets no further ones, until one ends', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('a/b', blob);
  const limits = { connectionsPerAddress: 3 };
  const mirror = await startTestMirror(t, { upstreams: { up: registry.url }, config: { limits } });
  const port = Number(new URL(mirror.url).port);
  const sockets: Socket[] = [];
  const open = async () => {
    const socket = connect(port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    socket.on('error', () => undefined);
    socket.write('GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n');
    const answered = await Promise.race([
      once(socket, 'data').then(() => true),
      once(socket, 'close').then(() => false),
    ]);
    if (answered) sockets.push(socket);
    return answered;
  };
  t.same([await open(), await open(), await open(), await open()], [true, true, true, false]);
  const [first] = sockets;
  first!.end();
  await once(first!, 'close');
  t.ok(await open());
});

void t.test('42. an address that asks too often is told so, and others of it are not lost', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('a/b', blob);
  let nowMs = Date.now();
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: { limits: { requestsPerAddress: 10 } },
    now: () => nowMs,
  });
  const path = `/v2/up/a/b/blobs/${blob.digest}`;
  const statuses = await Promise.all(Array.from({ length: 50 }, async () => (await mirror.get(path)).status));
  t.same(
    [200, 429].map((status) => statuses.filter((one) => one === status).length),
    [20, 30],
  );
  const refused = await mirror.get(path);
  t.match(refused.json(), { errors: [{ code: 'TOOMANYREQUESTS', message: /requestsPerAddress/ }] });
  t.equal(refused.headers['retry-after'], '1');
  nowMs += 1000;
  t.same((await mirror.get(path)).body, blob.bytes);
});
