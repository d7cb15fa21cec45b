import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
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
  return {
    ...answeredAs(request, response.statusCode, {
      id,
      ms: Math.round(performance.now() - started),
      isWhole: response.writableFinished,
      bodyBytes: Number(response.getHeader('content-length') ?? 0),
      said: saidOf(request, (name) => response.getHeader(name) as string | undefined),
    }),
    ...(user !== undefined && { user }),
    ...(error !== undefined && { error }),
  };
}

export type Said = Pick<Answered, 'platform' | 'view' | 'cache' | 'trace'>;

interface Ended {
  readonly id: string;
  readonly ms: number;
  readonly isWhole: boolean;
  /** Of what was to go out. */
  readonly bodyBytes: number;
  readonly said: Said;
}

export function answeredAs(
  { method = '', url = '', socket }: IncomingMessage,
  status: number,
  { id, ms, isWhole, bodyBytes, said }: Ended,
): Answered {
  const bytes = isWhole && method !== 'HEAD' ? bodyBytes : 0;
  return { id, method, url: loggable(url), status, ms, client: plainAddress(socket), isWhole, bytes, ...said };
}

/** An IPv4 address in IPv6 clothes is told as what it is. */
export function plainAddress({ remoteAddress = '' }: Socket): string {
  return remoteAddress.startsWith('::ffff:') ? remoteAddress.replace(/^::ffff:(?=[0-9.]+$)/, '') : remoteAddress;
}

/** What a question and its answer say of themselves. */
export function saidOf(request: IncomingMessage, header: (name: string) => string | undefined): Said {
  const platform = header('narrows-platform');
  const view = header('narrows-view');
  const cache = header('narrows-cache');
  const trace = traceIdOf(request.headers['traceparent']);
  return {
    ...(platform !== undefined && { platform }),
    ...(view !== undefined && { view }),
    ...(cache !== undefined && { cache }),
    ...(trace !== undefined && { trace }),
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
