import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import { connect } from 'node:net';
import t from 'tap';
import type { Blob } from '../../src/cache/tier.ts';
import { bytesBlob } from '../../src/cache/bytes.ts';
import { sendError } from '../../src/http/errors.ts';
import { createSender } from '../../src/http/send.ts';
import { download, until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { listen } from '../fixtures/registry.ts';

const bytes = noise('sent', 300_000);

async function serve(t: Teardown, blob: Blob, stallMs = 60_000): Promise<number> {
  const sender = createSender({ stallMs });
  const server = createServer((request, response) => {
    const reply = { status: 200, headers: { etag: '"e"' }, body: { kind: 'blob' as const, blob } };
    sender.send(reply, request, response).catch((error: unknown) => sendError(error, request, response));
  });
  const port = await listen(server);
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return port;
}

/** A blob that counts how often it is closed, and whose reading a test can steer. */
function steered(over: Partial<Blob>): { blob: Blob; closes: () => number } {
  let closes = 0;
  const blob: Blob = { ...bytesBlob(bytes, 'miss'), ...over, close: () => Promise.resolve(void closes++) };
  return { blob, closes: () => closes };
}

void t.test('41. ranges are slices of the whole', async (t) => {
  const port = await serve(t, bytesBlob(bytes, 'hit-memory'));
  const cases: [range: string, status: number, start: number, end: number][] = [
    ['bytes=0-0', 206, 0, 1],
    ['bytes=5-', 206, 5, bytes.length],
    ['bytes=-7', 206, bytes.length - 7, bytes.length],
    [`bytes=10-${bytes.length}`, 206, 10, bytes.length],
    ['bytes=0-1,5-6', 200, 0, bytes.length],
    ['lines=1-2', 200, 0, bytes.length],
    ['bytes=9-3', 200, 0, bytes.length],
  ];
  for (const [range, status, start, end] of cases) {
    const got = await download(`http://127.0.0.1:${port}/`, { headers: { range } });
    t.equal(got.status, status, range);
    t.ok(got.isComplete && got.body.equals(bytes.subarray(start, end)), range);
  }
  const conditional = { range: 'bytes=0-0', 'if-range': '"another"' };
  t.equal((await download(`http://127.0.0.1:${port}/`, { headers: conditional })).status, 200);
  const refused = await download(`http://127.0.0.1:${port}/`, { headers: { range: `bytes=${bytes.length}-` } });
  t.match(refused, { status: 416, headers: { 'content-range': `bytes */${bytes.length}` } });
});

void t.test('8. the last byte waits for the verdict: right lets it go, wrong breaks the body off', async (t) => {
  for (const isRight of [true, false]) {
    for (const [range, length] of [
      ['', bytes.length],
      ['bytes=0-0', 1],
      ['bytes=3-10', 8],
    ] as const) {
      const verdict = Promise.withResolvers<void>();
      verdict.promise.catch(() => undefined);
      const done = Promise.withResolvers<void>();
      const { blob } = steered({ verified: verdict.promise, doneReading: done.resolve });
      const port = await serve(t, blob);
      let seen = 0;
      const url = `http://127.0.0.1:${port}/`;
      const running = download(url, { headers: { range }, onBytes: (count) => (seen += count) });
      await done.promise;
      await until(() => seen === length - 1, 'all bytes but the last');
      if (isRight) verdict.resolve();
      else verdict.reject(new Error('wrong'));
      const got = await running;
      t.equal(got.isComplete, isRight, range);
      t.equal(got.body.length, isRight ? length : length - 1);
    }
  }
});

void t.test('a client that leaves while nothing comes lets go of the blob', async (t) => {
  const { blob, closes } = steered({
    verified: new Promise(() => undefined),
    read: () => new Promise(() => undefined),
  });
  const port = await serve(t, blob);
  const heads = Promise.withResolvers<void>();
  const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'));
  socket.once('data', () => heads.resolve());
  await heads.promise;
  socket.destroy();
  await until(() => closes() > 0, 'the close');
  t.equal(closes(), 1);
});

void t.test('14. a client that takes nothing is cut off', async (t) => {
  const large = Buffer.alloc(64 * 1024 * 1024);
  const { blob, closes } = steered({
    size: large.length,
    read: (position, maxBytes) => Promise.resolve(large.subarray(position, position + Math.min(maxBytes, 65_536))),
  });
  const port = await serve(t, blob, 200);
  const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'));
  socket.pause();
  socket.on('error', () => undefined);
  await until(() => closes() > 0, 'the cut');
  t.ok(closes() >= 1);
  socket.destroy();
});

void t.test('14. an answer that waits behind another is not cut off for it', async (t) => {
  const first = Promise.withResolvers<ServerResponse>();
  const sender = createSender({ stallMs: 100 });
  const { blob } = steered({ read: (position) => Promise.resolve(bytes.subarray(position, position + 65_536)) });
  const large = Buffer.alloc(64 * 1024 * 1024);
  const { blob: never, closes } = steered(bytesBlob(large, 'miss'));
  const server = createServer((request, response) => {
    if (request.url === '/first') return first.resolve(response);
    const reply = {
      status: 200,
      headers: {},
      body: { kind: 'blob' as const, blob: request.url === '/never' ? never : blob },
    };
    void sender.send(reply, request, response).catch(() => undefined);
  });
  const port = await listen(server);
  t.teardown(() => server.close());
  const questions = ['/first', '/second'].map((path) => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`);
  let received = '';
  const socket = connect(port, '127.0.0.1', () => socket.write(questions.join('')));
  t.teardown(() => socket.destroy());
  socket.on('data', (piece) => (received += piece.toString('latin1')));
  const held = await first.promise;
  // One that began to take nothing later has been cut off: the time for that has passed.
  const idle = connect(port, '127.0.0.1', () => idle.write('GET /never HTTP/1.1\r\nhost: x\r\n\r\n'));
  t.teardown(() => idle.destroy());
  idle.pause();
  idle.on('error', () => undefined);
  await until(() => closes() > 0, 'the cut');
  held.end('first');
  await until(() => received.endsWith(bytes.toString('latin1')) || socket.destroyed, 'the second answer');
  t.ok(received.endsWith(bytes.toString('latin1')));
});

void t.test('88. an empty blob is whole at once', async (t) => {
  const port = await serve(t, { ...bytesBlob(Buffer.alloc(0), 'miss'), verified: Promise.resolve() });
  t.match(await download(`http://127.0.0.1:${port}/`), {
    status: 200,
    isComplete: true,
    headers: { 'content-length': '0' },
  });
});

void t.test('an empty body that is not what was asked for: no answer that looks whole', async (t) => {
  const verdict = Promise.reject(new Error('wrong'));
  verdict.catch(() => undefined);
  const port = await serve(t, { ...bytesBlob(Buffer.alloc(0), 'miss'), verified: verdict });
  t.not((await download(`http://127.0.0.1:${port}/`)).status, 200);
});
