/** Hours of the day, in minutes since midnight; an end before the beginning is on the next day. */
export interface Hours {
  readonly from: number;
  readonly to: number;
}

const minuteMs = 60_000;
const dayMinutes = 24 * 60;

/** @param text as `01:00-05:30`, already known to be such */
export function parseHours(text: string): Hours {
  const [from = 0, to = 0] = text.split('-').map((time) => {
    const [hours, minutes] = time.split(':').map(Number);
    return (hours ?? 0) * 60 + (minutes ?? 0);
  });
  return { from, to };
}

/** Is it within the hours, by the clock of this machine? No hours are all hours. */
export function isWithin(atMs: number, hours: readonly Hours[]): boolean {
  return hours.length === 0 || hours.some((one) => offsetIn(atMs, one) < lengthOf(one));
}

/** The first moment from `fromMs` on that is within the hours, to the minute. */
export function nextWithin(fromMs: number, hours: readonly Hours[]): number {
  if (isWithin(fromMs, hours)) return fromMs;
  const waits = hours.map((one) => dayMinutes - offsetIn(fromMs, one));
  const wholeMinuteMs = fromMs - (fromMs % minuteMs);
  return wholeMinuteMs + Math.min(...waits) * minuteMs;
}

/** When the hours end that `atMs` is in, and no others go on from there; Infinity where there is no end. */
export function endOf(atMs: number, hours: readonly Hours[]): number {
  let endMs = atMs - (atMs % minuteMs);
  // With hours that follow on one another for a whole day there is none.
  for (let steps = 0; isWithin(endMs, hours); steps++) {
    if (hours.length === 0 || endMs - atMs >= dayMinutes * minuteMs || steps > dayMinutes) return Infinity;
    const lefts = hours.map((one) => lengthOf(one) - offsetIn(endMs, one)).filter((left) => left > 0);
    endMs += Math.max(...lefts) * minuteMs;
  }
  return endMs;
}

/** Minutes since the hours last began. */
function offsetIn(atMs: number, { from }: Hours): number {
  const at = new Date(atMs);
  return (at.getHours() * 60 + at.getMinutes() - from + dayMinutes) % dayMinutes;
}

function lengthOf({ from, to }: Hours): number {
  // From midnight to midnight is the whole day.
  return (to - from + dayMinutes) % dayMinutes || dayMinutes;
}
