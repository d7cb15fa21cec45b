import * as fc from 'fast-check';
import t from 'tap';
import { endOf, isWithin, nextWithin, parseHours } from '../../src/airgap/schedule.ts';
import type { Hours } from '../../src/airgap/schedule.ts';

const minuteMs = 60_000;
const dayMinutes = 1440;

/** A moment of the 10th of June by the clock of this machine: nowhere are clocks changed in June. */
function at(hours: number, minutes: number, seconds = 0, ms = 0): number {
  return new Date(2026, 5, 10, hours, minutes, seconds, ms).getTime();
}

/** `23:59:59.999` as it is written for people; the day where it is another than the 10th. */
function shown(ms: number): string {
  const date = new Date(ms);
  const day = date.getDate() === 10 ? '' : `${date.getDate()}th `;
  return `${day}${[date.getHours(), date.getMinutes()].map((part) => String(part).padStart(2, '0')).join(':')}`;
}

const hoursOf = (...texts: string[]) => texts.map(parseHours);

void t.test('hours are read as they are written', (t) => {
  t.same(parseHours('01:00-05:30'), { from: 60, to: 330 });
  t.same(parseHours('22:15-00:00'), { from: 22 * 60 + 15, to: 0 });
  t.same(parseHours('00:00-23:59'), { from: 0, to: 1439 });
  t.end();
});

void t.test('within hours is from the first millisecond of the first minute to the last before the end', (t) => {
  const hours = hoursOf('01:00-05:30');
  for (const [moment, expected] of [
    [at(0, 59, 59, 999), false],
    [at(1, 0), true],
    [at(3, 17, 42), true],
    [at(5, 29, 59, 999), true],
    [at(5, 30), false],
    [at(13, 0), false],
  ] as const) {
    t.equal(isWithin(moment, hours), expected, shown(moment));
  }
  t.end();
});

void t.test('hours over midnight belong to both days', (t) => {
  const hours = hoursOf('22:30-02:15');
  for (const [moment, expected] of [
    [at(22, 29, 59, 999), false],
    [at(22, 30), true],
    [at(23, 59, 59, 999), true],
    [at(0, 0), true],
    [at(2, 14, 59, 999), true],
    [at(2, 15), false],
    [at(12, 0), false],
  ] as const) {
    t.equal(isWithin(moment, hours), expected, shown(moment));
  }
  t.equal(shown(endOf(at(23, 0), hours)), '11th 02:15');
  t.equal(shown(endOf(at(1, 0), hours)), '02:15');
  t.equal(shown(nextWithin(at(2, 15), hours)), '22:30');
  t.end();
});

void t.test('no hours are all hours, and have no end', (t) => {
  const moment = at(4, 44, 44, 444);
  t.equal(isWithin(moment, []), true);
  t.equal(nextWithin(moment, []), moment);
  t.equal(endOf(moment, []), Infinity);
  t.end();
});

void t.test('from a time to the same time is all day', (t) => {
  for (const text of ['00:00-00:00', '13:37-13:37']) {
    const hours = hoursOf(text);
    for (let minute = 0; minute < dayMinutes; minute++) {
      const moment = at(0, minute);
      if (isWithin(moment, hours) && nextWithin(moment, hours) === moment) continue;
      t.fail(`${text} at ${shown(moment)}`);
    }
    t.equal(isWithin(at(13, 37), hours), true, text);
  }
  t.end();
});

void t.test('the next moment within hours is their first, today or tomorrow; now is as good', (t) => {
  const hours = hoursOf('01:00-05:30');
  t.equal(nextWithin(at(0, 59, 59, 999), hours), at(1, 0));
  t.equal(nextWithin(at(2, 3, 4, 5), hours), at(2, 3, 4, 5), 'to the millisecond');
  t.equal(nextWithin(at(5, 30), hours), at(25, 0));
  t.equal(nextWithin(at(23, 59, 30), hours), at(25, 0));
  t.end();
});

void t.test('several hours: the nearest begins, and of those that it is in the last end counts', (t) => {
  const hours = hoursOf('12:00-13:00', '01:00-05:30', '04:00-06:00', '22:00-23:00');
  t.equal(shown(nextWithin(at(6, 0), hours)), '12:00');
  t.equal(shown(nextWithin(at(13, 0), hours)), '22:00');
  t.equal(shown(nextWithin(at(23, 0), hours)), '11th 01:00');
  t.equal(shown(endOf(at(4, 30), hours)), '06:00');
  t.equal(shown(endOf(at(12, 30, 59, 999), hours)), '13:00');
  t.equal(endOf(at(12, 30, 59, 999), hours) % minuteMs, 0, 'to the minute');
  t.end();
});

const minutes = fc.integer({ min: 0, max: dayMinutes - 1 });
const anyHours: fc.Arbitrary<Hours> = fc.record({ from: minutes, to: minutes });
const moments = fc.integer({ min: at(0, 0), max: at(24 * 10, 0) });

void t.test('whatever the hours: the next moment is within, not before, and no minute between is', (t) => {
  fc.assert(
    fc.property(moments, fc.array(anyHours, { maxLength: 4 }), (moment, hours) => {
      const next = nextWithin(moment, hours);
      if (next < moment || !isWithin(next, hours)) return false;
      for (let between = moment; between < next; between += minuteMs) if (isWithin(between, hours)) return false;
      return true;
    }),
  );
  t.pass('for all that were tried');
  t.end();
});

void t.test('whatever the hours: they end after the moment, and not before all that it is in have', (t) => {
  fc.assert(
    fc.property(moments, fc.array(anyHours, { minLength: 1, maxLength: 4 }), (from, hours) => {
      const moment = nextWithin(from, hours);
      const end = endOf(moment, hours);
      // Without an end there is no minute of the day that is not theirs.
      const minutes = Array.from({ length: dayMinutes }, (_, minute) => moment + minute * minuteMs);
      if (end === Infinity) return minutes.every((at) => isWithin(at, hours));
      if (end <= moment || end - moment > dayMinutes * minuteMs || isWithin(end, hours)) return false;
      return minutes.filter((at) => at < end).every((at) => isWithin(at, hours));
    }),
  );
  t.pass('for all that were tried');
  t.end();
});
