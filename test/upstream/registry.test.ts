import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { brotliCompressSync, gzipSync, zstdCompressSync } from 'node:zlib';
import t from 'tap';
import type { NarrowsError } from '../../src/errors.ts';
import { digestOf, parseDigest } from '../../src/oci/digest.ts';
import { acceptManifests, mediaTypes } from '../../src/oci/media-types.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { createReceiveBuffers } from '../../src/upstream/receiving.ts';
import type { ReceiveBuffers } from '../../src/upstream/receiving.ts';
import { createRegistry } from '../../src/upstream/registry.ts';
import type { Registry, RegistryOptions } from '../../src/upstream/registry.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { blobOf, refuse, startRegistry } from '../fixtures/registry.ts';
import type { Script, TestRegistry } from '../fixtures/registry.ts';
import { closedPort, credentialsOf, failureOf, testLimits, within } from '../fixtures/servers.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });
const name = parseRepositoryName('team/app');
const tag = parseReference('1');
const byDigest = parseReference(image.index.digest);
const blob = blobOf(noise('blob', 300_000));
const maxManifestBytes = 4 * 1024 * 1024;

interface Stage {
  readonly origin: TestRegistry;
  readonly upstream: Registry;
  readonly clock: { nowMs: number };
}

/** A registry that holds an image and a blob, and what reads it. */
async function prepare(t: Teardown, over: Partial<RegistryOptions> = {}): Promise<Stage> {
  const origin = await startRegistry();
  origin.putImage(name, '1', image);
  origin.put(name, blob);
  const clock = { nowMs: Date.parse('2026-01-01T00:00:00Z') };
  const upstream = open(origin.url, { now: () => clock.nowMs, ...over });
  t.teardown(async () => {
    await upstream.close();
    await origin.close();
  });
  return { origin, upstream, clock };
}

function open(url: string, over: Partial<RegistryOptions> = {}): Registry {
  return createRegistry({
    name: 'registry.example',
    url: new URL(url),
    credentials: credentialsOf(undefined),
    trustedHosts: [],
    limits: testLimits,
    maxManifestBytes,
    now: Date.now,
    ...over,
  });
}

