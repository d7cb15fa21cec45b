import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import t from 'tap';
import type { Test } from 'tap';
import { readTar } from '../../src/airgap/tar-reader.ts';
import { BundleError } from '../../src/airgap/tar.ts';
import { createRecords } from '../../src/cache/records.ts';
import type { Records } from '../../src/cache/records.ts';
import { createRedisNames } from '../../src/cache/redis-names.ts';
import { createSeal } from '../../src/cache/seal.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { digestOf, isDigest } from '../../src/oci/digest.ts';
import { isMediaType, mediaTypes } from '../../src/oci/media-types.ts';
import { changeHeader, file, joinTar, sourceOf, tarHeader } from '../fixtures/bundles.ts';
import { tryMany } from '../fixtures/fuzz.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';

const names = fc.oneof(
  fc.constantFrom('index.json', '../x', '/etc/passwd', 'a'.repeat(100), 'ä', ''),
  fc.string({ maxLength: 9 }),
);
const contents = fc.uint8Array({ maxLength: 1200 }).map((bytes) => Buffer.from(bytes));
const paxes = fc
  .oneof(
    fc.tuple(
      fc.constantFrom('path', 'size', 'comment', 'GNU.sparse.map'),
      fc.oneof(fc.string({ maxLength: 9 }), fc.nat(5000).map(String)),
    ),
    fc.tuple(fc.constant('size'), fc.constantFrom('-1', '1e3', '999999999999999', '0512')),
  )
  .map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    const length = rest.length + String(rest.length + 2).length;
    return {
      header: tarHeader({ path: 'PaxHeaders/x', bytes: length, type: 'x' }),
      content: Buffer.from(`${length}${rest}`, 'latin1'),
    };
  });
const tarParts = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(names, contents).map(([path, bytes]) => file(path, bytes)) },
  { weight: 2, arbitrary: paxes },
  fc
    .record({
      path: names,
      bytes: fc.nat(3000),
      type: fc.constantFrom(...Array.from('0123456789xgLKSV\0')),
      link: names,
      content: contents,
    })
    .map(({ content, ...fields }) => ({ header: tarHeader(fields), content })),
  fc
    .tuple(names, contents, fc.nat(500), fc.uint8Array({ minLength: 1, maxLength: 12 }))
    .map(([path, bytes, at, change]) => ({
      header: changeHeader(file(path, bytes).header, at, Buffer.from(change)),
      content: bytes,
    })),
);
const archives = fc
  .tuple(
    fc.array(tarParts, { maxLength: 5 }),
    fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), fc.nat(255)), { maxLength: 2 }),
    fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
  )
  .map(([parts, changes, end]) => {
    const bytes = Buffer.from(joinTar(parts));
    for (const [place, byte] of changes) bytes[Math.floor(place * bytes.length)] = byte;
    return end === null ? bytes : bytes.subarray(0, Math.floor(end * bytes.length));
  });

/** What comes of an archive, how often it was read from, and whether it was right to its end. */
async function readAll(archive: Buffer, pieceBytes: number, isStrict: boolean, skips: boolean) {
  const inner = sourceOf(archive, pieceBytes);
  let reads = 0;
  const read = (maxBytes: number) => (reads++, inner.read(maxBytes));
  const found: { path: string; bytes: Buffer }[] = [];
  let isWhole = true;
  try {
    for await (const entry of readTar({ read, skip: inner.skip }, () => isStrict)) {
      const pieces: Buffer[] = [];
      if (!skips) for await (const piece of entry.content()) pieces.push(Buffer.from(piece));
      found.push({ path: entry.path, bytes: Buffer.concat(pieces) });
      if (!skips && pieces.reduce((sum, { length }) => sum + length, 0) !== entry.bytes)
        throw new Error('another length');
    }
  } catch (error) {
    if (!(error instanceof BundleError)) throw error;
    isWhole = false;
  }
  return { found, reads, isWhole };
}

