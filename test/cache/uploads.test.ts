import { readFile, readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { OutOfOrder, TooManyUploads, UploadGone, UploadTooLarge, openUploads } from '../../src/cache/uploads.ts';
import type { Uploads, UploadsOptions } from '../../src/cache/uploads.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const bytes = noise('an upload', 300_000);
const digest = digestOf(bytes);
const repository = 'team/x';
/** What it fails with; t.rejects does not look at classes. */
async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    return error;
  }
}

const notTaken = () => Promise.reject(new Error('was taken'));

interface Prepared {
  readonly folder: string;
  readonly uploads: Uploads;
  open(over?: Partial<UploadsOptions>): Promise<Uploads>;
}

async function prepare(t: Teardown, over: Partial<UploadsOptions> = {}): Promise<Prepared> {
  const folder = join(await temporaryFolder(t), 'uploads');
  const open = (more: Partial<UploadsOptions> = {}) =>
    openUploads({
      folder,
      maxUploads: 10,
      maxBytes: 1_000_000,
      idleMs: 60_000,
      now: Date.now,
      onFull: () => undefined,
      ...over,
      ...more,
    });
  return { folder, uploads: await open(), open };
}

async function* body(...chunks: Buffer[]): AsyncGenerator<Buffer> {
  for (const chunk of chunks) {
    await Promise.resolve();
    yield chunk;
  }
}

/** A client that sends, and then nothing more until it is told to. */
function stuckBody(...chunks: Buffer[]): { body: AsyncGenerator<Buffer>; go(): void } {
  const going = Promise.withResolvers<void>();
  async function* stuck(): AsyncGenerator<Buffer> {
    yield* chunks;
    await going.promise;
  }
  return { body: stuck(), go: () => going.resolve() };
}

/** What is handed on, as it is at that moment. */
function taking(): { taken: Buffer[]; take(path: string, size: number): Promise<void> } {
  const taken: Buffer[] = [];
  return {
    taken,
    async take(path, size) {
      const content = await readFile(path);
      if (content.length !== size) throw new Error(`${size} bytes were said, ${content.length} are there`);
      taken.push(content);
    },
  };
}

void t.test('uploads: pieces in order become what was sent', async (t) => {
  const { uploads, folder } = await prepare(t);
  const id = await uploads.begin(repository);
  t.equal(await uploads.size(repository, id), 0);
  t.equal(await uploads.append(repository, id, 0, body(bytes.subarray(0, 1000))), 1000);
  t.equal(
    await uploads.append(repository, id, 1000, body(bytes.subarray(1000, 1001), bytes.subarray(1001, 5000))),
    5000,
  );
  t.equal(await uploads.append(repository, id, 5000, body()), 5000, 'nothing');
  t.equal(await uploads.append(repository, id, undefined, body(bytes.subarray(5000))), bytes.length, 'at the end');
  t.equal(await uploads.size(repository, id), bytes.length);
  const { taken, take } = taking();
  t.equal(await uploads.finish(repository, id, digest, take), true);
  t.equal(taken.length, 1);
  t.ok(taken[0]!.equals(bytes));
  t.same(await readdir(folder), [], 'and nothing of it stays');
});

void t.test('uploads: of nothing, and by sha512', async (t) => {
  const { uploads } = await prepare(t);
  for (const [content, algorithm] of [
    [Buffer.alloc(0), 'sha256'],
    [Buffer.alloc(0), 'sha512'],
    [bytes, 'sha512'],
  ] as const) {
    const id = await uploads.begin(repository);
    await uploads.append(repository, id, undefined, body(content));
    const { taken, take } = taking();
    t.equal(await uploads.finish(repository, id, digestOf(content, algorithm), take), true);
    t.ok(taken[0]!.equals(content));
  }
});

