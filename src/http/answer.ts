import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { AddressLimits } from '../access/addresses.ts';
import type { Identity } from '../access/identity.ts';
import { withHops } from '../hops.ts';
import { canonicalHost } from '../oci/host.ts';
import type { PullRequest, Reply } from '../pull/request.ts';
import { isTracing, serverSpan } from '../trace.ts';
import { answeredAs, attributesOf, describe, plainAddress } from './answered.ts';
import type { Answered, Known } from './answered.ts';
import { askerOf } from './asker.ts';
import { bodyOf, drain, hasBody } from './body.ts';
import { sendError } from './errors.ts';
import { parsePushRoute } from './push-route.ts';
import type { RawRepeat, Repeat } from './repeats.ts';
import { parseRoute, parseTarget } from './route.ts';
import type { Target } from './route.ts';
import { createSender } from './send.ts';
import type { Sender, StreamLimits } from './send.ts';
import type { EndpointRules, Serving } from './serving.ts';
import type { Tls } from './tls.ts';
import { isTokenPath, tokenReply } from './token-route.ts';
import { cutShort, endIfStalled, endWith, isOut } from './whole.ts';

export interface AnsweringOptions {
  readonly endpoints: readonly { readonly tls?: Tls | undefined }[];
  readonly limits: StreamLimits & {
    /** How long a client may be silent within what it sends. */
    readonly requestStallMs: number;
    /** What answers say of how long a connection is kept. */
    readonly keepAliveMs: number;
  };
  /** What this mirror calls itself in `Via`. */
  readonly pseudonym: string;
  readonly addresses: AddressLimits;
  /** What answers now; asked once for each request. */
  serving(): Serving;
  onAnswered(answered: Answered): void;
}

/** A request came, to the listener `at`. */
export interface Answering {
  /** Gives an answer that was given a moment ago; undefined where there is none. */
  again(request: IncomingMessage, response: ServerResponse, at: number): Repeat | undefined;
  /**
   * The same for a question that has not been read, on a connection that waits for nothing; false where there is none.
   *
   * @param isBusy whether another answer is under way there by now
   */
  againRaw(text: string, socket: Socket, at: number, isBusy: () => boolean): boolean;
  /** A question of this text was answered again: the next one need not be read. */
  learn(text: string, request: IncomingMessage, at: number, repeat: Repeat): void;
  anew(request: IncomingMessage, response: ServerResponse, at: number): void;
}

/** Of every answer. Upstreams choose what is in one and what it is called: to a browser it is neither page nor script. */
const everywhere = {
  'docker-distribution-api-version': 'registry/2.0',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; sandbox",
};

/** Answers requests: what has just been answered is given again, everything else is looked into. */
export function createAnswering(options: AnsweringOptions): Answering {
  const sender = createSender(options.limits);
  // Who shows a certificate there is someone; others there are told like everyone, by the long way.
  const tellsApart = options.endpoints.map(({ tls }) => tls?.files.clientCa !== undefined);
  return {
    again(request, response, at) {
      // What is traced is told in full.
      if (tellsApart[at] || isTracing()) return undefined;
      const repeat = options.serving().repeats.find(request, at);
      if (!repeat || !isWithinRate(request.socket, options)) return undefined;
      giveAgain(repeat, request, response, options);
      return repeat;
    },
    againRaw(text, socket, at, isBusy) {
      if (isTracing()) return false;
      const raw = options.serving().repeats.findRaw(text, socket, at);
      if (!raw || !isWithinRate(socket, options)) return false;
      giveRaw(raw, socket, isBusy, options);
      return true;
    },
    learn: (text, request, at, repeat) =>
      options.serving().repeats.noteRaw(text, request, at, repeat, options.limits.keepAliveMs),
    anew: (request, response, at) =>
      void answer({ request, response, at, id: randomUUID(), started: performance.now() }, options, sender),
  };
}

/** Whoever is refused here is refused by the long way, in words. */
function isWithinRate(socket: Socket, { addresses }: AnsweringOptions): boolean {
  try {
    addresses.ask(socket.remoteAddress);
    return true;
  } catch {
    return false;
  }
}

function giveAgain(
  repeat: Repeat,
  request: IncomingMessage,
  response: ServerResponse,
  { limits, onAnswered }: AnsweringOptions,
): void {
  const id = randomUUID();
  response.writeHead(repeat.status, [...repeat.head, 'x-request-id', id]);
  endWith(response, repeat.body, limits.stallMs);
  const { bodyBytes, said } = repeat;
  const tell = (ms: number, error?: Error) => {
    const answered = answeredAs(request, repeat.status, { id, ms, isWhole: error === undefined, bodyBytes, said });
    onAnswered(error ? { ...answered, error } : answered);
  };
  if (isOut(response)) return tell(0);
  const started = performance.now();
  response.once('close', () => tell(Math.round(performance.now() - started), cutShort(response)));
}

/** The same past `node:http`, which takes the connection for idle meanwhile. */
function giveRaw(
  { ready, answered }: RawRepeat,
  socket: Socket,
  isBusy: () => boolean,
  { limits, onAnswered }: AnsweringOptions,
): void {
  const id = randomUUID();
  ready.writeTo(socket, id);
  const tell = (ms: number, error?: Error | null) => {
    const broken = error && { isWhole: false, bytes: 0, error };
    onAnswered({ ...answered, id, ms, client: plainAddress(socket), ...broken });
  };
  if (socket.writableLength === 0) return tell(0);
  const started = performance.now();
  // As an idle one it would end.
  const idleMs = socket.timeout ?? 0;
  socket.setTimeout(0);
  const timer = endIfStalled(socket, limits.stallMs);
  // Nothing, behind all that: its turn comes when the rest is out.
  socket.write('', (error) => {
    clearTimeout(timer);
    if (!isBusy()) socket.setTimeout(idleMs);
    tell(Math.round(performance.now() - started), error);
  });
}

interface Asked {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** The listener. */
  readonly at: number;
  readonly id: string;
  readonly started: number;
}

/** A request's life: who asks, what, the answer, and one line about it. */
async function answer(asked: Asked, options: AnsweringOptions, sender: Sender): Promise<void> {
  const { request, response, at, id, started } = asked;
  const serving = options.serving();
  response.once('close', serving.begin());
  const known: Known = {};
  for (const [name, value] of Object.entries({ ...everywhere, 'x-request-id': id })) response.setHeader(name, value);
  if (isLast(request)) response.setHeader('connection', 'close');
  const span = serverSpan(request.method ?? '', request.headers);
  response.once('close', () => {
    known.error ??= cutShort(response);
    const answered = describe(request, response, id, started, known);
    options.onAnswered(answered);
    span.end(attributesOf(answered), answered.status >= 500 ? answered.error : undefined);
  });
  try {
    options.addresses.ask(request.socket.remoteAddress);
    const { via } = request.headers;
    await span.run(async () => {
      const note = serving.repeats.noting();
      const found = await withHops(via, options.pseudonym, () => reply(asked, options, serving, known));
      void note(request, at, found, everywhere);
      await sender.send(found, request, response);
    });
  } catch (error) {
    known.error = error;
    await drain(request, response);
    sendError(error, request, response);
  }
}

const bringing = ['PUT', 'POST', 'PATCH'];

/** Nobody reads what comes with a question, nor what comes after a wish for another protocol: the connection ends there. */
function isLast(request: IncomingMessage): boolean {
  return request.headers.upgrade !== undefined || (hasBody(request) && !bringing.includes(request.method ?? ''));
}

/** Who asks, and what: to read, or to write. */
async function reply(
  { request, at }: Asked,
  options: AnsweringOptions,
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
