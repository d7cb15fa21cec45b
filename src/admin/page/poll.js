const everyMs = 1000;
const hiddenMs = 15_000;
const maxMs = 15_000;
const patienceMs = 10_000;

/**
 * @template T
 * @typedef {object} Polled
 * @property {(signal: AbortSignal) => Promise<T>} ask
 * @property {(answer: T) => void} onAnswer
 * @property {(error: unknown, since: Date) => void} onTrouble `since` is when it was last well
 */

/**
 * Asks every second: seldom while nobody looks, and ever more seldom while there is no answer.
 *
 * @template T
 * @param {Polled<T>} polled
 */
export function poll({ ask, onAnswer, onTrouble }) {
  let [failures, lastWell] = [0, new Date()];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let isAsking = false;

  async function turn() {
    clearTimeout(timer);
    if (isAsking) return;
    isAsking = true;
    /** @type {{ answer: T } | { error: unknown }} */
    const outcome = await ask(AbortSignal.timeout(patienceMs)).then(
      (answer) => ({ answer }),
      (/** @type {unknown} */ error) => ({ error }),
    );
    isAsking = false;
    failures = 'error' in outcome ? failures + 1 : 0;
    const waitMs = document.hidden ? hiddenMs : Math.min(maxMs, everyMs * 2 ** failures);
    timer = setTimeout(() => void turn(), failures === 0 && !document.hidden ? everyMs : waitMs);
    if ('error' in outcome) return onTrouble(outcome.error, lastWell);
    lastWell = new Date();
    onAnswer(outcome.answer);
  }

  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) void turn();
  });
  void turn();
}

/**
 * What the server says in JSON; where it refuses, its own sentence is the error.
 *
 * @template T
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<T>}
 */
export async function askJson(path, options = {}) {
  const answer = await fetch(path, options);
  const text = await answer.text();
  const isJson = (answer.headers.get('content-type') ?? '').startsWith('application/json');
  const body = isJson && text !== '' ? JSON.parse(text) : undefined;
  if (!answer.ok) throw new Error(body?.error?.message ?? (text.trim() || `The server answers ${answer.status}.`));
  return body;
}

/** @param {unknown} error */
export function sentenceOf(error) {
  // What browsers say of these, each in its own words.
  if (error instanceof TypeError) return 'The server cannot be reached.';
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'The server does not answer.';
  return error instanceof Error ? error.message : String(error);
}
