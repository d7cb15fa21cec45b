/** How long the same need not be said again. */
const silenceMs = 10_000;

/** Says an error once, and the same message again only after a while: what fails a thousand times a second is one thing. */
export function seldom(say: (error: unknown) => void, now: () => number = Date.now): (error: unknown) => void {
  let last = '';
  let saidMs = -Infinity;
  return (error) => {
    const message = error instanceof Error ? error.message : String(error);
    if (message === last && Math.abs(now() - saidMs) < silenceMs) return;
    last = message;
    saidMs = now();
    say(error);
  };
}
