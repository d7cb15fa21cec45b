import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import type { AddressInfo } from 'node:net';
import { NarrowsError } from '../errors.ts';
import { canonicalHost, canonicalName } from '../oci/host.ts';
import { act, isAction } from './actions.ts';
import type { AdminActions } from './actions.ts';
import { readPage } from './page.ts';

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  /** Names under which people reach it, beside addresses and localhost. */
  readonly hosts: readonly string[];
  /** May new work be sent here? */
  isReady(): boolean;
  /** No upstream is asked. */
  isOffline(): boolean;
  metrics(): Promise<{ text: string; contentType: string }>;
  readonly api: AdminApi;
  readonly actions: AdminActions;
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
  readonly headers?: Readonly<Record<string, string>>;
}

const maxPage = 1000;
const usage =
  'There is: /healthz /readyz /metrics /api/live /api/images /api/inspect?image=…&platform=…, and a page for people at /; POST /api/warm /api/unpin /api/purge /api/offline /api/log, for whom admin.act names\n';

/** The listener for operators and probes, apart from the clients'. */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const page = await readPage();
  const server = createServer((request, response) => {
    if (page.answer(request, response)) return;
    void send(request, response, options);
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

async function send(request: IncomingMessage, response: ServerResponse, options: AdminOptions): Promise<void> {
  const { status, text, contentType, headers } = await answer(request, options).catch((error: unknown) => {
    if (!(error instanceof NarrowsError)) options.onTrouble(error);
    return refusal(error);
  });
  response.writeHead(status, {
    ...headers,
    'content-type': contentType ?? 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
  });
  response.end(text);
}

async function answer(request: IncomingMessage, options: AdminOptions): Promise<Answer> {
  const { method, url = '/' } = request;
  const target = URL.parse(url, 'http://admin');
  // A path in disguise would be one thing to those who judge it and another to those who answer.
  if (!target) return { status: 400, text: usage };
  if (target.pathname !== url.split('?', 1)[0]) return { status: 404, text: usage };
  if (target.pathname.startsWith('/api/') && isForeign(request, options.hosts)) {
    const text = 'Pages of other sites do not get answers here, nor do names that are not in admin.hosts.\n';
    return { status: 403, text };
  }
  if (method === 'POST' && isAction(target.pathname)) {
    return json(await act(request, target.pathname, options.actions), 202);
  }
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, text: 'Only GET and HEAD are answered here.\n' };
  return look(target, options);
}

async function look({ pathname, searchParams }: URL, options: AdminOptions): Promise<Answer> {
  const { isReady, isOffline, metrics, api } = options;
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
 * Is it a browser that asks for a page of another site? That may cost requests upstream, or do something here. Under a
 * name that someone else points here (DNS rebinding) it would read the answers: a page is only ours at an address, at
 * localhost, or at a name that is configured.
 */
function isForeign({ headers }: IncomingMessage, hosts: readonly string[]): boolean {
  const { host: name = '' } = canonicalHost(headers.host ?? '') ?? {};
  const isOwn = isIP(name.replaceAll(/[[\]]/g, '')) > 0 || name === 'localhost' || hosts.includes(name);
  const site = headers['sec-fetch-site'];
  if (!isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none')) return true;
  // Behind a proxy it is https for the browser, and http here.
  const origin = headers.origin?.replace(/^https?:\/\//, '');
  return origin !== undefined && canonicalName(origin) !== canonicalName(headers.host ?? '');
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
  if (error instanceof NarrowsError) {
    const told = json({ error: { code: error.code, message: error.message } }, error.status);
    return { ...told, headers: error.headers };
  }
  return json({ error: { code: 'UNKNOWN', message: 'This could not be answered; the log says why.' } }, 500);
}
