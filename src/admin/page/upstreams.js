import { byId, make, makeMeter, rowsOf, say } from './dom.js';
import { bytes, count, duration, plural } from './format.js';

/**
 * @import { Live } from '../../wiring/live.ts'
 * @import { UpstreamReport } from '../../metrics/report.ts'
 */

const showRows = rowsOf(byId('upstreams'), ({ name }) => name, createRow);

/** @param {UpstreamReport} first */
function createRow({ name }) {
  const [pause, figures, quotaWords] = [make('span', { class: 'pause' }), make('p'), make('span')];
  const meter = makeMeter(`Quota left at ${name}`);
  const quota = make('p', { class: 'measure' }, meter.node, quotaWords);
  const node = make('li', {}, make('p', { class: 'heading' }, make('strong', {}, name), pause), figures, quota);
  return {
    node,
    /** @param {UpstreamReport} upstream */
    update({ requests, troubles, bytes: received, remaining, limit, backoffS }) {
      say(pause, backoffS > 0 ? `left alone for ${duration(Math.max(1, backoffS))}` : '');
      const trouble = troubles > 0 ? ` · ${plural(troubles, 'trouble')}` : '';
      say(figures, `${plural(requests, 'request')} · ${bytes(received)}${trouble}`);
      figures.classList.toggle('warned', troubles > 0);
      quota.hidden = remaining === undefined || limit === undefined;
      if (remaining === undefined || limit === undefined) return;
      const words = `${count(remaining)} of ${count(limit)} requests left`;
      meter.set(limit > 0 ? remaining / limit : 0, words);
      meter.node.classList.toggle('short', remaining < limit / 10);
      say(quotaWords, words);
    },
  };
}

/** @param {UpstreamReport} upstream */
function isIdle({ requests, backoffS }) {
  return requests === 0 && backoffS === 0;
}

/** @param {Live} live */
export function showUpstreams({ upstreams }) {
  showRows(upstreams.filter((upstream) => !isIdle(upstream)));
  const idle = upstreams.filter(isIdle).map(({ name }) => name);
  say(byId('upstreams-idle'), idle.length > 0 ? `Not asked so far: ${idle.join(', ')}.` : '');
}
