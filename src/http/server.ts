import { createServer as createHttpServer } from 'node:http';
import type { RequestListener, Server, ServerOptions } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Server as SecureServer } from 'node:https';
import { Server as NetServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { createAnswering } from './answer.ts';
import type { Answering, AnsweringOptions } from './answer.ts';
import { createConnections } from './connections.ts';
import type { DrainState } from './connections.ts';
import { rawBadRequest } from './errors.ts';
import type { StreamLimits } from './send.ts';
import { contextOf, tlsOptions } from './tls.ts';
import type { Tls } from './tls.ts';

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

export interface EdgeOptions extends AnsweringOptions {
  readonly endpoints: readonly Endpoint[];
  readonly limits: EdgeLimits;
}

export interface Edge {
  /** The ports that were bound, in the order of the endpoints. */
  readonly ports: readonly number[];
  /** No new work; what runs may finish within `graceMs`, then it is cut off. */
  stop(graceMs: number): Promise<void>;
}

export async function startEdge(options: EdgeOptions): Promise<Edge> {
  const answer = createAnswering(options);
  const servers: Server[] = [];
  const closeIdle = () => servers.forEach((server) => server.closeIdleConnections());
  const state: DrainState = { isDraining: false, closesIdle: false, closeIdle };
  try {
    for (const at of options.endpoints.keys()) servers.push(await listen(at, options, answer, state));
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    async stop(graceMs) {
      state.isDraining = true;
      const closed = servers.map((server) => closeListener(server));
      const leaveIdle = () => {
        state.closesIdle = true;
        closeIdle();
      };
      const timers = [
        setTimeout(leaveIdle, Math.min(idleGraceMs, graceMs)),
        setTimeout(() => servers.forEach((server) => server.closeAllConnections()), graceMs),
      ];
      await Promise.all(closed);
      timers.forEach(clearTimeout);
    },
  };
}

/** A client may be about to ask on a connection that is idle now: its answer says that it is the last one there. */
const idleGraceMs = 1000;

/** That of `http` closes idle connections at once, and a question that is on its way there is lost. */
async function closeListener(server: Server): Promise<void> {
  await new Promise((resolve) => NetServer.prototype.close.call(server, resolve));
  // Ends its timers.
  server.close(() => undefined);
}

/** A cluster that starts a job knocks all at once; who finds the queue full knocks again after whole seconds. */
const backlog = 4096;
const lingerMs = 1000;

async function listen(at: number, options: EdgeOptions, answer: Answering, state: DrainState): Promise<Server> {
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
  const connections = createConnections(answer, at, state);
  const { handle } = connections;
  const server = endpoint.tls ? secureServer(endpoint.tls, settings, handle) : createHttpServer(settings, handle);
  server.maxConnections = limits.maxConnections;
  server.on('connection', (socket: Socket) => {
    const { remoteAddress } = socket;
    if (!options.addresses.open(remoteAddress)) {
      socket.destroy();
      return;
    }
    socket.once('close', () => options.addresses.close(remoteAddress));
    // What is encrypted costs more than what is saved here.
    if (!endpoint.tls) connections.putFront(socket);
  });
  server.on('clientError', (_error, socket) => {
    // Within an answer that has begun, these bytes would be taken for its own.
    const canBeTold = socket.writable && !connections.hasBegun(socket);
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
