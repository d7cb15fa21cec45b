import { make, makeMeter } from './dom.js';
import { bytes, plural } from './format.js';

/** @import { Inspection, PlatformInspection } from '../../pull/inspect.ts' */

const marks = { present: '●', partial: '◐', absent: '○', 'not offered': '–' };

/** @param {PlatformInspection} part */
function amount({ status, bytes: whole, heldBytes, missing }) {
  if (status === 'not offered') return 'not in this image';
  // How much it is, only its manifest says.
  if (status === 'absent') return 'size not known yet';
  const rest = missing.length > 0 ? `, ${plural(missing.length, 'part')} missing` : '';
  return status === 'present' ? bytes(whole) : `${bytes(heldBytes)} of ${bytes(whole)}${rest}`;
}

/** What of an image is here, platform by platform. @param {Inspection} inspection */
export function inspectionTable({ image, platforms }) {
  if (platforms.length === 0) return make('p', { class: 'empty' }, 'This is neither an image nor an index of images.');
  const rows = platforms.map((part) => {
    const { platform, status, bytes: whole, heldBytes } = part;
    const meter = makeMeter(`Held of ${platform}`);
    meter.set(whole > 0 ? heldBytes / whole : 0, amount(part));
    const mark = make('span', { 'aria-hidden': 'true' }, `${marks[status]} `);
    return make(
      'tr',
      {},
      make('th', { scope: 'row', class: 'platform' }, platform),
      make('td', { class: status.replace(' ', '-') }, mark, status),
      make(
        'td',
        { class: 'measure' },
        ...(status === 'present' || status === 'partial' ? [meter.node] : []),
        make('span', {}, amount(part)),
      ),
    );
  });
  const heads = ['Platform', 'Here', 'Held'].map((text) => make('th', { scope: 'col' }, text));
  return make(
    'table',
    {},
    make('caption', { class: 'unseen' }, `What of ${image} is here`),
    make('thead', {}, make('tr', {}, ...heads)),
    make('tbody', {}, ...rows),
  );
}
