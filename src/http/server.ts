import { randomUUID } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { NarrowsError } from '../errors.ts';
import type { PlatformSet } from '../oci/platform.ts';
import type { Pull } from '../pull/pull.ts';
import type { PullRequest } from '../pull/request.ts';
import { rawBadRequest, sendError } from './errors.ts';
import { parseRoute } from './route.ts';
import { createSender } from './send.ts';
import type { Sender, StreamLimits } from './send.ts';

/** A place to listen at, and what it says about those who come there. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly set?: PlatformSet | undefined;
  readonly view: 'image' | 'index';
  readonly upstream?: string | undefined;
}

export interface EdgeLimits extends StreamLimits {
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveMs: number;
}

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
  readonly error?: unknown;
}

export interface EdgeOptions {
  readonly endpoints: readonly Endpoint[];
  readonly limits: EdgeLimits;
  readonly pull: Pull;
  onAnswered(answered: Answered): void;
}

export interface Edge {
  /** The ports that were bound, in the order of the endpoints. */
  readonly ports: readonly number[];
  /** No new work; what runs may finish within `graceMs`, then it is cut off. */
  stop(graceMs: number): Promise<void>;
}

export async function startEdge(options: EdgeOptions): Promise<Edge> {
  const sender = createSender(options.limits);
  const state = { isDraining: false };
  const servers: Server[] = [];
  try {
    for (const endpoint of options.endpoints) servers.push(await listen(endpoint, options, sender, state));
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    async stop(graceMs) {
      state.isDraining = true;
      const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)));
      const timer = setTimeout(() => servers.forEach((server) => server.closeAllConnections()), graceMs);
      await Promise.all(closed);
      clearTimeout(timer);
    },
  };
}

/** A cluster that starts a job knocks all at once; who finds the queue full knocks again after whole seconds. */
const backlog = 4096;
const maxPipelined = 64;

async function listen(
  endpoint: Endpoint,
  options: EdgeOptions,
  sender: Sender,
  state: { isDraining: boolean },
): Promise<Server> {
  const { limits } = options;
  const settings = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveMs,
  };
  const answering = new WeakMap<Duplex, Set<ServerResponse>>();
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    const pipelined = answering.get(socket) ?? new Set();
    answering.set(socket, pipelined.add(response));
    response.once('close', () => pipelined.delete(response));
    // No client sends so many questions ahead; one that does costs us what it never waits for.
    if (pipelined.size > maxPipelined) return void socket.destroy();
    if (state.isDraining) response.setHeader('connection', 'close');
    // A connection that was busy when the listener closed is idle now, and nobody will use it again.
    response.once('close', () => state.isDraining && server.closeIdleConnections());
    return void answer(request, response, endpoint, options, sender);
  };
  const server = endpoint.tls
    ? createHttpsServer({ ...settings, ...endpoint.tls }, handle)
    : createHttpServer(settings, handle);
  server.maxConnections = limits.maxConnections;
  server.on('clientError', (_error, socket) => {
    // Within an answer that has begun, these bytes would be taken for its own.
    const hasBegun = [...(answering.get(socket) ?? [])].some((response) => response.headersSent);
    if (socket.writable && !hasBegun) socket.end(rawBadRequest());
    else socket.destroy();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const { host, port } = endpoint;
    server.listen({ host, port, backlog }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  return server;
}

/** A request's life: parse, pull, send, and one line about it. */
async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  endpoint: Endpoint,
  options: EdgeOptions,
  sender: Sender,
): Promise<void> {
  const started = performance.now();
  const id = randomUUID();
  const failure: { error?: unknown } = {};
  response.setHeader('docker-distribution-api-version', 'registry/2.0');
  response.setHeader('x-request-id', id);
  // Upstreams choose what is in here and what it is called: to a browser it is neither page nor script.
  response.setHeader('x-content-type-options', 'nosniff');
  response.setHeader('content-security-policy', "default-src 'none'; sandbox");
  response.once('close', () => options.onAnswered(describe(request, response, id, started, failure.error)));
  try {
    await sender.send(await options.pull(parseRequest(request, endpoint)), request, response);
  } catch (error) {
    failure.error = error;
    sendError(error, request, response);
  }
}

/** @throws NarrowsError for what is no request of the distribution API's read side */
export function parseRequest(request: IncomingMessage, endpoint: Endpoint): PullRequest {
  const { method, headers, socket } = request;
  if (method !== 'GET' && method !== 'HEAD') {
    throw new NarrowsError(
      'methodNotAllowed',
      `${method} is not possible here: this mirror is read from, push to the registry itself.`,
      {
        headers: { allow: 'GET, HEAD', connection: 'close' },
      },
    );
  }
  const route = parseRoute(request.url ?? '/');
  const header = headers['narrows-platform'];
  return {
    route,
    method,
    accept: headers.accept,
    caller: {
      pathSet: route.pathSet,
      host: headers.host?.replace(/:\d+$/, '').toLowerCase(),
      listenerSet: endpoint.set,
      header: Array.isArray(header) ? header.join(',') : header,
      address: socket.remoteAddress,
      userAgent: headers['user-agent'],
    },
    endpointView: endpoint.view,
    endpointUpstream: endpoint.upstream,
  };
}

function describe(
  request: IncomingMessage,
  response: ServerResponse,
  id: string,
  started: number,
  error: unknown,
): Answered {
  const said = (name: string) => response.getHeader(name) as string | undefined;
  const platform = said('narrows-platform');
  const view = said('narrows-view');
  const cache = said('narrows-cache');
  return {
    id,
    method: request.method ?? '',
    url: request.url ?? '',
    status: response.statusCode,
    ms: Math.round(performance.now() - started),
    client: request.socket.remoteAddress?.replace(/^::ffff:(?=[0-9.]+$)/, '') ?? '',
    isWhole: response.writableFinished,
    bytes:
      response.writableFinished && request.method !== 'HEAD' ? Number(response.getHeader('content-length') ?? 0) : 0,
    ...(platform !== undefined && { platform }),
    ...(view !== undefined && { view }),
    ...(cache !== undefined && { cache }),
    ...(error !== undefined && { error }),
  };
}
