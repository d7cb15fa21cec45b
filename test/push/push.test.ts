import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions, Teardown, TestAnswer, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const bytes = noise('pushed', 400_000);
const blob = blobOf(bytes);
const uploads = '/v2/team/x/blobs/uploads/';
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });
const single = image.children[0]!;
const emptyJson = content({}, 'application/vnd.oci.empty.v1+json');

const repositories = [
  { name: 'team/*', hosted: true, push: ['anonymous'] },
  { name: 'closed/*', hosted: true, push: [] },
];

function start(t: Teardown, config: MirrorOptions['config'] = {}, store?: string): Promise<TestMirror> {
  return startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: { repositories, ...config },
    ...(store !== undefined && { store }),
  });
}

/** A refusal, as the specification has it: its code, and a sentence to print. */
function refused(t: Test, answer: TestAnswer, status: number, code: string, what = 'a refusal'): void {
  t.equal(answer.status, status, `${what}: ${answer.body.toString().slice(0, 200)}`);
  const { errors } = answer.json<{ errors: { code: string; message: string }[] }>();
  t.match(errors, [{ code, message: /^\S.*\.$/ }], what);
}

async function begin(mirror: TestMirror, repository = 'team/x'): Promise<string> {
  const answer = await mirror.send('POST', `/v2/${repository}/blobs/uploads/`);
  if (answer.status !== 202) throw new Error(`${answer.status} ${answer.body.toString()}`);
  return answer.headers['location']!;
}

function patch(mirror: TestMirror, location: string, from: number, piece: Buffer): Promise<TestAnswer> {
  const range = `${from}-${from + piece.length - 1}`;
  return mirror.send('PATCH', location, piece, {
    'content-range': range,
    'content-type': 'application/octet-stream',
  });
}

function finish(mirror: TestMirror, location: string, digest: string, body?: Buffer): Promise<TestAnswer> {
  return mirror.send('PUT', `${location}?digest=${digest}`, body);
}

async function isThere(t: Test, mirror: TestMirror, { digest, bytes }: Omit<Content, 'mediaType'>): Promise<void> {
  const path = `/v2/team/x/blobs/${digest}`;
  const head = await mirror.head(path);
  t.match(head, { status: 200, headers: { 'content-length': String(bytes.length), 'docker-content-digest': digest } });
  const got = await mirror.get(path);
  t.equal(got.status, 200);
  t.ok(got.body.equals(bytes), 'the bytes that were pushed');
}

async function isAbsent(t: Test, mirror: TestMirror, digest: string, what = 'nothing is there'): Promise<void> {
  t.equal((await mirror.head(`/v2/team/x/blobs/${digest}`)).status, 404, what);
  refused(t, await mirror.get(`/v2/team/x/blobs/${digest}`), 404, 'BLOB_UNKNOWN', what);
}

