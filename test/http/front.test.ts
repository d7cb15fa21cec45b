import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import type { Test } from 'tap';
import { createFront } from '../../src/http/front.ts';
import type { Front } from '../../src/http/front.ts';
import { until } from '../fixtures/downloads.ts';

const head = (method: string, path: string, ...fields: string[]) =>
  `${[`${method} ${path} HTTP/1.1`, 'host: x', ...fields].join('\r\n')}\r\n\r\n`;
const known = head('GET', '/known');
const last = head('GET', '/last', 'connection: close');

const answerTo = (url: string, body: string) => `${url} ${body}`;
/** What was asked, wherever it was answered. */
const askedOf = ({ seen }: Served) => seen.map((line) => line.replace(/^\w+ /, ''));

interface Served {
  /** What it was told by each connection's questions, and by those that were answered in front. */
  readonly seen: string[];
  readonly sockets: Socket[];
  readonly requests: WeakRef<IncomingMessage>[];
  readonly port: number;
}

/** Tells what it was asked; in front, whatever has been asked alone before is answered. */
async function serve(t: Test, hasFront: boolean): Promise<Served> {
  const seen: string[] = [];
  const sockets: Socket[] = [];
  const requests: WeakRef<IncomingMessage>[] = [];
  const fronts = new WeakMap<Socket, Front>();
  const answers = new Map<string, string>();
  const underWay = new WeakMap<Socket, number>();
  const server: Server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const { socket, url = '' } = request;
    underWay.set(socket, (underWay.get(socket) ?? 0) + 1);
    response.once('close', () => underWay.set(socket, underWay.get(socket)! - 1));
    requests.push(new WeakRef(request));
    fronts.get(socket)?.read({ request, repeat: undefined, isKeptOpen: response.shouldKeepAlive });
    let body = '';
    const respond = () => {
      seen.push(`parsed ${url} ${body}`);
      response.sendDate = false;
      const answer = answerTo(url, body);
      response.setHeader('content-length', answer.length);
      response.end(request.method === 'HEAD' ? undefined : answer);
    };
    if (url === '/early') return respond();
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', respond);
  });
  server.on('connection', (socket) => {
    sockets.push(socket);
    if (!hasFront) return;
    const front = createFront(socket, {
      again(text) {
        const answer = answers.get(text);
        if (answer === undefined || underWay.get(socket)) return false;
        seen.push(`again ${answer}`);
        const fields = [`content-length: ${answer.length}`, 'Connection: keep-alive', 'Keep-Alive: timeout=5'];
        socket.write(`HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\n\r\n${text.startsWith('HEAD') ? '' : answer}`);
        return true;
      },
      onAlone(text, { request, isKeptOpen }) {
        if (!isKeptOpen) return;
        answers.set(text, answerTo(request.url ?? '', text.slice(text.indexOf('\r\n\r\n') + 4)));
      },
    });
    if (front) fronts.set(socket, front);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.closeAllConnections());
  t.teardown(() => server.close());
  return { seen, sockets, requests, port: (server.address() as AddressInfo).port };
}

interface Sent {
  answer: string;
  isOver: boolean;
}

/** Sends pieces one after the other, each when the server has read the one before. */
async function send(t: Test, served: Served, pieces: readonly string[]): Promise<Sent> {
  const at = served.sockets.length;
  const client = connect(served.port, '127.0.0.1');
  t.teardown(() => client.destroy());
  const seen: Sent = { answer: '', isOver: false };
  client.on('data', (chunk: Buffer) => (seen.answer += chunk.toString('latin1')));
  client.on('close', () => (seen.isOver = true));
  await until(() => served.sockets.length > at, 'the connection');
  const socket = served.sockets[at]!;
  let sent = 0;
  for (const piece of pieces) {
    client.write(piece, 'latin1');
    sent += piece.length;
    await until(() => socket.bytesRead === sent || socket.destroyed, 'the piece');
  }
  return seen;
}

void t.test('front: a question that came before is answered from its second time on a connection on', async (t) => {
  const served = await serve(t, true);
  await send(t, served, [known, known, known]);
  t.same(served.seen, ['parsed /known ', 'again /known ', 'again /known ']);
  await send(t, served, [known, known]);
  t.same(served.seen.slice(3), ['parsed /known ', 'again /known '], 'node:http has the first one of each connection');
  await send(t, served, [head('GET', '/other'), known]);
  t.same(served.seen.slice(5), ['parsed /other ', 'again /known '], 'whichever that is');
});