async function bytesOf(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Every question that can be put to an upstream, by its name in the port. */
const questions = {
  head: (upstream: Registry) => upstream.head(name, tag),
  manifest: (upstream: Registry) => upstream.manifest(name, tag),
  blobHead: (upstream: Registry) => upstream.blobHead(name, blob.digest),
  blob: (upstream: Registry) => upstream.blob(name, blob.digest, 0),
  list: (upstream: Registry) => upstream.list(name, 'tags/list', new URLSearchParams()),
} as const;

function answerWith(status: number, headers: Record<string, string | string[]> = {}, body?: Buffer | string): Script {
  return (_, response) => {
    response.writeHead(status, headers).end(body);
    return true;
  };
}

// ---- Manifests

void t.test('head: says what a tag means, by a HEAD that wants indexes and manifests of both kinds', async (t) => {
  const { origin, upstream } = await prepare(t);
  t.same(await upstream.head(name, tag), { digest: image.index.digest, contentType: mediaTypes.ociIndex });
  t.match(origin.seen, [{ method: 'HEAD', path: '/v2/team/app/manifests/1', headers: { accept: acceptManifests } }]);
});

void t.test('head: no tag is undefined, and so is no repository', async (t) => {
  const { upstream } = await prepare(t);
  t.equal(await upstream.head(name, parseReference('none')), undefined);
  t.equal(await upstream.head(parseRepositoryName('team/none'), tag), undefined);
});

void t.test('head: a digest that is not said, or is none, is absent', async (t) => {
  const { origin, upstream } = await prepare(t);
  for (const digest of [
    undefined,
    '',
    'sha256:abc',
    `md5:${'0'.repeat(32)}`,
    `sha256:${'A'.repeat(64)}`,
    `sha256:../${'0'.repeat(61)}`,
    `${image.index.digest}, ${image.index.digest}`,
  ]) {
    origin.script = answerWith(200, {
      'content-type': 'a/b',
      ...(digest !== undefined && { 'docker-content-digest': digest }),
    });
    t.same(await upstream.head(name, tag), { contentType: 'a/b' }, String(digest));
  }
});

void t.test('head: a registry that knows no HEAD leaves the question open', async (t) => {
  const { origin, upstream } = await prepare(t);
  for (const status of [405, 501]) {
    origin.script = (seen, response) => {
      if (seen.method !== 'HEAD') return false;
      response.writeHead(status, { 'docker-content-digest': digestOf(Buffer.from('error')), 'content-type': 'x/y' });
      response.end();
      return true;
    };
    t.same(await upstream.head(name, tag), { contentType: '' }, String(status));
    t.same(await upstream.blobHead(name, blob.digest), { size: blob.bytes.length }, 'a GET tells');
    t.equal(await upstream.blobHead(name, digestOf(Buffer.from('none'))), undefined, 'or tells that there is none');
    t.same((await upstream.manifest(name, tag))?.bytes, image.index.bytes, 'GET goes on as before');
  }
});

void t.test('manifest: comes byte for byte, by tag and by digest, with its type', async (t) => {
  const { origin, upstream } = await prepare(t);
  for (const reference of [tag, byDigest]) {
    const answer = await upstream.manifest(name, reference);
    t.same(answer, { bytes: image.index.bytes, contentType: mediaTypes.ociIndex });
  }
  t.equal(await upstream.manifest(name, parseReference('none')), undefined);
  t.match(origin.seen[0], { method: 'GET', headers: { accept: acceptManifests } });
});

void t.test('8. manifest: bytes that are not those of the digest are refused, in each algorithm', async (t) => {
  const { origin, upstream } = await prepare(t);
  const bytes = image.index.bytes;
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const digest = digestOf(bytes, algorithm);
    for (const [what, wrong] of [
      ['first bit', flipped(bytes, 0)],
      ['last bit', flipped(bytes, bytes.length - 1)],
      ['cut', bytes.subarray(0, -1)],
      ['longer', Buffer.concat([bytes, Buffer.from(' ')])],
      ['empty', Buffer.alloc(0)],
    ] as const) {
      origin.script = answerWith(200, { 'docker-content-digest': digest }, wrong);
      const failure = { kind: 'upstreamUnusable', message: /other bytes/ };
      t.match(await failureOf(upstream.manifest(name, { kind: 'digest', digest })), failure, `${algorithm}, ${what}`);
    }
    origin.script = answerWith(200, {}, bytes);
    t.same((await upstream.manifest(name, { kind: 'digest', digest }))?.bytes, bytes, algorithm);
  }
});

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1;
  return copy;
}

void t.test('28. manifest: four MiB are taken, a byte more is not', async (t) => {
  const { origin, upstream } = await prepare(t);
  origin.script = answerWith(200, {}, Buffer.alloc(maxManifestBytes, 0x20));
  t.equal((await upstream.manifest(name, tag))?.bytes.length, maxManifestBytes);
  origin.script = answerWith(200, {}, Buffer.alloc(maxManifestBytes + 1, 0x20));
  t.match(await failureOf(upstream.manifest(name, tag)), { kind: 'upstreamManifestInvalid', status: 502 });
});

void t.test('28. manifest: one that is too large or without end is cut off, by length and in chunks', async (t) => {
  for (const headers of [{ 'content-length': String(5 * 1024 ** 3) }, {}]) {
    const { origin, upstream } = await prepare(t);
    let sent = 0;
    const closed = Promise.withResolvers<void>();
    origin.script = async (_, response) => {
      response.on('close', closed.resolve);
      response.writeHead(200, headers);
      sent = await flood(response);
      return true;
    };
    for (const question of [questions.manifest, questions.list]) {
      const failure = { kind: 'upstreamManifestInvalid', status: 502 };
      t.match(await failureOf(within(5000, 'the refusal', question(upstream))), failure);
    }
    await within(5000, 'closing the connection', closed.promise);
    t.ok(sent < 4 * maxManifestBytes, `${sent} bytes left the registry`);
  }
});

