import type { IncomingMessage, ServerResponse } from 'node:http';
import { NarrowsError } from '../errors.ts';
import type { Blob } from '../cache/tier.ts';
import type { Reply } from '../pull/request.ts';
import { parseRange } from './range.ts';
import type { ByteRange } from './range.ts';
import { createTurns } from './turns.ts';
import type { Turns } from './turns.ts';
import { endWith, wholeBody } from './whole.ts';

export interface StreamLimits {
  /** How long a client may take nothing before it is cut off. */
  readonly stallMs: number;
}

export interface Sender {
  send(reply: Reply, request: IncomingMessage, response: ServerResponse): Promise<void>;
}

/** Larger ones take their turns. */
const maxWholeBytes = 64 * 1024;

export function createSender({ stallMs }: StreamLimits): Sender {
  const turns = createTurns(turnBytes);

  async function sendBlob(blob: Blob, reply: Reply, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const range = rangeOf(request, reply, blob.size);
    if (range === 'unsatisfiable') {
      throw new NarrowsError('rangeNotSatisfiable', `The blob has ${blob.size} bytes.`, {
        headers: { 'content-range': `bytes */${blob.size}` },
      });
    }
    // An empty body is whole with its head.
    if (blob.size === 0) await blob.verified;
    writeHead(response, reply, blob.size, range);
    // Clients give up on a silent server long before a large blob is here (containerd: 30 s).
    if (blob.verified) response.flushHeaders();
    if (blob.size > 0) await pump(blob, range ?? { start: 0, end: blob.size - 1 }, response);
    else response.end();
  }

  /** The one loop that bytes leave by: while a chunk is being sent, the next is read. */
  async function pump(blob: Blob, { start, end }: ByteRange, response: ServerResponse): Promise<void> {
    const first = blob.verified ? undefined : await wholeOf(blob, start, end);
    if (first) return endWith(response, wholeBody(first), stallMs);
    const sink = createSink(response, stallMs, turns);
    // The last byte waits for the verdict: a client must never take a wrong blob for a whole one.
    const until = blob.verified ? end : end + 1;
    for (let position = start; position < until;) {
      const chunk = await blob.read(position, Math.min(until - position, turnBytes));
      await sink.write(chunk);
      position += chunk.length;
    }
    if (until === end) {
      const last = Buffer.from(await blob.read(end, 1));
      blob.doneReading?.();
      await blob.verified;
      await sink.write(last);
    }
    await sink.end();
  }

  async function sendBytes(bytes: Buffer, reply: Reply, response: ServerResponse): Promise<void> {
    writeHead(response, reply, bytes.length);
    if (bytes.length <= maxWholeBytes) return endWith(response, wholeBody(bytes), stallMs);
    const sink = createSink(response, stallMs, turns);
    for (let at = 0; at < bytes.length; at += turnBytes) await sink.write(bytes.subarray(at, at + turnBytes));
    await sink.end();
  }

  return {
    async send(reply, request, response) {
      const { body } = reply;
      const blob = body.kind === 'blob' ? body.blob : undefined;
      // A reader that has left must not hold on to a download or a file, even while it waits for bytes.
      response.once('close', () => void blob?.close());
      try {
        if (response.destroyed) return;
        if (isNotModified(reply, request)) return endEmpty(response, { ...reply, status: 304 });
        if (blob) return await sendBlob(blob, reply, request, response);
        if (body.kind === 'none') return endEmpty(response, reply);
        if (body.kind === 'size') return endEmpty(response, reply, body.size);
        if (body.kind !== 'bytes') return;
        await sendBytes(body.bytes, reply, response);
      } finally {
        if (!response.headersSent) await blob?.close();
      }
    },
  };
}

/** What is small is sent in one piece; undefined for what is not, or what did not come in one. */
async function wholeOf(blob: Blob, start: number, end: number): Promise<Buffer | undefined> {
  const length = end + 1 - start;
  if (length > maxWholeBytes) return undefined;
  const bytes = await blob.read(start, length);
  return bytes.length === length ? bytes : undefined;
}

/** A range of another version of the body would be a patchwork: then all of it is sent (RFC 9110, 13.1.5). */
function rangeOf(request: IncomingMessage, reply: Reply, size: number): ByteRange | 'unsatisfiable' | undefined {
  const condition = request.headers['if-range'];
  if (condition !== undefined && condition !== reply.headers['etag']) return undefined;
  return parseRange(request.headers.range, size);
}

function writeHead(response: ServerResponse, reply: Reply, size: number, range?: ByteRange): void {
  if (!range) {
    response.writeHead(reply.status, { ...reply.headers, 'content-length': size });
    return;
  }
  response.writeHead(206, {
    ...reply.headers,
    'content-length': range.end - range.start + 1,
    'content-range': `bytes ${range.start}-${range.end}/${size}`,
  });
}

function endEmpty(response: ServerResponse, reply: Reply, size?: number): void {
  response.writeHead(reply.status, { ...reply.headers, ...(size !== undefined && { 'content-length': size }) });
  response.end();
}

function isNotModified(reply: Reply, request: IncomingMessage): boolean {
  const known = request.headers['if-none-match'];
  const etag = reply.headers['etag'];
  if (known === undefined || etag === undefined) return false;
  return known.split(',').some((entry) => entry.trim().replace(/^W\//, '') === etag || entry.trim() === '*');
}

/** What all responses together hand to their sockets before whoever else knocks is heard. */
const turnBytes = 1024 * 1024;

interface Sink {
  /** Resolves when the chunk before this one has left; rejects when the client is gone or takes nothing. */
  write(chunk: Buffer): Promise<void>;
  end(): Promise<void>;
}

/**
 * A response as something to wait for. "Drained" alone does not do: a client that leaves never drains, and the
 * waiting would never end.
 */
function createSink(response: ServerResponse, stallMs: number, turns: Turns): Sink {
  const gone = Promise.withResolvers<never>();
  gone.promise.catch(() => undefined);
  let waiting: PromiseWithResolvers<void> | undefined;
  let isTaking = true;
  let isFirst = true;
  const leave = (error: Error) => {
    gone.reject(error);
    waiting?.reject(error);
  };
  response.once('close', () => leave(new Error('the client has left')));
  const timer = setTimeout(() => {
    // Silence is the client's fault only while there is something for it to take, and no other answer is under way.
    if (!isTaking && response.socket) response.destroy(new Error('the client takes nothing'));
  }, stallMs);
  response.once('socket', () => timer.refresh());
  response.once('close', () => clearTimeout(timer));

  return {
    async write(chunk) {
      await waiting?.promise;
      await turns.take(chunk.length, isFirst);
      isFirst = false;
      if (response.destroyed) await gone.promise;
      const leaving = Promise.withResolvers<void>();
      leaving.promise.catch(() => undefined);
      waiting = leaving;
      isTaking = false;
      timer.refresh();
      response.write(chunk, (error) => {
        isTaking = true;
        if (error) leaving.reject(error);
        else leaving.resolve();
      });
    },
    async end() {
      await waiting?.promise;
      response.end();
    },
  };
}
