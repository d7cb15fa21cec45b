import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import type { ErrorName } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { createPatient } from '../../src/upstream/patient.ts';
import type { Patience } from '../../src/upstream/patient.ts';
import type { Budget, Upstream } from '../../src/upstream/upstream.ts';
import { failureOf } from '../fixtures/servers.ts';

const name = parseRepositoryName('team/app');
const tag = parseReference('1');
const digest = digestOf(Buffer.from('anything'));
const manifest = { bytes: Buffer.from('{}'), contentType: 'application/json' };

/** A registry that meets each question with the next of these, and then answers. */
function stage(over: Partial<Patience> = {}, ...refusals: NarrowsError[]) {
  const asked: string[] = [];
  const waits: { waitMs: number; why: string }[] = [];
  const clock = { ms: 1_000_000 };
  const stopping = new AbortController();
  const quota: { left: Budget | undefined; onHead: () => void } = { left: undefined, onHead: () => undefined };
  async function answer<T>(what: string, value: T): Promise<T> {
    asked.push(what);
    const refusal = refusals.shift();
    if (refusal) throw refusal;
    return value;
  }
  const upstream: Upstream = {
    name: 'registry.example',
    head() {
      quota.onHead();
      return answer('HEAD manifest', { digest, contentType: manifest.contentType });
    },
    manifest: () => answer('GET manifest', manifest),
    blobHead: () => answer('HEAD blob', { size: 7 }),
    blob: (_, __, from) =>
      answer(`GET blob from ${from}`, { offset: from, body: (async function* () {})(), cancel: () => undefined }),
    list: (_, path) => answer(`GET ${path}`, { bytes: Buffer.from('{}') }),
    budget: () => quota.left,
  };
  const patient = createPatient(upstream, {
    maxWaitMs: 60_000,
    spare: 0.1,
    retries: 3,
    retryDelayMs: 1,
    signal: stopping.signal,
    now: () => clock.ms,
    onWait: (upstreamName, waitMs, why) => void waits.push({ waitMs, why: `${upstreamName}: ${why}` }),
    ...over,
  });
  return { patient, asked, waits, clock, stopping, quota };
}

function refusal(kind: ErrorName, retryAfterS?: number): NarrowsError {
  return new NarrowsError(kind, `It is ${kind}.`, retryAfterS === undefined ? {} : { retryAfterS });
}

const questions = {
  'HEAD manifest': (upstream: Upstream) => upstream.head(name, tag),
  'GET manifest': (upstream: Upstream) => upstream.manifest(name, tag),
  'HEAD blob': (upstream: Upstream) => upstream.blobHead(name, digest),
  'GET blob from 5': (upstream: Upstream) => upstream.blob(name, digest, 5),
  'GET tags/list': (upstream: Upstream) => upstream.list(name, 'tags/list', new URLSearchParams()),
};

void t.test('patient: told to come back later it waits as long as it was told, whatever it asked for', async (t) => {
  for (const [what, question] of Object.entries(questions)) {
    for (const kind of ['rateLimited', 'overloaded'] as const) {
      const { patient, asked, waits } = stage({}, refusal(kind, 0.02), refusal(kind, 0.01));
      t.ok(await question(patient), what);
      t.same(asked, [what, what, what]);
      t.same(waits, [
        { waitMs: 20, why: `registry.example: It is ${kind}.` },
        { waitMs: 10, why: `registry.example: It is ${kind}.` },
      ]);
    }
  }
});

void t.test('patient: a limit is waited for more often than trouble is retried', async (t) => {
  const { patient, asked } = stage({ retries: 0 }, ...Array.from({ length: 10 }, () => refusal('rateLimited', 0)));
  t.ok(await patient.head(name, tag));
  t.equal(asked.length, 11);
});

void t.test('patient: trouble is retried so often, and the wait doubles', async (t) => {
  for (const kind of ['upstreamUnavailable', 'upstreamTimeout', 'upstreamUnusable'] as const) {
    const troubles = Array.from({ length: 4 }, () => refusal(kind));
    const { patient, asked, waits } = stage({ retries: 4 }, ...troubles);
    t.ok(await patient.blobHead(name, digest));
    t.equal(asked.length, 5);
    t.ok(
      waits.every(({ waitMs }, at) => waitMs >= 2 ** at && waitMs <= 2 ** (at + 1)),
      JSON.stringify(waits),
    );
  }
});

void t.test('patient: trouble that does not end is told, after as many retries as there may be', async (t) => {
  const troubles = Array.from({ length: 9 }, (_, at) => new NarrowsError('upstreamTimeout', `Trouble ${at}.`));
  const { patient, asked, waits } = stage({ retries: 2 }, ...troubles);
  t.match(await failureOf(patient.manifest(name, tag)), { kind: 'upstreamTimeout', message: 'Trouble 2.' });
  t.equal(asked.length, 3);
  t.equal(waits.length, 2);
});

void t.test('patient: trouble that says when to come back is left alone as long', async (t) => {
  const { patient, waits } = stage({}, refusal('upstreamUnavailable', 0.05));
  t.ok(await patient.blobHead(name, digest));
  t.same(
    waits.map(({ waitMs }) => waitMs),
    [50],
  );
});

