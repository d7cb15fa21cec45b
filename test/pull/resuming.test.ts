import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { resuming, unlessAborted } from '../../src/pull/resuming.ts';
import { failureOf } from '../fixtures/servers.ts';

const limits = { maxResumes: 3, resumeDelayMs: 1 };
const { signal } = new AbortController();

/** Attempts that each bring so many bytes and then break off, until the last one. */
function attempts(steps: readonly number[], failure: () => Error = () => new Error('cut')) {
  let received = 0;
  let made = 0;
  const attempt = () => {
    const step = steps[made++];
    if (step === undefined) return Promise.resolve();
    received += step;
    return Promise.reject(failure());
  };
  let resumes = 0;
  const onResume = () => void resumes++;
  const resumable = { limits, signal, received: () => received, isPromised: () => true, onResume };
  return { attempt, made: () => made, resumes: () => resumes, resumable };
}

void t.test('9, 10. a cut download is taken up again until it is whole', async (t) => {
  const { attempt, made, resumes, resumable } = attempts([100_000, 100_000, 100_000, 100_000, 100_000, 100_000]);
  await resuming(attempt, resumable);
  t.equal(made(), 7);
  t.equal(resumes(), 6);
});

void t.test('without progress, or with a few bytes a time, it is given up', async (t) => {
  for (const step of [0, 1, 1000]) {
    const { attempt, made, resumable } = attempts(Array.from({ length: 100 }, () => step));
    t.match(await failureOf(resuming(attempt, resumable)), { kind: 'upstreamUnusable' });
    t.equal(made(), 4, `${step} bytes a time`);
  }
});

void t.test('what was promised to nobody is not tried again', async (t) => {
  const { attempt, made, resumable } = attempts([0, 0]);
  t.match(await failureOf(resuming(attempt, { ...resumable, isPromised: () => false })), { kind: 'upstreamUnusable' });
  t.equal(made(), 1);
});

void t.test('trouble may pass, an answer does not', async (t) => {
  const passing = attempts([0, 0], () => new NarrowsError('upstreamUnavailable', 'It answers 503.'));
  await resuming(passing.attempt, passing.resumable);
  for (const kind of ['blobUnknown', 'denied'] as const) {
    const final = attempts([0, 0], () => new NarrowsError(kind, 'No.'));
    t.match(await failureOf(resuming(final.attempt, final.resumable)), { kind });
    t.equal(final.made(), 1);
  }
});

void t.test('an end that was asked for ends the waiting too', async (t) => {
  const controller = new AbortController();
  const { attempt, resumable } = attempts([0, 0]);
  const slow = { ...resumable, limits: { maxResumes: 3, resumeDelayMs: 60_000 }, signal: controller.signal };
  const running = resuming(attempt, slow);
  controller.abort();
  await t.rejects(running);
});

void t.test('unlessAborted: an abort ends the wait, and what comes late is turned down', async (t) => {
  const never = new AbortController();
  t.equal(await unlessAborted(Promise.resolve(7), never.signal, () => t.fail('it was not late')), 7);
  for (const isBefore of [true, false]) {
    const { promise, resolve } = Promise.withResolvers<number>();
    const stopping = new AbortController();
    const late = Promise.withResolvers<number>();
    if (isBefore) stopping.abort();
    const waiting = unlessAborted(promise, stopping.signal, late.resolve);
    stopping.abort();
    await t.rejects(waiting, /nobody reads it any more/);
    resolve(8);
    t.equal(await late.promise, 8);
  }
});
