import { LRUCache } from 'lru-cache';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Reply } from '../pull/request.ts';
import { answeredAs, saidOf } from './answered.ts';
import type { Answered, Said } from './answered.ts';
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
  readonly repeat: Repeat;
  readonly ready: Ready;
  /** What is told of it, but for the id, the time and the caller's address. */
  readonly answered: Answered;
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
  /** A question with this text was answered with what `find` gave, on a connection that is kept open for so long. */
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
  const entries =
    maxBytes > 0
      ? new LRUCache<string, Repeat | RawRepeat>({
          maxSize: maxBytes,
          sizeCalculation: (entry, key) => bytesOfEntry(entry) + 2 * key.length + entryOverheadBytes,
        })
      : undefined;
  let cleared = 0;

  /** Where a question was asked, and as far as that counts, from where. */
  function placeOf({ remoteAddress }: Socket, at: number): string {
    return isByAddress ? `${at} ${remoteAddress}` : `${at}`;
  }

  function keyOf({ method, url, rawHeaders, socket }: IncomingMessage, at: number): string {
    // No line break can be in any of them.
    return `${placeOf(socket, at)} ${method} ${url}\n${rawHeaders.join('\n')}`;
  }

  /** The text alone where that will do: a key that is put together first would cost as much as the rest of a look. */
  function rawKeyOf(text: string, socket: Socket, at: number): string {
    return at === 0 && !isByAddress ? text : `${placeOf(socket, at)} ${text}`;
  }

  function rawEntry(text: string, socket: Socket, at: number): RawRepeat | undefined {
    const entry = entries?.get(rawKeyOf(text, socket, at));
    // Whoever sends a key instead of a question finds nothing, nor what belongs to another place.
    return entry && 'ready' in entry && entry.askedAt === placeOf(socket, at) ? entry : undefined;
  }

  /** A clock that was set back says nothing of how long ago that was. */
  const isGood = ({ notedAtMs, goodForMs }: Repeat) => Math.abs(now() - notedAtMs) < goodForMs;

  return {
    find(request, at) {
      const entry = entries?.get(keyOf(request, at));
      return entry && !('ready' in entry) && isGood(entry) ? entry : undefined;
    },

    findRaw(text, socket, at) {
      const raw = rawEntry(text, socket, at);
      return raw && isGood(raw.repeat) ? raw : undefined;
    },

    noteRaw(text, request, at, repeat, keepAliveMs) {
      const { method, socket } = request;
      // Each connection's first question is noted, and most connections have one.
      if (typeof repeat.body !== 'string' || rawEntry(text, socket, at)?.repeat === repeat) return;
      const ready = createReady(repeat, method === 'HEAD', keepAliveMs);
      const answered = answeredAs(request, repeat.status, { ...repeat, id: '', ms: 0, isWhole: true });
      entries?.set(rawKeyOf(text, socket, at), { askedAt: placeOf(socket, at), repeat, ready, answered });
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

function bytesOfEntry(entry: Repeat | RawRepeat): number {
  return 'ready' in entry ? entry.ready.bytes + entry.repeat.bodyBytes : entry.bodyBytes;
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
