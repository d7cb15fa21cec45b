import type { OnReadOpts, Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** Where the bytes of fast bodies arrive: memory that is used again. */
export interface ReceiveBuffers {
  /** For one connection. */
  receiver(): Receiver;
  /** Nobody looks at this piece of a body any more. Of what was not received here nothing is known, nor done. */
  recycle(piece: Buffer): void;
}

export interface Receiver {
  /** Belongs to the options of the connection. */
  readonly onread: OnReadOpts;
  /** It is open: what comes is its content from here on. */
  attach(socket: Socket): void;
}

/** What each connection has, be it idle. */
const smallBytes = 16 * 1024;
/** How much larger the next is where one was filled. */
const growth = 8;
/** Loopback and ten gigabits fill it; and what is larger than this does not stay in a processor's cache. */
const largeBytes = 1024 * 1024;

/**
 * The runtime receives 64 KiB at a time, each into new memory: for a body that comes as fast as it is taken, waking up
 * for each, clearing their pages and collecting them costs more than the copying. Here a connection that fills its
 * buffer gets a larger one, and a large one is received into again once its content has been sent and written.
 *
 * @param maxBytes for large ones that wait for content; where there is no room, connections stay with 128 KiB
 */
export function createReceiveBuffers(maxBytes: number): ReceiveBuffers {
  const maxLarge = Math.floor(maxBytes / largeBytes);
  const free: Buffer[] = [];
  /** How much there is of what was passed on in large ones, by their memory. */
  const passedOn = new WeakMap<ArrayBufferLike, number>();
  /** Large ones that connections have. */
  let taken = 0;

  function take(length: number): Buffer {
    if (length < largeBytes) return Buffer.allocUnsafeSlow(length);
    if (taken >= maxLarge) return Buffer.allocUnsafeSlow(length / growth);
    taken++;
    return free.pop() ?? Buffer.allocUnsafeSlow(length);
  }

  function giveBack(buffer: Buffer): void {
    if (buffer.length < largeBytes) return;
    taken--;
    keep(buffer);
  }

  function keep(buffer: Buffer): void {
    if (free.length + taken < maxLarge) free.push(buffer);
  }

  /** What has come, of which the receiver has no part any more. */
  function passOn(buffer: Buffer, bytes: number): Buffer {
    if (buffer.length === largeBytes) {
      taken--;
      passedOn.set(buffer.buffer, bytes);
    }
    return buffer.subarray(0, bytes);
  }

  return {
    receiver() {
      let current = take(smallBytes);
      let socket: Socket | undefined;
      return {
        onread: {
          buffer: () => current,
          callback(bytes) {
            const length = lengthAfter(bytes, current.length);
            const isCopied = bytes < current.length / 2;
            const piece = isCopied ? copyOf(current.subarray(0, bytes)) : passOn(current, bytes);
            if (isCopied && length !== current.length) giveBack(current);
            if (!isCopied || length !== current.length) current = take(length);
            return socket!.push(piece);
          },
        },
        attach(opened) {
          socket = opened;
          // With `onread` each read() of a socket receives more, however much is waiting in it (lib/net.js); that of a
          // stream only below the high-water mark. A chunked body, which undici takes in parts, had no end otherwise.
          opened.read = (size) => Duplex.prototype.read.call(opened, size) as unknown;
          opened.once('close', () => giveBack(current));
        },
      };
    },
    recycle(piece) {
      // A part of what came says nothing of the rest.
      if (piece.byteOffset !== 0 || passedOn.get(piece.buffer) !== piece.length) return;
      passedOn.delete(piece.buffer);
      keep(Buffer.from(piece.buffer));
    },
  };
}

/** A piece must not hold on to much more memory than it has bytes: it may be the one byte of a MiB that is content. */
export function compact(piece: Buffer): Buffer {
  return piece.length < piece.buffer.byteLength / 2 ? copyOf(piece) : piece;
}

function copyOf(piece: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(piece.length);
  piece.copy(copy);
  return copy;
}

/** The runtime reads again as long as a read fills its buffer: then more is waiting. */
function lengthAfter(bytes: number, length: number): number {
  if (bytes === length) return Math.min(largeBytes, length * growth);
  return bytes < length / growth ? Math.max(smallBytes, length / growth) : length;
}
