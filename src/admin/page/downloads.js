import { byId, digestButton, make, rowsOf, say } from './dom.js';
import { bytes, count, plural, rate, shortDigest } from './format.js';
import { createLandings, keyOf } from './landings.js';

/**
 * @import { Live } from '../../wiring/live.ts'
 * @import { Download } from '../../pull/blobs.ts'
 * @import { Landed } from './landings.js'
 */

/** @typedef {Download & { readonly speed: number }} Moving */

const maxRows = 60;
const landings = createLandings();

const showRunning = rowsOf(byId('downloads'), keyOf, createRow);
const showLanded = rowsOf(byId('landed'), keyOf, (/** @type {Landed} */ landed) => {
  const size = landed.size ?? landed.receivedBytes;
  const node = make(
    'li',
    { class: 'download ended' },
    make('span', { class: 'name' }, landed.repository),
    digestButton(landed.digest, shortDigest(landed.digest)),
    make('span', { class: 'platform' }, platformsOf(landed)),
    make('span', { class: 'size' }, bytes(size)),
    make('span', { class: `outcome ${landed.outcome}` }, outcomeWords[landed.outcome]),
  );
  return { node, update: () => undefined };
});
const outcomeWords = { landed: 'landed', broken: 'failed or left', unknown: 'ended' };

/** @param {Download} download */
function platformsOf({ platforms }) {
  return platforms.join(', ') || 'any platform';
}

/** @param {Moving} first */
function createRow(first) {
  const short = shortDigest(first.digest);
  const progress = make('progress', { 'aria-label': `${first.repository}, ${short}` });
  const [platform, size, speed, readers] = ['platform', 'size', 'speed', 'readers'].map((name) =>
    make('span', { class: name }),
  );
  const node = make(
    'li',
    { class: 'download' },
    make('span', { class: 'name', title: first.repository }, first.repository),
    digestButton(first.digest, short),
  );
  const parts = { platform, size, speed, readers };
  node.append(...Object.values(parts).filter((part) => part !== undefined), progress);
  /** @param {keyof typeof parts} name @param {string} text */
  const set = (name, text) => say(parts[name] ?? node, text);
  return {
    node,
    /** @param {Moving} download */
    update(download) {
      const { receivedBytes, size: whole } = download;
      set('platform', platformsOf(download));
      set('size', whole === undefined ? bytes(receivedBytes) : `${bytes(receivedBytes)} of ${bytes(whole)}`);
      set('speed', rate(download.speed));
      set('readers', plural(download.readers, 'reader'));
      // A bar without a value moves to and fro: nobody has told how much there is.
      if (whole === undefined) return progress.removeAttribute('value');
      progress.max = Math.max(1, whole);
      progress.value = receivedBytes;
      progress.setAttribute('aria-valuetext', `${bytes(receivedBytes)} of ${bytes(whole)}`);
    },
  };
}

/** @param {Live} live */
export function showDownloads(live) {
  const { running, landed } = landings.look(live);
  showRunning(running.slice(0, maxRows));
  showLanded(landed);
  const hidden = running.length - maxRows;
  byId('downloads-none').hidden = running.length > 0 && hidden <= 0;
  say(byId('downloads-none'), hidden > 0 ? `And ${count(hidden)} more.` : 'Nothing is on its way.');
  byId('landed-title').hidden = landed.length === 0;

  const { done, failed, abandoned, joined, resumed, mismatched } = live.downloads;
  const rare = [
    [failed, 'failed'],
    [abandoned, 'left'],
    [resumed, 'resumed'],
    [mismatched, 'with a wrong digest'],
  ].flatMap(([value, words]) => (Number(value) > 0 ? [`${count(Number(value))} ${words}`] : []));
  const parts = [`${count(running.length)} running`, `${count(done)} landed`, `${count(joined)} joined`, ...rare];
  say(byId('downloads-sum'), parts.join(' · '));
}
