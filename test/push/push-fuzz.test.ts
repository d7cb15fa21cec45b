import * as fc from 'fast-check';
import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown, TestAnswer, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';

/** What a push may be told (distribution-spec, "Error Codes"). */
const codes = new Set([
  'BLOB_UNKNOWN',
  'BLOB_UPLOAD_INVALID',
  'BLOB_UPLOAD_UNKNOWN',
  'DIGEST_INVALID',
  'MANIFEST_BLOB_UNKNOWN',
  'MANIFEST_INVALID',
  'MANIFEST_UNKNOWN',
  'NAME_INVALID',
  'NAME_UNKNOWN',
  'SIZE_INVALID',
  'UNAUTHORIZED',
  'DENIED',
  'UNSUPPORTED',
  'TOOMANYREQUESTS',
]);
const statuses = new Set([200, 201, 202, 204, 206, 400, 403, 404, 405, 413, 416]);

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });
const uploadBytes = 256 * 1024;
const source = noise('fuzz', 600_000);

function start(t: Teardown): Promise<TestMirror> {
  const common = { hosted: true, push: ['anonymous'] };
  return startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: {
      repositories: [
        { name: 'team/*', ...common },
        { name: 'composed/*', compose: true, ...common },
      ],
      hosting: { uploads: 5000, uploadSize: '256KiB' },
      limits: { manifestSize: '256KiB' },
    },
  });
}

/** Throws for an answer that the specification does not have. */
function checkAnswer(answer: TestAnswer, what: string): void {
  const shown = `${what}: ${answer.status} ${answer.body.toString().slice(0, 300)}`;
  if (!statuses.has(answer.status)) throw new Error(`no status of the specification: ${shown}`);
  if (answer.status < 400 || what.startsWith('HEAD')) return;
  const { errors } = answer.json<{ errors: { code: string; message: string }[] }>();
  if (!Array.isArray(errors) || errors.length !== 1) throw new Error(`no error document: ${shown}`);
  const [{ code, message }] = errors as [{ code: string; message: string }];
  if (!codes.has(code)) throw new Error(`no known code: ${shown}`);
  if (!/^\S[^\n\r]*\.$/.test(message)) throw new Error(`not one sentence: ${shown}`);
}

type Operation =
  | { kind: 'begin'; repository: number }
  | { kind: 'whole'; repository: number; from: number; size: number; digest: DigestKind }
  | { kind: 'patch'; upload: number; foreign: boolean; range: RangeKind; size: number; at: number }
  | { kind: 'status'; upload: number; foreign: boolean }
  | { kind: 'put'; upload: number; foreign: boolean; range: RangeKind; size: number; digest: DigestKind }
  | { kind: 'cancel'; upload: number; foreign: boolean }
  | { kind: 'mount'; repository: number; blob: number }
  | { kind: 'delete'; repository: number; blob: number };

type DigestKind = 'right' | 'long' | 'wrong' | 'malformed';
type RangeKind = 'none' | 'right' | 'early' | 'late' | 'malformed' | 'contradicting';

interface Upload {
  readonly repository: string;
  readonly location: string;
  bytes: Buffer;
  isOpen: boolean;
}

const repository = fc.integer({ min: 0, max: 1 });
const index = fc.nat({ max: 5 });
const foreign = fc.integer({ min: 0, max: 9 }).map((one) => one === 0);
const size = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 3000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 60_000, max: 140_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1, uploadBytes, uploadBytes + 1) },
);
const digestKind = fc.constantFrom<DigestKind>('right', 'right', 'right', 'long', 'wrong', 'malformed');
const rangeKind = fc.constantFrom<RangeKind>(
  'none',
  'right',
  'right',
  'right',
  'early',
  'late',
  'malformed',
  'contradicting',
);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('begin' as const), repository }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('whole' as const),
      repository,
      from: fc.nat(9),
      size,
      digest: digestKind,
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('patch' as const),
      upload: index,
      foreign,
      range: rangeKind,
      size,
      at: fc.integer({ min: 1, max: 5000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('status' as const), upload: index, foreign }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      upload: index,
      foreign,
      range: rangeKind,
      size,
      digest: digestKind,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), upload: index, foreign }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('mount' as const), repository, blob: index }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete' as const), repository, blob: index }) },
);

