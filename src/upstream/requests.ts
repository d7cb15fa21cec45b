import { Agent, ProxyAgent } from 'undici';
import type { Dispatcher } from 'undici';
import { NarrowsError } from '../errors.ts';
import { viaOf } from '../hops.ts';
import { drain, firstOf, readLimited, retryAfterOf } from './answers.ts';
import type { Answer } from './answers.ts';
import { createDialer, looksPublic, withSystem } from './dialer.ts';
import { clientSpan, traceHeaders } from '../trace.ts';
import { bareHost, isTrusted, isTrustedHost, isTrustedRealm, portOf } from './trust.ts';
import { isStaleConnection, notDialled, toTrouble } from './trouble.ts';
import { createAuthorization } from './tokens.ts';
import type { TokenReply, TokenRequest } from './tokens.ts';
import type { Credentials } from './credentials.ts';
import type { ReceiveBuffers } from './receiving.ts';

export interface UpstreamOptions {
  /** The registry's name in references, such as `docker.io`. */
  readonly name: string;
  readonly url: URL;
  readonly credentials: Credentials;
  /** PEM certificates that are trusted beside the system's. */
  readonly ca?: string | undefined;
  /** Says who we are, to the registry itself alone; not through a proxy. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined;
  readonly proxy?: URL | undefined;
  /** Hosts, with or without a port, that may be sent credentials and may have private addresses. */
  readonly trustedHosts: readonly string[];
  readonly limits: UpstreamLimits;
  /** Blobs are received into them; undefined for memory of the runtime's. */
  readonly receiveBuffers?: ReceiveBuffers | undefined;
  /** What this mirror calls itself to the registry, so that a loop is seen; undefined where nobody asks this process. */
  readonly pseudonym?: string | undefined;
  /** It is one of ours: others have no use for what a trace says of callers. */
  readonly isTraced?: boolean | undefined;
  now(): number;
  /** Told of every answer and failure; for counting. */
  onAnswer?(upstream: string, outcome: string): void;
  /** Told of the bytes of bodies as they come. */
  onBytes?(upstream: string, bytes: number): void;
}

export interface UpstreamLimits {
  readonly maxConnections: number;
  /** Requests that wait for their answer's head, or for a connection. */
  readonly maxRequests: number;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  /** Longest silence within a body. */
  readonly stallTimeoutMs: number;
  readonly maxTokens: number;
}

export interface Request {
  readonly method: 'GET' | 'HEAD';
  /** Path and query below the upstream's URL. */
  readonly path: string;
  readonly headers: Record<string, string>;
  /** The repository that the request is about: the scope of its token. Without one, a token of no scope will do. */
  readonly repository?: string;
  /** A blob's bytes are asked for: such answers are long, and must not be in the way of questions. */
  readonly isBody?: boolean;
}

export interface Requester {
  send(request: Request): Promise<Answer>;
  /** How long the token service is left alone yet. */
  backoffMs(): number;
  close(): Promise<void>;
}

const maxRedirects = 5;
/** A connection costs up to three ways there and back: it is kept for the next layer, unless the registry says less. */
const idleMs = 30_000;
const maxTokenBytes = 1024 * 1024;

/**
 * Sends requests to one registry: finds its token, follows its redirects, never with a credential to another host.
 * Redirects are followed here because libraries forward what they should not (GHSA-vh4v-2xq2-g5cg, CVE-2024-24758),
 * and each upstream has its connections to itself because shared ones have mixed up answers (CVE-2026-6733).
 */
