import { LRUCache } from 'lru-cache';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Reply } from '../pull/request.ts';
import { saidOf } from './answered.ts';
import type { Said } from './answered.ts';
import { createReady } from './ready.ts';
import type { Ready, WholeAnswer } from './ready.ts';
import { wholeBody } from './whole.ts';

/** An answer, ready to be given again. */
export interface Repeat extends WholeAnswer {
  readonly bodyBytes: number;
  /** What the access log says of it. */
  readonly said: Said;
  readonly notedAtMs: number;
  readonly goodForMs: number;
}

/** A question that came to the letter before, and its answer as it goes out. */
export interface RawRepeat {
  /** The listener, and as far as that counts, the caller's address. */
  readonly askedAt: string;
  readonly method: string;
  readonly url: string;
  readonly repeat: Repeat;
  readonly ready: Ready;
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
  /** The same for a question whose whole text is all that is known of it. */
  findRaw(text: string, socket: Socket, at: number): RawRepeat | undefined;
  /** A question with this text was answered with what `find` gave, on a connection that is kept for so long. */
  noteRaw(text: string, request: IncomingMessage, at: number, repeat: Repeat, keepAliveMs: number): void;
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

export function createRepeats({ maxBytes, isByAddress, now }: RepeatsOptions): Repeats {
  const entries = space<Repeat>(maxBytes / 2, ({ bodyBytes }) => bodyBytes);
  const rawEntries = space<RawRepeat>(maxBytes / 2, ({ ready, repeat }) => ready.bytes + repeat.bodyBytes);
  let cleared = 0;

  /** Where a question was asked, and as far as that counts, from where. */
  function placeOf({ remoteAddress }: Socket, at: number): string {
    return isByAddress ? `${at} ${remoteAddress}` : `${at}`;
  }

  function keyOf({ method, url, rawHeaders, socket }: IncomingMessage, at: number): string {
    // No line break can be in any of them.
    return `${placeOf(socket, at)} ${method} ${url}\n${rawHeaders.join('\n')}`;
  }

  /** A clock that was set back says nothing of how long ago that was. */
  const isGood = ({ notedAtMs, goodForMs }: Repeat) => Math.abs(now() - notedAtMs) < goodForMs;

  return {
    find(request, at) {
      const entry = entries?.get(keyOf(request, at));
      return entry && isGood(entry) ? entry : undefined;
    },

    findRaw(text, socket, at) {
      // The text alone: a key that is put together first would cost as much as the rest of this.
      const raw = rawEntries?.get(text);
      return raw && raw.askedAt === placeOf(socket, at) && isGood(raw.repeat) ? raw : undefined;
    },

    noteRaw(text, request, at, repeat, keepAliveMs) {
      // Heads that are made ready are those of connections that stay open.
      const { httpVersion, headers, method = '', url = '', socket } = request;
      const isKept = httpVersion === '1.1' && /^(?:keep-alive)?$/i.test(headers.connection ?? '');
      if (!isKept || typeof repeat.body !== 'string') return;
      const ready = createReady(repeat, method === 'HEAD', keepAliveMs);
      rawEntries?.set(text, { askedAt: placeOf(socket, at), method, url, repeat, ready });
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
      rawEntries?.clear();
    },
  };
}

function space<E extends object>(maxBytes: number, bytesOfOne: (entry: E) => number): LRUCache<string, E> | undefined {
  if (maxBytes === 0) return undefined;
  const sizeCalculation = (entry: E, key: string) => bytesOfOne(entry) + 2 * key.length + entryOverheadBytes;
  return new LRUCache<string, E>({ maxSize: Math.ceil(maxBytes), sizeCalculation });
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
