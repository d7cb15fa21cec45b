import t from 'tap';
import { isKind } from '../../src/errors.ts';
import { createBackoff } from '../../src/upstream/backoff.ts';
import type { Backoff } from '../../src/upstream/backoff.ts';

function start(random = 0) {
  const clock = { nowMs: 1_000_000 };
  return { clock, backoff: createBackoff({ who: 'up', now: () => clock.nowMs, random: () => random }) };
}

/** What whoever asks now is told to wait, in seconds; undefined where the question may go. */
function refusedFor(backoff: Backoff): number | undefined {
  try {
    backoff.enter()();
    return undefined;
  } catch (error) {
    return isKind(error, 'rateLimited') ? error.retryAfterS : NaN;
  }
}

void t.test('31. backoff: nobody asks before the wait is over that was asked for', (t) => {
  const { backoff, clock } = start();
  t.equal(refusedFor(backoff), undefined);
  backoff.limited(30);
  t.equal(refusedFor(backoff), 30);
  t.equal(backoff.waitMs(), 30_000);
  clock.nowMs += 29_500;
  t.equal(refusedFor(backoff), 1);
  clock.nowMs += 500;
  t.equal(refusedFor(backoff), undefined);
  t.end();
});

void t.test('31. backoff: without a word of how long, each wait is twice the one before, up to five minutes', (t) => {
  const { backoff, clock } = start();
  const waits: number[] = [];
  for (let at = 0; at < 8; at++) {
    backoff.limited(undefined);
    waits.push(backoff.waitMs() / 1000);
    clock.nowMs += backoff.waitMs();
  }
  t.same(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
  backoff.answered();
  backoff.limited(undefined);
  t.equal(backoff.waitMs(), 10_000, 'an answer ends the row');
  t.end();
});

void t.test('31. backoff: many that were under way are one', (t) => {
  const { backoff } = start();
  for (let at = 0; at < 100; at++) backoff.limited(undefined);
  t.equal(backoff.waitMs(), 10_000);
  backoff.limited(60);
  t.equal(backoff.waitMs(), 60_000, 'the longest counts');
  backoff.answered();
  t.equal(backoff.waitMs(), 60_000, 'an answer to an older question shortens nothing');
  t.end();
});

void t.test('31. backoff: after a wait one question goes first', (t) => {
  const { backoff, clock } = start();
  backoff.limited(5);
  clock.nowMs += 5000;
  const leave = backoff.enter();
  t.equal(refusedFor(backoff), 1);
  backoff.limited(5);
  leave();
  t.equal(refusedFor(backoff), 5);
  clock.nowMs += 5000;
  const second = backoff.enter();
  backoff.answered();
  second();
  t.same([refusedFor(backoff), refusedFor(backoff)], [undefined, undefined]);
  const [one, other] = [backoff.enter(), backoff.enter()];
  one();
  other();
  t.end();
});

void t.test('31. backoff: those who were told to wait together do not come back together', (t) => {
  const waits = [0, 0.5, 1].map((random) => {
    const { backoff } = start(random);
    backoff.limited(100);
    return Math.round(backoff.waitMs());
  });
  t.same(waits, [100_000, 105_000, 110_000], 'never before they were told to');
  t.end();
});