/** Writes for as long as someone reads; says how much. */
async function flood(response: ServerResponse): Promise<number> {
  const piece = Buffer.alloc(64 * 1024, 0x20);
  const closed = once(response, 'close');
  let sent = 0;
  while (!response.destroyed) {
    if (!response.write(piece)) await Promise.race([once(response, 'drain'), closed]);
    sent += piece.length;
  }
  return sent;
}

void t.test('manifest: a part of one is none', async (t) => {
  const { origin, upstream } = await prepare(t);
  const part = image.index.bytes.subarray(0, 100);
  const range = `bytes 0-99/${image.index.bytes.length}`;
  origin.script = answerWith(206, { 'content-range': range, 'content-type': mediaTypes.ociIndex }, part);
  t.match(await failureOf(upstream.manifest(name, tag)), { kind: 'upstreamRefused' });
  t.match(await failureOf(questions.list(upstream)), { kind: 'upstreamRefused' });
});

void t.test('manifest: one that is cut, or stalls, is trouble', async (t) => {
  const { origin, upstream } = await prepare(t, { limits: { ...testLimits, stallTimeoutMs: 200 } });
  const bytes = image.index.bytes;
  for (const [what, end, kind] of [
    ['reset', (response: ServerResponse) => response.socket?.resetAndDestroy(), 'upstreamUnusable'],
    ['closed', (response: ServerResponse) => response.socket?.end(), 'upstreamUnusable'],
    ['stalled', () => undefined, 'upstreamTimeout'],
  ] as const) {
    for (const length of [{ 'content-length': bytes.length }, {}]) {
      if (what === 'closed' && !('content-length' in length)) continue;
      origin.script = (_, response) => {
        response.writeHead(200, length);
        response.write(bytes.subarray(0, 10), () => end(response));
        return true;
      };
      const outcome = within(5000, what, upstream.manifest(name, tag));
      t.match(await failureOf(outcome), { kind }, `${what}, ${JSON.stringify(length)}`);
    }
  }
});

// ---- Encodings

void t.test('40. encoding: what is coded is refused, for every question', async (t) => {
  const { origin, upstream } = await prepare(t);
  const bytes = image.index.bytes;
  const coded = { gzip: gzipSync(bytes), br: brotliCompressSync(bytes), zstd: zstdCompressSync(bytes) };
  for (const [encoding, body] of Object.entries({ ...coded, GZIP: coded.gzip, 'gzip, identity': coded.gzip })) {
    origin.script = answerWith(200, { 'content-encoding': encoding, 'content-length': String(body.length) }, body);
    for (const [what, question] of Object.entries(questions)) {
      const failure = { kind: 'upstreamUnusable', message: encoding.toLowerCase() };
      t.match(await failureOf(question(upstream)), failure, `${what} in ${encoding}`);
    }
  }
  for (const { headers } of origin.seen) {
    if (headers['accept-encoding'] !== 'identity') t.fail(`asked for ${headers['accept-encoding']}`);
  }
});

void t.test('encoding: identity is none', async (t) => {
  const { origin, upstream } = await prepare(t);
  origin.script = answerWith(200, { 'content-encoding': 'Identity' }, image.index.bytes);
  t.same((await upstream.manifest(name, byDigest))?.bytes, image.index.bytes);
});

// ---- Blobs

void t.test('blob: comes whole, with its size', async (t) => {
  const { origin, upstream } = await prepare(t);
  const answer = await upstream.blob(name, blob.digest, 0);
  t.match(answer, { offset: 0, size: blob.bytes.length });
  t.ok((await bytesOf(answer!.body)).equals(blob.bytes));
  t.notOk(origin.seen[0]!.headers.range, 'the whole is asked for without a range');
  t.equal(await upstream.blob(name, parseDigest(`sha256:${'0'.repeat(64)}`), 0), undefined);
});

