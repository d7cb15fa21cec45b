import { showOfflineSwitch } from './actions.js';
import { byId, say } from './dom.js';
import { showDownloads } from './downloads.js';
import { showFigures } from './figures.js';
import { duration } from './format.js';
import { startImages } from './images.js';
import { askJson, poll, sentenceOf } from './poll.js';
import { showStores } from './stores.js';
import { showTraffic } from './traffic.js';
import { showUpstreams } from './upstreams.js';

/** @import { Live } from '../../wiring/live.ts' */

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const images = startImages();

/** @param {{ live: Live, isReady: boolean }} answer */
function show({ live, isReady }) {
  document.body.classList.remove('stale');
  say(byId('connection'), '');
  showState(!isReady ? 'stopping' : live.isOffline ? 'offline' : 'ready');
  say(byId('uptime'), `up for ${duration((live.nowMs - live.startedAtMs) / 1000)}`);
  showFigures(live);
  showTraffic(live);
  showDownloads(live);
  showUpstreams(live);
  showStores(live);
  showOfflineSwitch(live);
  images.allow(live.mayAct);
}

/** @type {Record<string, [mark: string, words: string]>} */
const states = {
  ready: ['●', 'ready'],
  offline: ['◆', 'ready, offline'],
  stopping: ['■', 'not ready'],
  unknown: ['○', 'no answer'],
};

/** A shape and words, not a colour alone. @param {keyof typeof states} name */
function showState(name) {
  const [mark, words] = states[name] ?? ['', name];
  byId('state').className = name;
  say(byId('state-mark'), mark);
  say(byId('state-words'), words);
}

/** Said once for each time that it goes, so that it is not read out each second. */
poll({
  ask: async (signal) => {
    const [live, ready] = await Promise.all([askJson('api/live', { signal }), fetch('readyz', { signal })]);
    // Read to its end: a body that nobody takes is an aborted request to the browser.
    await ready.text();
    return { live, isReady: ready.ok };
  },
  onAnswer: show,
  onTrouble: (error, since) => {
    document.body.classList.add('stale');
    showState('unknown');
    say(byId('uptime'), '');
    const why = sentenceOf(error).replace(/\.$/, '');
    say(byId('connection'), `${why}; what stands here is of ${clock.format(since)}.`);
  },
});