/** The registry as it should be, beside the one that runs. */
class Model {
  readonly uploads: Upload[] = [];
  readonly blobs = new Map<string, Map<string, Buffer>>();
  readonly mentioned = new Set<string>();
  readonly repositories: readonly string[];
  readonly #mirror: TestMirror;

  constructor(mirror: TestMirror, run: number) {
    this.#mirror = mirror;
    this.repositories = [`team/a${run}`, `team/b${run}`];
    for (const name of this.repositories) this.blobs.set(name, new Map());
  }

  async #send(
    expected: number | readonly number[],
    method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE',
    path: string,
    body?: Buffer,
    headers: Record<string, string> = {},
  ): Promise<TestAnswer> {
    const answer = await this.#mirror.send(method, path, body, headers);
    const what = `${method} ${path} ${JSON.stringify(headers)} of ${body?.length ?? 0} bytes`;
    checkAnswer(answer, what);
    if (![expected].flat().includes(answer.status)) {
      throw new Error(`${what}: expected ${String(expected)}, was ${answer.status} ${answer.body.toString()}`);
    }
    return answer;
  }

  #digestOf(bytes: Buffer, kind: DigestKind): string {
    if (kind === 'malformed') return 'sha256:abc';
    const digest = digestOf(
      kind === 'wrong' ? Buffer.concat([bytes, Buffer.from('wrong')]) : bytes,
      kind === 'long' ? 'sha512' : 'sha256',
    );
    this.mentioned.add(digest);
    return digest;
  }

  #finish(repository: string, bytes: Buffer, digest: string, kind: DigestKind): void {
    if (kind === 'right' || kind === 'long') this.blobs.get(repository)!.set(digest, Buffer.from(bytes));
  }

  async run(step: Operation): Promise<void> {
    switch (step.kind) {
      case 'begin':
        return this.#begin(this.repositories[step.repository]!);
      case 'whole':
        return this.#whole(step);
      case 'mount':
        return this.#mount(step);
      case 'delete':
        return this.#delete(step);
      default: {
        if (this.uploads.length === 0) return;
        const upload = this.uploads[step.upload % this.uploads.length]!;
        return this.#onUpload(step, upload);
      }
    }
  }

  async #begin(repository: string): Promise<void> {
    const { headers } = await this.#send(202, 'POST', `/v2/${repository}/blobs/uploads/`);
    this.uploads.push({ repository, location: headers['location']!, bytes: Buffer.alloc(0), isOpen: true });
  }

  async #whole({ repository, from, size, digest: kind }: Operation & { kind: 'whole' }): Promise<void> {
    const name = this.repositories[repository]!;
    const bytes = source.subarray(from * 100, from * 100 + size);
    const digest = this.#digestOf(bytes, kind);
    const isRight = kind === 'right' || kind === 'long';
    const expected = isRight ? 201 : 400;
    const path = `/v2/${name}/blobs/uploads/?digest=${digest}`;
    await this.#send(size > uploadBytes && kind !== 'malformed' ? 413 : expected, 'POST', path, bytes);
    if (size <= uploadBytes) this.#finish(name, bytes, digest, kind);
  }

  async #mount({ repository, blob }: Operation & { kind: 'mount' }): Promise<void> {
    const [to, from] = [this.repositories[repository]!, this.repositories[1 - repository]!];
    const digest = [...this.mentioned][blob % Math.max(1, this.mentioned.size)];
    if (digest === undefined) return;
    const bytes = this.blobs.get(from)!.get(digest);
    const path = `/v2/${to}/blobs/uploads/?mount=${digest}&from=${from}`;
    const { headers } = await this.#send(bytes ? 201 : 202, 'POST', path);
    if (bytes) this.blobs.get(to)!.set(digest, bytes);
    else this.uploads.push({ repository: to, location: headers['location']!, bytes: Buffer.alloc(0), isOpen: true });
  }

  async #delete({ repository, blob }: Operation & { kind: 'delete' }): Promise<void> {
    const name = this.repositories[repository]!;
    const digest = [...this.mentioned][blob % Math.max(1, this.mentioned.size)];
    if (digest === undefined) return;
    await this.#send(this.blobs.get(name)!.has(digest) ? 202 : 404, 'DELETE', `/v2/${name}/blobs/${digest}`);
    this.blobs.get(name)!.delete(digest);
  }

  async #onUpload(step: Extract<Operation, { upload: number }>, upload: Upload): Promise<void> {
    const other = this.repositories.find((name) => name !== upload.repository)!;
    const location = step.foreign ? upload.location.replace(upload.repository, other) : upload.location;
    const isThere = upload.isOpen && !step.foreign;
    if (step.kind === 'status') {
      const { headers } = await this.#send(isThere ? 204 : 404, 'GET', location);
      if (isThere) this.#checkRange(headers, upload);
      return;
    }
    if (step.kind === 'cancel') {
      await this.#send(isThere ? 204 : 404, 'DELETE', location);
      if (isThere) upload.isOpen = false;
      return;
    }
    const have = upload.bytes.length;
    const piece = source.subarray(have % 1000, (have % 1000) + step.size);
    const { headers, status: ofRange } = rangeOf(step.range, have, piece.length);
    const isTooLarge = have + piece.length > uploadBytes;
    const appended = ofRange ?? (!isThere ? 404 : isTooLarge && piece.length > 0 ? 413 : undefined);
    if (step.kind === 'patch') {
      const answer = await this.#send(appendStatus(appended, isThere, 202), 'PATCH', location, piece, headers);
      if (answer.status === 202) upload.bytes = Buffer.concat([upload.bytes, piece]);
      if (answer.status === 202 || answer.status === 416) this.#checkRange(answer.headers, upload);
      // What came before it was too much is there.
      if (answer.status === 413) await this.#learn(upload, piece);
      return;
    }
    const bytes = Buffer.concat([upload.bytes, piece]);
    const digest = this.#digestOf(bytes, step.digest);
    const isRight = step.digest === 'right' || step.digest === 'long';
    const failure = piece.length === 0 ? (isThere ? undefined : 404) : appended;
    const expected = step.digest === 'malformed' ? 400 : appendStatus(failure, isThere, isRight ? 201 : 400);
    const answer = await this.#send(expected, 'PUT', `${location}?digest=${digest}`, piece, headers);
    if (answer.status === 413) await this.#learn(upload, piece);
    if (step.digest === 'malformed' || !isThere || failure !== undefined) return;
    upload.isOpen = false;
    this.#finish(upload.repository, bytes, digest, step.digest);
  }

  async #learn(upload: Upload, piece: Buffer): Promise<void> {
    const { headers } = await this.#send(204, 'GET', upload.location);
    const end = Number(headers['range']?.slice(2));
    const all = Buffer.concat([upload.bytes, piece]);
    if (end > uploadBytes || (end > 0 && end + 1 < upload.bytes.length)) throw new Error(`${end} of ${uploadBytes}`);
    if (end > 0) upload.bytes = all.subarray(0, end + 1);
  }

  #checkRange({ range }: Record<string, string>, { bytes }: Upload): void {
    if (range !== `0-${Math.max(0, bytes.length - 1)}`) throw new Error(`${range} of ${bytes.length} bytes`);
  }

  /** Exactly those that were finished can be read, and they are what was sent. */
  async check(): Promise<void> {
    for (const [name, blobs] of this.blobs) {
      for (const digest of this.mentioned) {
        const bytes = blobs.get(digest);
        const answer = await this.#send(bytes ? 200 : 404, 'GET', `/v2/${name}/blobs/${digest}`);
        if (bytes && !answer.body.equals(bytes)) throw new Error(`${digest} is not what was sent`);
      }
    }
    for (const { isOpen, location } of this.uploads) if (isOpen) await this.#send(204, 'DELETE', location);
  }
}