void t.test(
  'uploads: what does not begin at the end of what is here is out of order, and changes nothing',
  async (t) => {
    const { uploads } = await prepare(t);
    const id = await uploads.begin(repository);
    await t.rejects(uploads.append(repository, id, 1, body(bytes)), new OutOfOrder(0));
    await uploads.append(repository, id, 0, body(bytes.subarray(0, 100)));
    for (const from of [0, 1, 99, 101, 1_000_000]) {
      const refused = uploads.append(repository, id, from, body(bytes));
      t.match(await failureOf(refused), { message: new OutOfOrder(100).message, size: 100 }, `from ${from}`);
    }
    t.equal(await uploads.size(repository, id), 100);
    t.equal(await uploads.append(repository, id, 100, body(bytes.subarray(100))), bytes.length);
    t.equal(await uploads.finish(repository, id, digest, taking().take), true);
  },
);

void t.test('uploads: what came before a body broke off is kept, and gone on with', async (t) => {
  const { uploads } = await prepare(t);
  const id = await uploads.begin(repository);
  async function* breaking(): AsyncGenerator<Buffer> {
    yield* body(bytes.subarray(0, 70_000));
    throw new Error('the client has gone');
  }
  await t.rejects(uploads.append(repository, id, 0, breaking()), /the client has gone/);
  t.equal(await uploads.size(repository, id), 70_000);
  await uploads.append(repository, id, 70_000, body(bytes.subarray(70_000)));
  const { taken, take } = taking();
  t.equal(await uploads.finish(repository, id, digest, take), true);
  t.ok(taken[0]!.equals(bytes));
});

void t.test('uploads: what is no upload, or is none any more', async (t) => {
  const { uploads } = await prepare(t);
  const check = async (id: string, what: string, name = repository) => {
    t.equal(await uploads.size(name, id), undefined, what);
    t.type(await failureOf(uploads.append(name, id, undefined, body(bytes))), UploadGone, what);
    t.type(await failureOf(uploads.finish(name, id, digest, notTaken)), UploadGone, what);
    t.equal(await uploads.cancel(name, id), false, what);
  };
  await check('01234567-89ab-cdef-0123-456789abcdef', 'never begun');
  const finished = await uploads.begin(repository);
  await uploads.append(repository, finished, 0, body(bytes));
  t.equal(await uploads.finish(repository, finished, digest, taking().take), true);
  await check(finished, 'finished');
  const cancelled = await uploads.begin(repository);
  await uploads.append(repository, cancelled, 0, body(bytes));
  t.equal(await uploads.cancel(repository, cancelled), true);
  await check(cancelled, 'cancelled');
  const foreign = await uploads.begin(repository);
  await uploads.append(repository, foreign, 0, body(bytes));
  await check(foreign, 'of another repository', 'team/y');
  await check(foreign, 'of another repository', '');
  t.equal(await uploads.size(repository, foreign), bytes.length, 'and that one has it still');
});

void t.test('uploads: another repository does not disturb one that is running', async (t) => {
  const { uploads } = await prepare(t);
  const id = await uploads.begin(repository);
  const { body: sending, go } = stuckBody(bytes.subarray(0, 1000));
  const running = uploads.append(repository, id, 0, sending);
  running.catch(() => undefined);
  await until(async () => (await uploads.size(repository, id)) === 1000, 'the first bytes');
  const others = Promise.allSettled([
    uploads.append('team/y', id, undefined, body(bytes)),
    uploads.finish('team/y', id, digest, notTaken),
    uploads.cancel('team/y', id),
  ]);
  await new Promise((resolve) => setImmediate(resolve));
  go();
  await t.resolves(running);
  await others;
  t.equal(await uploads.size(repository, id), 1000);
});

