const keptMs = 305_000;
/** What is counted at the end of an answer comes in jumps; over five seconds they are waves. */
const overMs = 5000;

/**
 * Speeds, from counters that are looked at again and again.
 *
 * @typedef {{ readonly atMs: number, readonly values: Readonly<Record<string, number>> }} Sample
 */
export function createRates() {
  /** @type {Sample[]} */
  let samples = [];
  let epochMs = 0;

  /** @param {number} at @param {string} name */
  function rateAt(at, name) {
    const last = samples[at];
    if (!last) return 0;
    // The sample that a window began with; the first of all where there is no older one.
    let first = at;
    while (first > 0 && last.atMs - (samples[first]?.atMs ?? 0) < overMs) first -= 1;
    const before = samples[first];
    if (!before || before === last) return 0;
    const grown = (last.values[name] ?? 0) - (before.values[name] ?? 0);
    return Math.max(0, grown) / ((last.atMs - before.atMs) / 1000);
  }

  return {
    /**
     * A server that began anew counts anew.
     *
     * @param {number} startedAtMs
     * @param {number} atMs
     * @param {Readonly<Record<string, number>>} values
     */
    add(startedAtMs, atMs, values) {
      if (startedAtMs !== epochMs) samples = [];
      epochMs = startedAtMs;
      samples = [...samples.filter((sample) => atMs - sample.atMs < keptMs && sample.atMs < atMs), { atMs, values }];
    },

    /** @param {string} name */
    now: (name) => rateAt(samples.length - 1, name),

    /** When each sample was, before the last one, in seconds: -299 … 0. */
    times: () => samples.map(({ atMs }) => (atMs - (samples.at(-1)?.atMs ?? 0)) / 1000),

    /** @param {string} name */
    all: (name) => samples.map((_, at) => rateAt(at, name)),
  };
}