void t.test('blob: from a place on, by an open range', async (t) => {
  const { origin, upstream } = await prepare(t);
  const answer = await upstream.blob(name, blob.digest, 123_456);
  t.match(answer, { offset: 123_456, size: blob.bytes.length });
  t.ok((await bytesOf(answer!.body)).equals(blob.bytes.subarray(123_456)));
  t.equal(origin.seen[0]!.headers.range, 'bytes=123456-');
});

void t.test('blob: a registry without ranges answers from the start, and it is told', async (t) => {
  const { origin, upstream } = await prepare(t);
  origin.script = answerWith(200, { 'content-length': String(blob.bytes.length) }, blob.bytes);
  const answer = await upstream.blob(name, blob.digest, 1000);
  t.match(answer, { offset: 0, size: blob.bytes.length });
  t.ok((await bytesOf(answer!.body)).equals(blob.bytes));
});

void t.test('blob: the place is what the answer says, not what was asked for', async (t) => {
  const { origin, upstream } = await prepare(t);
  const part = blob.bytes.subarray(500);
  for (const [range, expected] of [
    [`bytes 500-299999/300000`, { offset: 500, size: 300_000 }],
    [`bytes 500-299999/*`, { offset: 500 }],
  ] as const) {
    origin.script = answerWith(206, { 'content-range': range }, part);
    const answer = await upstream.blob(name, blob.digest, 1000);
    t.same({ offset: answer?.offset, ...(answer?.size !== undefined && { size: answer.size }) }, expected, range);
    t.ok((await bytesOf(answer!.body)).equals(part));
  }
});

void t.test('blob: a part that does not say which is refused', async (t) => {
  const { origin, upstream } = await prepare(t);
  for (const range of [
    undefined,
    '',
    'bytes',
    'bytes */300000',
    'bytes 5-/300000',
    'bytes -5/300000',
    'items 0-4/5',
    'bytes 0-4/5, bytes 6-7/8',
    'bytes 0x5-9/10',
    `bytes ${'9'.repeat(16)}-9/10`,
  ]) {
    origin.script = answerWith(206, range === undefined ? {} : { 'content-range': range }, 'part');
    const failure = { kind: 'upstreamUnusable', message: /does not say which/ };
    t.match(await failureOf(upstream.blob(name, blob.digest, 5)), failure, String(range));
  }
});

void t.test('blob: a size that is not said is absent', async (t) => {
  const { origin, upstream } = await prepare(t);
  origin.script = ({ method }, response) => {
    response.writeHead(200, { 'transfer-encoding': 'chunked' });
    if (method === 'HEAD') response.end();
    else response.end(blob.bytes);
    return true;
  };
  const answer = await upstream.blob(name, blob.digest, 0);
  t.notOk('size' in answer!);
  t.ok((await bytesOf(answer!.body)).equals(blob.bytes));
  t.same(await upstream.blobHead(name, blob.digest), {});
});

void t.test('blob: its HEAD says its size', async (t) => {
  const { origin, upstream } = await prepare(t);
  t.same(await upstream.blobHead(name, blob.digest), { size: blob.bytes.length });
  t.equal(await upstream.blobHead(name, parseDigest(`sha256:${'0'.repeat(64)}`)), undefined);
  t.equal(origin.seen[0]!.method, 'HEAD');
});

void t.test('blob: one that is given up ends at the registry, too', async (t) => {
  const { origin, upstream } = await prepare(t);
  const closed = Promise.withResolvers<void>();
  origin.script = async (_, response) => {
    response.on('close', closed.resolve);
    response.writeHead(200, { 'content-length': String(1024 ** 3) });
    await flood(response);
    return true;
  };
  const answer = await upstream.blob(name, blob.digest, 0);
  answer!.cancel();
  await within(5000, 'closing the connection', closed.promise);
  await t.rejects(bytesOf(answer!.body));
});