void t.test('uploads: ids of any other form are none, and lead nowhere', async (t) => {
  const { uploads, folder } = await prepare(t);
  const id = await uploads.begin(repository);
  const [file = ''] = await readdir(folder);
  const odd = ['', '.', '..', '../x', '../../etc/passwd', '/etc/passwd', `${id}/../x`, `./${id}`, `${id}\0`, ` ${id}`];
  for (const hostile of [
    ...odd,
    id.toUpperCase(),
    `${id}\n`,
    file,
    `closing-${id}`,
    '%2e%2e',
    '*',
    'x'.repeat(10_000),
  ]) {
    const what = JSON.stringify(hostile.slice(0, 60));
    t.equal(await uploads.size(repository, hostile), undefined, what);
    t.type(await failureOf(uploads.append(repository, hostile, undefined, body(bytes))), UploadGone, what);
    t.type(await failureOf(uploads.finish(repository, hostile, digest, notTaken)), UploadGone, what);
    t.equal(await uploads.cancel(repository, hostile), false, what);
  }
  t.same(await readdir(folder), [file]);
});

void t.test('uploads: other bytes than those of the digest are not handed on, and end the upload', async (t) => {
  const { uploads, folder } = await prepare(t);
  const wrong = {
    'a bit': Buffer.concat([Buffer.from([bytes[0]! ^ 1]), bytes.subarray(1)]),
    'one byte less': bytes.subarray(0, -1),
    'one byte more': Buffer.concat([bytes, Buffer.from([0])]),
    nothing: Buffer.alloc(0),
  };
  for (const [what, content] of Object.entries(wrong)) {
    const id = await uploads.begin(repository);
    await uploads.append(repository, id, 0, body(content));
    t.equal(await uploads.finish(repository, id, digest, notTaken), false, what);
    t.equal(await uploads.size(repository, id), undefined, what);
    t.same(await readdir(folder), [], what);
  }
});

void t.test('uploads: what fails while it is handed on is told, and can be handed on again', async (t) => {
  const { uploads, folder } = await prepare(t);
  const id = await uploads.begin(repository);
  await uploads.append(repository, id, 0, body(bytes));
  await t.rejects(
    uploads.finish(repository, id, digest, () => Promise.reject(new Error('no place'))),
    /no place/,
  );
  t.equal(await uploads.size(repository, id), bytes.length, 'nothing need be sent again');
  t.equal(await uploads.finish(repository, id, digest, taking().take), true);
  t.same(await readdir(folder), []);
});

void t.test('uploads: one that grows too large is refused where it does, and goes on to the brim', async (t) => {
  const { uploads } = await prepare(t, { maxBytes: 1000 });
  const id = await uploads.begin(repository);
  t.equal(await uploads.append(repository, id, 0, body(bytes.subarray(0, 600))), 600);
  t.type(await failureOf(uploads.append(repository, id, 600, body(bytes.subarray(600, 1001)))), UploadTooLarge);
  t.equal(await uploads.size(repository, id), 600);
  t.equal(await uploads.append(repository, id, 600, body(bytes.subarray(600, 1000))), 1000);
  t.type(await failureOf(uploads.append(repository, id, undefined, body(Buffer.from('x')))), UploadTooLarge);
  t.equal(await uploads.finish(repository, id, digestOf(bytes.subarray(0, 1000)), taking().take), true);
});

void t.test('uploads: no more at once than were said', async (t) => {
  const { uploads } = await prepare(t, { maxUploads: 3 });
  const ids = [];
  for (let at = 0; at < 3; at++) ids.push(await uploads.begin(`team/${at}`));
  t.equal(new Set(ids).size, 3);
  t.type(await failureOf(uploads.begin(repository)), TooManyUploads);
  t.equal(await uploads.cancel('team/0', ids[0]!), true);
  await t.resolves(uploads.begin(repository));
  t.type(await failureOf(uploads.begin(repository)), TooManyUploads);
  t.equal(await uploads.finish('team/1', ids[1]!, digestOf(Buffer.alloc(0)), taking().take), true);
  await t.resolves(uploads.begin(repository));
});

