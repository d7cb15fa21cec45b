import { createRates } from './rates.js';

/**
 * @import { Live } from '../../wiring/live.ts'
 * @import { Download } from '../../pull/blobs.ts'
 * @typedef {Download & { readonly outcome: 'landed' | 'broken' | 'unknown', readonly endedAtMs: number }} Landed
 */

const shownMs = 60_000;
const maxShown = 5;

/** @param {Download} download */
export function keyOf({ repository, digest, startedAtMs }) {
  return `${repository} ${digest} ${startedAtMs}`;
}

/** What runs, how fast, and what ended since the last look. */
export function createLandings() {
  /** @type {Map<string, { download: Download, rates: ReturnType<typeof createRates> }>} */
  const seen = new Map();
  /** @type {Landed[]} */
  let landed = [];
  let broken = 0;

  return {
    /** @param {Live} live */
    look({ nowMs, startedAtMs, running, downloads }) {
      const keys = new Set(running.map(keyOf));
      const ended = [...seen].filter(([key]) => !keys.has(key)).map(([, { download }]) => download);
      for (const download of ended) seen.delete(keyOf(download));

      // The counters say how many broke off, not which: all, none, or some of them.
      const brokeNow = downloads.failed + downloads.abandoned - broken;
      broken = downloads.failed + downloads.abandoned;
      const outcome = brokeNow <= 0 ? 'landed' : brokeNow >= ended.length ? 'broken' : 'unknown';
      const fresh = ended.map((download) => ({ ...download, outcome, endedAtMs: nowMs }));
      landed = /** @type {Landed[]} */ ([...fresh.toReversed(), ...landed])
        .filter(({ endedAtMs }) => nowMs - endedAtMs < shownMs)
        .slice(0, maxShown);

      return {
        landed,
        running: running.map((download) => {
          const { rates } = seen.get(keyOf(download)) ?? { rates: createRates() };
          seen.set(keyOf(download), { download, rates });
          rates.add(startedAtMs, nowMs, { received: download.receivedBytes });
          return { ...download, speed: rates.now('received') };
        }),
      };
    },
  };
}