/** With 404 and 416 of one request, either may be told first. */
function appendStatus(failure: number | undefined, isThere: boolean, otherwise: number): number | readonly number[] {
  if (failure === 416 && !isThere) return [404, 416];
  return failure ?? otherwise;
}

function rangeOf(kind: RangeKind, have: number, length: number): { headers: Record<string, string>; status?: number } {
  const of = (from: number, bytes = length) => ({ 'content-range': `${from}-${from + bytes - 1}` });
  switch (kind) {
    case 'none':
      return { headers: {} };
    case 'right':
      return length === 0 ? { headers: {} } : { headers: of(have) };
    case 'early':
      return have === 0 || length === 0 ? { headers: {} } : { headers: of(have - 1), status: 416 };
    case 'late':
      return length === 0 ? { headers: {} } : { headers: of(have + 1), status: 416 };
    case 'malformed':
      return { headers: { 'content-range': 'bytes */x' }, status: 400 };
    case 'contradicting':
      return { headers: of(have, length + 1), status: 400 };
    default:
      return kind satisfies never;
  }
}

void t.test('any uploads in any order: what a model says is here is here, and nothing else', async (t) => {
  const mirror = await start(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 40 }), async (steps) => {
      const model = new Model(mirror, run++);
      await model.run({ kind: 'begin', repository: 0 });
      for (const step of steps) await model.run(step);
      await model.check();
    }),
    { numRuns: 120, interruptAfterTimeLimit: 60_000 },
  );
  t.pass(`${run} runs`);
});

