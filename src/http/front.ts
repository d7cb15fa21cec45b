import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Repeat } from './repeats.ts';

/** A question that `node:http` has read. */
export interface Question {
  readonly request: IncomingMessage;
  /** What it was answered with, where that was ready. */
  readonly repeat: Repeat | undefined;
  /** The connection stays open after it. */
  readonly isKeptOpen: boolean;
}

export interface FrontOptions {
  /** Answers what a connection that waits for nothing asks; false where that is not ready, to the letter. */
  again(text: string): boolean;
  /** A question came in one piece, with nothing before or behind it. */
  onAlone(text: string, question: Question): void;
}

/** Stands on a connection between the network and `node:http`. */
export interface Front {
  /** `node:http` has read a question in what it was given just now. */
  read(question: Question): void;
}

/** Longer ones cost more to look for than is won. */
const maxTextBytes = 4096;
const headEnd = '\r\n\r\n';

/**
 * Most of what a small answer costs is reading its question and making its head, which Node does at half the speed of
 * its sockets. Nothing has to be read of a question that came before, byte for byte, where a question was expected.
 *
 * That is known only of a connection on which each piece so far was one whole head without a body. With the first piece
 * that is anything else (half a head, two of them, one that `node:http` refuses by itself), the connection is handed to
 * `node:http` for good: what comes after that may be part of something, and then only looks like a question.
 *
 * @param socket a connection that `node:http` has begun to listen to
 * @returns undefined where it does so in a way that is not known here: then it has the connection to itself
 */
export function createFront(socket: Socket, { again, onAlone }: FrontOptions): Front | undefined {
  const [parse, ...others] = socket.listeners('data') as ((chunk: Buffer) => void)[];
  if (!parse || others.length > 0) return undefined;
  let questions: Question[] = [];
  let isKnown = false;
  let isHandedOver = false;

  function take(chunk: Buffer): void {
    const text = chunk.length <= maxTextBytes ? chunk.toString('latin1') : '';
    // The first one is for `node:http` in any case: it ends connections that have never asked.
    if (isKnown && again(text)) return;
    parse!(chunk);
    const [question, ...more] = questions;
    // A connection that waits keeps nothing of what it asked.
    questions = [];
    const isAlone = question?.request.complete && more.length === 0 && isOneHead(text);
    if (!isAlone) return handOver();
    isKnown = true;
    onAlone(text, question);
  }

  function handOver(): void {
    isHandedOver = true;
    // `node:http` has taken its listener away there, and given its parser to others.
    if (socket.destroyed) return;
    socket.on('data', parse!);
    socket.off('data', take);
  }

  socket.on('data', take);
  socket.off('data', parse);
  return {
    read(question) {
      if (!isHandedOver) questions.push(question);
    },
  };
}

/** Not every head becomes a question: `node:http` answers some itself, so that two heads may have made one of them. */
function isOneHead(text: string): boolean {
  return text !== '' && text.indexOf(headEnd) === text.length - headEnd.length;
}
