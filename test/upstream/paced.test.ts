import t from 'tap';
import type { Digest } from '../../src/oci/digest.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import { createPace, createPaced } from '../../src/upstream/paced.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const name = parseRepositoryName('team/app');
const bytes = noise('paced', 100_000);
const digest = digestOf(bytes);

/** A pace on a clock of its own. */
function stage(t: Teardown, bytesPerSecond: number) {
  const stopping = new AbortController();
  t.teardown(() => stopping.abort());
  const clock = { ms: 5_000_000 };
  const pace = createPace(bytesPerSecond, stopping.signal, () => clock.ms);
  /** May so many go on now? */
  const passes = async (count: number): Promise<boolean> => {
    let isPast = false;
    pace.pass(count).then(
      () => (isPast = true),
      () => undefined,
    );
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    return isPast;
  };
  return { stopping, clock, pace, passes };
}

/** A registry of one blob in uneven pieces, that notes what it is asked and whether it was left. */
function registryOf(cuts: readonly number[]) {
  const asked: unknown[][] = [];
  let isCancelled = false;
  const upstream: Upstream = {
    ...createOfflineRegistry('registry.example'),
    blob(...question: [unknown, Digest, number]) {
      asked.push(question);
      const from = question[2];
      if (question[1] !== digest) return Promise.resolve(undefined);
      async function* body() {
        const ends = [...cuts.filter((cut) => cut > from), bytes.length];
        for (const [at, end] of ends.entries()) yield bytes.subarray(at === 0 ? from : ends[at - 1], end);
      }
      return Promise.resolve({
        size: bytes.length,
        offset: from,
        body: body(),
        cancel: () => void (isCancelled = true),
      });
    },
  };
  return { upstream, asked, isCancelled: () => isCancelled };
}

async function read(body: AsyncIterable<Buffer>): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for await (const piece of body) pieces.push(piece);
  return pieces;
}

void t.test('pace: a second’s worth may go at once, and no more', async (t) => {
  const { passes } = stage(t, 1000);
  t.equal(await passes(600), true);
  t.equal(await passes(400), true);
  t.equal(await passes(1_000_000), false);
});

void t.test('pace: what has gone is paid for by the clock, to the last byte', async (t) => {
  const { clock, passes } = stage(t, 1000);
  t.equal(await passes(1000), true);
  clock.ms += 500;
  t.equal(await passes(500), true);
  t.equal(await passes(3_600_000), false, 'an hour’s worth');
  clock.ms += 3_600_000 - 60_000;
  t.equal(await passes(0), false, 'a minute is still owed');
  clock.ms += 60_000;
  t.equal(await passes(0), true);
});

void t.test('pace: a long pause saves no more than a second’s worth', async (t) => {
  const { clock, passes } = stage(t, 1000);
  t.equal(await passes(1000), true);
  clock.ms += 86_400_000;
  t.equal(await passes(1000), true);
  t.equal(await passes(1_000_000), false);
});

void t.test('pace: all who share it are held to it together', async (t) => {
  const { pace, passes } = stage(t, 1000);
  await Promise.all([pace.pass(300), pace.pass(300), pace.pass(400)]);
  t.equal(await passes(60_000), false);
});

void t.test('pace: an abort ends a wait', async (t) => {
  const { stopping, pace } = stage(t, 1000);
  const waiting = pace.pass(1_000_000_000);
  stopping.abort();
  await t.rejects(waiting, { name: 'AbortError' });
});

void t.test('paced: bytes, pieces and their order are those of the registry, from any place', async (t) => {
  const { pace } = stage(t, 1e9);
  const { upstream, asked, isCancelled } = registryOf([1, 7, 5000, 5001, 80_000]);
  const paced = createPaced(upstream, () => pace);
  const whole = await paced.blob(name, digest, 0);
  t.match(whole, { size: bytes.length, offset: 0 });
  const pieces = await read(whole!.body);
  t.same(
    pieces.map(({ length }) => length),
    [1, 6, 4993, 1, 74_999, 20_000],
  );
  t.ok(Buffer.concat(pieces).equals(bytes));
  const rest = await paced.blob(name, digest, 5000);
  t.match(rest, { size: bytes.length, offset: 5000 });
  t.ok(Buffer.concat(await read(rest!.body)).equals(bytes.subarray(5000)));
  t.same(asked, [
    [name, digest, 0],
    [name, digest, 5000],
  ]);
  t.equal(isCancelled(), false);
  rest!.cancel();
  t.equal(isCancelled(), true);
});

void t.test('paced: nothing goes on before its time, and an abort ends the body', async (t) => {
  const { stopping, pace } = stage(t, 1000);
  const { upstream } = registryOf([1000]);
  const { body } = (await createPaced(upstream, () => pace).blob(name, digest, 0))!;
  const pieces = body[Symbol.asyncIterator]();
  t.equal((await pieces.next()).value?.length, 1000, 'what may go at once');
  const next = pieces.next();
  stopping.abort();
  await t.rejects(next, { name: 'AbortError' });
});

void t.test('paced: what there is not, and everything but blobs, is not touched', async (t) => {
  const { stopping, pace } = stage(t, 1000);
  stopping.abort();
  const { upstream } = registryOf([]);
  const budget = { remaining: 1, limit: 2 };
  const paced = createPaced(
    { ...upstream, blobHead: () => Promise.resolve({ size: 7 }), budget: () => budget },
    () => pace,
  );
  t.equal(await paced.blob(name, digestOf(Buffer.from('another')), 0), undefined);
  t.same(await paced.blobHead(name, digest), { size: 7 });
  t.equal(paced.budget?.(), budget);
  t.equal(paced.name, 'registry.example');
});
