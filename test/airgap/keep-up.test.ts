import { once } from 'node:events';
import t from 'tap';
import { keepUp } from '../../src/airgap/keep-up.ts';
import type { KeepUpOptions } from '../../src/airgap/keep-up.ts';
import { parseHours } from '../../src/airgap/schedule.ts';
import { within } from '../fixtures/servers.ts';

/** A moment of the 10th of June by the clock of this machine. */
function at(hours: number, minutes: number, seconds = 0, ms = 0): number {
  return new Date(2026, 5, 10, hours, minutes, seconds, ms).getTime();
}

/** Keeps up until it is done with, and holds the program open meanwhile. */
function run(over: Partial<KeepUpOptions> & Pick<KeepUpOptions, 'round' | 'signal'>): Promise<void> {
  const options = { everyMs: 1, hours: [], now: Date.now, onWait: () => undefined, ...over };
  return within(10_000, 'keeping up', keepUp(options));
}

void t.test('round after round, each after a wait that was told, until it is stopped', async (t) => {
  const stopping = new AbortController();
  const events: string[] = [];
  await run({
    signal: stopping.signal,
    onWait: () => events.push('wait'),
    round() {
      events.push('round');
      if (events.length === 6) stopping.abort();
      return Promise.resolve();
    },
  });
  t.same(events, ['wait', 'round', 'wait', 'round', 'wait', 'round']);
});

void t.test('a round has ended before the next one begins, and the time between counts from its end', async (t) => {
  const stopping = new AbortController();
  let clockMs = at(12, 0);
  let atOnce = 0;
  let most = 0;
  const waits: number[] = [];
  await run({
    signal: stopping.signal,
    everyMs: 1000,
    now: () => clockMs,
    // The wait is over as soon as it begins.
    onWait: (untilMs) => void waits.push((clockMs = untilMs)),
    async round() {
      most = Math.max(most, ++atOnce);
      await new Promise((resolve) => setImmediate(resolve));
      clockMs += 5000;
      atOnce--;
      if (waits.length === 3) stopping.abort();
    },
  });
  t.equal(most, 1);
  t.same(waits, [at(12, 0, 1), at(12, 0, 7), at(12, 0, 13)]);
});

void t.test('stopped while it waits: it resolves at once, without a round', async (t) => {
  const stopping = new AbortController();
  let rounds = 0;
  await run({
    signal: stopping.signal,
    everyMs: 1_000_000_000_000,
    onWait: () => setImmediate(() => stopping.abort()),
    round: () => Promise.resolve(void rounds++),
  });
  t.equal(rounds, 0);
});

void t.test('stopped before it begins: the same', async (t) => {
  let rounds = 0;
  await run({ signal: AbortSignal.abort(), round: () => Promise.resolve(void rounds++) });
  t.equal(rounds, 0);

  await run({ signal: AbortSignal.abort(), lastMs: 0, round: () => Promise.resolve(void rounds++) });
  t.equal(rounds, 0, 'nor where the round is due at once');
});

void t.test('stopped within a round: its signal is raised, and it is waited for', async (t) => {
  const stopping = new AbortController();
  const events: string[] = [];
  await run({
    signal: stopping.signal,
    async round(signal) {
      const raised = once(signal, 'abort');
      stopping.abort();
      await raised;
      events.push('raised');
      await new Promise((resolve) => setImmediate(resolve));
      events.push('ended');
    },
  });
  t.same(events, ['raised', 'ended']);
});

void t.test('the end of the hours raises the signal of the round, and the next one waits for the hours', async (t) => {
  const stopping = new AbortController();
  let clockMs = at(1, 59, 59, 990);
  const waits: number[] = [];
  const raised: boolean[] = [];
  await run({
    signal: stopping.signal,
    everyMs: 1,
    hours: [parseHours('01:00-02:00')],
    now: () => clockMs,
    onWait(untilMs) {
      waits.push(untilMs);
      if (waits.length === 2) stopping.abort();
      else clockMs = untilMs;
    },
    async round(signal) {
      await within(5000, 'the end of the hours', once(signal, 'abort'));
      raised.push(signal.aborted);
      t.notOk(stopping.signal.aborted, 'nobody has stopped it');
      clockMs = at(2, 0);
    },
  });
  t.same(raised, [true]);
  t.same(waits, [at(1, 59, 59, 991), at(25, 0)], 'tomorrow at one');
});

void t.test('outside of the hours it waits for them; a round within them is let be', async (t) => {
  const stopping = new AbortController();
  let clockMs = at(12, 0);
  const began: number[] = [];
  await run({
    signal: stopping.signal,
    everyMs: 1000,
    hours: [parseHours('22:00-05:00')],
    now: () => clockMs,
    onWait: (untilMs) => void (clockMs = untilMs),
    round(signal) {
      began.push(clockMs);
      t.notOk(signal.aborted);
      clockMs += 3_600_000 * 8;
      if (began.length === 2) stopping.abort();
      return Promise.resolve();
    },
  });
  t.same(began, [at(22, 0), at(46, 0)]);
});

void t.test('a round that fails ends it: what to make of trouble is the round’s own affair', async (t) => {
  const error = new Error('trouble');
  await t.rejects(run({ signal: new AbortController().signal, round: () => Promise.reject(error) }), error);
});