void t.test('front: what only looks like a question is none', async (t) => {
  const post = head('POST', '/upload', `content-length: ${known.length}`);
  const early = head('POST', '/early', `content-length: ${known.length}`);
  const chunked = head('POST', '/upload', 'transfer-encoding: chunked');
  const cases: [string, string[], string[]][] = [
    ['the body of another', [post, known], [`parsed /upload ${known}`]],
    ['the body of one that has its answer', [early, known, known], ['parsed /early ', 'parsed /known ']],
    ['the body of a GET', [post.replace('POST', 'GET'), known], [`parsed /upload ${known}`]],
    ['a chunk', [chunked, `${known.length.toString(16)}\r\n`, known, '\r\n0\r\n\r\n'], [`parsed /upload ${known}`]],
    ['behind half a head', ['GET /half HTTP/1.1\r\nhost: x\r\nx: ', known], ['parsed /half ']],
    [
      'behind two at once',
      [head('GET', '/a') + head('GET', '/b'), known],
      ['parsed /a ', 'parsed /b ', 'parsed /known '],
    ],
    [
      'behind one and a half',
      [`${head('GET', '/a')}GET /b HTTP/1.1\r\nhost: x\r\nx: `, known],
      ['parsed /a ', 'parsed /b '],
    ],
    ['in two pieces', [known.slice(0, 20), known.slice(20), known], ['parsed /known ', 'parsed /known ']],
    [
      'with the beginning of the next',
      [known, `${known}GE`, 'T /c HTTP/1.1\r\nhost: x\r\n\r\n'],
      ['parsed /known ', 'parsed /known ', 'parsed /c '],
    ],
    [
      'long',
      [known, head('GET', '/long', `x: ${'x'.repeat(5000)}`), known],
      ['parsed /known ', 'parsed /long ', 'parsed /known '],
    ],
  ];
  for (const [name, pieces, expected] of cases) {
    const served = await serve(t, true);
    // It is known there from another connection.
    await send(t, served, [known]);
    await send(t, served, pieces);
    await until(() => served.seen.length > expected.length, name);
    t.same(served.seen.slice(1), expected, name);
  }
});

void t.test('front: however questions are cut to pieces, the answers are those of node:http', async (t) => {
  let seed = 20261128;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  const one = (): string => {
    const path = `/${random(3)}`;
    if (random(4) > 0) return head(random(5) > 0 ? 'GET' : 'HEAD', path);
    return head('PUT', path, `content-length: ${known.length}`) + known;
  };
  const pieces = (text: string): string[] => {
    if (random(3) > 0 || text.length < 2) return [text];
    const at = 1 + random(text.length - 1);
    return [text.slice(0, at), ...pieces(text.slice(at))];
  };
  const [front, bare] = [await serve(t, true), await serve(t, false)];
  for (let round = 0; round < 60; round++) {
    // Mostly one question for each piece: those are the ones that may be answered in front.
    const asked = Array.from({ length: 1 + random(6) }, () => (random(5) > 0 ? [one()] : pieces(one() + one())));
    const [ours, plain] = [await send(t, front, [...asked.flat(), last]), await send(t, bare, [...asked.flat(), last])];
    await until(() => ours.isOver && plain.isOver, `the end of round ${round}`);
    t.equal(ours.answer, plain.answer, `round ${round}`);
  }
  t.same(askedOf(front), askedOf(bare));
  const again = front.seen.filter((line) => line.startsWith('again')).length;
  t.ok(again > 30, `${again} of ${front.seen.length} in front`);
});

void t.test('front: what node:http refuses by itself is refused as often as it comes', async (t) => {
  const expecting = head('GET', '/a', 'expect: foo');
  const smuggling = head('POST', '/a', 'content-length: 4', 'transfer-encoding: chunked');
  const cases = [
    expecting,
    expecting + known,
    known + expecting,
    `GET /a HTTP/1.1\r\n\r\n${known}`,
    `${known}GARBAGE\r\n\r\n`,
    `${known}${head('CONNECT', 'x:1')}`,
    known + smuggling,
    known.replaceAll('\r\n', '\n') + known,
    known.replace('host: x', 'host: x\r\nproxy-connection: close'),
    known.replace('HTTP/1.1', 'HTTP/1.0'),
    head('GET', '/upgrade', 'connection: upgrade', 'upgrade: h2c'),
  ];
  const [front, bare] = [await serve(t, true), await serve(t, false)];
  for (const piece of cases) {
    for (let time = 0; time < 3; time++) {
      const [ours, plain] = [await send(t, front, [known, piece, last]), await send(t, bare, [known, piece, last])];
      await until(() => ours.isOver && plain.isOver, 'the end of the connections');
      t.equal(ours.answer, plain.answer, JSON.stringify(piece));
    }
  }
});

void t.test('front: keeps nothing of what was asked', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (const first of [[known], [known.slice(0, 10), known.slice(10)]]) {
    const served = await serve(t, true);
    const others = Array.from({ length: 20 }, (_, at) => head('GET', `/${at}`));
    await send(t, served, [...first, ...others]);
    await until(() => served.seen.length === 21, 'all of them');
    // Of the last one, node:http itself may know.
    const isGone = () => served.requests.slice(0, -1).every((request) => request.deref() === undefined);
    await until(() => {
      collect();
      return isGone();
    }, `what was asked is gone (${first.length})`);
    t.pass();
  }
});

void t.test('front: where node:http listens otherwise, nothing is put before it', async (t) => {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  const server = createServer().on('connection', resolve);
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  t.teardown(() => server.close());
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.teardown(() => client.destroy());
  const socket = await promise;
  socket.on('data', () => undefined);
  t.equal(createFront(socket, { again: () => true, onAlone: () => undefined }), undefined);
  t.equal(socket.listenerCount('data'), 2);
});