/** What a manifest may be pushed as. */
const types = [
  ...Object.values(mediaTypes),
  'application/json',
  'application/vnd.oci.image.index.v1+json; charset=utf-8',
  'APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON',
  'text/html',
  'no type',
  'a/b, c/d',
  '*/*',
];

type Path = readonly (string | number)[];

const paths: readonly Path[] = [
  [],
  ['schemaVersion'],
  ['mediaType'],
  ['artifactType'],
  ['subject'],
  ['subject', 'digest'],
  ['annotations'],
  ['config'],
  ['config', 'digest'],
  ['config', 'size'],
  ['config', 'mediaType'],
  ['layers'],
  ['layers', 0],
  ['layers', 0, 'digest'],
  ['layers', 0, 'size'],
  ['layers', 0, 'urls'],
  ['manifests'],
  ['manifests', 0],
  ['manifests', 0, 'digest'],
  ['manifests', 0, 'size'],
  ['manifests', 0, 'platform'],
  ['manifests', 0, 'platform', 'os'],
  ['manifests', 0, 'annotations'],
  ['manifests', 1],
  ['__proto__'],
  ['constructor'],
  ['Manifests'],
  ['target'],
  ['images'],
];

function changed(value: unknown, path: Path, by: unknown): unknown {
  const [first, ...rest] = path;
  if (first === undefined) return by;
  const base: object = typeof value === 'object' && value !== null ? value : {};
  const member = changed((base as Record<string, unknown>)[first], rest, by);
  if (Array.isArray(base)) return base.map((each: unknown, at) => (at === first ? member : each));
  return Object.fromEntries([
    ...Object.entries(base).filter(([key]) => key !== String(first)),
    [String(first), member],
  ]);
}

