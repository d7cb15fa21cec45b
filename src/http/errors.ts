import type { IncomingMessage, ServerResponse } from 'node:http';
import { NarrowsError, errors } from '../errors.ts';

/** How long to stay away where nobody said: clients that ask again at once make trouble worse. */
const defaultRetryAfterS = 5;

/** The one writer of errors: the specification's document, or a broken body where an answer has begun. */
export function sendError(error: unknown, request: IncomingMessage, response: ServerResponse): void {
  // Nothing may follow what was sent: appended to a blob, an error would be taken for its bytes.
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const told = toNarrowsError(error);
  const { status } = told;
  const body = Buffer.from(errorDocument(told));
  const retryAfterS = told.retryAfterS ?? ([429, 502, 503, 504].includes(status) ? defaultRetryAfterS : undefined);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': body.length,
    ...(retryAfterS !== undefined && { 'retry-after': String(retryAfterS) }),
    ...told.headers,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** The error document of the distribution specification ("Error Codes"). */
export function errorDocument({ code, message, detail }: NarrowsError): string {
  return JSON.stringify({ errors: [{ code, message, ...(detail !== undefined && { detail }) }] });
}

/** What no one foresaw is told without its text: that may hold what is not the client's business. */
export function toNarrowsError(error: unknown): NarrowsError {
  if (error instanceof NarrowsError) return error;
  return new NarrowsError('internal', 'Something went wrong in this mirror; its log has the reason.', { cause: error });
}

/** An answer to what is not even HTTP, as the bytes of a whole response. */
export function rawBadRequest(): string {
  const body = errorDocument(new NarrowsError('queryInvalid', 'This is not an HTTP/1.1 request.'));
  const status = errors.queryInvalid.status;
  return `HTTP/1.1 ${status} Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}