export function createRequester(options: UpstreamOptions): Requester {
  const { name, url, limits } = options;
  const deadlineMs = limits.headersTimeoutMs + limits.stallTimeoutMs;
  let underWay = 0;
  const questions = createDispatcher(options);
  const bodies = createDispatcher(options, options.receiveBuffers);
  const authorization = createAuthorization({
    upstream: name,
    credentials: options.credentials,
    maxTokens: limits.maxTokens,
    isTrustedRealm: (realm) => isTrustedRealm(realm, options),
    request: requestToken,
    now: options.now,
  });

  async function requestToken({ method, url: at, headers, body }: TokenRequest): Promise<TokenReply> {
    const answer = await dispatch(questions, at, { method, headers: { ...headers, accept: 'application/json' }, body });
    const bytes = await readLimited(
      answer.body,
      { maxBytes: maxTokenBytes, deadlineMs },
      `the token service of ${name}`,
    );
    const retryAfterS = retryAfterOf(answer.headers, options.now());
    return {
      status: answer.statusCode,
      text: bytes.toString(),
      ...(retryAfterS !== undefined && { retryAfterS }),
    };
  }

  async function dispatch(
    dispatcher: Dispatcher,
    at: URL,
    init: { method: 'GET' | 'HEAD' | 'POST'; headers: Record<string, string>; body?: string | undefined },
  ): Promise<Dispatcher.ResponseData> {
    const request: Dispatcher.RequestOptions = {
      origin: at.origin,
      path: at.pathname + at.search,
      method: init.method,
      headers: { 'user-agent': 'narrows', 'accept-encoding': 'identity', ...init.headers },
      ...(init.body !== undefined && { body: init.body }),
    };
    const answer = await untilHeaders(dispatcher, request).catch((error: unknown) => {
      // A connection that died idle in the pool says nothing about the registry. No byte of an answer was seen, and
      // these methods change nothing, so once more is safe.
      if (init.method === 'POST' || !isStaleConnection(error)) throw error;
      return untilHeaders(dispatcher, request);
    });
    // A body that is given up says so by an event; whoever reads it gets the same as a rejection.
    answer.body.on('error', () => undefined);
    return answer;
  }

  /** The library's limits begin with a connection: waiting for a free one, or for a silent proxy, has to end too. */
  async function untilHeaders(
    dispatcher: Dispatcher,
    request: Dispatcher.RequestOptions,
  ): Promise<Dispatcher.ResponseData> {
    const controller = new AbortController();
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const error = Object.assign(new Error('no answer in time'), { code: 'UND_ERR_HEADERS_TIMEOUT' });
      // What has no connection yet does not hear of it before it has one: so it is not waited for.
      late.reject(error);
      controller.abort(error);
    }, limits.connectTimeoutMs + limits.headersTimeoutMs);
    try {
      return await Promise.race([dispatcher.request({ ...request, signal: controller.signal }), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  async function follow(request: Request, auth: string | undefined): Promise<Answer> {
    let at = new URL(url.pathname.replace(/\/$/, '') + request.path, url);
    for (let hops = 0; hops <= maxRedirects; hops++) {
      const isRegistry = at.origin === url.origin;
      const own = options.pseudonym === undefined ? {} : { via: viaOf(options.pseudonym) };
      const headers = {
        ...request.headers,
        ...(isRegistry && own),
        ...(isRegistry && options.isTraced && traceHeaders()),
        ...(isRegistry && auth !== undefined && { authorization: auth }),
      };
      const answer = await dispatch(request.isBody ? bodies : questions, at, { method: request.method, headers });
      const location = redirectOf(answer);
      if (location === undefined) {
        return { status: answer.statusCode, headers: answer.headers, body: answer.body, redirected: !isRegistry };
      }
      await drain(answer.body);
      at = redirectTarget(location, at, name);
      // The dialer sees the proxy's address only: what lies behind it is judged by its name.
      if (options.proxy && !isTrustedHost(at, options) && !looksPublic(bareHost(at))) throw notDialled(name);
    }
    throw new NarrowsError('upstreamUnusable', `${name} redirects more than ${maxRedirects} times.`);
  }

  async function traced(request: Request): Promise<Answer> {
    const span = clientSpan(`${request.method} ${name}`);
    const said = { 'http.request.method': request.method, 'server.address': url.host, 'url.path': request.path };
    try {
      const answer = await span.run(() => send(request));
      span.end({ ...said, 'http.response.status_code': answer.status });
      return answer;
    } catch (error) {
      span.end(said, error);
      throw error;
    }
  }

  async function send(request: Request): Promise<Answer> {
    const scope = request.repository === undefined ? '' : `repository:${request.repository}:pull`;
    if (underWay >= limits.maxRequests) {
      throw new NarrowsError('overloaded', `${underWay} requests to ${name} are waiting already.`, {
        retryAfterS: 5,
      });
    }
    underWay++;
    try {
      const auth = await authorization.current(scope);
      const answer = await follow(request, auth);
      options.onAnswer?.(name, String(answer.status));
      if (answer.status !== 401 || answer.redirected) return answer;
      const better = await authorization.answer(
        scope,
        [answer.headers['www-authenticate'] ?? ''].flat().join(', '),
        auth,
      );
      if (better === undefined) return answer;
      await drain(answer.body);
      const second = await follow(request, better);
      options.onAnswer?.(name, String(second.status));
      return second;
    } catch (error) {
      const trouble = toTrouble(error, name);
      options.onAnswer?.(name, trouble.kind);
      throw trouble;
    } finally {
      underWay--;
    }
  }

  return {
    send: traced,
    backoffMs: () => authorization.backoffMs(),
    async close() {
      await questions.destroy();
      await bodies.destroy();
    },
  };
}

function createDispatcher(options: UpstreamOptions, receiveBuffers?: ReceiveBuffers): Dispatcher {
  const { limits, ca, url, clientCertificate } = options;
  const own = clientCertificate && { ...clientCertificate, host: bareHost(url), port: portOf(url) };
  const connect = createDialer({
    ca,
    own,
    connectTimeoutMs: limits.connectTimeoutMs,
    receiveBuffers,
    isTrusted: (host, port) => isTrusted(host, port, options),
  });
  const common = {
    connections: limits.maxConnections,
    headersTimeout: limits.headersTimeoutMs,
    bodyTimeout: limits.stallTimeoutMs,
    allowH2: false,
    pipelining: 1,
    keepAliveTimeout: idleMs,
    keepAliveMaxTimeout: idleMs,
  };
  if (!options.proxy) return new Agent({ ...common, connect });
  return new ProxyAgent({ ...common, uri: options.proxy.href, ...(ca && { requestTls: { ca: withSystem(ca) } }) });
}

function redirectOf({ statusCode, headers }: Dispatcher.ResponseData): string | undefined {
  return [301, 302, 303, 307, 308].includes(statusCode) ? (firstOf(headers['location']) ?? '') : undefined;
}

function redirectTarget(location: string, from: URL, name: string): URL {
  const to = location !== '' && URL.canParse(location, from) ? new URL(location, from) : undefined;
  const downgraded = from.protocol === 'https:' && to?.protocol === 'http:';
  if (!to || !['https:', 'http:'].includes(to.protocol) || downgraded || to.username || to.password) {
    throw new NarrowsError('upstreamUnusable', `${name} redirects to what is no safe address.`);
  }
  return to;
}