async function open(mirror: TestMirror): Promise<Socket> {
  const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** A client that says how much it sends, sends less, and is gone. */
async function cut(mirror: TestMirror, request: string, whole: Buffer, at: number, from = 0): Promise<void> {
  const socket = await open(mirror);
  const range = `${from}-${from + whole.length - 1}`;
  const headers = `host: x\r\ncontent-range: ${range}\r\ncontent-length: ${whole.length}`;
  socket.write(`${request} HTTP/1.1\r\n${headers}\r\n\r\n`);
  await new Promise((resolve) => socket.write(whole.subarray(0, at), resolve));
  socket.destroy();
}

/** Asks how much is there, and goes on from there, as often as it is told another place. */
async function resume(mirror: TestMirror, location: string, whole: Buffer): Promise<TestAnswer> {
  const status = await mirror.get(location);
  if (status.status !== 204) return status;
  let end = endOf(status);
  // `0-0` is what registries say of one byte, and of none.
  for (let isOne = false; ;) {
    const from = end > 0 || isOne ? end + 1 : 0;
    const answer = await patch(mirror, location, from, whole.subarray(from));
    if (answer.status !== 416) return answer;
    const next = endOf(answer);
    isOne = next === 0 && end === 0 ? !isOne : false;
    end = next;
  }
}

function endOf({ headers }: TestAnswer): number {
  return Number(/^0-(\d+)$/.exec(headers['range'] ?? '')![1]);
}

void t.test('a blob in one request', async (t) => {
  const mirror = await start(t);
  const answer = await mirror.send('POST', `${uploads}?digest=${blob.digest}`, bytes);
  t.match(answer, {
    status: 201,
    headers: {
      location: `/v2/team/x/blobs/${blob.digest}`,
      'docker-content-digest': blob.digest,
      'content-length': '0',
    },
  });
  t.equal((await mirror.get(answer.headers['location']!)).status, 200);
  await isThere(t, mirror, blob);
  t.same(await readdir(join(mirror.store, 'uploads')), []);
});

void t.test('a blob in two requests: POST, then PUT with all of it', async (t) => {
  const mirror = await start(t);
  const began = await mirror.send('POST', uploads);
  t.match(began, {
    status: 202,
    headers: { location: /^\/v2\/team\/x\/blobs\/uploads\/[0-9a-f-]{36}$/, range: '0-0', 'content-length': '0' },
  });
  t.equal(began.headers['location']?.split('/').at(-1), began.headers['docker-upload-uuid']);
  await isAbsent(t, mirror, blob.digest);
  const done = await finish(mirror, began.headers['location']!, blob.digest, bytes);
  t.match(done, { status: 201, headers: { location: `/v2/team/x/blobs/${blob.digest}` } });
  await isThere(t, mirror, blob);
});

void t.test('a blob in pieces, with the end of it in the PUT or without', async (t) => {
  for (const last of [0, 1, 150_000]) {
    const mirror = await start(t);
    const location = await begin(mirror);
    const pieces = bytes.length - last;
    for (let from = 0; from < pieces;) {
      const piece = bytes.subarray(from, Math.min(from + 70_001, pieces));
      const answer = await patch(mirror, location, from, piece);
      from += piece.length;
      t.match(answer, { status: 202, headers: { location, range: `0-${from - 1}`, 'content-length': '0' } });
      t.match(await mirror.get(location), { status: 204, headers: { location, range: `0-${from - 1}` } });
    }
    await isAbsent(t, mirror, blob.digest);
    const range = `${pieces}-${bytes.length - 1}`;
    const put = last > 0 ? bytes.subarray(pieces) : undefined;
    const headers: Record<string, string> = last > 0 ? { 'content-range': range } : {};
    t.equal((await mirror.send('PUT', `${location}?digest=${blob.digest}`, put, headers)).status, 201);
    await isThere(t, mirror, blob);
    t.equal((await mirror.get(location)).status, 404);
  }
});

void t.test('a blob as a stream of unknown length', async (t) => {
  const mirror = await start(t);
  const stream = () => Readable.from([bytes.subarray(0, 1), bytes.subarray(1, 200_000), bytes.subarray(200_000)]);
  const location = await begin(mirror);
  const answer = await mirror.send('PATCH', location, stream());
  t.match(answer, { status: 202, headers: { range: `0-${bytes.length - 1}` } });
  t.equal((await finish(mirror, location, blob.digest)).status, 201);
  await isThere(t, mirror, blob);
  const long = digestOf(bytes, 'sha512');
  const second = await begin(mirror);
  t.equal((await mirror.send('PUT', `${second}?digest=${long}`, stream())).status, 201);
  await isThere(t, mirror, { digest: long, bytes });
});

void t.test('a client that waits for 100 Continue is told to go on', async (t) => {
  const mirror = await start(t);
  const socket = await open(mirror);
  let said = '';
  socket.on('data', (chunk) => (said += chunk.toString()));
  socket.write(
    `POST ${uploads}?digest=${blob.digest} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: ${bytes.length}\r\n\r\n`,
  );
  await until(() => said.startsWith('HTTP/1.1 100 '), 'the word to go on');
  socket.write(bytes);
  await until(() => said.includes('HTTP/1.1 201 '), 'the answer');
  socket.destroy();
  await isThere(t, mirror, blob);
});

void t.test('cut at any byte, asked how far it came, gone on with', async (t) => {
  const mirror = await start(t);
  const places = [0, 1, 2, 1000, 65_535, 65_536, 65_537, 200_000, bytes.length - 2, bytes.length - 1];
  for (const at of places) {
    const own = Buffer.concat([bytes, Buffer.from(`cut at ${at}`)]);
    const location = await begin(mirror);
    await cut(mirror, `PATCH ${location}`, own, at);
    await isAbsent(t, mirror, digestOf(own));
    const resumed = await resume(mirror, location, own);
    t.match(resumed, { status: 202, headers: { range: `0-${own.length - 1}` } }, `cut at ${at}`);
    t.equal((await finish(mirror, location, digestOf(own))).status, 201);
    await isThere(t, mirror, blobOf(own));
  }
});

void t.test('cut again and again', async (t) => {
  const mirror = await start(t);
  const location = await begin(mirror);
  const whole = noise('cut again', 900_000);
  let before = 0;
  for (const more of [100_000, 50_000, 1, 250_000]) {
    const end = endOf(await mirror.get(location));
    t.ok(end >= before, 'what was there is there');
    before = end;
    const from = end === 0 ? 0 : end + 1;
    await cut(mirror, `PATCH ${location}`, whole.subarray(from), more, from);
  }
  t.equal((await resume(mirror, location, whole)).status, 202);
  t.equal((await finish(mirror, location, digestOf(whole))).status, 201);
  await isThere(t, mirror, blobOf(whole));
});

void t.test('cut in a request that was to be the whole: nothing is visible', async (t) => {
  const mirror = await start(t);
  for (const at of [0, 1, 100_000, bytes.length - 1]) {
    await cut(mirror, `POST ${uploads}?digest=${blob.digest}`, bytes, at);
    const location = await begin(mirror);
    await cut(mirror, `PUT ${location}?digest=${blob.digest}`, bytes, at);
    await isAbsent(t, mirror, blob.digest, `cut at ${at}`);
    t.equal((await resume(mirror, location, bytes)).status, 202, 'the PUT is gone on with');
    t.equal((await mirror.send('DELETE', location)).status, 204);
  }
  await isAbsent(t, mirror, blob.digest);
  t.equal((await createPusher(mirror, 'team/x').blob(blob)).status, 201);
  await isThere(t, mirror, blob);
});

void t.test('a stream that is cut keeps what came', async (t) => {
  const mirror = await start(t);
  const location = await begin(mirror);
  const socket = await open(mirror);
  socket.write(`PATCH ${location} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n`);
  socket.write('2710\r\n');
  socket.write(bytes.subarray(0, 10_000));
  socket.write('\r\n2710\r\n');
  socket.write(bytes.subarray(10_000, 15_000));
  await until(async () => endOf(await mirror.get(location)) === 14_999, 'what came');
  socket.destroy();
  t.equal((await resume(mirror, location, bytes)).status, 202);
  t.equal((await finish(mirror, location, blob.digest)).status, 201);
  await isThere(t, mirror, blob);
});

void t.test('an upload, a blob and a manifest outlive the mirror', async (t) => {
  const store = await temporaryFolder(t);
  const first = await start(t, {}, store);
  await createPusher(first, 'team/x').child(single, 'v1');
  const location = await begin(first);
  t.equal((await patch(first, location, 0, bytes.subarray(0, 123_456))).status, 202);
  await first.stop();
  const second = await start(t, {}, store);
  t.match(await second.get(location), { status: 204, headers: { range: '0-123455' } });
  t.equal((await patch(second, location, 123_456, bytes.subarray(123_456))).status, 202);
  t.equal((await finish(second, location, blob.digest)).status, 201);
  await isThere(t, second, blob);
  await isThere(t, second, single.layers[0]!);
  const tag = await second.get('/v2/team/x/manifests/v1', { accept: containerdAccept });
  t.match(tag, { status: 200, headers: { 'docker-content-digest': single.manifest.digest } });
  t.ok(tag.body.equals(single.manifest.bytes));
});

void t.test('pieces that overlap, leave a gap or come in another order: 416 with where it goes on', async (t) => {
  const mirror = await start(t);
  const location = await begin(mirror);
  refused(t, await patch(mirror, location, 1, bytes.subarray(1, 10)), 416, 'BLOB_UPLOAD_INVALID', 'before the first');
  t.equal((await patch(mirror, location, 0, bytes.subarray(0, 1000))).status, 202);
  for (const [from, what] of [
    [0, 'again'],
    [1, 'within'],
    [999, 'overlapping by one'],
    [1001, 'a gap of one'],
    [300_000, 'a large gap'],
    [2 ** 40, 'far away'],
  ] as const) {
    const answer = await patch(mirror, location, from, bytes.subarray(1000, 2000));
    refused(t, answer, 416, 'BLOB_UPLOAD_INVALID', what);
    t.match(answer.headers, { range: '0-999' }, what);
    const put = await mirror.send('PUT', `${location}?digest=${blob.digest}`, bytes.subarray(1000, 2000), {
      'content-range': `${from}-${from + 999}`,
    });
    refused(t, put, 416, 'BLOB_UPLOAD_INVALID', `${what}, in the PUT`);
  }
  t.match(await mirror.get(location), { status: 204, headers: { range: '0-999' } });
  t.equal((await patch(mirror, location, 1000, bytes.subarray(1000))).status, 202);
  t.equal((await finish(mirror, location, blob.digest)).status, 201);
  await isThere(t, mirror, blob);
});

void t.test('a Content-Range that says nothing, or something else than Content-Length: 400', async (t) => {
  const mirror = await start(t);
  const location = await begin(mirror);
  const piece = bytes.subarray(0, 10);
  for (const range of [
    '',
    'x',
    '0',
    '0-',
    '-9',
    '9-0',
    'a-b',
    '0 - 9',
    '0-9-10',
    '0x0-9',
    '0-9,20-29',
    '-1-9',
    `0-${'9'.repeat(30)}`,
  ]) {
    const answer = await mirror.send('PATCH', location, piece, { 'content-range': range });
    refused(t, answer, 400, 'BLOB_UPLOAD_INVALID', JSON.stringify(range));
  }
  for (const range of ['0-8', '0-10', '1-9', '0-0', '0-1000000']) {
    const answer = await mirror.send('PATCH', location, piece, { 'content-range': range });
    refused(t, answer, 400, 'SIZE_INVALID', range);
  }
  t.match(await mirror.get(location), { status: 204, headers: { range: '0-0' } });
  for (const [at, range] of ['0-9', 'bytes 10-19', 'bytes=20-29/*', '30-39/40'].entries()) {
    const answer = await mirror.send('PATCH', location, bytes.subarray(at * 10, at * 10 + 10), {
      'content-range': range,
    });
    t.match(answer, { status: 202, headers: { range: `0-${at * 10 + 9}` } }, range);
  }
  t.equal((await finish(mirror, location, digestOf(bytes.subarray(0, 40)))).status, 201);
});

void t.test('an upload that is not there, is over, or is another repository’s: 404', async (t) => {
  const mirror = await start(t);
  const check = async (location: string, what: string) => {
    refused(t, await mirror.get(location), 404, 'BLOB_UPLOAD_UNKNOWN', what);
    t.equal((await mirror.head(location)).status, 404, what);
    refused(t, await patch(mirror, location, 0, bytes), 404, 'BLOB_UPLOAD_UNKNOWN', what);
    refused(t, await mirror.send('PATCH', location, bytes), 404, 'BLOB_UPLOAD_UNKNOWN', what);
    refused(t, await finish(mirror, location, blob.digest), 404, 'BLOB_UPLOAD_UNKNOWN', what);
    refused(t, await finish(mirror, location, blob.digest, bytes), 404, 'BLOB_UPLOAD_UNKNOWN', what);
    refused(t, await mirror.send('DELETE', location), 404, 'BLOB_UPLOAD_UNKNOWN', what);
  };
  await check(`${uploads}01234567-89ab-cdef-0123-456789abcdef`, 'never begun');
  await check(`${uploads}..`, 'no id');
  await check(`${uploads}%2e%2e%2fx`, 'no id');
  const foreign = await begin(mirror, 'team/y');
  t.equal((await patch(mirror, foreign, 0, bytes)).status, 202);
  await check(foreign.replace('team/y', 'team/x'), 'of another');
  t.match(await mirror.get(foreign), { status: 204, headers: { range: `0-${bytes.length - 1}` } });
  t.equal((await finish(mirror, foreign, blob.digest)).status, 201);
  await check(foreign, 'finished');
  await isAbsent(t, mirror, blob.digest, 'what team/y has, team/x does not');
  const cancelled = await begin(mirror);
  t.equal((await patch(mirror, cancelled, 0, bytes)).status, 202);
  t.equal((await mirror.send('DELETE', cancelled)).status, 204);
  await check(cancelled, 'cancelled');
  await isAbsent(t, mirror, blob.digest);
});

void t.test('of two that finish one upload, one does', async (t) => {
  const mirror = await start(t);
  const location = await begin(mirror);
  t.equal((await patch(mirror, location, 0, bytes)).status, 202);
  const answers = await Promise.all([1, 2, 3].map(() => finish(mirror, location, blob.digest)));
  t.same(answers.map(({ status }) => String(status)).toSorted(), ['201', '404', '404']);
  await isThere(t, mirror, blob);
});

void t.test('many push the same blob, and many different ones, at once', async (t) => {
  const mirror = await start(t);
  const others = Array.from({ length: 10 }, (_, at) => blobOf(noise(`other ${at}`, 50_000)));
  const pusher = createPusher(mirror, 'team/x');
  const all = [...Array.from({ length: 10 }, () => blob), ...others];
  const answers = await Promise.all(all.map((one) => pusher.blob(one)));
  t.ok(answers.every(({ status }) => status === 201));
  for (const one of [blob, ...others]) await isThere(t, mirror, one);
});

void t.test('other bytes than those of the digest: 400, nothing is visible, and the upload is over', async (t) => {
  const mirror = await start(t);
  const wrong = Buffer.concat([bytes.subarray(0, -1), Buffer.from([bytes.at(-1)! ^ 1])]);
  for (const body of [wrong, bytes.subarray(1), Buffer.concat([bytes, bytes]), Buffer.alloc(0)]) {
    refused(t, await mirror.send('POST', `${uploads}?digest=${blob.digest}`, body), 400, 'DIGEST_INVALID');
    const location = await begin(mirror);
    refused(t, await finish(mirror, location, blob.digest, body), 400, 'DIGEST_INVALID');
    await isAbsent(t, mirror, blob.digest);
    await isAbsent(t, mirror, digestOf(Buffer.concat([wrong, Buffer.from('x')])));
  }
  refused(t, await mirror.send('POST', `${uploads}?digest=${digestOf(bytes, 'sha512')}`, wrong), 400, 'DIGEST_INVALID');
  const location = await begin(mirror);
  for (const digest of ['', 'x', 'sha256:abc', `md5:${'a'.repeat(32)}`, blob.digest.toUpperCase()]) {
    refused(t, await finish(mirror, location, digest, bytes), 400, 'DIGEST_INVALID', digest);
    refused(t, await mirror.send('POST', `${uploads}?digest=${digest}`, bytes), 400, 'DIGEST_INVALID', digest);
  }
  refused(t, await mirror.send('PUT', location, bytes), 400, 'DIGEST_INVALID', 'none at all');
  t.equal((await finish(mirror, location, blob.digest, bytes)).status, 201, 'what was no digest ends nothing');
  await isThere(t, mirror, blob);
});

void t.test('a blob of nothing', async (t) => {
  const mirror = await start(t);
  const nothing = Buffer.alloc(0);
  const empty = { bytes: nothing, digest: digestOf(nothing) };
  t.equal((await finish(mirror, await begin(mirror), empty.digest)).status, 201);
  await isThere(t, mirror, empty);
  const long = { bytes: nothing, digest: digestOf(nothing, 'sha512') };
  t.equal((await mirror.send('POST', `${uploads}?digest=${long.digest}`, nothing)).status, 201);
  await isThere(t, mirror, long);
});

void t.test('mount: what another repository has, without a byte', async (t) => {
  const mirror = await start(t);
  await createPusher(mirror, 'team/y').blob(blob);
  await isAbsent(t, mirror, blob.digest);
  const other = digestOf(Buffer.from('never pushed'));
  for (const [query, what] of [
    [`mount=${blob.digest}`, 'without from'],
    ['from=team/y', 'without mount'],
    [`mount=${blob.digest}&from=team/z`, 'from one that has it not'],
    [`mount=${other}&from=team/y`, 'of what is not there'],
    [`mount=${blob.digest}&from=lab/y`, 'from one that is mirrored'],
    [`mount=${blob.digest}&from=nowhere`, 'from one that is not hosted'],
  ]) {
    const answer = await mirror.send('POST', `${uploads}?${query}`);
    t.match(answer, { status: 202, headers: { location: /\/blobs\/uploads\/[0-9a-f-]{36}$/, range: '0-0' } }, what!);
    t.equal((await mirror.send('DELETE', answer.headers['location']!)).status, 204, 'an upload, as any other');
  }
  await isAbsent(t, mirror, blob.digest);
  const mounted = await mirror.send('POST', `${uploads}?mount=${blob.digest}&from=team/y`);
  t.match(mounted, {
    status: 201,
    headers: { location: `/v2/team/x/blobs/${blob.digest}`, 'docker-content-digest': blob.digest },
  });
  await isThere(t, mirror, blob);
  t.equal((await mirror.send('DELETE', `/v2/team/y/blobs/${blob.digest}`)).status, 202);
  await isThere(t, mirror, blob);
  t.equal((await mirror.get(`/v2/team/y/blobs/${blob.digest}`)).status, 404);
});

void t.test('a manifest: by tag, by digest, and with tags beside its digest', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  const { manifest } = single;
  const base = '/v2/team/x/manifests/';
  const put = await pusher.child(single, 'v1');
  t.match(put, {
    status: 201,
    headers: { location: `${base}${manifest.digest}`, 'docker-content-digest': manifest.digest, 'content-length': '0' },
  });
  for (const reference of ['v1', manifest.digest]) {
    const headers = { 'docker-content-digest': manifest.digest, 'content-type': manifest.mediaType };
    const size = { ...headers, 'content-length': String(manifest.bytes.length) };
    t.match(await mirror.head(base + reference), { status: 200, headers: size }, reference);
    const got = await mirror.get(base + reference, { accept: containerdAccept });
    t.match(got, { status: 200, headers });
    t.ok(got.body.equals(manifest.bytes), 'byte for byte');
  }
  const other = image.children[1]!;
  await pusher.child(other, other.manifest.digest);
  refused(t, await mirror.get(`${base}v2`), 404, 'MANIFEST_UNKNOWN');
  t.equal((await mirror.get(base + other.manifest.digest)).status, 200);
  const tagged = await mirror.send('PUT', `${base}${other.manifest.digest}?tag=v2&tag=latest`, other.manifest.bytes, {
    'content-type': other.manifest.mediaType,
  });
  t.match(tagged, { status: 201, headers: { 'oci-tag': /^v2, ?latest$/ } });
  for (const tag of ['v2', 'latest']) {
    t.match(await mirror.get(base + tag), { headers: { 'docker-content-digest': other.manifest.digest } });
  }
  t.match((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: ['latest', 'v1', 'v2'] });
  await pusher.manifest(other.manifest, 'v1');
  t.match(await mirror.get(`${base}v1`), { headers: { 'docker-content-digest': other.manifest.digest } }, 'moved');
});

