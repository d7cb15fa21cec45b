import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { NarrowsError } from '../errors.ts';

/** The body of a push. It breaks off when the client does, and when the client is silent for too long. */
export async function* bodyOf(request: IncomingMessage, stallMs: number): AsyncGenerator<Buffer> {
  const wait = () => setTimeout(() => request.destroy(new Error('the client sends nothing')), stallMs);
  let timer = wait();
  try {
    // Who stops reading has an answer to give: the connection stays.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      // While it is written down, nobody waits for the client.
      clearTimeout(timer);
      yield chunk as Buffer;
      timer = wait();
    }
  } catch (cause) {
    throw new NarrowsError('uploadInvalid', 'The request broke off before its end.', { cause });
  } finally {
    clearTimeout(timer);
  }
}

export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

const maxDrainMs = 1000;
const maxDrainBytes = 4 * 1024 * 1024;

/**
 * Takes what is still on its way before an error is sent: a client that is busy sending hears the answer only then,
 * and what it sends must not be taken for its next request. One that has much more to say is cut off.
 */
export async function drain(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.complete || request.destroyed || !hasBody(request)) return;
  if (!response.headersSent) response.setHeader('connection', 'close');
  let drained = 0;
  const ended = new Promise((resolve) => {
    for (const event of ['end', 'close', 'error']) request.once(event, resolve);
    request.on('data', (chunk: Buffer) => {
      if ((drained += chunk.length) > maxDrainBytes) resolve(undefined);
    });
  });
  const stopping = new AbortController();
  await Promise.race([ended, delay(maxDrainMs, undefined, { signal: stopping.signal })]);
  stopping.abort();
}
