import { NarrowsError } from '../errors.ts';

/** A connection that had died before it was used. */
export function isStaleConnection(error: unknown): boolean {
  return ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'].includes(codeOf(error));
}

function codeOf(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  if (typeof code === 'string') return code;
  return cause === undefined ? '' : codeOf(cause);
}

const timeouts = ['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'ETIMEDOUT'];

/** What went wrong below HTTP, in the words of the error table. The library's text stays in the log, as the cause. */
export function toTrouble(error: unknown, name: string): NarrowsError {
  if (error instanceof NarrowsError) return error;
  const code = codeOf(error);
  if (timeouts.includes(code))
    return new NarrowsError('upstreamTimeout', `${name} does not answer in time.`, { cause: error });
  if (code === 'ENARROWS_ADDRESS') return notDialled(name, error);
  if (code === 'EMFILE' || code === 'ENFILE') {
    const message =
      'This mirror may open no more connections now: give it more descriptors, or limits.connections less.';
    return new NarrowsError('overloaded', message, { cause: error, retryAfterS: 5 });
  }
  return new NarrowsError('upstreamUnusable', `${name} cannot be reached${code ? ` (${code})` : ''}.`, {
    cause: error,
  });
}

/** An address that this mirror has no business with. */
export function notDialled(name: string, cause?: unknown): NarrowsError {
  return new NarrowsError('upstreamUnusable', `${name} points to an address that this mirror does not dial.`, {
    cause,
  });
}