const child = image.children[0]!;
const strange = fc.oneof(
  fc.jsonValue({ maxDepth: 4 }),
  fc.constantFrom<unknown>(
    undefined,
    null,
    -1,
    1.5,
    1e308,
    2 ** 53,
    '',
    'x'.repeat(5000),
    'ünïcode \u0000\n',
    [],
    {},
    child.manifest.digest,
    child.config.digest,
    image.index.digest,
    `sha512:${'a'.repeat(128)}`,
    'sha256:../../../etc/passwd',
    mediaTypes.ociIndex,
    mediaTypes.dockerList,
    descriptor(child.manifest),
    descriptor(child.config),
    descriptor(image.index),
  ),
  fc.integer({ min: 500, max: 3000 }).map((count) => Array.from({ length: count }, () => descriptor(child.config))),
  fc.integer({ min: 30, max: 20_000 }).map(nested),
);

function nested(depth: number): Raw {
  return new Raw(`${'['.repeat(depth)}${']'.repeat(depth)}`);
}

/** Text that stands in a document as it is. */
class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toJSON(): string {
    return `raw:${this.text}:war`;
  }
}

function textOf(value: unknown): Buffer {
  return Buffer.from((JSON.stringify(value) ?? '').replaceAll(/"raw:(.*?):war"/g, '$1'));
}

const documents = [image.index, child.manifest, image.children[1]!.manifest].map(
  ({ bytes }) => JSON.parse(bytes.toString()) as unknown,
);

const mutated = fc
  .record({
    base: fc.constantFrom(...documents, {}),
    changes: fc.array(fc.tuple(fc.constantFrom(...paths), strange), { maxLength: 3 }),
  })
  .map(({ base, changes }) => textOf(changes.reduce<unknown>((value, [path, by]) => changed(value, path, by), base)));

const broken = fc
  .record({
    base: fc.constantFrom(image.index.bytes, child.manifest.bytes),
    at: fc.nat(2000),
    how: fc.constantFrom('flip', 'cut', 'repeat', 'insert'),
    bytes: fc.uint8Array({ maxLength: 20 }),
  })
  .map(({ base, at, how, bytes }) => {
    const place = at % base.length;
    const [before, after] = [base.subarray(0, place), base.subarray(place)];
    if (how === 'cut') return before;
    if (how === 'repeat') return Buffer.concat([base, after]);
    if (how === 'insert') return Buffer.concat([before, bytes, after]);
    return Buffer.concat([before, Buffer.from([after[0]! ^ (1 << (at % 8))]), after.subarray(1)]);
  });

const anyDocument = fc.oneof(
  { weight: 6, arbitrary: mutated },
  { weight: 3, arbitrary: broken },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  { weight: 1, arbitrary: fc.jsonValue().map(textOf) },
);

void t.test('any manifest: it is taken and can be read, or refused with a reason and is not there', async (t) => {
  const mirror = await start(t);
  const hosts = ['team/x', 'composed/x'];
  for (const name of hosts) {
    const answer = await createPusher(mirror, name).image(image, 'whole');
    t.equal(answer.status, 201);
  }
  const known = new Set<string>(image.manifests.map(({ digest }) => digest));
  const taken = new Map(hosts.map((name) => [name, new Set(known)]));
  let count = 0;
  await fc.assert(
    fc.asyncProperty(
      anyDocument,
      fc.oneof(fc.constantFrom(...types), fc.constantFrom(mediaTypes.ociIndex, mediaTypes.ociManifest)),
      fc.constantFrom('tag', 'right', 'right', 'long', 'wrong', '-bad', 'whole'),
      fc.constantFrom(...hosts),
      async (bytes, type, kind, name) => {
        const digest = digestOf(bytes, kind === 'long' ? 'sha512' : 'sha256');
        const references: Record<string, string> = {
          right: digest,
          long: digest,
          wrong: digestOf(Buffer.from('wrong')),
        };
        const path = `/v2/${name}/manifests/${references[kind] ?? kind}`;
        const answer = await mirror.send('PUT', path, bytes, { 'content-type': type });
        const what = `PUT ${path} as ${type} of ${bytes.toString().slice(0, 500)}`;
        checkAnswer(answer, what);
        if (answer.status >= 300 && !taken.get(name)!.has(digest)) {
          const read = await mirror.get(`/v2/${name}/manifests/${digest}`);
          if (read.status !== 404) throw new Error(`${what}: refused with ${answer.status}, read with ${read.status}`);
        }
        if (answer.status >= 300) return;
        count++;
        taken.get(name)!.add(digest);
        const read = await mirror.get(`/v2/${name}/manifests/${digest}`);
        if (read.status !== 200 || !read.body.equals(bytes))
          throw new Error(`${what}: ${read.status} after ${answer.status}`);
        if (kind !== 'tag' && kind !== 'whole') return;
        const tagged = await mirror.get(`/v2/${name}/manifests/${kind}`, { accept: '*/*', 'narrows-platform': 'any' });
        const meant = answer.headers['narrows-index'] ?? digest;
        if (tagged.headers['docker-content-digest'] !== meant) throw new Error(`${what}: the tag means another`);
      },
    ),
    { numRuns: 700, interruptAfterTimeLimit: 90_000 },
  );
  t.ok(count > 0, `${count} were taken`);
});

