import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Answering } from './answer.ts';
import { createFront } from './front.ts';
import type { Front } from './front.ts';
import { isOut } from './whole.ts';

/** How far the end of a server is. */
export interface DrainState {
  isDraining: boolean;
  /** A connection that has nothing under way is of no use any more. */
  closesIdle: boolean;
  closeIdle(): void;
}

/** The connections of one listener: what is under way on each. */
export interface Connections {
  /** A question was read. */
  handle(request: IncomingMessage, response: ServerResponse): void;
  /** What comes on a new connection is looked at before it is read. */
  putFront(socket: Socket): void;
  /** Has an answer begun there that has not ended? */
  hasBegun(socket: Duplex): boolean;
}

const maxPipelined = 64;

export function createConnections(answer: Answering, at: number, state: DrainState): Connections {
  const answering = new WeakMap<Duplex, Set<ServerResponse>>();
  const fronts = new WeakMap<Duplex, Front>();

  return {
    handle(request, response) {
      const { socket } = request;
      const isKeptOpen = response.shouldKeepAlive;
      const repeat = state.isDraining ? undefined : answer.again(request, response, at);
      fronts.get(socket)?.read({ request, repeat, isKeptOpen });
      if (repeat && isOut(response)) return;
      const pipelined = answering.get(socket) ?? new Set();
      answering.set(socket, pipelined.add(response));
      response.once('close', () => {
        pipelined.delete(response);
        // A connection that was busy when the listener closed is idle now, and nobody will use it again.
        if (state.closesIdle) state.closeIdle();
      });
      // No client sends so many questions ahead; one that does costs us what it never waits for.
      const isTooMany = pipelined.size > maxPipelined;
      if (isTooMany) socket.destroy();
      if (repeat || isTooMany) return;
      if (state.isDraining) response.setHeader('connection', 'close');
      answer.anew(request, response, at);
    },

    putFront(socket) {
      const isBusy = () => (answering.get(socket)?.size ?? 0) > 0;
      const front = createFront(socket, {
        again(text) {
          // What is under way goes first, and a connection that ends takes no more.
          if (state.isDraining || isBusy() || socket.writableLength > 0 || !socket.writable) return false;
          return answer.againRaw(text, socket, at, isBusy);
        },
        onAlone(text, { request, repeat, isKeptOpen }) {
          // What is made ready says that the connection stays open.
          if (repeat && isKeptOpen) answer.learn(text, request, at, repeat);
        },
      });
      if (front) fronts.set(socket, front);
    },

    hasBegun: (socket) => [...(answering.get(socket) ?? [])].some((response) => response.headersSent),
  };
}
