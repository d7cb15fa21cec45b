import type { Dispatcher } from 'undici';
import { NarrowsError } from '../errors.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData['headers'];
  readonly body: Dispatcher.ResponseData['body'];
  /** Came from another host than the registry itself. */
  readonly redirected: boolean;
}

const maxDrainedBytes = 64 * 1024;

export function firstOf(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

/** No upstream shuts itself out for days by a slip of its clock. */
const maxRetryAfterS = 3600;

/** `Retry-After` in whole seconds, given as such or as a date (RFC 9110, 10.2.3). */
export function retryAfterOf(headers: Answer['headers'], nowMs: number): number | undefined {
  const text = firstOf(headers['retry-after']);
  if (text === undefined) return undefined;
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : Math.ceil((Date.parse(text) - nowMs) / 1000);
  return Number.isFinite(seconds) ? Math.min(Math.max(0, seconds), maxRetryAfterS) : undefined;
}

/** Reads to the end so that the connection can be used again; what is long, or slow, is not worth it. */
export async function drain(body: Answer['body']): Promise<void> {
  const timer = setTimeout(() => body.destroy(), maxDrainMs);
  await body.dump({ limit: maxDrainedBytes }).catch(() => undefined);
  clearTimeout(timer);
}

const maxDrainMs = 250;

export interface ReadLimits {
  readonly maxBytes: number;
  /** For the whole of it: a byte now and then is no silence, and would keep everyone waiting who joined. */
  readonly deadlineMs: number;
}

/** @throws NarrowsError upstreamManifestInvalid as soon as there is too much of it, with the rest unread */
export async function readLimited(body: Answer['body'], limits: ReadLimits, what: string): Promise<Buffer> {
  const { maxBytes, deadlineMs } = limits;
  const late = Object.assign(new Error('it took too long'), { code: 'UND_ERR_BODY_TIMEOUT' });
  const timer = setTimeout(() => body.destroy(late), deadlineMs);
  try {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) {
        throw new NarrowsError('upstreamManifestInvalid', `The answer of ${what} is larger than ${maxBytes} bytes.`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } finally {
    clearTimeout(timer);
  }
}