void t.test('a manifest and blobs under sha512', async (t) => {
  const mirror = await start(t);
  const layer = { ...content(noise('layer', 5000), 'application/vnd.oci.image.layer.v1.tar') };
  const longLayer = { ...layer, digest: digestOf(layer.bytes, 'sha512') };
  const pusher = createPusher(mirror, 'team/x');
  await pusher.blob(emptyJson);
  t.equal((await pusher.blob(longLayer)).status, 201);
  const manifest = artifact({ layers: [longLayer] });
  const long = digestOf(manifest.bytes, 'sha512');
  t.match(await pusher.manifest(manifest, long), { status: 201, headers: { 'docker-content-digest': long } });
  const got = await mirror.get(`/v2/team/x/manifests/${long}`);
  t.match(got, { status: 200, headers: { 'docker-content-digest': long } });
  t.ok(got.body.equals(manifest.bytes));
  const wrong = await pusher.manifest(manifest, digestOf(Buffer.from('x'), 'sha512'));
  refused(t, wrong, 400, 'DIGEST_INVALID');
});

interface ArtifactOptions {
  readonly layers?: readonly Content[];
  readonly subject?: { mediaType: string; digest: string; size: number };
  readonly artifactType?: string;
  readonly annotations?: Record<string, string>;
  readonly [more: string]: unknown;
}

