import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import type { Answering } from '../../src/http/answer.ts';
import { createConnections } from '../../src/http/connections.ts';
import type { DrainState } from '../../src/http/connections.ts';
import { until } from '../fixtures/downloads.ts';

const question = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';

async function serve(t: Test, answering: Partial<Answering>) {
  const state: DrainState = { isDraining: false, closesIdle: false, closeIdle: () => server.closeIdleConnections() };
  const connections = createConnections(
    { again: () => undefined, againRaw: () => false, learn: () => undefined, anew: () => undefined, ...answering },
    0,
    state,
  );
  const server = createServer(connections.handle);
  const sockets: Socket[] = [];
  server.on('connection', (socket) => {
    sockets.push(socket);
    connections.putFront(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.closeAllConnections());
  t.teardown(() => server.close());
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.teardown(() => client.destroy());
  client.on('error', () => undefined);
  const seen = { text: '', isClosed: false };
  client.on('data', (chunk: Buffer) => (seen.text += chunk.toString('latin1')));
  client.on('close', () => (seen.isClosed = true));
  return { state, connections, sockets, client, seen };
}

void t.test('connections: whoever asks far ahead of the answers is cut off', async (t) => {
  let asked = 0;
  const { client, seen } = await serve(t, { anew: () => asked++ });
  client.write(question.repeat(64));
  await until(() => asked === 64, 'as many as may wait');
  t.notOk(seen.isClosed);
  client.write(question);
  await until(() => seen.isClosed, 'the end');
  t.equal(asked, 64);
});

void t.test('connections: an answer that has begun is known of until its end', async (t) => {
  const { promise, resolve } = Promise.withResolvers<() => void>();
  const { client, connections, sockets, seen } = await serve(t, {
    anew(_request, response) {
      response.writeHead(200, { 'content-length': 2 });
      response.write('a');
      resolve(() => response.end('b'));
    },
  });
  client.write(question);
  const end = await promise;
  t.ok(connections.hasBegun(sockets[0]!));
  end();
  await until(() => seen.text.endsWith('ab') && !connections.hasBegun(sockets[0]!), 'its end');
  t.pass();
});

void t.test(
  'connections: at the end, answers say that they are the last, and nothing is answered in front',
  async (t) => {
    const raw: string[] = [];
    const { client, state, seen } = await serve(t, {
      anew: (_request, response) => void response.end('x'),
      againRaw(text) {
        raw.push(text);
        return false;
      },
    });
    const answers = () => seen.text.split('HTTP/1.1 200').length - 1;
    for (let time = 1; time <= 2; time++) {
      client.write(question);
      await until(() => answers() === time, 'an answer');
    }
    t.same(raw, [question]);
    t.notMatch(seen.text, /connection: close/i);
    state.isDraining = true;
    client.write(question);
    await until(() => seen.isClosed, 'the end');
    t.equal(answers(), 3);
    t.match(seen.text, /connection: close/i);
    t.same(raw, [question]);
  },
);

void t.test('connections: one that was busy when idle ones were closed is closed then', async (t) => {
  const { promise, resolve } = Promise.withResolvers<() => void>();
  const { client, state, seen } = await serve(t, {
    anew(_request, response) {
      // Its head is out before anyone thinks of the end.
      response.writeHead(200, { 'content-length': 1 });
      response.flushHeaders();
      resolve(() => response.end('x'));
    },
  });
  client.write(question);
  const end = await promise;
  state.isDraining = true;
  state.closesIdle = true;
  end();
  await until(() => seen.isClosed, 'the end');
  t.match(seen.text, /x$/);
});