void t.test('9. blob: a cut one throws after a prefix of it, wherever and however it was cut', async (t) => {
  const { origin, upstream } = await prepare(t);
  const size = blob.bytes.length;
  for (const end of ['resetAndDestroy', 'destroy', 'end'] as const) {
    for (const at of [1, size / 2, size - 1]) {
      origin.script = (_, response) => {
        response.writeHead(200, { 'content-length': String(size) });
        response.write(blob.bytes.subarray(0, at), () => response.socket?.[end]());
        return true;
      };
      const answer = await upstream.blob(name, blob.digest, 0);
      const got: Buffer[] = [];
      const reading = (async () => {
        for await (const chunk of answer!.body) got.push(chunk);
      })();
      await t.rejects(within(5000, 'the end', reading), `${end} at ${at}`);
      const prefix = Buffer.concat(got);
      t.ok(prefix.length <= at && prefix.equals(blob.bytes.subarray(0, prefix.length)), `${prefix.length} bytes came`);
    }
  }
});

void t.test('12. blob: a stalled one breaks off in time', async (t) => {
  const { origin, upstream } = await prepare(t, { limits: { ...testLimits, stallTimeoutMs: 200 } });
  origin.script = (_, response) => {
    response.writeHead(200, { 'content-length': '10' }).write('half');
    return true;
  };
  const answer = await upstream.blob(name, blob.digest, 0);
  await t.rejects(within(4000, 'the timeout', bytesOf(answer!.body)), { code: 'UND_ERR_BODY_TIMEOUT' });
});

// ---- Refusals

void t.test('30. status: each is what it means, for every question', async (t) => {
  const { origin, upstream } = await prepare(t);
  const kinds: Record<number, string> = {
    201: 'upstreamRefused',
    204: 'upstreamRefused',
    300: 'upstreamRefused',
    304: 'upstreamRefused',
    400: 'upstreamRefused',
    401: 'denied',
    403: 'denied',
    408: 'upstreamTimeout',
    410: 'upstreamRefused',
    416: 'upstreamRefused',
    418: 'upstreamRefused',
    500: 'upstreamUnavailable',
    502: 'upstreamUnavailable',
    503: 'upstreamUnavailable',
    504: 'upstreamTimeout',
    521: 'upstreamUnavailable',
  };
  for (const [status, kind] of Object.entries(kinds)) {
    origin.script = answerWith(Number(status), { 'content-type': 'application/json' });
    for (const [what, question] of Object.entries(questions)) {
      t.match(await failureOf(question(upstream)), { kind }, `${status} to ${what}`);
    }
  }
  origin.script = answerWith(404);
  for (const [what, question] of Object.entries(questions)) t.equal(await question(upstream), undefined, what);
});

void t.test('32. status: a storage behind a redirect that denies is broken, and denies nobody a right', async (t) => {
  const { origin, upstream } = await prepare(t, { trustedHosts: ['localhost'] });
  origin.script = (seen, response) => {
    if (seen.headers.host?.startsWith('localhost')) return answerWith(403)(seen, response);
    return answerWith(307, { location: `http://localhost:${origin.port}/expired` })(seen, response);
  };
  t.match(await failureOf(questions.blob(upstream)), { kind: 'upstreamRefused', status: 502 });
});

void t.test('status: 503 hands on when to come again', async (t) => {
  const { origin, upstream } = await prepare(t);
  origin.script = (_, response) => {
    refuse(response, 503, 'UNAVAILABLE', { 'retry-after': '30' });
    return true;
  };
  t.match(await failureOf(questions.manifest(upstream)), { kind: 'upstreamUnavailable', retryAfterS: 30 });
});

