import { drawChart } from './chart.js';
import { byId, make, rowsOf, say } from './dom.js';
import { bytes, rate } from './format.js';
import { createRates } from './rates.js';

/**
 * @import { Live } from '../../wiring/live.ts'
 * @import { Line } from './chart.js'
 */

/** More lines than that nobody can tell apart. */
const maxLines = 5;
const rates = createRates();
const [others, upstreams] = ['all others', 'from upstreams'];
/** Platforms keep their colour and their place while the page is open. @type {string[]} */
const known = [];

const body = /** @type {HTMLElement} */ (byId('rates').querySelector('tbody'));
const showRows = rowsOf(
  body,
  (/** @type {Line & { total: number }} */ line) => line.name,
  ({ name, style }) => {
    const [now, most, total] = [make('td'), make('td'), make('td')];
    const swatch = make('span', { class: `swatch ${style}`, 'aria-hidden': 'true' });
    const words = platformWords[name] ?? name;
    const node = make('tr', {}, make('th', { scope: 'row' }, swatch, words), now, most, total);
    return {
      node,
      update(line) {
        say(now, rate(line.rates.at(-1) ?? 0));
        say(most, rate(Math.max(0, ...line.rates)));
        say(total, bytes(line.total));
      },
    };
  },
);

/** @type {Record<string, string>} */
const platformWords = {
  none: 'no platform',
  any: 'any platform',
  several: 'several platforms',
  other: 'other platforms',
};

/** @param {Live} live */
export function showTraffic(live) {
  const sent = live.platforms.filter(({ bytes: count }) => count > 0);
  const byBytes = sent.toSorted((one, other) => other.bytes - one.bytes);
  for (const { platform } of byBytes) if (!known.includes(platform) && known.length < maxLines) known.push(platform);

  /** @type {Record<string, number>} */
  const totals = { [upstreams]: live.upstreamBytes };
  for (const { platform, bytes: count } of sent) {
    const name = known.includes(platform) ? platform : others;
    totals[name] = (totals[name] ?? 0) + count;
  }
  rates.add(live.startedAtMs, live.nowMs, totals);
  const names = [...known, ...(others in totals ? [others] : []), upstreams];
  const lines = names.map((name) => ({
    name,
    style: name === upstreams ? 'upstream' : name === others ? 'others' : `line${known.indexOf(name) + 1}`,
    rates: rates.all(name),
    total: totals[name] ?? 0,
  }));
  showRows(lines);
  drawChart(rates.times(), lines);
}