void t.test('patient: what no waiting mends is told at once', async (t) => {
  for (const kind of ['denied', 'upstreamRefused', 'upstreamManifestInvalid', 'nameUnknown', 'blobNotHeld'] as const) {
    const { patient, asked, waits } = stage({}, refusal(kind, 1));
    t.match(await failureOf(patient.head(name, tag)), { kind });
    t.same([asked.length, waits.length], [1, 0], kind);
  }
  const mistake = new TypeError('a mistake of ours');
  const { patient } = stage({}, mistake as NarrowsError);
  t.equal(await failureOf(patient.head(name, tag)), mistake);
});

void t.test('patient: longer than it may wait it does not begin to wait', async (t) => {
  const { patient, asked, waits } = stage({ maxWaitMs: 1000 }, refusal('rateLimited', 3600));
  t.match(await failureOf(patient.head(name, tag)), { kind: 'rateLimited', retryAfterS: 3600 });
  t.same([asked.length, waits.length], [1, 0]);
});

void t.test('patient: the waits of one question add up, and each question has its own', async (t) => {
  const limits = Array.from({ length: 4 }, () => refusal('rateLimited', 0.02));
  const { patient, asked } = stage({ maxWaitMs: 50 }, ...limits);
  t.match(await failureOf(patient.head(name, tag)), { kind: 'rateLimited' });
  t.equal(asked.length, 3, 'twice 20 ms are within 50, three times are not');
  t.ok(await patient.head(name, tag), 'the next one may wait again');
});

void t.test('patient: an abort ends a wait, and nothing is asked afterwards', async (t) => {
  const stopping = new AbortController();
  const { patient, asked } = stage(
    { maxWaitMs: Infinity, signal: stopping.signal, onWait: () => setImmediate(() => stopping.abort()) },
    refusal('rateLimited', 3600),
  );
  await t.rejects(patient.head(name, tag), { name: 'AbortError' });
  t.equal(asked.length, 1);
  const late = stage({ signal: AbortSignal.abort() }, refusal('upstreamTimeout'));
  t.match(await failureOf(late.patient.head(name, tag)), { kind: 'upstreamTimeout' });
  t.equal(late.asked.length, 1);
});

void t.test('patient: what a quota keeps for clients is waited for with HEADs, and without a GET', async (t) => {
  // The clock stands still: each wait is as long as all that may be waited.
  const { patient, asked, waits, quota } = stage({ maxWaitMs: 5 });
  quota.left = { remaining: 10, limit: 100 };
  quota.onHead = () => {
    if (asked.length === 2) quota.left = { remaining: 11, limit: 100 };
  };
  t.equal(await patient.manifest(name, tag), manifest);
  t.same(asked, ['HEAD manifest', 'HEAD manifest', 'HEAD manifest', 'GET manifest']);
  t.match(waits, [{ waitMs: 5, why: /has 10 of 100 pulls left, which are kept for clients/ }, {}, {}]);
});

void t.test('patient: a quota is waited for until it grows again, where that was said', async (t) => {
  const stopping = new AbortController();
  const told: number[] = [];
  const { patient, asked, quota, clock } = stage({
    maxWaitMs: 3_600_000,
    signal: stopping.signal,
    onWait(_, waitMs) {
      told.push(waitMs);
      setImmediate(() => stopping.abort());
    },
  });
  quota.left = { remaining: 0, limit: 100, resetsAtMs: clock.ms + 90_000 };
  await t.rejects(patient.manifest(name, tag), { name: 'AbortError' });
  t.same([told, asked], [[90_000], []]);
});

void t.test('patient: a quota that does not grow in time is told as a limit', async (t) => {
  const { clock, quota, patient, asked } = stage({ maxWaitMs: 5, onWait: (_, waitMs) => void (clock.ms += waitMs) });
  quota.left = { remaining: 3, limit: 100 };
  t.match(await failureOf(patient.manifest(name, tag)), { kind: 'rateLimited', message: /3 of 100 pulls left/ });
  t.same(asked, ['HEAD manifest']);
});

void t.test('patient: a quota that was to grow by now does not count as used up, whatever HEADs say', async (t) => {
  const { clock, quota, patient, asked } = stage({ maxWaitMs: 5, onWait: (_, waitMs) => void (clock.ms += waitMs) });
  quota.left = { remaining: 0, limit: 100, resetsAtMs: clock.ms - 1000 };
  t.equal(await patient.manifest(name, tag), manifest);
  t.equal(asked.filter((what) => what === 'GET manifest').length, 1);
});

void t.test('patient: with enough of the quota, or none known, a manifest is asked for at once', async (t) => {
  for (const left of [undefined, { remaining: 11, limit: 100 }]) {
    const { patient, asked, quota } = stage();
    quota.left = left;
    await patient.manifest(name, tag);
    t.same(asked, ['GET manifest']);
    t.same(patient.budget?.(), left, 'who asks it is told of the quota as well');
  }
});

void t.test('patient: what costs nothing of a quota does not wait for it', async (t) => {
  const { patient, asked, waits, quota } = stage();
  quota.left = { remaining: 0, limit: 100 };
  for (const [what, question] of Object.entries(questions)) if (what !== 'GET manifest') await question(patient);
  t.same([asked.length, waits.length], [4, 0]);
});
