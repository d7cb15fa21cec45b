import type { IncomingMessage, ServerResponse } from 'node:http';
import { traceIdOf } from '../trace.ts';
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
  /** What it is part of, as the client says. */
  readonly trace?: string;
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
  const trace = traceIdOf(request.headers['traceparent']);
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
    ...(trace !== undefined && { trace }),
    ...(error !== undefined && { error }),
  };
}

/** The same in the words of OpenTelemetry's conventions for HTTP, and in ours. */
export function attributesOf({ method, url, status, platform, view, cache, id }: Answered) {
  return {
    'http.request.method': method,
    'url.path': url,
    'http.response.status_code': status,
    'narrows.request': id,
    'narrows.platform': platform,
    'narrows.view': view,
    'narrows.cache': cache,
  };
}
