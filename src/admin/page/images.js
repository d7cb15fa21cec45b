import { imageActions } from './actions.js';
import { byId, digestButton, make, say } from './dom.js';
import { count, plural, shortDigest } from './format.js';
import { inspectionTable } from './inspection.js';
import { askJson, sentenceOf } from './poll.js';

/**
 * @import { Inspection } from '../../pull/inspect.ts'
 * @typedef {{ readonly image: string, readonly digest: string }} Image
 * @typedef {{ readonly images: readonly Image[], readonly next?: string }} ImagePage
 */

const pageSize = 50;
/** The server knows names in their order alone: whoever looks for a part of one reads along, in large steps. */
const searchSize = 1000;
const maxSteps = 10;
const patienceMs = 250;

/** The list of images: in pages, searched by name, each with what of it is here. */
export function startImages() {
  const [rows, more, sum] = [byId('image-rows'), byId('more'), byId('images-sum')];
  const filter = /** @type {HTMLInputElement} */ (byId('filter'));
  /** @type {string | undefined} */
  let next;
  let mayAct = false;
  let isWhole = true;
  /** Of the newest question: answers to older ones are dropped. */
  let asking = new AbortController();

  /** @param {boolean} isAnew */
  async function show(isAnew) {
    asking.abort();
    const { signal } = (asking = new AbortController());
    const wanted = filter.value.trim();
    try {
      const found = await find(wanted, isAnew ? undefined : next, signal);
      if (signal.aborted) return;
      next = found.next;
      if (isAnew) rows.replaceChildren();
      rows.append(...found.images.map((image) => imageRow(image, () => mayAct)));
      isWhole = next === undefined;
      more.hidden = isWhole;
      say(more, found.images.length < pageSize ? 'Search further' : 'More');
      say(sum, summary(rows.children.length, wanted));
    } catch (error) {
      if (!signal.aborted) say(sum, sentenceOf(error));
    }
  }

  /** @param {number} shown @param {string} wanted */
  function summary(shown, wanted) {
    if (shown === 0 && isWhole) {
      return wanted ? 'No image here has that in its name.' : 'None yet: an image is listed once it was pulled.';
    }
    return isWhole ? plural(shown, 'image') : `the first ${count(shown)}`;
  }

  let timer = setTimeout(() => void show(true), 0);
  filter.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => void show(true), patienceMs);
  });
  byId('reload').addEventListener('click', () => void show(true));
  more.addEventListener('click', () => void show(false));

  return {
    /** @param {boolean} may */
    allow(may) {
      mayAct = may;
    },
  };
}

/**
 * @param {string} wanted
 * @param {string | undefined} after
 * @param {AbortSignal} signal
 * @returns {Promise<ImagePage>}
 */
async function find(wanted, after, signal) {
  /** @type {Image[]} */
  const found = [];
  let next = after;
  for (let steps = 0; steps < maxSteps && found.length < pageSize; steps += 1) {
    const query = new URLSearchParams({ n: String(wanted ? searchSize : pageSize), ...(next && { after: next }) });
    /** @type {ImagePage} */
    const page = await askJson(`api/images?${query}`, { signal });
    const fitting = page.images.filter(({ image }) => image.toLowerCase().includes(wanted.toLowerCase()));
    const room = fitting.slice(0, pageSize - found.length);
    found.push(...room);
    // What no longer fits is looked for again, from the last that did.
    next = room.length < fitting.length ? room.at(-1)?.image : page.next;
    if (next === undefined) break;
  }
  return { images: found, ...(next !== undefined && { next }) };
}

/** @param {Image} image @param {() => boolean} mayAct */
function imageRow({ image, digest }, mayAct) {
  const body = make('div', { class: 'inspection' });
  const details = make('details', {}, make('summary', {}, image), body);
  const inspect = async () => {
    say(body, 'Asking …');
    try {
      /** @type {Inspection} */
      const inspection = await askJson(`api/inspect?${new URLSearchParams({ image })}`);
      const actions = mayAct() ? [imageActions(image, inspection)] : [];
      body.replaceChildren(inspectionTable(inspection), ...actions);
    } catch (error) {
      body.replaceChildren(make('p', { class: 'trouble', role: 'alert' }, sentenceOf(error)));
    }
  };
  // It may cost a request upstream, so only who opens it asks.
  details.addEventListener('toggle', () => {
    if (details.open) void inspect();
  });
  return make('li', { class: 'image' }, details, digestButton(digest, shortDigest(digest)));
}
