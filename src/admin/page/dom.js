/**
 * An element of the page by its id.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no #${id}.`);
  return found;
}

/**
 * A new element. What strings there are become text, never markup: names come from strangers.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/**
 * Text that is the same already is left alone, with whatever is selected in it.
 *
 * @param {Node} node
 * @param {string} text
 */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @template T
 * @typedef {{ readonly node: HTMLElement, update(item: T): void }} Row
 */

/**
 * A list whose rows live as long as their keys, so that focus, scroll and place stay with them.
 *
 * @template T
 * @param {HTMLElement} list
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => Row<T>} create
 * @returns {(items: readonly T[]) => void}
 */
export function rowsOf(list, keyOf, create) {
  /** @type {Map<string, Row<T>>} */
  const rows = new Map();
  return (items) => {
    const keys = new Set(items.map(keyOf));
    for (const [key, { node }] of rows) {
      if (keys.has(key)) continue;
      node.remove();
      rows.delete(key);
    }
    for (const [at, item] of items.entries()) {
      const row = rows.get(keyOf(item)) ?? create(item);
      rows.set(keyOf(item), row);
      row.update(item);
      const place = list.children[at] ?? null;
      if (place !== row.node) list.insertBefore(row.node, place);
    }
  };
}

/**
 * A digest in short; whole on focus and under the pointer. A click copies it, where the browser lets pages do so.
 *
 * @param {string} digest
 * @param {string} short
 */
export function digestButton(digest, short) {
  const button = make('button', { type: 'button', class: 'digest', title: digest, 'data-whole': digest }, short);
  button.addEventListener('click', () => {
    const copied = navigator.clipboard?.writeText(digest) ?? Promise.reject(new Error('not to be had'));
    copied.then(
      () => button.setAttribute('data-whole', `${digest} is copied`),
      () => button.setAttribute('data-whole', digest),
    );
  });
  button.addEventListener('blur', () => button.setAttribute('data-whole', digest));
  return button;
}

/**
 * A scale with its words.
 *
 * @param {string} label
 */
export function makeMeter(label) {
  const node = make('meter', { min: '0', max: '1', 'aria-label': label });
  /** @param {number} part @param {string} words */
  const set = (part, words) => {
    node.value = Math.min(1, Math.max(0, part));
    node.setAttribute('aria-valuetext', words);
  };
  return { node, set };
}