/** A manifest of anything. */
function artifact({ layers = [], ...more }: ArtifactOptions): Content {
  return content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: descriptor(emptyJson),
      layers: layers.map(descriptor),
      ...more,
    },
    mediaTypes.ociManifest,
  );
}

void t.test('a whole image: an index after its images, and each part of it can be pulled', async (t) => {
  const mirror = await start(t);
  t.equal((await createPusher(mirror, 'team/x').image(image, 'v1')).status, 201);
  const index = await mirror.get('/v2/team/x/manifests/v1', { accept: containerdAccept, 'narrows-platform': 'any' });
  t.ok(index.body.equals(image.index.bytes));
  for (const one of image.manifests) {
    const got = await mirror.get(`/v2/team/x/manifests/${one.digest}`);
    t.ok(got.body.equals(one.bytes));
  }
  for (const one of image.blobs) await isThere(t, mirror, one);
});

void t.test('a manifest before what it names: 400 with all that is missing, and nothing is visible', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  const missing = [single.config, ...single.layers].map(({ digest }) => ({ digest }));
  const first = await pusher.manifest(single.manifest, 'v1');
  refused(t, first, 400, 'MANIFEST_BLOB_UNKNOWN');
  t.match(first.json(), { errors: [{ detail: missing }] });
  await pusher.blob(single.config);
  const second = await pusher.manifest(single.manifest, single.manifest.digest);
  refused(t, second, 400, 'MANIFEST_BLOB_UNKNOWN');
  t.same(second.json<{ errors: { detail: object }[] }>().errors[0]!.detail, missing.slice(1));
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 404);
  t.equal((await mirror.get(`/v2/team/x/manifests/${single.manifest.digest}`)).status, 404);
  const index = await pusher.manifest(image.index, 'v1');
  refused(t, index, 400, 'MANIFEST_BLOB_UNKNOWN');
  t.same(
    index.json<{ errors: { detail: object }[] }>().errors[0]!.detail,
    image.children.map(({ manifest }) => ({ digest: manifest.digest })),
  );
  await createPusher(mirror, 'team/y').image(image, 'v1');
  refused(t, await pusher.manifest(image.index, 'v1'), 400, 'MANIFEST_BLOB_UNKNOWN');
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 404, 'what another repository has does not count');
});

