import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** Up to here a body is text that goes out in one piece with its head: one write to the kernel, not two. */
const maxTextBytes = 16 * 1024;

/** A body that is here whole. As text, each character is a byte. */
export type WholeBody = Buffer | string;

/** The form that costs least to send. */
export function wholeBody(bytes: Buffer): WholeBody {
  return bytes.length > maxTextBytes ? bytes : bytes.toString('latin1');
}

/**
 * Ends an answer, whose head has been said, with its body. Most often the kernel takes all of it at once, and there is
 * nothing to wait for.
 *
 * @param stallMs how long the client may take nothing before it is cut off
 */
export function endWith(response: ServerResponse, body: WholeBody, stallMs: number): void {
  if (response.req.method === 'HEAD') response.end();
  else if (typeof body === 'string') response.end(body, 'latin1');
  else response.end(body);
  if (isOut(response)) return;
  let timer: NodeJS.Timeout | undefined;
  const watch = () => {
    timer = endIfStalled(response, stallMs);
  };
  // Until then another answer is under way there, which is watched itself.
  if (response.socket) watch();
  else response.once('socket', watch);
  response.once('close', () => clearTimeout(timer));
}

/** A client that has so long to take what is left; to be cleared when it has. */
export function endIfStalled(out: ServerResponse | Socket, stallMs: number): NodeJS.Timeout {
  return setTimeout(() => out.destroy(new Error('the client takes nothing')), stallMs);
}

/** Why an answer that had begun is not whole; undefined where it is. */
export function cutShort(response: ServerResponse): Error | undefined {
  if (response.writableFinished || !response.headersSent) return undefined;
  return response.errored ?? new Error('the client has left');
}

/** Is all of an answer that has been ended with the kernel? */
export function isOut(response: ServerResponse): boolean {
  return response.writableEnded && response.writableLength === 0;
}
