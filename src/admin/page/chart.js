import { byId, say } from './dom.js';
import { duration, rate } from './format.js';

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} style the class of its swatch, and the name of its colour in the style sheet
 * @property {readonly number[]} rates
 */

const height = 180;
const windowS = 300;
const place = byId('traffic');
const readout = byId('traffic-readout');
const silence = readout.textContent ?? '';
/** @type {uPlot | undefined} */
let plot;
/** @type {readonly Line[]} */
let drawn = [];

/** @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** What stands under the pointer; the table has the rest. @param {uPlot} chart */
function tell(chart) {
  const at = chart.cursor.idx;
  const ago = at === null || at === undefined ? undefined : chart.data[0][at];
  if (ago === undefined || at === null || at === undefined) return say(readout, silence);
  const parts = drawn.map(({ name, rates }) => `${name} ${rate(rates[at] ?? 0)}`);
  say(readout, `${duration(-ago)} ago: ${parts.join(', ')}`);
}

/** @param {readonly Line[]} lines @returns {uPlot.Options} */
function optionsOf(lines) {
  /** @type {uPlot.Axis} */
  const axis = {
    stroke: () => colour('muted'),
    grid: { stroke: () => colour('rule'), width: 1 },
    ticks: { show: false },
    font: '12px system-ui, sans-serif',
  };
  return {
    width: place.clientWidth,
    height,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: {
      x: { time: false, range: [-windowS, 0] },
      y: { range: (_chart, _least, most) => [0, Math.max(1024, most * 1.1)] },
    },
    axes: [
      {
        ...axis,
        splits: () => [-300, -240, -180, -120, -60, 0],
        values: (_chart, splits) => splits.map((s) => (s === 0 ? 'now' : `${-s / 60} min`)),
        size: 30,
        gap: 8,
      },
      {
        ...axis,
        values: (_chart, splits) => splits.map(rate),
        splits: (chart) => ticksOf(chart.scales['y']?.max ?? 0),
        size: 78,
      },
    ],
    series: [
      {},
      ...lines.map(({ name, style }) => ({
        label: name,
        stroke: () => colour(style),
        width: style === 'upstream' ? 1.5 : 2,
        points: { show: false },
        ...(style === 'upstream' && { dash: [5, 4] }),
      })),
    ],
    hooks: { setCursor: [tell] },
  };
}

/** Steps of a power of two: `256 KiB/s`, `512 KiB/s`, … @param {number} most */
function ticksOf(most) {
  const step = 2 ** Math.ceil(Math.log2(Math.max(1, most) / 4.5));
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, at) => at * step);
}

/** @param {number[]} times @param {readonly Line[]} lines */
export function drawChart(times, lines) {
  const isOther = lines.map(({ style }) => style).join() !== drawn.map(({ style }) => style).join();
  drawn = lines;
  /** @type {uPlot.AlignedData} */
  const data = [times, ...lines.map(({ rates }) => [...rates])];
  if (plot && !isOther) return plot.setData(data);
  plot?.destroy();
  plot = new uPlot(optionsOf(lines), data, place);
}

new ResizeObserver(() => plot?.setSize({ width: place.clientWidth, height })).observe(place);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot?.redraw());