void t.test('sizes that lie: 400', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  await pusher.child(single, 'v1');
  for (const by of [-1, 1, 1_000_000]) {
    const { layers, config, manifest } = single;
    const lie = (of: Content) => ({ ...descriptor(of), size: of.bytes.length + by });
    const common = { schemaVersion: 2, mediaType: mediaTypes.ociManifest };
    const lying = [
      content({ ...common, config: lie(config), layers: layers.map(descriptor) }, mediaTypes.ociManifest),
      content({ ...common, config: descriptor(config), layers: layers.map(lie) }, mediaTypes.ociManifest),
      content({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [lie(manifest)] }, mediaTypes.ociIndex),
    ];
    for (const one of lying) {
      refused(t, await pusher.manifest(one, 'lie'), 400, 'MANIFEST_INVALID');
      t.equal((await mirror.get(`/v2/team/x/manifests/${one.digest}`)).status, 404);
    }
  }
  t.equal((await mirror.get('/v2/team/x/manifests/lie')).status, 404);
});

void t.test('what is no manifest: 400, and its digest is not there', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  for (const one of [single.config, ...single.layers]) await pusher.blob(one);
  const good = JSON.parse(single.manifest.bytes.toString()) as Record<string, unknown>;
  const { ociManifest, ociIndex } = mediaTypes;
  const cases: [what: string, body: unknown, type: string][] = [
    ['nothing', Buffer.alloc(0), ociManifest],
    ['no JSON', Buffer.from('hello'), ociManifest],
    ['half of it', single.manifest.bytes.subarray(0, -5), ociManifest],
    ['more than it', Buffer.concat([single.manifest.bytes, Buffer.from('{}')]), ociManifest],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22]), ociManifest],
    ['a list', [], ociManifest],
    ['no config', { ...good, config: undefined }, ociManifest],
    ['a config that is none', { ...good, config: 'x' }, ociManifest],
    ['layers that are none', { ...good, layers: {} }, ociManifest],
    ['an odd digest', { ...good, layers: [{ ...descriptor(single.config), digest: 'sha256:x' }] }, ociManifest],
    ['a negative size', { ...good, layers: [{ ...descriptor(single.config), size: -1 }] }, ociManifest],
    ['a broken size', { ...good, layers: [{ ...descriptor(single.config), size: 1.5 }] }, ociManifest],
    ['a subject that is none', { ...good, subject: 'x' }, ociManifest],
    ['an index and an image at once', { ...good, manifests: [] }, ociManifest],
    ['called an index', good, ociIndex],
    ['another type than its own', good, mediaTypes.dockerManifest],
    ['a type that nobody knows', { ...good, mediaType: 'application/x' }, 'application/x'],
    ['an index of nothing at all', { schemaVersion: 2 }, ociIndex],
    ['no type', { ...good, mediaType: undefined }, 'no type'],
  ];
  for (const [what, body, type] of cases) {
    const one = content(body, type);
    for (const reference of ['bad', one.digest])
      refused(t, await pusher.manifest(one, reference), 400, 'MANIFEST_INVALID', what);
    t.equal((await mirror.get(`/v2/team/x/manifests/${one.digest}`)).status, 404, what);
  }
  t.same((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: [] });
});

void t.test('a manifest under a digest that is not its own: 400', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  await pusher.child(single, 'v1');
  const other = image.children[1]!.manifest.digest;
  refused(t, await pusher.manifest(single.manifest, other), 400, 'DIGEST_INVALID');
  t.equal((await mirror.get(`/v2/team/x/manifests/${other}`)).status, 404);
});

