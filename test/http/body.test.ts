import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import t from 'tap';
import { bodyOf, drain } from '../../src/http/body.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';

type Handle = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/** A server that does one thing, and what it failed with. */
async function serve(t: Teardown, handle: Handle): Promise<{ port: number; failures: unknown[] }> {
  const failures: unknown[] = [];
  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      failures.push(error);
      response.destroy();
    });
  });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, failures };
}

interface Client {
  readonly socket: Socket;
  said(): string;
  readonly closed: Promise<string>;
}

async function open(t: Teardown, port: number): Promise<Client> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  let said = '';
  socket.on('data', (chunk) => (said += chunk.toString()));
  socket.on('error', () => undefined);
  const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(said)));
  await once(socket, 'connect');
  return { socket, said: () => said, closed };
}

const head = (length: number) => `PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\n`;

async function collect(body: AsyncIterable<Buffer>, into: Buffer[] = []): Promise<Buffer> {
  for await (const chunk of body) into.push(chunk);
  return Buffer.concat(into);
}

void t.test('a body: its bytes in order, however they come', async (t) => {
  const bytes = noise('body', 300_000);
  const { port } = await serve(t, async (request, response) => {
    const got = await collect(bodyOf(request, 10_000));
    response.end(String(got.equals(bytes)));
  });
  const lengths: [string, Buffer[]][] = [
    [head(bytes.length), [bytes]],
    [head(bytes.length), [bytes.subarray(0, 1), bytes.subarray(1, 70_000), bytes.subarray(70_000)]],
  ];
  for (const [start, parts] of lengths) {
    const { socket, said } = await open(t, port);
    socket.write(start);
    for (const part of parts) socket.write(part);
    await until(() => said().endsWith('true'), 'the answer');
  }
  const { socket, said } = await open(t, port);
  socket.write('PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n');
  for (let at = 0; at < bytes.length; at += 50_000) {
    const chunk = bytes.subarray(at, at + 50_000);
    socket.write(`${chunk.length.toString(16)}\r\n`);
    socket.write(chunk);
    socket.write('\r\n');
  }
  socket.write('0\r\n\r\n');
  await until(() => said().includes('true'), 'the answer');
  t.pass('all came');
});

void t.test('a body that breaks off: what came before, then uploadInvalid', async (t) => {
  for (const isChunked of [false, true]) {
    const got: Buffer[] = [];
    const { port, failures } = await serve(t, async (request) => void (await collect(bodyOf(request, 10_000), got)));
    const { socket } = await open(t, port);
    socket.write(
      isChunked ? 'PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhello' : `${head(100)}hello`,
    );
    await until(() => got.length > 0, 'the first bytes');
    socket.destroy();
    await until(() => failures.length > 0, 'the failure');
    t.match(failures[0], { kind: 'uploadInvalid' });
    t.equal(Buffer.concat(got).toString(), 'hello');
  }
});

void t.test('a client that sends nothing more is left', async (t) => {
  const got: Buffer[] = [];
  const { port, failures } = await serve(t, async (request) => void (await collect(bodyOf(request, 50), got)));
  const { socket, closed } = await open(t, port);
  socket.write(`${head(100)}hello`);
  await closed;
  await until(() => failures.length > 0, 'the failure');
  t.match(failures[0], { kind: 'uploadInvalid' });
  t.equal(Buffer.concat(got).toString(), 'hello');
});

void t.test('who stops reading may answer on the same connection', async (t) => {
  const { port, failures } = await serve(t, async (request, response) => {
    for await (const chunk of bodyOf(request, 10_000)) {
      if (chunk.length > 0) break;
    }
    await drain(request, response);
    response.writeHead(413, { 'content-length': 2 });
    response.end('no');
  });
  const { socket, closed } = await open(t, port);
  socket.write(head(2_000_000));
  socket.write(Buffer.alloc(2_000_000));
  const answer = await closed;
  t.match(answer, /^HTTP\/1\.1 413 /);
  t.match(answer, /connection: close/i, 'what follows must not be taken for a request');
  t.match(answer, /no$/);
  t.same(failures, []);
});

void t.test('drain: nothing to do where all has come', async (t) => {
  const { port } = await serve(t, async (request, response) => {
    await collect(bodyOf(request, 10_000));
    await drain(request, response);
    response.end('fine');
  });
  const { socket, said } = await open(t, port);
  for (let round = 1; round <= 2; round++) {
    socket.write(`${head(5)}hello`);
    await until(() => said().split('fine').length === round + 1, 'the answer');
  }
  t.notMatch(said(), /connection: close/i, 'and the connection is used again');
});

void t.test('drain: one that has much more to say is cut off, one that left is not waited for', async (t) => {
  let drained = 0;
  const { port } = await serve(t, async (request, response) => {
    await drain(request, response);
    drained++;
    response.writeHead(403, { 'content-length': 0 });
    response.end();
  });
  const endless = await open(t, port);
  endless.socket.write(head(1_000_000_000));
  const piece = Buffer.alloc(256 * 1024);
  let sent = 0;
  const send = () => {
    while (!endless.socket.destroyed && endless.socket.write(piece)) sent += piece.length;
  };
  endless.socket.on('drain', send);
  send();
  await endless.closed;
  t.ok(sent < 1_000_000_000);
  const leaving = await open(t, port);
  leaving.socket.write(`${head(100)}hello`);
  await until(() => drained === 1, 'the first');
  leaving.socket.destroy();
  await until(() => drained === 2, 'the end of it');
});
