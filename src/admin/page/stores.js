import { byId, make, makeMeter, rowsOf, say } from './dom.js';
import { bytes, percent } from './format.js';

/**
 * @import { Live } from '../../wiring/live.ts'
 * @import { StoreReport } from '../../metrics/report.ts'
 */

const showRows = rowsOf(
  byId('stores'),
  (/** @type {StoreReport} */ { tier }) => tier,
  ({ tier }) => {
    const [state, words] = [make('span', { class: 'pause' }), make('span')];
    const meter = makeMeter(`Use of the ${tier}`);
    const node = make(
      'li',
      {},
      make('p', { class: 'heading' }, make('strong', {}, tier), state),
      make('p', { class: 'measure' }, meter.node, words),
    );
    return {
      node,
      update({ bytes: held, maxBytes, isAvailable }) {
        say(state, isAvailable ? '' : 'not available');
        // A store without a bound has none in JSON either.
        const isBound = Number.isFinite(maxBytes) && maxBytes > 0;
        const text = isBound ? `${bytes(held)} of ${bytes(maxBytes)}, ${percent(held / maxBytes)}` : bytes(held);
        meter.node.hidden = !isBound;
        if (isBound) meter.set(held / maxBytes, text);
        say(words, text);
      },
    };
  },
);

const showHeld = rowsOf(
  byId('held'),
  (/** @type {{ platform: string, bytes: number, part: number }} */ { platform }) => platform,
  ({ platform }) => {
    const [bar, size] = [make('span', { class: 'bar', 'aria-hidden': 'true' }), make('span', { class: 'size' })];
    const name = platform === 'unknown' ? 'not known' : platform;
    return {
      node: make('li', { class: 'held' }, make('span', { class: 'name' }, name), bar, size),
      update({ bytes: held, part }) {
        bar.style.setProperty('--part', String(part));
        say(size, bytes(held));
      },
    };
  },
);

/** @param {Live} live */
export function showStores({ stores, held }) {
  showRows(stores);
  const most = Math.max(1, ...held.map(({ bytes: count }) => count));
  const ordered = held.filter(({ bytes: count }) => count > 0).toSorted((one, other) => other.bytes - one.bytes);
  showHeld(ordered.map((one) => ({ ...one, part: one.bytes / most })));
  byId('held-title').hidden = ordered.length === 0;
}
