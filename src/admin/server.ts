import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { NarrowsError } from '../errors.ts';

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  /** May new work be sent here? */
  isReady(): boolean;
  /** No upstream is asked. */
  isOffline(): boolean;
  metrics(): Promise<{ text: string; contentType: string }>;
  readonly api: AdminApi;
  /** What a 500 was about. */
  onTrouble(error: unknown): void;
}

/** What can be asked in JSON. Throws are told: a NarrowsError with its status and sentence, everything else as a 500. */
export interface AdminApi {
  /** How much of an image is here, by platform. */
  inspect(image: string, platforms: readonly string[]): Promise<unknown>;
  /** What goes on now, for people who look on. */
  live(): Promise<unknown>;
  /** Tags that are known here, in the order of their names, with the digest that each last meant. */
  images(after: string | undefined, count: number): Promise<unknown>;
}

export interface Admin {
  readonly port: number;
  stop(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly contentType?: string;
}

const maxPage = 1000;
const usage = 'There is: /healthz /readyz /metrics /api/live /api/images /api/inspect?image=…&platform=…\n';

/** The listener for operators and probes, apart from the clients'. */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const server = createServer((request, response) => {
    const send = ({ status, text, contentType = 'text/plain; charset=utf-8' }: Answer) => {
      response.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' });
      response.end(text);
    };
    if (isForeign(request)) {
      return send({ status: 403, text: 'Pages of other sites do not get answers here.\n' });
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return send({ status: 405, text: 'Only GET and HEAD are answered here.\n' });
    }
    answer(options, request.url ?? '/').then(send, (error: unknown) => {
      if (!(error instanceof NarrowsError)) options.onTrouble(error);
      send(refusal(error));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer({ isReady, isOffline, metrics, api }: AdminOptions, target: string): Promise<Answer> {
  if (!URL.canParse(target, 'http://admin')) return { status: 400, text: usage };
  const { pathname, searchParams } = new URL(target, 'http://admin');
  switch (pathname) {
    case '/healthz':
      return { status: 200, text: 'ok\n' };
    case '/readyz':
      return isReady()
        ? { status: 200, text: isOffline() ? 'ready, offline\n' : 'ready\n' }
        : { status: 503, text: 'not ready\n' };
    case '/metrics':
      return { status: 200, ...(await metrics()) };
    case '/api/live':
      return json(await api.live());
    case '/api/images':
      return json(await api.images(searchParams.get('after') ?? undefined, pageSize(searchParams.get('n'))));
    case '/api/inspect': {
      const image = searchParams.get('image');
      if (image !== null) return json(await api.inspect(image, searchParams.getAll('platform')));
      throw new NarrowsError('queryInvalid', 'Say which image: /api/inspect?image=docker.io/library/alpine:3.20.');
    }
    default:
      return { status: 404, text: usage };
  }
}

/**
 * Is it a browser that asks for a page of another site? That may cost requests upstream, and under a name that someone
 * else points here (DNS rebinding) it would read the answers.
 */
function isForeign({ headers, url = '' }: IncomingMessage): boolean {
  if (!url.startsWith('/api/')) return false;
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true;
  const origin = headers.origin;
  return origin !== undefined && origin !== `http://${headers.host}`;
}

function pageSize(text: string | null): number {
  const wanted = Number(text ?? maxPage);
  if (Number.isInteger(wanted) && wanted > 0) return Math.min(wanted, maxPage);
  throw new NarrowsError('queryInvalid', 'n is a number of at least 1.');
}

function json(value: unknown, status = 200): Answer {
  return { status, text: `${JSON.stringify(value, undefined, 2)}\n`, contentType: 'application/json' };
}

function refusal(error: unknown): Answer {
  if (error instanceof NarrowsError) return json({ error: { code: error.code, message: error.message } }, error.status);
  return json({ error: { code: 'UNKNOWN', message: 'This could not be answered; the log says why.' } }, 500);
}
