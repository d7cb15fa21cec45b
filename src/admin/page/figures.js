import { byId, make, rowsOf, say } from './dom.js';
import { bytes, percent, rate } from './format.js';
import { createRates } from './rates.js';

/** @import { Live } from '../../wiring/live.ts' */

/** Answers that hold none of a registry's bytes, or say not where these came from, count neither way. */
const origins = ['hit-memory', 'hit-disk', 'joined', 'hit-redis', 'hit-s3', 'revalidated', 'stale', 'miss'];
/** @type {Record<string, string>} */
const words = { joined: 'shared downloads', miss: 'upstreams', stale: 'stale, upstream away' };
const rates = createRates();

const showSources = rowsOf(
  byId('sources'),
  (/** @type {{ cache: string, part: number }} */ source) => source.cache,
  () => {
    const node = make('li');
    return {
      node,
      update: ({ cache, part }) => say(node, `${words[cache] ?? cache.replace('hit-', '')} ${percent(part)}`),
    };
  },
);

/** @param {Live} live */
export function showFigures(live) {
  say(byId('spared'), bytes(live.sparedBytes));
  say(byId('fetched'), bytes(live.upstreamBytes));
  say(byId('sent'), bytes(live.sentBytes));
  say(byId('delay'), `${live.loopDelayMs} ms`);
  say(byId('memory'), bytes(live.residentBytes));

  rates.add(live.startedAtMs, live.nowMs, { sent: live.sentBytes, fetched: live.upstreamBytes });
  say(byId('fetched-now'), `now ${rate(rates.now('fetched'))}`);
  say(byId('sent-now'), `now ${rate(rates.now('sent'))}`);

  const sources = live.sources
    .filter(({ cache, bytes: sent }) => origins.includes(cache) && sent > 0)
    .toSorted((one, other) => origins.indexOf(one.cache) - origins.indexOf(other.cache));
  const total = sources.reduce((sum, { bytes: sent }) => sum + sent, 0);
  const missed = sources.find(({ cache }) => cache === 'miss')?.bytes ?? 0;
  say(byId('ratio'), total > 0 ? percent(1 - missed / total) : '–');
  showSources(sources.map(({ cache, bytes: sent }) => ({ cache, part: sent / total })));
}
