import { once } from 'node:events';
import { Socket } from 'node:net';
import t from 'tap';
import { Agent } from 'undici';
import { createDialer } from '../../src/upstream/dialer.ts';
import { compact, createReceiveBuffers } from '../../src/upstream/receiving.ts';
import type { ReceiveBuffers } from '../../src/upstream/receiving.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { serve } from '../fixtures/servers.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** A connection that is given what to receive; the runtime's part in it is in the last tests here. */
function connection(t: Teardown, buffers: ReceiveBuffers) {
  const { onread, attach } = buffers.receiver();
  const socket = new Socket();
  t.teardown(() => socket.destroy());
  attach(socket);
  let place = (onread.buffer as () => Buffer)();
  return {
    socket,
    get place() {
      return place;
    },
    /** So much comes, all of it the same byte. */
    receive(bytes: number, byte: number): Buffer {
      place.fill(byte, 0, bytes);
      onread.callback(bytes, place);
      place = (onread.buffer as () => Buffer)();
      return socket.read() as Buffer;
    },
    /** It is filled until it grows no more. */
    fill(): Buffer {
      let piece = this.receive(place.length, 1);
      for (let turns = 0; turns < 2; turns++) piece = this.receive(place.length, 1);
      return piece;
    },
  };
}

function isAll(piece: Buffer, bytes: number, byte: number): boolean {
  return piece.length === bytes && piece.every((each) => each === byte);
}

void t.test('receiving: a connection that fills its buffer gets a larger one, up to a MiB', (t) => {
  const one = connection(t, createReceiveBuffers(16 * MiB));
  const lengths = [0, 1, 2, 3].map(() => {
    const { length } = one.place;
    t.ok(isAll(one.receive(length, 7), length, 7));
    return length;
  });
  t.same(lengths, [16 * KiB, 128 * KiB, MiB, MiB]);
  t.end();
});

void t.test(
  'receiving: where little comes, the next buffer is smaller, and the piece holds no more than its bytes',
  (t) => {
    const one = connection(t, createReceiveBuffers(16 * MiB));
    one.fill();
    t.equal(one.place.length, MiB);
    for (const [bytes, next] of [
      [300 * KiB, 128 * KiB],
      [100 * KiB, 128 * KiB],
      [20 * KiB, 128 * KiB],
      [10 * KiB, 16 * KiB],
      [1, 16 * KiB],
    ] as const) {
      const piece = one.receive(bytes, 5);
      t.ok(isAll(piece, bytes, 5), `${bytes}`);
      t.equal(piece.buffer.byteLength, bytes);
      t.equal(one.place.length, next, `after ${bytes}`);
    }
    t.end();
  },
);

void t.test(
  'receiving: a piece stays as it is while more comes, and its memory is used again once it was given back',
  (t) => {
    const buffers = createReceiveBuffers(16 * MiB);
    const one = connection(t, buffers);
    one.fill();
    const pieces = [2, 3, 4].map((byte) => one.receive(MiB, byte));
    t.ok(pieces.every((piece, index) => isAll(piece, MiB, index + 2)));
    t.equal(new Set(pieces.map(({ buffer }) => buffer)).size, 3);
    const [first, second] = pieces;
    buffers.recycle(first!);
    one.receive(MiB, 5);
    t.equal(one.place.buffer, first!.buffer, 'the next one is received into it');
    t.ok(isAll(second!, MiB, 3));
    t.end();
  },
);

void t.test('receiving: of a part, of what was given back before, and of what is not from here nothing comes', (t) => {
  const buffers = createReceiveBuffers(16 * MiB);
  const one = connection(t, buffers);
  one.fill();
  const piece = one.receive(MiB, 2);
  const foreign = Buffer.alloc(MiB);
  for (const part of [piece.subarray(1), piece.subarray(0, MiB - 1), piece.subarray(0, 0), foreign]) {
    buffers.recycle(part);
  }
  const places = () => {
    one.receive(MiB, 4);
    return one.place.buffer;
  };
  for (let turns = 0; turns < 4; turns++) t.notOk([piece.buffer, foreign.buffer].includes(places()));
  for (let turns = 0; turns < 3; turns++) buffers.recycle(piece);
  const taken = [places(), places(), places()];
  t.equal(taken.filter((memory) => memory === piece.buffer).length, 1, 'once, however often it was given');
  t.end();
});

