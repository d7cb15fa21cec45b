import { createServer, request } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { NarrowsError, errors } from '../../src/errors.ts';
import type { ErrorName } from '../../src/errors.ts';
import { errorDocument, rawBadRequest, sendError, toNarrowsError } from '../../src/http/errors.ts';
import type { Teardown } from '../fixtures/mirror.ts';

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly isComplete: boolean;
}

interface Document {
  errors: { code: string; message: string; detail?: unknown }[];
}

/** A server that answers everything with one error, after it has sent `begun`. */
async function startFailing(t: Teardown, error: unknown, begun?: string): Promise<string> {
  const server = createServer((request, response) => {
    const fail = () => sendError(error, request, response);
    if (begun === undefined) fail();
    else response.write(begun, fail);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

/** One request on a connection of its own; a body that breaks off is not complete. */
async function ask(url: string, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { agent: false, method }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (body += text));
      response.on('error', () => undefined);
      const { statusCode: status, headers } = response;
      response.on('close', () => resolve({ status, headers, body, isComplete: response.complete }));
    });
    asked.on('error', reject).end();
  });
}

void t.test('sendError: every error is told as the document of the specification', async (t) => {
  for (const name of Object.keys(errors) as ErrorName[]) {
    const url = await startFailing(t, new NarrowsError(name, 'Do this.', { detail: { at: 1 } }));
    const answer = await ask(url);
    t.equal(answer.status, errors[name].status, name);
    t.equal(answer.headers['content-type'], 'application/json', name);
    t.equal(answer.headers['content-length'], String(Buffer.byteLength(answer.body)), name);
    t.same(
      JSON.parse(answer.body) as Document,
      { errors: [{ code: errors[name].code, message: 'Do this.', detail: { at: 1 } }] },
      name,
    );
  }
});

void t.test('sendError: a HEAD gets the same headers and no body', async (t) => {
  const url = await startFailing(t, new NarrowsError('manifestUnknown', 'Größer als 🐳.'));
  const get = await ask(url);
  const head = await ask(url, 'HEAD');
  t.equal(head.status, 404);
  t.equal(head.body.length, 0);
  for (const name of ['content-type', 'content-length']) t.equal(head.headers[name], get.headers[name], name);
  t.equal(get.headers['content-length'], String(Buffer.byteLength(get.body)));
});

void t.test('sendError: whoever should come back is told when', async (t) => {
  const cases: [error: NarrowsError, expected: RegExp | undefined][] = [
    [new NarrowsError('rateLimited', 'x', { retryAfterS: 77 }), /^77$/],
    [new NarrowsError('rateLimited', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('overloaded', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('draining', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('upstreamUnavailable', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('upstreamUnusable', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('upstreamTimeout', 'x'), /^[1-9]\d*$/],
    [new NarrowsError('upstreamTimeout', 'x', { retryAfterS: 9 }), /^9$/],
    [new NarrowsError('manifestUnknown', 'x'), undefined],
    [new NarrowsError('denied', 'x'), undefined],
    [new NarrowsError('internal', 'x'), undefined],
  ];
  for (const [error, expected] of cases) {
    const { headers } = await ask(await startFailing(t, error));
    if (expected) t.match(headers['retry-after'], expected, `${error.kind} ${error.retryAfterS ?? ''}`);
    else t.equal(headers['retry-after'], undefined, error.kind);
  }
});

void t.test('sendError: an error may bring headers of its own', async (t) => {
  const error = new NarrowsError('methodNotAllowed', 'x', { headers: { allow: 'GET, HEAD' } });
  const { headers } = await ask(await startFailing(t, error));
  t.match(headers, { allow: 'GET, HEAD', 'content-type': 'application/json' });
});

void t.test('sendError: what no one foresaw is a 500 without its text', async (t) => {
  for (const error of [new Error('password=hunter2'), 'hunter2', undefined, { secret: 'hunter2' }]) {
    const answer = await ask(await startFailing(t, error));
    t.equal(answer.status, 500);
    t.equal((JSON.parse(answer.body) as Document).errors[0]?.code, 'UNKNOWN');
    t.notMatch(answer.body, 'hunter2');
  }
});

void t.test('10. sendError: nothing is appended to an answer that has begun', async (t) => {
  const url = await startFailing(t, new NarrowsError('upstreamTimeout', 'an error text'), 'begun');
  const answer = await ask(url);
  t.equal(answer.body, 'begun');
  t.notOk(answer.isComplete, 'and the client sees that it broke off');
});

void t.test('toNarrowsError: keeps what is known and wraps the rest, for the log', (t) => {
  const known = new NarrowsError('denied', 'x');
  t.equal(toNarrowsError(known), known);
  const cause = new Error('the reason');
  t.match(toNarrowsError(cause), { kind: 'internal', status: 500, cause });
  t.end();
});

void t.test('errorDocument: leaves out a detail that is not there', (t) => {
  t.same(JSON.parse(errorDocument(new NarrowsError('denied', 'No.'))), {
    errors: [{ code: 'DENIED', message: 'No.' }],
  });
  t.same(JSON.parse(errorDocument(new NarrowsError('denied', 'No.', { detail: null }))), {
    errors: [{ code: 'DENIED', message: 'No.', detail: null }],
  });
  t.end();
});

void t.test('rawBadRequest: is a whole response that ends its connection', (t) => {
  const [head = '', body = '', ...rest] = rawBadRequest().split('\r\n\r\n');
  const [line, ...headers] = head.split('\r\n');
  t.equal(line, 'HTTP/1.1 400 Bad Request');
  t.ok(headers.includes('connection: close'));
  t.ok(headers.includes('content-type: application/json'));
  t.ok(headers.includes(`content-length: ${Buffer.byteLength(body)}`));
  t.match(JSON.parse(body), { errors: [{ code: 'UNSUPPORTED', message: String }] });
  t.same(rest, []);
  t.end();
});
