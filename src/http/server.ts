import { randomUUID } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, RequestListener, Server, ServerOptions, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Server as SecureServer } from 'node:https';
import { Server as NetServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { AddressLimits } from '../access/addresses.ts';
import type { Identity } from '../access/identity.ts';
import { withHops } from '../hops.ts';
import { canonicalHost } from '../oci/host.ts';
import type { PullRequest, Reply } from '../pull/request.ts';
import { attributesOf, describe } from './answered.ts';
import type { Answered, Known } from './answered.ts';
import { askerOf } from './asker.ts';
import { bodyOf, drain } from './body.ts';
import { rawBadRequest, sendError } from './errors.ts';
import { parsePushRoute } from './push-route.ts';
import { parseRoute, parseTarget } from './route.ts';
import type { Target } from './route.ts';
import { createSender } from './send.ts';
import type { Sender, StreamLimits } from './send.ts';
import type { EndpointRules, Serving } from './serving.ts';
import { contextOf, tlsOptions } from './tls.ts';
import type { Tls } from './tls.ts';
import { serverSpan } from '../trace.ts';
import { isTokenPath, tokenReply } from './token-route.ts';

/** A place to listen at. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly tls?: Tls | undefined;
}

export interface EdgeLimits extends StreamLimits {
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly headersTimeoutMs: number;
  /** How long a client may be silent within what it sends. */
  readonly requestStallMs: number;
  readonly keepAliveMs: number;
}

export interface EdgeOptions {
  readonly endpoints: readonly Endpoint[];
  readonly limits: EdgeLimits;
  /** What this mirror calls itself in `Via`. */
  readonly pseudonym: string;
  readonly addresses: AddressLimits;
  /** What answers now; asked once for each request. */
  serving(): Serving;
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
  const state: DrainState = { isDraining: false, closesIdle: false };
  const servers: Server[] = [];
  try {
    for (const at of options.endpoints.keys()) servers.push(await listen(at, options, sender, state));
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    async stop(graceMs) {
      state.isDraining = true;
      const closed = servers.map((server) => closeListener(server));
      const closeIdle = () => {
        state.closesIdle = true;
        for (const server of servers) server.closeIdleConnections();
      };
      const timers = [
        setTimeout(closeIdle, Math.min(idleGraceMs, graceMs)),
        setTimeout(() => servers.forEach((server) => server.closeAllConnections()), graceMs),
      ];
      await Promise.all(closed);
      timers.forEach(clearTimeout);
    },
  };
}

interface DrainState {
  isDraining: boolean;
  closesIdle: boolean;
}

/** A client may be about to ask on a connection that is idle now: its answer says that it is the last one there. */
const idleGraceMs = 250;

/** That of `http` closes idle connections at once, and a question that is on its way there is lost. */
async function closeListener(server: Server): Promise<void> {
  await new Promise((resolve) => NetServer.prototype.close.call(server, resolve));
  // Ends its timers.
  server.close(() => undefined);
}

/** A cluster that starts a job knocks all at once; who finds the queue full knocks again after whole seconds. */
const backlog = 4096;
const maxPipelined = 64;
const lingerMs = 1000;