void t.test('28. status: a long error page is not read to its end', async (t) => {
  const { origin, upstream } = await prepare(t);
  let sent = 0;
  const closed = Promise.withResolvers<void>();
  origin.script = async (_, response) => {
    response.on('close', closed.resolve);
    response.writeHead(500);
    sent = await flood(response);
    return true;
  };
  t.match(await failureOf(within(5000, 'the refusal', questions.blob(upstream))), { kind: 'upstreamUnavailable' });
  await within(5000, 'closing the connection', closed.promise);
  t.ok(sent < 8 * 1024 * 1024, `${sent} bytes left the registry`);
});

void t.test(
  '30. status: a registry that is not there is trouble for every question, and "not found" for none',
  async (t) => {
    const upstream = open(`http://127.0.0.1:${await closedPort()}`);
    t.teardown(() => upstream.close());
    for (const [what, question] of Object.entries(questions)) {
      t.match(await failureOf(question(upstream)), { kind: 'upstreamUnusable', status: 502 }, what);
    }
  },
);

// ---- Rate limits

void t.test('31. 429: its wait is handed on, in seconds and from a date; without one it is ten seconds', async (t) => {
  for (const [retryAfter, seconds] of [
    ['7', 7],
    ['Thu, 01 Jan 2026 00:01:00 GMT', 60],
    [undefined, 10],
    ['whenever', 10],
  ] as const) {
    for (const [what, question] of Object.entries(questions)) {
      const { origin, upstream } = await prepare(t);
      origin.script = answerWith(429, retryAfter === undefined ? {} : { 'retry-after': retryAfter });
      const failure = { kind: 'rateLimited', status: 429, retryAfterS: seconds };
      t.match(await failureOf(question(upstream)), failure, `${retryAfter} to ${what}`);
    }
  }
});

void t.test('31. 429: manifests are not asked for again until the wait is over, blobs are', async (t) => {
  const { origin, upstream, clock } = await prepare(t);
  origin.script = answerWith(429, { 'retry-after': '60' });
  t.match(await failureOf(questions.manifest(upstream)), { kind: 'rateLimited', retryAfterS: 60 });
  origin.script = undefined;
  clock.nowMs += 20_000;
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, (_, at) => (at % 2 ? questions.head(upstream) : questions.manifest(upstream))),
  );
  t.same(new Set(outcomes.map(({ status }) => status)), new Set(['rejected']));
  const told = await failureOf(questions.head(upstream));
  t.match(told, { kind: 'rateLimited' });
  // Up to a tenth more: not all replicas come back at the same moment.
  const { retryAfterS = 0 } = told as NarrowsError;
  t.ok(retryAfterS >= 40 && retryAfterS <= 46, `${retryAfterS} s`);
  t.equal(origin.seen.length, 1, 'one question in all');
  t.ok(await questions.blob(upstream));
  t.ok(await questions.blobHead(upstream));
  clock.nowMs += 46_000;
  t.match(await questions.head(upstream), { digest: image.index.digest });
});

void t.test('31. 429: an upstream that sends blobs on to storage has answered, and is asked as before', async (t) => {
  const { origin, upstream, clock } = await prepare(t, { trustedHosts: ['localhost'] });
  origin.script = answerWith(429, { 'retry-after': '1' });
  t.match(await failureOf(questions.blob(upstream)), { kind: 'rateLimited' });
  clock.nowMs += 3_600_000;
  origin.script = (seen, response) =>
    seen.headers.host?.startsWith('localhost')
      ? false
      : answerWith(307, { location: `http://localhost:${origin.port}${seen.path}` })(seen, response);
  t.ok(await questions.blob(upstream), 'the one that finds out');
  const both = await Promise.all([questions.blob(upstream), questions.blob(upstream)]);
  t.ok(both.every(Boolean), 'and then several at once');
});

void t.test('31. 429: the limit of one upstream is none of another', async (t) => {
  const first = await prepare(t);
  const second = await prepare(t);
  first.origin.script = answerWith(429, { 'retry-after': '60' });
  t.match(await failureOf(questions.head(first.upstream)), { kind: 'rateLimited' });
  t.ok(await questions.head(second.upstream));
});

