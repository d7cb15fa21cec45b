import { createServer, connect } from 'node:net';
import type { Socket } from 'node:net';
import { pieces } from '../cache/bytes.ts';
import type { Blob } from '../cache/tier.ts';
import type { Fleet, FleetKey, Followed, Leader } from './fleet.ts';

/** What a worker asks the process that coordinates them. */
export interface CoordinatorLink {
  /** @returns the socket of the worker that leads; undefined when this one does */
  join(key: string): Promise<string | undefined>;
  leave(key: string): void;
  dispute(key: string, place: string): void;
}

export interface WorkerFleetOptions {
  readonly link: CoordinatorLink;
  /** The socket of this worker, in a folder that is only this user's. */
  readonly place: string;
  /** How long a leader may send nothing. */
  readonly stallMs: number;
  onTrouble(error: unknown): void;
}

/** A download that this worker leads. */
interface Led {
  readonly repository: string;
  readonly passOn: Promise<() => Promise<Blob>>;
}

/**
 * The workers of one machine. They have one store, so only the leader of a download keeps it; the others get its bytes
 * over a socket as they come. A line of JSON asks, a line answers, the bytes follow.
 */
export async function createWorkerFleet({ link, place, stallMs, onTrouble }: WorkerFleetOptions): Promise<Fleet> {
  const led = new Map<string, Led>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    // A follower that has left takes its connection with it.
    socket.on('error', () => undefined);
    answer(socket).catch(() => socket.destroy());
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(place, resolve));

  async function answer(socket: Socket): Promise<void> {
    const { head } = await readHead(socket);
    const { key, from } = head as { key: string; from: number };
    const found = led.get(key);
    if (!found) return void socket.destroy();
    const blob = await (await found.passOn)();
    try {
      socket.write(`${JSON.stringify({ size: blob.size, repository: found.repository })}\n`);
      for await (const piece of pieces(blob, from)) await send(socket, piece);
      socket.end();
    } finally {
      await blob.close();
    }
  }

  function lead(key: FleetKey, name: string): Leader {
    const { promise, resolve, reject } = Promise.withResolvers<() => Promise<Blob>>();
    promise.catch(() => undefined);
    const own: Led = { repository: key.repository, passOn: promise };
    led.set(name, own);
    let isOver = false;
    const leave = () => {
      // A later download of the same may have taken its place here: then that one leads.
      if (!isOver && led.get(name) === own) {
        led.delete(name);
        link.leave(name);
      }
      isOver = true;
      reject(new Error('the download was given up'));
      return Promise.resolve();
    };
    return {
      role: 'leader',
      get isLost() {
        return isOver;
      },
      async share(blob, again) {
        resolve(again);
        try {
          blob.doneReading?.();
          await blob.verified;
        } catch {
          // It failed, which the others see by their connections.
        } finally {
          await blob.close();
          await leave();
        }
      },
      leave,
    };
  }

  async function follow(
    there: string,
    name: string,
    from: number,
  ): Promise<(Followed & Pick<Led, 'repository'>) | undefined> {
    const socket = connect(there);
    socket.on('error', () => undefined);
    socket.setTimeout(stallMs, () => {
      link.dispute(name, there);
      socket.destroy(new Error('the worker that downloads it is silent'));
    });
    socket.write(`${JSON.stringify({ key: name, from })}\n`);
    try {
      const { head, rest } = await readHead(socket);
      const { size, repository } = head as { size: number; repository: string };
      // From here on, it is silent only when somebody waits for it.
      socket.setTimeout(0);
      return {
        size,
        repository,
        body: readBody(socket, rest, size - from, stallMs),
        cancel: () => void socket.destroy(),
      };
    } catch {
      socket.destroy();
      return undefined;
    }
  }

  return {
    sharesStore: true,
    async join(key) {
      const name = `${key.upstream} ${key.digest}`;
      try {
        const there = await link.join(name);
        if (there === undefined) return lead(key, name);
        return {
          role: 'follower',
          async follow(from, mayRead) {
            const followed = await follow(there, name, from);
            if (!followed) return undefined;
            try {
              await mayRead(followed.repository);
            } catch (error) {
              followed.cancel();
              throw error;
            }
            return followed;
          },
        };
      } catch (error) {
        onTrouble(error);
        return undefined;
      }
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const maxHeadBytes = 4096;

/** The first line, and what came behind it. */
async function readHead(socket: Socket): Promise<{ head: unknown; rest: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ head: unknown; rest: Buffer }>();
  let read = Buffer.alloc(0);
  const onData = (chunk: Buffer) => {
    read = Buffer.concat([read, chunk]);
    const end = read.indexOf('\n');
    if (end < 0 && read.length < maxHeadBytes) return;
    socket.pause();
    socket.off('data', onData);
    try {
      resolve({ head: JSON.parse(read.subarray(0, end).toString()), rest: read.subarray(end + 1) });
    } catch (error) {
      reject(error);
    }
  };
  socket.on('data', onData);
  socket.once('close', () => reject(new Error('the connection ended before its first line')));
  return promise;
}

async function* readBody(socket: Socket, rest: Buffer, bytes: number, stallMs: number): AsyncGenerator<Buffer> {
  let left = bytes - rest.length;
  if (rest.length > 0) yield rest;
  if (left > 0) {
    socket.setTimeout(stallMs);
    for await (const chunk of socket) {
      left -= chunk.length;
      socket.setTimeout(0);
      yield chunk;
      if (left <= 0) break;
      socket.setTimeout(stallMs);
    }
  }
  socket.destroy();
  if (left !== 0) throw new Error('the worker that downloads it has gone');
}

async function send(socket: Socket, piece: Buffer): Promise<void> {
  if (socket.destroyed) throw new Error('the follower has left');
  // The buffer is read over after the next read, so it has to be out by then.
  await new Promise<void>((resolve, reject) => socket.write(piece, (error) => (error ? reject(error) : resolve())));
}
