import type { OnReadOpts, Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** Where the bytes of fast bodies arrive: memory that is used again. */
export interface ReceiveBuffers {
  /** For one connection. */
  receiver(): Receiver;
  /**
   * Nobody looks at this piece of a body any more. Done is something only for one that fills its memory, which is how
   * fast bodies come: pieces of a chunked one share theirs.
   */
  recycle(piece: Buffer): void;
}

export interface Receiver {
  /** Belongs to the options of the connection. */
  readonly onread: OnReadOpts;
  /** It is open: what comes is its content from here on. */
  attach(socket: Socket): void;
}

/** What each connection begins with, and comes back to while little comes. */
const smallBytes = 16 * 1024;
const mediumBytes = 128 * 1024;
/** Loopback and ten gigabits fill it; and what is larger than this does not stay in a processor's cache. */
const largeBytes = 1024 * 1024;

/**
 * The runtime receives 64 KiB at a time, each into new memory: for a body that comes as fast as it is taken, waking up
 * for each, clearing their pages and collecting them costs more than the copying. Here a connection that fills its
 * buffer gets a larger one, and a large one is received into again once its content has been sent and written.
 *
 * @param maxBytes for large ones that wait for content: connections have half of it at most, so that there are others
 *   while theirs are being sent; where there is no room, a connection stays with 128 KiB
 */
export function createReceiveBuffers(maxBytes: number): ReceiveBuffers {
  const maxLarge = Math.floor(maxBytes / largeBytes);
  const maxTaken = Math.floor(maxLarge / 2);
  const free: Buffer[] = [];
  /** The memory of large ones that are on their way. */
  const passedOn = new WeakSet<ArrayBufferLike>();
  /** Large ones that connections have. */
  let taken = 0;

  function take(length: number): Buffer {
    if (length < largeBytes) return Buffer.allocUnsafeSlow(length);
    if (taken >= maxTaken) return Buffer.allocUnsafeSlow(mediumBytes);
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

  function passOn(buffer: Buffer): Buffer {
    if (buffer.length < largeBytes) return buffer;
    taken--;
    passedOn.add(buffer.buffer);
    return buffer;
  }

  return {
    receiver() {
      let current = take(smallBytes);
      let socket: Socket | undefined;

      function resize(length: number): void {
        if (length === current.length) return;
        giveBack(current);
        current = take(length);
      }

      return {
        onread: {
          buffer: () => current,
          callback(bytes) {
            let piece: Buffer;
            if (bytes === current.length) {
              piece = passOn(current);
              current = take(larger(current.length));
            } else {
              // A piece holds on to no more memory than it has bytes.
              piece = copyOf(current.subarray(0, bytes));
              resize(smaller(current.length, bytes));
            }
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
      if (piece.length !== largeBytes || !passedOn.delete(piece.buffer)) return;
      keep(piece);
    },
  };
}

/** The runtime reads again as long as a read fills its buffer: then more is waiting. */
function larger(length: number): number {
  return length < mediumBytes ? mediumBytes : largeBytes;
}

/** A body's last read seldom fills a large one, which a connection without a body has no use for. */
function smaller(length: number, bytes: number): number {
  if (length === largeBytes) return mediumBytes;
  return bytes < smallBytes ? smallBytes : length;
}

/** Over TLS four pieces share so much of the runtime's: all of it is content, and a copy would be for nothing. */
const sharedBytes = 64 * 1024;

/** A piece must not hold on to much more memory than it has bytes: it may be the one byte of a MiB that is content. */
export function compact(piece: Buffer): Buffer {
  const memoryBytes = piece.buffer.byteLength;
  return memoryBytes > sharedBytes && piece.length < memoryBytes / 2 ? copyOf(piece) : piece;
}

function copyOf(piece: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(piece.length);
  piece.copy(copy);
  return copy;
}
