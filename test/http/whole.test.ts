import { once } from 'node:events';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { cutShort, endWith, isOut, wholeBody } from '../../src/http/whole.ts';
import { noise } from '../fixtures/images.ts';

/** Asks, and gives the answer's maker and the connection; all that came is in `received`. */
async function ask(t: Test, method: string): Promise<{ response: ServerResponse; socket: Socket; received(): Buffer }> {
  const asked = Promise.withResolvers<ServerResponse>();
  const server = createServer((_, response) => asked.resolve(response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.on('error', () => undefined);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.write(`${method} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  return { response: await asked.promise, socket, received: () => Buffer.concat(chunks) };
}

for (const [what, body] of [
  ['no body', Buffer.alloc(0)],
  ['every byte there is', Buffer.from(Array.from({ length: 256 }, (_, at) => at))],
  ['as much as goes out as text', noise('text', 16 * 1024)],
  ['a byte more', noise('more', 16 * 1024 + 1)],
] as const) {
  void t.test(`${what}: the same bytes arrive`, async (t) => {
    const { response, socket, received } = await ask(t, 'GET');
    response.writeHead(200, { 'content-length': body.length });
    endWith(response, wholeBody(body), 60_000);
    await once(socket, 'close');
    t.equal(cutShort(response), undefined);
    const all = received();
    t.same(all.subarray(all.indexOf('\r\n\r\n') + 4), body);
  });
}

void t.test('HEAD: the head alone', async (t) => {
  const { response, socket, received } = await ask(t, 'HEAD');
  response.writeHead(200, { 'content-length': 4 });
  endWith(response, wholeBody(Buffer.from('body')), 60_000);
  t.ok(isOut(response));
  await once(socket, 'close');
  t.match(received().toString(), /content-length: 4/i);
  t.notMatch(received().toString(), /body/);
});

void t.test('a client that takes nothing is cut off, and not before its time', async (t) => {
  const { response, socket } = await ask(t, 'GET');
  socket.pause();
  const body = noise('much', 64 * 1024 * 1024);
  const started = performance.now();
  response.writeHead(200, { 'content-length': body.length });
  endWith(response, body, 50);
  t.notOk(isOut(response));
  await once(response, 'close');
  t.notOk(response.writableFinished);
  t.match(cutShort(response), { message: 'the client takes nothing' });
  t.ok(performance.now() - started >= 49);
});

void t.test('a client that leaves is told of as such', async (t) => {
  const { response, socket } = await ask(t, 'GET');
  socket.pause();
  response.writeHead(200);
  endWith(response, noise('left', 64 * 1024 * 1024), 60_000);
  socket.resetAndDestroy();
  await once(response, 'close');
  t.ok(cutShort(response) instanceof Error);
});

void t.test('a client that leaves before there is an answer was cut short of nothing', async (t) => {
  const { response, socket } = await ask(t, 'GET');
  socket.resetAndDestroy();
  await once(response, 'close');
  t.equal(cutShort(response), undefined);
});
