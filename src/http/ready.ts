import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { WholeBody } from './whole.ts';

export interface WholeAnswer {
  readonly status: number;
  /** Names and values by turns, as they go out. */
  readonly head: readonly string[];
  readonly body: WholeBody;
}

/** An answer as it goes out, head and all; nothing but the request's id and the date differs from one to the next. */
export interface Ready {
  readonly bytes: number;
  /** @param id 36 characters @param socket one that has nothing else to send */
  writeTo(socket: Socket, id: string): void;
}

const idLength = 36;
/** `Sat, 28 Nov 2026 06:21:25 GMT`: always that long (RFC 9110, 5.6.7). */
const dateLength = 29;

/**
 * The head is that of `node:http` for a connection that stays open, in the same order.
 *
 * @param answer given before by `node:http`, which found no fault with its headers
 * @param isHead the question was HEAD
 */
export function createReady({ status, head, body }: WholeAnswer, isHead: boolean, keepAliveMs: number): Ready {
  const fields = Array.from({ length: head.length / 2 }, (_, at) => `${head[2 * at]}: ${head[2 * at + 1]}\r\n`);
  const start = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${fields.join('')}x-request-id: `;
  const between = '\r\nDate: ';
  const end = `\r\nConnection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n\r\n`;
  const [idAt, dateAt] = [start.length, start.length + idLength + between.length];
  const headText = start + ' '.repeat(idLength) + between + ' '.repeat(dateLength) + end;
  const bodyBytes = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  let bytes = Buffer.concat([Buffer.from(headText, 'latin1'), ...(isHead ? [] : [bodyBytes])]);
  let writtenS = -1;

  return {
    bytes: bytes.length,
    writeTo(socket, id) {
      const nowMs = Date.now();
      const second = Math.floor(nowMs / 1000);
      if (second !== writtenS) bytes.write(new Date(nowMs).toUTCString(), dateAt, 'latin1');
      writtenS = second;
      bytes.write(id, idAt, 'latin1');
      socket.write(bytes);
      // What the kernel has not taken at once is sent from here: the next one must not write into it.
      if (socket.writableLength > 0) bytes = Buffer.from(bytes);
    },
  };
}