void t.test('35. any archive ends, and gives no more than is in it', async (t) => {
  const counts = { whole: 0, broken: 0 };
  const property = fc.asyncProperty(
    archives,
    fc.integer({ min: 50, max: 2000 }),
    fc.boolean(),
    async (archive, pieceBytes, skips) => {
      const { found, reads, isWhole } = await readAll(archive, pieceBytes, false, skips);
      counts[isWhole ? 'whole' : 'broken']++;
      const total = found.reduce((sum, { bytes }) => sum + 512 + bytes.length, 0);
      const isPlain = found.every(({ path }) => /^[\x20-\x7e]*$/.test(path));
      return isPlain && total <= archive.length && reads <= 4 + archive.length / 50 + (archive.length / 512) * 4;
    },
  );
  await tryMany(t, property, 5);
  t.ok(counts.whole > 0 && counts.broken > 0, JSON.stringify(counts));
});

void t.test('35. what a strict reader takes is to the byte what would be written of it', async (t) => {
  let taken = 0;
  const plain = fc
    .array(
      fc.tuple(fc.stringMatching(/^[a-z/]{1,20}$/), contents).map(([path, bytes]) => file(path, bytes)),
      { maxLength: 3 },
    )
    .map(joinTar);
  const property = fc.asyncProperty(fc.oneof(plain, archives), async (archive) => {
    const { found, isWhole } = await readAll(archive, 700, true, false);
    if (!isWhole) return true;
    taken++;
    return joinTar(found.map(({ path, bytes }) => file(path, bytes))).equals(archive);
  });
  await tryMany(t, property, 5);
  t.ok(taken > 0, `${taken} were taken`);
});

const skip = hasRedis ? false : 'redis-server is not installed';
const digest = digestOf(Buffer.from('content'));
const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isMaybe = (value: unknown, is: (value: unknown) => boolean) => value === undefined || is(value);
const isDigestText = (value: unknown) => typeof value === 'string' && isDigest(value);

/** What the types of the records promise to whoever reads one. */
const shapes: Record<string, (value: Record<string, unknown>) => boolean> = {
  tags: (one) =>
    isMaybe(one['digest'], isDigestText) && isCount(one['checkedAtMs']) && isMaybe(one['troubledAtMs'], isCount),
  manifests: (one) => typeof one['mediaType'] === 'string' && isMediaType(one['mediaType']),
  blobs: (one) => isMaybe(one['size'], isCount) && isMaybe(one['isAnswered'], (value) => value === true),
  narrowed: (one) =>
    isDigestText(one['index']) &&
    Array.isArray(one['kept']) &&
    one['kept'].every(isCount) &&
    isMaybe(one['added'], (value) => Array.isArray(value) && value.every(isObject)) &&
    isMaybe(one['as'], (value) => value === 'combined' || value === 'alternates') &&
    isMaybe(one['primary'], (value) => typeof value === 'string'),
  origins: (one) => typeof one['from'] === 'string',
  'platform-checks': (one) => typeof one['truthful'] === 'boolean',
  referrers: (one) =>
    Array.isArray(one['manifests']) && one['manifests'].every(isObject) && isCount(one['checkedAtMs']),
  demand: (one) =>
    isObject(one['platforms']) && Object.values(one['platforms']).every(isCount) && isCount(one['notedAtMs']),
};
const kinds = Object.keys(shapes);
const spaceOf = (records: Records, kind: string) =>
  records[(kind === 'platform-checks' ? 'platformChecks' : kind) as 'tags'];

const fields = fc.constantFrom(
  'digest',
  'checkedAtMs',
  'troubledAtMs',
  'mediaType',
  'size',
  'isAnswered',
  'index',
  'kept',
  'added',
  'as',
  'primary',
  'from',
  'truthful',
  'manifests',
  'platforms',
  'notedAtMs',
  'value',
  'seal',
);
const fieldValues = fc.oneof(
  fc.constantFrom<unknown>(
    digest,
    0,
    1,
    -1,
    1.5,
    2 ** 53,
    true,
    null,
    [],
    {},
    [0, 1],
    [-1],
    [null],
    [{}],
    [1],
    { a: 1 },
    { a: '1' },
    'combined',
    mediaTypes.ociIndex,
    'a/b\nc',
    'sha256:../x',
    '',
    digest.toUpperCase(),
  ),
  fc.jsonValue({ maxDepth: 2 }),
);
const right: Record<string, object> = {
  tags: { digest, checkedAtMs: 1, troubledAtMs: 2 },
  manifests: { mediaType: mediaTypes.ociIndex },
  blobs: { size: 7, isAnswered: true },
  narrowed: { index: digest, kept: [0], added: [{ a: 1 }], as: 'combined', primary: 'linux/arm64' },
  origins: { from: 'up/x' },
  'platform-checks': { truthful: true },
  referrers: { manifests: [{ a: 1 }], checkedAtMs: 1 },
  demand: { platforms: { 'linux/arm64': 1 }, notedAtMs: 1 },
};
const stored = fc.constantFrom(...kinds).chain((kind) =>
  fc.tuple(
    fc.constant(kind),
    fc.oneof(
      { weight: 1, arbitrary: fc.jsonValue() },
      {
        weight: 8,
        arbitrary: fc
          .dictionary(fc.constantFrom(...Object.keys(right[kind]!)), fieldValues, { maxKeys: 2 })
          .map((changes) => ({ ...right[kind], ...changes })),
      },
      { weight: 1, arbitrary: fc.dictionary(fields, fieldValues, { maxKeys: 6 }) },
    ),
  ),
);