void t.test('uploads: those that nobody adds to go, by the clock, and the others stay', async (t) => {
  let now = 10_000_000;
  const { uploads, folder } = await prepare(t, { now: () => now, idleMs: 60_000 });
  const idle = await uploads.begin(repository);
  const busy = await uploads.begin(repository);
  const touch = async (id: string) => {
    const file = (await readdir(folder)).find((name) => name.endsWith(id))!;
    await utimes(join(folder, file), now / 1000, now / 1000);
  };
  await touch(idle);
  await touch(busy);
  now += 60_000;
  await uploads.sweep();
  t.equal(await uploads.size(repository, idle), 0, 'at the very end of its time');
  await touch(busy);
  now += 1;
  await uploads.sweep();
  t.equal(await uploads.size(repository, idle), undefined);
  t.equal(await uploads.size(repository, busy), 0);
  await uploads.append(repository, busy, 0, body(bytes));
  t.equal(await uploads.finish(repository, busy, digest, taking().take), true);
});

void t.test('uploads: a second request goes before one that is stuck, and goes on where that one was', async (t) => {
  const { uploads } = await prepare(t);
  const id = await uploads.begin(repository);
  const first = uploads.append(repository, id, 0, stuckBody(bytes.subarray(0, 1000)).body);
  first.catch(() => undefined);
  await until(async () => (await uploads.size(repository, id)) === 1000, 'the first bytes');
  t.equal(await uploads.append(repository, id, 1000, body(bytes.subarray(1000))), bytes.length);
  t.type(await failureOf(first), UploadGone);
  const { taken, take } = taking();
  t.equal(await uploads.finish(repository, id, digest, take), true);
  t.ok(taken[0]!.equals(bytes), 'with no byte twice');
});

void t.test('uploads: a finish or a cancel ends what is stuck as well', async (t) => {
  const { uploads } = await prepare(t);
  for (const ending of ['finish', 'cancel'] as const) {
    const id = await uploads.begin(repository);
    const stuck = uploads.append(repository, id, 0, stuckBody(bytes).body);
    stuck.catch(() => undefined);
    await until(async () => (await uploads.size(repository, id)) === bytes.length, 'all bytes');
    t.equal(
      ending === 'finish'
        ? await uploads.finish(repository, id, digest, taking().take)
        : await uploads.cancel(repository, id),
      true,
    );
    t.type(await failureOf(stuck), UploadGone);
    t.equal(await uploads.size(repository, id), undefined);
  }
});

void t.test('uploads: of two that finish at once one does, and many pieces at once never mix', async (t) => {
  const { uploads } = await prepare(t);
  const twice = await uploads.begin(repository);
  await uploads.append(repository, twice, 0, body(bytes));
  const { taken, take } = taking();
  const ends = await Promise.allSettled([1, 2, 3].map(() => uploads.finish(repository, twice, digest, take)));
  t.same(ends.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected', 'rejected']);
  t.equal(taken.length, 1);
  const id = await uploads.begin(repository);
  const letters = ['a', 'b', 'c', 'd'].map((letter) => Buffer.alloc(5000, letter));
  const outcomes = await Promise.allSettled(letters.map((letter) => uploads.append(repository, id, 0, body(letter))));
  const whole = outcomes.findIndex(({ status }) => status === 'fulfilled');
  t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length <= 1, true);
  const size = (await uploads.size(repository, id))!;
  if (whole >= 0) t.equal(size, 5000);
  t.ok(size === 0 || size === 5000);
});

void t.test('uploads: outlive who began them, and are everyone’s on the store', async (t) => {
  const { uploads, open } = await prepare(t, { maxUploads: 2 });
  const id = await uploads.begin(repository);
  await uploads.append(repository, id, 0, body(bytes.subarray(0, 123)));
  const later = await open();
  t.equal(await later.size(repository, id), 123);
  await t.rejects(later.append(repository, id, 122, body(bytes)), new OutOfOrder(123));
  await later.append(repository, id, 123, body(bytes.subarray(123)));
  await later.begin(repository);
  t.type(await failureOf(uploads.begin(repository)), TooManyUploads, 'counted together');
  const { taken, take } = taking();
  t.equal(await later.finish(repository, id, digest, take), true);
  t.ok(taken[0]!.equals(bytes));
  t.equal(await uploads.size(repository, id), undefined);
});