void t.test('any request: an answer of the specification', async (t) => {
  const mirror = await start(t);
  await createPusher(mirror, 'team/x').image(image, 'v1');
  const part = fc.constantFrom(
    'team',
    'x',
    'blobs',
    'uploads',
    'manifests',
    'tags',
    'list',
    'referrers',
    '_catalog',
    'v1',
    '',
    '..',
    '%2e%2e',
    '%00',
    'p',
    'linux-arm64',
    'X',
    child.manifest.digest,
    child.config.digest,
    'sha256:x',
    '01234567-89ab-cdef-0123-456789abcdef',
  );
  const query = fc.tuple(
    fc.constantFrom('digest', 'mount', 'from', 'tag', 'n', 'last', 'artifactType', 'ns', ''),
    fc.constantFrom(child.config.digest, 'team/x', 'x', '', '-1', '%', '%zz', 'a'.repeat(300)),
  );
  const target = fc.oneof(
    fc.array(part, { maxLength: 8 }).map((parts) => `/v2/${parts.join('/')}`),
    fc.array(part, { maxLength: 3 }).map((parts) => `/v2/team/x/blobs/uploads/${parts.join('/')}`),
    fc.array(part, { maxLength: 3 }).map((parts) => `/v2/team/x/manifests/${parts.join('/')}`),
  );
  const method = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS' as const);
  await fc.assert(
    fc.asyncProperty(
      method,
      target,
      fc.array(query, { maxLength: 3 }),
      fc.option(fc.uint8Array({ maxLength: 100 }), { nil: undefined }),
      fc.option(fc.constantFrom('0-10', '0-0', 'x', '5-1', '0-99', ''), { nil: undefined }),
      async (name, path, pairs, body, range) => {
        const address = `${path}?${pairs.map(([key, value]) => `${key}=${value}`).join('&')}`;
        const isRead = name === 'GET' || name === 'HEAD';
        const headers: Record<string, string> = range === undefined ? {} : { 'content-range': range };
        const answer = await mirror.send(name, address, isRead || !body ? undefined : Buffer.from(body), headers);
        // What is not hosted is asked of an upstream that is not there.
        const isMirrored = isRead && [502, 503].includes(answer.status) && !address.startsWith('/v2/team/');
        const hasNamespace = pairs.some(([key]) => key === 'ns');
        if (isMirrored || (isRead && hasNamespace)) return;
        checkAnswer(answer, `${name} ${address}`);
      },
    ),
    { numRuns: 1500, interruptAfterTimeLimit: 60_000 },
  );
  const whole = content(JSON.parse(child.manifest.bytes.toString()), child.manifest.mediaType);
  t.equal((await createPusher(mirror, 'team/x').child({ ...child, manifest: whole }, 'after')).status, 201);
});