async function listen(at: number, options: EdgeOptions, sender: Sender, state: DrainState): Promise<Server> {
  const { limits } = options;
  const endpoint = options.endpoints[at]!;
  const settings = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    // How often that is looked at: by itself only every 30 s.
    connectionsCheckingInterval: Math.min(limits.headersTimeoutMs, 30_000),
    // A push takes as long as it takes; `bodyOf` sees to it that it goes on.
    requestTimeout: 0,
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
    response.once('close', () => state.closesIdle && server.closeIdleConnections());
    return void answer(request, response, at, options, sender);
  };
  const server = endpoint.tls ? secureServer(endpoint.tls, settings, handle) : createHttpServer(settings, handle);
  server.maxConnections = limits.maxConnections;
  server.on('connection', (socket: Socket) => {
    const { remoteAddress } = socket;
    if (!options.addresses.open(remoteAddress)) return void socket.destroy();
    return void socket.once('close', () => options.addresses.close(remoteAddress));
  });
  server.on('clientError', (_error, socket) => {
    // Within an answer that has begun, these bytes would be taken for its own.
    const hasBegun = [...(answering.get(socket) ?? [])].some((response) => response.headersSent);
    const canBeTold = socket.writable && !hasBegun;
    if (canBeTold) socket.end(rawBadRequest());
    // Whoever does not read that, and does not leave, has a moment and not the connection.
    setTimeout(() => socket.destroy(), canBeTold ? lingerMs : 0).unref();
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

/** Connections that are there keep the certificate that they began with; new ones see the renewed one. */
function secureServer(
  tls: Tls,
  settings: ServerOptions & { headersTimeout: number },
  handle: RequestListener,
): SecureServer {
  const secrets = tlsOptions({ files: tls.files, handshakeTimeoutMs: settings.headersTimeout });
  const server = createHttpsServer({ ...settings, ...secrets }, handle);
  tls.onRenewed((files) => server.setSecureContext(contextOf(files)));
  return server;
}

/** A request's life: who asks, what, the answer, and one line about it. */
async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  at: number,
  options: EdgeOptions,
  sender: Sender,
): Promise<void> {
  const serving = options.serving();
  response.once('close', serving.begin());
  const started = performance.now();
  const id = randomUUID();
  const known: Known = {};
  response.setHeader('docker-distribution-api-version', 'registry/2.0');
  response.setHeader('x-request-id', id);
  // Upstreams choose what is in here and what it is called: to a browser it is neither page nor script.
  response.setHeader('x-content-type-options', 'nosniff');
  response.setHeader('content-security-policy', "default-src 'none'; sandbox");
  const span = serverSpan(request.method ?? '', request.headers);
  response.once('close', () => {
    const answered = describe(request, response, id, started, known);
    options.onAnswered(answered);
    span.end(attributesOf(answered), answered.status >= 500 ? answered.error : undefined);
  });
  try {
    options.addresses.ask(request.socket.remoteAddress);
    const { via } = request.headers;
    await span.run(async () => {
      const answering = withHops(via, options.pseudonym, () => reply(request, response, at, options, serving, known));
      await sender.send(await answering, request, response);
    });
  } catch (error) {
    known.error = error;
    await drain(request, response);
    sendError(error, request, response);
  }
}

/** Who asks, and what: to read, or to write. */
async function reply(
  request: IncomingMessage,
  response: ServerResponse,
  at: number,
  options: EdgeOptions,
  serving: Serving,
  known: Known,
): Promise<Reply> {
  const { method = '', headers } = request;
  const { endpoints, access, tokens, pull, push } = serving;
  const rules = endpoints[at]!;
  const asker = askerOf(request, options.endpoints[at]!.tls !== undefined);
  if (tokens && isTokenPath(request.url ?? '')) {
    return tokenReply(tokens, request, asker, rules.upstream, options.limits.requestStallMs);
  }
  const target = parseTarget(request.url ?? '/');
  const by = await access.identify(asker);
  if (by.user !== undefined) known.user = by.user;
  const route = parsePushRoute(method, target);
  // Nobody reads what comes with a question, nor what comes after a wish for another protocol: the connection ends there.
  if ((!route && hasBody(request)) || headers.upgrade !== undefined) response.setHeader('connection', 'close');
  if (!route) return pull(parsePull(request, target, rules, by));
  return push({
    route,
    by,
    contentType: headers['content-type'] ?? '',
    contentRange: headers['content-range'],
    bytes: bytesOf(request),
    body: bodyOf(request, options.limits.requestStallMs),
  });
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

function bytesOf(request: IncomingMessage): number | undefined {
  const length = request.headers['content-length'];
  if (length !== undefined) return Number(length);
  return hasBody(request) ? undefined : 0;
}

function parsePull(request: IncomingMessage, target: Target, rules: EndpointRules, by: Identity): PullRequest {
  const { headers, socket } = request;
  const route = parseRoute(target);
  const header = headers['narrows-platform'];
  return {
    route,
    method: request.method === 'HEAD' ? 'HEAD' : 'GET',
    accept: headers.accept,
    by,
    caller: {
      pathSet: route.pathSet,
      host: canonicalHost(headers.host ?? '')?.host,
      listenerSet: rules.set,
      header: Array.isArray(header) ? header.join(',') : header,
      address: socket.remoteAddress,
      userAgent: headers['user-agent'],
    },
    // Another mirror, which chooses among the platforms itself.
    endpointView: headers['narrows-view'] === 'index' ? 'index' : rules.view,
    endpointUpstream: rules.upstream,
  };
}
