import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { resuming } from '../../src/pull/resuming.ts';
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
  return { attempt, made: () => made, resumable: { limits, signal, received: () => received, isPromised: () => true } };
}

void t.test('a cut download is taken up again until it is whole', async (t) => {
  const { attempt, made, resumable } = attempts([100_000, 100_000, 100_000, 100_000, 100_000, 100_000]);
  await resuming(attempt, resumable);
  t.equal(made(), 7);
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
