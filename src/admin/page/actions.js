import { byId, make, say } from './dom.js';
import { askJson, sentenceOf } from './poll.js';

/**
 * What changes something: shown where the server says that this listener may, asked twice, told how it went.
 *
 * @import { Live } from '../../wiring/live.ts'
 * @import { Inspection } from '../../pull/inspect.ts'
 */

/**
 * @param {string} path
 * @param {object} body
 */
function post(path, body) {
  return askJson(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

const dialog = /** @type {HTMLDialogElement} */ (byId('confirm'));
byId('confirm-no').addEventListener('click', () => dialog.close('no'));
byId('confirm-yes').addEventListener('click', () => dialog.close('yes'));

/** @param {{ title: string, text: string, yes: string }} question @returns {Promise<boolean>} */
function confirmed({ title, text, yes }) {
  say(byId('confirm-title'), title);
  say(byId('confirm-text'), text);
  say(byId('confirm-yes'), yes);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

/**
 * What a button does: asks, acts, and says beside it how that went.
 *
 * @typedef {object} Action
 * @property {string} title
 * @property {string} text
 * @property {string} yes
 * @property {() => Promise<unknown>} act
 * @property {string} done
 */

/**
 * @param {HTMLButtonElement} button
 * @param {Action} action
 * @param {HTMLElement} outcome
 */
async function run(button, { act, done, ...question }, outcome) {
  if (!(await confirmed(question))) return;
  button.disabled = true;
  say(outcome, 'Asking …');
  try {
    await act();
    say(outcome, done);
  } catch (error) {
    say(outcome, sentenceOf(error));
  } finally {
    button.disabled = false;
  }
}

/**
 * What can be done with an image.
 *
 * @param {string} image
 * @param {Inspection} inspection
 */
export function imageActions(image, { platforms }) {
  const outcome = make('p', { role: 'status' });
  const boxes = [...new Set(platforms.map(({ platform }) => platform))].map((platform) => {
    const box = make('input', { type: 'checkbox', value: platform });
    box.checked = platforms.some((one) => one.platform === platform && one.status === 'partial');
    return { box, label: make('label', {}, box, platform) };
  });
  /** @param {string} label @param {() => Action | string} action or why there is none */
  const actionButton = (label, action) => {
    const button = make('button', { type: 'button' }, label);
    button.addEventListener('click', () => {
      const found = action();
      if (typeof found === 'string') say(outcome, found);
      else void run(button, found, outcome);
    });
    return button;
  };
  const warm = actionButton('Fetch …', () => {
    const chosen = boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
    if (chosen.length === 0) return 'Choose for which platforms.';
    return {
      title: 'Fetch and keep?',
      text: `What is missing of ${image} for ${chosen.join(', ')} is fetched from its upstream, and kept from then on.`,
      yes: 'Fetch',
      act: () => post('api/warm', { image, platforms: chosen }),
      done: 'It is on its way.',
    };
  });
  const purge = actionButton('Purge …', () => ({
    title: 'Purge this image?',
    text: `${image} is taken away here, and fetched again when someone asks for it.`,
    yes: 'Purge',
    act: () => post('api/purge', { image }),
    done: 'It is taken away.',
  }));
  const group = make('fieldset', {}, make('legend', { class: 'unseen' }, 'Platforms to fetch'));
  group.append(...boxes.map(({ label }) => label));
  return make('div', { class: 'actions' }, group, warm, purge, outcome);
}

const offlineSwitch = /** @type {HTMLButtonElement} */ (byId('offline'));
let isOffline = false;

/** The switch in the head of the page. @param {Live} live */
export function showOfflineSwitch(live) {
  isOffline = live.isOffline;
  offlineSwitch.hidden = !live.mayAct;
  say(offlineSwitch, isOffline ? 'Go online …' : 'Go offline …');
}

offlineSwitch.addEventListener('click', () => {
  const offline = !isOffline;
  const question = offline
    ? { title: 'Go offline?', text: 'No upstream is asked: what is not here is not to be had.', yes: 'Go offline' }
    : { title: 'Go online?', text: 'Upstreams are asked again.', yes: 'Go online' };
  const act = () => post('api/offline', { offline });
  void run(offlineSwitch, { ...question, act, done: '' }, byId('acted'));
});
