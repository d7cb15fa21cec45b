import { LRUCache } from 'lru-cache';
import type { IncomingMessage } from 'node:http';
import type { Reply } from '../pull/request.ts';
import { saidOf } from './answered.ts';
import type { Said } from './answered.ts';
import { wholeBody } from './whole.ts';
import type { WholeBody } from './whole.ts';

/** An answer, ready to be given again. */
export interface Repeat {
  readonly status: number;
  /** Names and values by turns, as they go out. */
  readonly head: readonly string[];
  readonly body: WholeBody;
  readonly bodyBytes: number;
  /** What the access log says of it. */
  readonly said: Said;
}

export interface RepeatsOptions {
  /** What all entries may take together; 0 for none. */
  readonly maxBytes: number;
  /** What an answer may depend on beside the question: the caller's address. */
  readonly isByAddress: boolean;
  now(): number;
}

/**
 * Answers that are given again as they are. A cluster that starts a job asks the same question to the letter from each
 * of its machines, and for a moment nothing about the answer can have changed: then nothing of it is made anew. The
 * question is the whole of a request's head; whoever says who they are has questions of their own.
 */
export interface Repeats {
  find(request: IncomingMessage, at: number): Repeat | undefined;
  /** Before an answer is looked for; what is found is noted unless something has been cleared meanwhile. */
  noting(): Note;
  /** Something that answers may have said is no longer so. */
  clear(): void;
}

/**
 * @param at the listener that was asked
 * @param headers of every answer, beside those of this one
 */
export type Note = (
  request: IncomingMessage,
  at: number,
  reply: Reply,
  headers: Readonly<Record<string, string>>,
) => Promise<void>;

const maxBodyBytes = 64 * 1024;
const entryOverheadBytes = 1024;

interface Entry extends Repeat {
  readonly notedAtMs: number;
  readonly goodForMs: number;
}

export function createRepeats({ maxBytes, isByAddress, now }: RepeatsOptions): Repeats {
  const entries =
    maxBytes > 0
      ? new LRUCache<string, Entry>({
          maxSize: maxBytes,
          sizeCalculation: ({ bodyBytes }, key) => bodyBytes + 2 * key.length + entryOverheadBytes,
        })
      : undefined;

  let cleared = 0;

  function keyOf({ method, url, rawHeaders, socket }: IncomingMessage, at: number): string {
    // No line break can be in any of them.
    const asked = `${at} ${method} ${url}\n${rawHeaders.join('\n')}`;
    return isByAddress ? `${socket.remoteAddress}\n${asked}` : asked;
  }

  return {
    find(request, at) {
      const entry = entries?.get(keyOf(request, at));
      // A clock that was set back says nothing of how long ago that was.
      return entry && Math.abs(now() - entry.notedAtMs) < entry.goodForMs ? entry : undefined;
    },

    noting() {
      const before = cleared;
      return async (request, at, reply, headers) => {
        if (!entries || !reply.goodForMs || !isPlain(request)) return;
        const notedAtMs = now();
        const bodyBytes = lengthOf(reply);
        if (bodyBytes > maxBodyBytes) return;
        const bytes = await bytesOf(reply);
        if (cleared !== before) return;
        const head = { ...headers, ...reply.headers, 'content-length': String(bodyBytes) };
        entries.set(keyOf(request, at), {
          status: reply.status,
          head: Object.entries(head).flat(),
          body: wholeBody(bytes),
          bodyBytes: bytes.length,
          said: saidOf(request, (name) => reply.headers[name]),
          notedAtMs,
          goodForMs: reply.goodForMs,
        });
      };
    },

    clear() {
      cleared++;
      entries?.clear();
    },
  };
}

const telling = [
  'authorization',
  'range',
  'if-range',
  'if-none-match',
  'via',
  'upgrade',
  'expect',
  'transfer-encoding',
  'content-length',
];

/** Nothing in the question is about this client alone, or about more than an answer as a whole. */
function isPlain({ headers }: IncomingMessage): boolean {
  return telling.every((name) => headers[name] === undefined);
}

function lengthOf({ body }: Reply): number {
  switch (body.kind) {
    case 'bytes':
      return body.bytes.length;
    case 'blob':
      return body.blob.size;
    case 'size':
      return body.size;
    default:
      return 0;
  }
}

const empty = Buffer.alloc(0);

/** Of a blob in memory, which is one buffer. */
async function bytesOf({ body }: Reply): Promise<Buffer> {
  if (body.kind === 'bytes') return body.bytes;
  return body.kind === 'blob' ? body.blob.read(0, body.blob.size) : empty;
}