void t.test('more than fits: 413 for manifests and blobs, and the next push is fine', async (t) => {
  const brim = 256 * 1024;
  const mirror = await start(t, { limits: { manifestSize: '16KiB' }, hosting: { uploadSize: '256KiB' } });
  const pusher = createPusher(mirror, 'team/x');
  await pusher.blob(emptyJson);
  const large = artifact({ annotations: { padding: 'x'.repeat(16 * 1024) } });
  for (const body of [large.bytes, Readable.from([large.bytes]), Buffer.alloc(3_000_000)]) {
    const answer = await mirror.send('PUT', '/v2/team/x/manifests/v1', body, { 'content-type': large.mediaType });
    refused(t, answer, 413, 'SIZE_INVALID');
  }
  t.equal((await pusher.manifest(artifact({}), 'v1')).status, 201);
  refused(t, await mirror.send('POST', `${uploads}?digest=${blob.digest}`, bytes), 413, 'SIZE_INVALID');
  await isAbsent(t, mirror, blob.digest);
  const location = await begin(mirror);
  t.equal((await patch(mirror, location, 0, bytes.subarray(0, brim))).status, 202);
  refused(t, await patch(mirror, location, brim, bytes.subarray(brim)), 413, 'SIZE_INVALID');
  t.equal((await finish(mirror, location, digestOf(bytes.subarray(0, brim)))).status, 201, 'to the brim');
});

void t.test('too many uploads at once: 503, until one has ended', async (t) => {
  const mirror = await start(t, { hosting: { uploads: 2 } });
  const locations = [await begin(mirror), await begin(mirror)];
  const answer = await mirror.send('POST', uploads);
  refused(t, answer, 503, 'TOOMANYREQUESTS');
  t.ok(Number(answer.headers['retry-after']) > 0);
  t.equal((await mirror.send('DELETE', locations[0]!)).status, 204);
  t.equal((await mirror.send('POST', uploads)).status, 202);
});

void t.test('a refused or cut request for a whole blob leaves no upload behind', async (t) => {
  const mirror = await start(t, { hosting: { uploads: 3, uploadSize: '256KiB' } });
  for (let round = 0; round < 5; round++) {
    refused(t, await mirror.send('POST', `${uploads}?digest=${blob.digest}`, bytes), 413, 'SIZE_INVALID');
  }
  t.same(await readdir(join(mirror.store, 'uploads')), []);
  await cut(mirror, `POST ${uploads}?digest=${blob.digest}`, bytes.subarray(0, 200_000), 100_000);
  await until(async () => (await readdir(join(mirror.store, 'uploads'))).length === 0, 'the end of it');
});

void t.test('a subject: the answer says so, and its referrers are listed, filtered and paged', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  await pusher.child(single, 'v1');
  await pusher.blob(emptyJson);
  const subject = descriptor(single.manifest);
  const referrers = `/v2/team/x/referrers/${subject.digest}`;
  t.match((await mirror.get(referrers)).json(), { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] });
  const signatures = [0, 1, 2].map((at) =>
    artifact({ subject, artifactType: 'application/x.signature', annotations: { at: String(at) } }),
  );
  const sbom = artifact({ subject, artifactType: 'application/x.sbom' });
  const untyped = artifact({ subject });
  const all = [...signatures, sbom, untyped];
  for (const one of all) {
    t.match(await pusher.manifest(one), { status: 201, headers: { 'oci-subject': subject.digest } });
  }
  const listed = await mirror.get(referrers);
  t.match(listed, { status: 200, headers: { 'content-type': mediaTypes.ociIndex } });
  const entries = listed.json<{ manifests: Record<string, unknown>[] }>().manifests;
  t.same(digestsOf(entries), all.map(({ digest }) => digest).toSorted());
  const entryOf = (of: Content) => entries.find(({ digest }) => digest === of.digest);
  t.same(entryOf(sbom), { ...descriptor(sbom), artifactType: 'application/x.sbom' });
  t.match(entryOf(signatures[2]!), { annotations: { at: '2' }, artifactType: 'application/x.signature' });
  t.match(entryOf(untyped), { artifactType: emptyJson.mediaType }, 'the type of its config');
  const filtered = await mirror.get(`${referrers}?artifactType=application/x.signature`);
  t.match(filtered.headers, { 'oci-filters-applied': 'artifactType' });
  const signed = signatures.map(({ digest }) => digest).toSorted();
  t.same(digestsOf(filtered.json<{ manifests: Record<string, unknown>[] }>().manifests), signed);
  t.same((await mirror.get(`${referrers}?artifactType=none`)).json<{ manifests: object[] }>().manifests, []);
  for (const [query, wanted] of [
    ['?n=2', all.map(({ digest }) => digest).toSorted()],
    ['?n=2&artifactType=application/x.signature', signed],
  ] as const) {
    const seen: unknown[] = [];
    for (let next: string | undefined = referrers + query; next !== undefined;) {
      const page = await mirror.get(next);
      const found = page.json<{ manifests: Record<string, unknown>[] }>().manifests;
      t.ok(found.length <= 2);
      seen.push(...found.map(({ digest }) => digest));
      next = /<([^>]+)>; rel="next"/.exec(page.headers['link'] ?? '')?.[1];
    }
    t.same(seen, wanted, query);
  }
  t.equal((await mirror.send('DELETE', `/v2/team/x/manifests/${sbom.digest}`)).status, 202);
  const left = (await mirror.get(referrers)).json<{ manifests: Record<string, unknown>[] }>().manifests;
  t.notOk(digestsOf(left).includes(sbom.digest));
  const absent = digestOf(Buffer.from('to come'));
  const early = artifact({ subject: { ...subject, digest: absent } });
  t.match(await pusher.manifest(early), { status: 201, headers: { 'oci-subject': absent } }, 'before its subject');
  const found = (await mirror.get(`/v2/team/x/referrers/${absent}`)).json<{ manifests: Record<string, unknown>[] }>();
  t.same(digestsOf(found.manifests), [early.digest]);
});

function digestsOf(entries: Record<string, unknown>[]): string[] {
  return entries.map(({ digest }) => String(digest)).toSorted();
}