/** Replicas whose Redis others write to as well, and a way to do so past them. */
async function prepare(t: Test, isSealed: boolean) {
  const server = await startRedis(t);
  const { redis } = await openTestRedis(t, server.port);
  const seal = isSealed ? createSeal([randomBytes(32)]) : undefined;
  const repositories = createRedisNames(redis, 'repositories');
  const shared = { open: redis.records, repositories, guard: redis.guard, ttlMs: 60_000, seal };
  const trouble: unknown[] = [];
  const start = async () => {
    const database = openSqliteRecords(join(await temporaryFolder(t), 'records.sqlite'), 2 ** 20);
    t.teardown(() => database.close());
    return createRecords({ local: database.adapter, shared, onTrouble: (error) => trouble.push(error) });
  };
  const spaces = new Map(kinds.map((kind) => [kind, redis.records(kind)]));
  return { writer: await start(), reader: await start(), trouble, raw: (kind: string) => spaces.get(kind)! };
}

void t.test('20. whatever stands in a shared Redis is a record of its kind, or none', { skip }, async (t) => {
  const { reader, raw, trouble } = await prepare(t, false);
  const counts = { record: 0, none: 0 };
  let key = 0;
  const property = fc.asyncProperty(stored, async ([kind, value]) => {
    await raw(kind).set(String(++key), value);
    const found: unknown = await spaceOf(reader, kind).get(String(key));
    counts[found === undefined ? 'none' : 'record']++;
    if (found === undefined) return !isObject(value) || !shapes[kind]!(value);
    return isDeepStrictEqual(found, JSON.parse(JSON.stringify(value))) && isObject(found) && shapes[kind]!(found);
  });
  await tryMany(t, property, 5);
  t.same(trouble, []);
  t.ok(counts.record > 0 && counts.none > 0, JSON.stringify(counts));
});

void t.test('20. under a seal, what others write, move or change is no record', { skip }, async (t) => {
  const { writer, reader, raw } = await prepare(t, true);
  const changes = fc.constantFrom('none', 'all', 'seal', 'value', 'place', 'kind');
  let [key, kept] = [0, 0];
  const property = fc.asyncProperty(
    fc.constantFrom(...kinds),
    stored,
    changes,
    fc.string(),
    async (kind, [, value], change, text) => {
      const [here, other] = [`${++key}`, kinds[(kinds.indexOf(kind) + 1) % kinds.length]!];
      await spaceOf(writer, kind).set(here, right[kind] as never);
      const held: unknown = await raw(kind).get(here);
      if (!isObject(held) || typeof held['seal'] !== 'string') throw new Error('nothing is sealed');
      if (change === 'none') {
        kept++;
        return isDeepStrictEqual(await spaceOf(reader, kind).get(here), right[kind]);
      }
      const [to, place] = [change === 'kind' ? other : kind, change === 'place' ? `${here}:${text}` : here];
      const changed = { ...held, ...(change === 'seal' && { seal: text }), ...(change === 'value' && { value }) };
      await raw(to).set(place, change === 'all' ? value : changed);
      const isSame = change === 'value' && isDeepStrictEqual(value, right[kind]);
      return isSame || (await spaceOf(reader, to).get(place)) === undefined;
    },
  );
  await tryMany(t, property, 10);
  t.ok(kept > 0, `${kept} were as they had been sealed`);
});