void t.test('receiving: there are no more large ones than there is room for, and who closes makes room', (t) => {
  const buffers = createReceiveBuffers(4 * MiB);
  const all = [1, 2, 3].map(() => connection(t, buffers));
  for (const one of all) one.fill();
  t.same(
    all.map(({ place }) => place.length),
    [MiB, MiB, 128 * KiB],
  );
  const memory = all[0]!.place.buffer;
  all[0]!.socket.destroy();
  all[0]!.socket.once('close', () => {
    t.ok(isAll(all[2]!.receive(128 * KiB, 9), 128 * KiB, 9));
    t.equal(all[2]!.place.buffer, memory, 'its place is the next one of another');
    t.end();
  });
});

void t.test('receiving: connections that have all there is for them find others while theirs are being sent', (t) => {
  const buffers = createReceiveBuffers(4 * MiB);
  const all = [1, 2].map(() => connection(t, buffers));
  const memory = new Set<ArrayBufferLike>();
  for (const one of all) buffers.recycle(one.fill());
  for (let turns = 0; turns < 5; turns++) {
    for (const one of all) {
      const piece = one.receive(MiB, turns);
      memory.add(piece.buffer);
      buffers.recycle(piece);
    }
  }
  t.ok(memory.size <= 4, `${memory.size} were enough`);
  t.end();
});

void t.test('receiving: with no room at all it is as without', (t) => {
  const buffers = createReceiveBuffers(0);
  const one = connection(t, buffers);
  const piece = one.fill();
  t.equal(one.place.length, 128 * KiB);
  buffers.recycle(piece);
  t.ok(isAll(one.receive(128 * KiB, 3), 128 * KiB, 3));
  t.not(one.place.buffer, piece.buffer);
  t.end();
});

void t.test(
  'receiving: a body comes through real connections as it was sent, into memory that is used again',
  async (t) => {
    const body = noise('received', 24 * MiB);
    const server = await serve(t, (_, response) => {
      response.writeHead(200, { 'content-length': body.length });
      response.end(body);
    });
    const buffers = createReceiveBuffers(4 * MiB);
    const agent = new Agent({
      connect: createDialer({ connectTimeoutMs: 2000, receiveBuffers: buffers, isTrusted: () => true }),
    });
    t.teardown(() => agent.destroy());
    await Promise.all(
      [1, 2, 3].map(async () => {
        const answer = await agent.request({ origin: `http://127.0.0.1:${server.port}`, path: '/', method: 'GET' });
        let at = 0;
        for await (const piece of answer.body as AsyncIterable<Buffer>) {
          if (!piece.equals(body.subarray(at, at + piece.length))) t.fail(`other bytes at ${at}`);
          at += piece.length;
          // The sender is faster: more is waiting each time.
          await new Promise((resolve) => setImmediate(resolve));
          piece.fill(0xee);
          buffers.recycle(piece);
        }
        t.equal(at, body.length);
      }),
    );
  },
);

void t.test(
  'receiving: of a body in chunks that is taken slowly no more comes than the window of the connection',
  async (t) => {
    const body = noise('chunked', 32 * MiB);
    const server = await serve(t, async (_, response) => {
      for (let at = 0; at < body.length && !response.destroyed; at += 16 * KiB) {
        if (!response.write(body.subarray(at, at + 16 * KiB)))
          await Promise.race([once(response, 'drain'), once(response, 'close')]);
      }
      response.end();
    });
    const dial = createDialer({
      connectTimeoutMs: 2000,
      receiveBuffers: createReceiveBuffers(4 * MiB),
      isTrusted: () => true,
    });
    let socket: Socket | undefined;
    const connect: typeof dial = (target, callback) => {
      dial(target, (...outcome) => {
        socket = outcome[1] ?? undefined;
        callback(...outcome);
      });
    };
    const agent = new Agent({ connect });
    t.teardown(() => agent.destroy());
    const answer = await agent.request({ origin: `http://127.0.0.1:${server.port}`, path: '/', method: 'GET' });
    let at = 0;
    let mostHeld = 0;
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      if (!piece.equals(body.subarray(at, at + piece.length))) t.fail(`other bytes at ${at}`);
      at += piece.length;
      mostHeld = Math.max(mostHeld, socket!.readableLength);
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.equal(at, body.length);
    t.ok(mostHeld <= 3 * MiB, `${mostHeld} bytes were held at once`);
  },
);

void t.test('receiving: what is a small part of its memory gets memory of its own', (t) => {
  const memory = Buffer.allocUnsafeSlow(MiB).fill(3);
  const [half, less] = [memory.subarray(MiB / 2), memory.subarray(5, MiB / 2)];
  t.equal(compact(memory), memory);
  t.equal(compact(half), half);
  t.ok(compact(less).equals(less));
  t.equal(compact(less).buffer.byteLength, less.length);
  const shared = Buffer.allocUnsafeSlow(64 * KiB).subarray(0, 16 * KiB);
  t.equal(compact(shared), shared, 'as the runtime shares it among what comes at once');
  t.end();
});