void t.test('tags: in order, page by page', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  refused(t, await mirror.get('/v2/team/x/tags/list'), 404, 'NAME_UNKNOWN');
  await pusher.blob(emptyJson);
  const tags = ['1', '10', '2', 'A', 'Z', '_x', 'a', 'a.b', 'a-b', 'latest'];
  for (const tag of tags) t.equal((await pusher.manifest(artifact({}), tag)).status, 201);
  const sorted = tags.toSorted();
  t.same((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: sorted });
  const seen: string[] = [];
  for (let next: string | undefined = '/v2/team/x/tags/list?n=3'; next !== undefined;) {
    const page = await mirror.get(next);
    const { tags: found } = page.json<{ tags: string[] }>();
    seen.push(...found);
    next = /<([^>]+)>; rel="next"/.exec(page.headers['link'] ?? '')?.[1];
    t.equal(found.length, next === undefined ? 1 : 3);
  }
  t.same(seen, sorted);
  t.same((await mirror.get('/v2/team/x/tags/list?n=0')).json(), { name: 'team/x', tags: [] });
  t.same((await mirror.get('/v2/team/x/tags/list?last=a')).json<{ tags: string[] }>().tags, ['a-b', 'a.b', 'latest']);
  t.same((await mirror.get('/v2/team/x/tags/list?last=zzz')).json<{ tags: string[] }>().tags, []);
  refused(t, await mirror.get('/v2/team/x/tags/list?n=x'), 400, 'UNSUPPORTED');
});

void t.test('deletes: a tag, and nothing but the tag', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  const { digest } = single.manifest;
  await pusher.child(single, 'v1');
  await pusher.manifest(single.manifest, 'v2');
  t.equal((await mirror.send('DELETE', '/v2/team/x/manifests/v1')).status, 202);
  refused(t, await mirror.get('/v2/team/x/manifests/v1'), 404, 'MANIFEST_UNKNOWN');
  t.equal((await mirror.head('/v2/team/x/manifests/v1')).status, 404);
  refused(t, await mirror.send('DELETE', '/v2/team/x/manifests/v1'), 404, 'MANIFEST_UNKNOWN');
  t.equal((await mirror.get('/v2/team/x/manifests/v2')).status, 200);
  t.equal((await mirror.get(`/v2/team/x/manifests/${digest}`)).status, 200);
  t.equal((await mirror.send('DELETE', '/v2/team/x/manifests/v2')).status, 202);
  t.same((await mirror.get('/v2/team/x/tags/list')).json(), { name: 'team/x', tags: [] });
  t.equal((await mirror.get(`/v2/team/x/manifests/${digest}`)).status, 200);
  t.equal((await pusher.manifest(single.manifest, 'v1')).status, 201);
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 200, 'and it may come again');
});

void t.test('deletes: a manifest with its tags, then what it named', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  const { manifest, layers } = single;
  await pusher.child(single, 'v1');
  await pusher.manifest(manifest, 'v2');
  refused(t, await mirror.send('DELETE', `/v2/team/x/blobs/${layers[0]!.digest}`), 403, 'DENIED');
  await isThere(t, mirror, layers[0]!);
  t.equal((await mirror.send('DELETE', `/v2/team/x/manifests/${manifest.digest}`)).status, 202);
  for (const reference of ['v1', 'v2', manifest.digest]) {
    refused(t, await mirror.get(`/v2/team/x/manifests/${reference}`), 404, 'MANIFEST_UNKNOWN', reference);
    t.equal((await mirror.head(`/v2/team/x/manifests/${reference}`)).status, 404, reference);
    refused(t, await mirror.send('DELETE', `/v2/team/x/manifests/${reference}`), 404, 'MANIFEST_UNKNOWN', reference);
  }
  t.equal((await mirror.send('DELETE', `/v2/team/x/blobs/${layers[0]!.digest}`)).status, 202);
  await isAbsent(t, mirror, layers[0]!.digest);
  refused(t, await mirror.send('DELETE', `/v2/team/x/blobs/${layers[0]!.digest}`), 404, 'BLOB_UNKNOWN');
  refused(t, await pusher.manifest(manifest, 'v1'), 400, 'MANIFEST_BLOB_UNKNOWN');
  await pusher.child(single, 'v1');
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 200, 'and all of it may come again');
  await isThere(t, mirror, layers[0]!);
});

void t.test('deletes: a part of an index stays as long as the index', async (t) => {
  const mirror = await start(t);
  await createPusher(mirror, 'team/x').image(image, 'v1');
  const [one] = image.children;
  refused(t, await mirror.send('DELETE', `/v2/team/x/manifests/${one!.manifest.digest}`), 403, 'DENIED');
  t.equal((await mirror.get(`/v2/team/x/manifests/${one!.manifest.digest}`)).status, 200);
  t.equal((await mirror.send('DELETE', `/v2/team/x/manifests/${image.index.digest}`)).status, 202);
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 404);
  t.equal((await mirror.send('DELETE', `/v2/team/x/manifests/${one!.manifest.digest}`)).status, 202);
  t.equal((await mirror.get(`/v2/team/x/manifests/${one!.manifest.digest}`)).status, 404);
  const other = image.children[1]!;
  t.equal((await mirror.get(`/v2/team/x/manifests/${other.manifest.digest}`)).status, 200);
});

void t.test('deletes: what is not there', async (t) => {
  const mirror = await start(t);
  refused(t, await mirror.send('DELETE', '/v2/team/x/manifests/v1'), 404, 'MANIFEST_UNKNOWN');
  refused(t, await mirror.send('DELETE', `/v2/team/x/manifests/${blob.digest}`), 404, 'MANIFEST_UNKNOWN');
  refused(t, await mirror.send('DELETE', `/v2/team/x/blobs/${blob.digest}`), 404, 'BLOB_UNKNOWN');
  refused(t, await mirror.send('DELETE', '/v2/team/x/blobs/latest'), 400, 'DIGEST_INVALID');
});

void t.test('_catalog: repositories that something was pushed to', async (t) => {
  const mirror = await start(t);
  t.same((await mirror.get('/v2/_catalog')).json(), { repositories: [] });
  for (const name of ['team/b', 'team/a', 'team/a/nested']) await createPusher(mirror, name).child(single, 'v1');
  t.same((await mirror.get('/v2/_catalog')).json(), { repositories: ['team/a', 'team/a/nested', 'team/b'] });
});

