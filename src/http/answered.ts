import type { IncomingMessage, ServerResponse } from 'node:http';
import { loggable } from './route.ts';

/** One line of the access log. */
export interface Answered {
  readonly id: string;
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly ms: number;
  readonly client: string;
  readonly isWhole: boolean;
  /** Of the body; 0 for one that broke off. */
  readonly bytes: number;
  readonly platform?: string;
  readonly view?: string;
  readonly cache?: string;
  /** Who asked, where they said so. */
  readonly user?: string;
  readonly error?: unknown;
}

/** What is learnt on the way, for the log. */
export interface Known {
  user?: string;
  error?: unknown;
}

/** A request and its answer, once both have ended. */
export function describe(
  request: IncomingMessage,
  response: ServerResponse,
  id: string,
  started: number,
  { user, error }: Known,
): Answered {
  const said = (name: string) => response.getHeader(name) as string | undefined;
  const platform = said('narrows-platform');
  const view = said('narrows-view');
  const cache = said('narrows-cache');
  return {
    id,
    method: request.method ?? '',
    url: loggable(request.url ?? ''),
    status: response.statusCode,
    ms: Math.round(performance.now() - started),
    client: request.socket.remoteAddress?.replace(/^::ffff:(?=[0-9.]+$)/, '') ?? '',
    isWhole: response.writableFinished,
    bytes:
      response.writableFinished && request.method !== 'HEAD' ? Number(response.getHeader('content-length') ?? 0) : 0,
    ...(platform !== undefined && { platform }),
    ...(view !== undefined && { view }),
    ...(cache !== undefined && { cache }),
    ...(user !== undefined && { user }),
    ...(error !== undefined && { error }),
  };
}
