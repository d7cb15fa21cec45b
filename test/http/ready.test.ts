import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { createReady } from '../../src/http/ready.ts';
import { until } from '../fixtures/downloads.ts';

const id = '0b7a7cde-3f0e-4a37-9c1f-0123456789ab';
const answer = {
  status: 200,
  head: ['content-type', 'text/plain', 'etag', '"x"', 'content-length', '4'],
  body: 'four',
};

async function listen(t: Test, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** What comes, with one and the same date. */
async function receive(t: Test, port: number, question: string): Promise<string> {
  const client = connect(port, '127.0.0.1', () => client.write(question));
  t.teardown(() => client.destroy());
  let text = '';
  client.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await until(() => text.includes('\r\n\r\n'), 'an answer');
  return text.replace(/Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT/, 'Date: then');
}

void t.test('ready: to the letter what node:http says on a connection that stays open', async (t) => {
  for (const method of ['GET', 'HEAD']) {
    for (const status of [200, 404]) {
      const plain = createServer({ keepAliveTimeout: 75_500 }, (_request, response) => {
        response.writeHead(status, [...answer.head, 'x-request-id', id]);
        response.end(method === 'HEAD' ? undefined : answer.body, 'latin1');
      });
      const ready = createReady({ ...answer, status }, method === 'HEAD', 75_500);
      const ours = createTcpServer((socket) => socket.on('data', () => ready.writeTo(socket, id)));
      const question = `${method} / HTTP/1.1\r\nhost: x\r\n\r\n`;
      const [expected, found] = [
        await receive(t, await listen(t, plain), question),
        await receive(t, await listen(t, ours), question),
      ];
      t.equal(found, expected, `${method}, ${status}`);
      t.match(found, 'Date: then');
    }
  }
});

void t.test('ready: each has its own id, also where the kernel takes no more', async (t) => {
  const body = 'x'.repeat(16_000);
  const ready = createReady({ ...answer, body }, false, 1000);
  const { promise, resolve } = Promise.withResolvers<Socket>();
  const client = connect(await listen(t, createTcpServer(resolve)), '127.0.0.1');
  t.teardown(() => client.destroy());
  client.pause();
  const socket = await promise;
  t.teardown(() => socket.destroy());
  const ids: string[] = [];
  for (let behind = 0; behind < 10;) {
    const next = id.slice(0, -5) + String(ids.length).padStart(5, '0');
    ids.push(next);
    ready.writeTo(socket, next);
    if (socket.writableLength > 0) behind++;
  }
  let text = '';
  client.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  client.resume();
  await until(() => text.length === ids.length * ready.bytes, 'all of them');
  t.same(
    [...text.matchAll(/x-request-id: (\S+)/g)].map(([, found]) => found),
    ids,
  );
});