void t.test('a repository that is mirrored is not pushed to: 405', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.put('team/x', blob);
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url }, config: { repositories } });
  for (const name of ['lab/team/x', 'library/x', 'lab/library/x']) {
    const requests = [
      ['POST', `/v2/${name}/blobs/uploads/`],
      ['POST', `/v2/${name}/blobs/uploads/?digest=${blob.digest}`],
      ['PATCH', `/v2/${name}/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef`],
      ['PUT', `/v2/${name}/manifests/v1`],
      ['DELETE', `/v2/${name}/manifests/v1`],
      ['DELETE', `/v2/${name}/blobs/${blob.digest}`],
    ] as const;
    for (const [method, path] of requests) {
      const answer = await mirror.send(method, path, method === 'DELETE' ? undefined : bytes);
      refused(t, answer, 405, 'UNSUPPORTED', `${method} ${path}`);
      t.match(answer.headers, { allow: 'GET, HEAD' });
    }
  }
  t.equal(upstream.seen.length, 0);
});

void t.test('a namespace is never hosted: neither pushed to nor read', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, { upstreams: { lab: upstream.url }, config: { repositories } });
  await createPusher(mirror, 'team/x').child(single, 'v1');
  for (const ns of ['lab', 'docker.io', '']) {
    refused(t, await mirror.send('POST', `${uploads}?ns=${ns}`), 405, 'UNSUPPORTED', `ns=${ns}`);
    refused(t, await mirror.send('POST', `${uploads}?ns=${ns}&digest=${blob.digest}`, bytes), 405, 'UNSUPPORTED');
    refused(t, await mirror.send('DELETE', `/v2/team/x/manifests/v1?ns=${ns}`), 405, 'UNSUPPORTED');
  }
  const asked = await mirror.get(`/v2/team/x/manifests/v1?ns=lab`);
  t.equal(asked.status, 404);
  t.ok(upstream.seen.length > 0, 'the upstream was asked');
  t.equal((await mirror.get(`/v2/team/x/blobs/${single.config.digest}?ns=lab`)).status, 404);
  t.equal((await mirror.get('/v2/team/x/manifests/v1')).status, 200);
});

void t.test('where nobody may push: 403, for everything that writes', async (t) => {
  const mirror = await start(t);
  const requests = [
    ['POST', '/v2/closed/x/blobs/uploads/'],
    ['POST', `/v2/closed/x/blobs/uploads/?digest=${blob.digest}`],
    ['GET', '/v2/closed/x/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef'],
    ['PATCH', '/v2/closed/x/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef'],
    ['PUT', `/v2/closed/x/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef?digest=${blob.digest}`],
    ['PUT', '/v2/closed/x/manifests/v1'],
    ['DELETE', '/v2/closed/x/manifests/v1'],
    ['DELETE', `/v2/closed/x/blobs/${blob.digest}`],
  ] as const;
  for (const [method, path] of requests) {
    const body = method === 'DELETE' || method === 'GET' ? undefined : bytes;
    refused(t, await mirror.send(method, path, body), 403, 'DENIED', `${method} ${path}`);
  }
  t.same(await readdir(join(mirror.store, 'uploads')), []);
});

void t.test('the addresses in an answer are those of the one who asked', async (t) => {
  const mirror = await start(t);
  for (const base of ['/p/linux-arm64/v2/team/x', '/v2/p/linux-arm64/team/x']) {
    const began = await mirror.send('POST', `${base}/blobs/uploads/`);
    t.match(began.headers, { location: new RegExp(`^${base}/blobs/uploads/[0-9a-f-]{36}$`) });
    const location = began.headers['location']!;
    t.match(await patch(mirror, location, 0, bytes), { status: 202, headers: { location } });
    t.match(await finish(mirror, location, blob.digest), {
      status: 201,
      headers: { location: `${base}/blobs/${blob.digest}` },
    });
    await createPusher(mirror, 'team/x').child(single, 'v1');
    const put = await mirror.send('PUT', `${base}/manifests/v1`, single.manifest.bytes, {
      'content-type': single.manifest.mediaType,
    });
    t.match(put.headers, { location: `${base}/manifests/${single.manifest.digest}` });
  }
  await isThere(t, mirror, blob);
});

void t.test('a range of what was pushed', async (t) => {
  const mirror = await start(t);
  await createPusher(mirror, 'team/x').blob(blob);
  const path = `/v2/team/x/blobs/${blob.digest}`;
  const part = await mirror.get(path, { range: 'bytes=100-299' });
  t.equal(part.status, 206);
  t.ok(part.body.equals(bytes.subarray(100, 300)));
  t.equal((await mirror.get(path, { range: `bytes=${bytes.length}-` })).status, 416);
});

void t.test(
  'pushes and deletes of one tag by many at once: whole answers, and a tag that means one of them',
  async (t) => {
    const mirror = await start(t);
    const pusher = createPusher(mirror, 'team/x');
    await pusher.blob(emptyJson);
    const all = Array.from({ length: 12 }, (_, at) => artifact({ annotations: { at: String(at) } }));
    const answers = await Promise.all([
      ...all.map((one) => pusher.manifest(one, 'v1')),
      mirror.send('DELETE', '/v2/team/x/manifests/v1'),
      mirror.send('DELETE', '/v2/team/x/manifests/v1'),
    ]);
    t.ok(answers.slice(0, 12).every(({ status }) => status === 201));
    t.ok(answers.slice(12).every(({ status }) => status === 202 || status === 404));
    for (const one of all) t.equal((await mirror.get(`/v2/team/x/manifests/${one.digest}`)).status, 200);
    await pusher.manifest(all[0]!, 'v1');
    t.match(await mirror.get('/v2/team/x/manifests/v1'), { headers: { 'docker-content-digest': all[0]!.digest } });
  },
);

void t.test('a blob that is deleted while a manifest is pushed that names it: one of them loses', async (t) => {
  const mirror = await start(t);
  const pusher = createPusher(mirror, 'team/x');
  await pusher.blob(emptyJson);
  for (let round = 0; round < 10; round++) {
    const layer = content(noise(`raced ${round}`, 1000), 'application/vnd.oci.image.layer.v1.tar');
    await pusher.blob(layer);
    const manifest = artifact({ layers: [layer] });
    const [put, gone] = await Promise.all([
      pusher.manifest(manifest, `v${round}`),
      mirror.send('DELETE', `/v2/team/x/blobs/${layer.digest}`),
    ]);
    t.same([put.status, gone.status], put.status === 201 ? [201, 403] : [400, 202]);
    t.equal((await mirror.get(`/v2/team/x/blobs/${layer.digest}`)).status, put.status === 201 ? 200 : 404);
  }
});