void t.test('429: no wait that an upstream names shuts it out for days', async (t) => {
  for (const retryAfter of ['999999', 'Fri, 31 Dec 9999 23:59:59 GMT']) {
    const { origin, upstream, clock } = await prepare(t);
    origin.script = answerWith(429, { 'retry-after': retryAfter });
    t.match(await failureOf(questions.head(upstream)), { kind: 'rateLimited' });
    origin.script = undefined;
    clock.nowMs += 24 * 3600_000;
    t.ok(await questions.head(upstream).catch(() => undefined), `asked again a day after "${retryAfter}"`);
  }
});

// ---- Lists

void t.test('list: comes as it is, with the query that was asked', async (t) => {
  const { origin, upstream } = await prepare(t);
  const query = new URLSearchParams({ n: '5', last: 'a&b' });
  const answer = await upstream.list(name, 'tags/list', query);
  t.same(JSON.parse(answer!.bytes.toString()), { name: 'team/app', tags: ['1'] });
  t.notOk('next' in answer!);
  t.equal(origin.seen[0]!.path, '/v2/team/app/tags/list');
  t.same(Object.fromEntries(origin.seen[0]!.query), { n: '5', last: 'a&b' });
  t.equal(await upstream.list(parseRepositoryName('team/none'), 'tags/list', query), undefined);
});

void t.test('71. list: the next page is the query of the link, whatever host and path stand before it', async (t) => {
  const { origin, upstream } = await prepare(t);
  const next = { n: '2', last: 'b' };
  const cases: [link: string | string[], next: Record<string, string> | undefined][] = [
    ['</v2/team/app/tags/list?n=2&last=b>; rel="next"', next],
    ['<https://evil.example/steal?n=2&last=b>; rel="next"', next],
    ['<?n=2&last=b>;rel=next', next],
    ['<?n=2&last=b>; title="x"; REL="Next"', next],
    ['<?n=9>; rel="prev", <?n=2&last=b>; rel="next"', next],
    ['<?last=a%20%26%3Eb&n=2>; rel="next"', { last: 'a &>b', n: '2' }],
    ['</v2/team/app/tags/list>; rel="next"', undefined],
    ['<?n=2&last=b>; rel="prev"', undefined],
    ['<?n=2&last=b>; rel="nextish"', undefined],
    ['<?n=2&last=b>', undefined],
    ['?n=2&last=b; rel="next"', undefined],
    ['', undefined],
    [['<?n=9>; rel="prev"', '<?n=2&last=b>; rel="next"'], next],
  ];
  for (const [link, expected] of cases) {
    origin.script = answerWith(200, { link, 'content-type': 'application/json' }, '{"tags":[]}');
    const answer = await questions.list(upstream);
    t.same(answer?.next && Object.fromEntries(answer.next), expected, String(link));
  }
});

void t.test('blobs in the clear are received into buffers that can be used again, and nothing else is', async (t) => {
  const receiveBuffers = createReceiveBuffers(4 * 1024 * 1024);
  let connections = 0;
  let recycled = 0;
  const counted: ReceiveBuffers = {
    receiver() {
      connections++;
      return receiveBuffers.receiver();
    },
    recycle(piece) {
      recycled++;
      receiveBuffers.recycle(piece);
    },
  };
  const { upstream } = await prepare(t, { receiveBuffers: counted });
  await upstream.head(name, tag);
  await upstream.manifest(name, tag);
  t.equal(connections, 0, 'manifests are not');
  const answer = await upstream.blob(name, blob.digest, 0);
  const pieces: Buffer[] = [];
  for await (const piece of answer!.body) pieces.push(Buffer.from(piece));
  t.ok(Buffer.concat(pieces).equals(blob.bytes));
  answer!.recycle?.(pieces[0]!);
  t.same([connections, recycled], [1, 1]);
  const without = await (await prepare(t)).upstream.blob(name, blob.digest, 0);
  t.equal(without!.recycle, undefined);
  without!.cancel();
});
