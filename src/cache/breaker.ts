/** The tier is being left alone: whoever asks goes on without it, and nobody needs to be told again. */
export class TierAway extends Error {
  constructor(tier: string, options?: ErrorOptions) {
    super(`${tier} does not answer and is left alone for now`, options);
    this.name = 'TierAway';
  }
}

export interface BreakerOptions {
  readonly name: string;
  /** How long everything that was asked may stay without any answer. */
  readonly stallMs: number;
  /** The wait before it is tried again; it doubles up to `maxRetryMs`. */
  readonly retryMs: number;
  readonly maxRetryMs: number;
  /** Resolves when the tier works. */
  probe(): Promise<unknown>;
  /** Does this failure say that the tier is away, or only that it refused this one thing? */
  isAway(error: unknown): boolean;
  /** @param error why it opened; undefined when it closed */
  onChange(error: unknown): void;
}

export interface Breaker {
  readonly isOpen: boolean;
  /** @throws TierAway at once while it is open, and after `stallMs` of silence; else what `action` throws */
  run<T>(action: () => Promise<T>): Promise<T>;
  /** The same for large values, which take longer to come whole: while only such are waited for, so is the tier. */
  runLarge<T>(action: () => Promise<T>): Promise<T>;
  /** The same for what takes as long as it takes, and finds out by itself when nothing moves. */
  pass<T>(action: () => Promise<T>): Promise<T>;
  /** Leaves it alone from now on, until a probe comes through. */
  trip(error: unknown): void;
  close(): void;
}

/** What a large value may take, in silences of a small one. */
const largePatience = 5;

/** The event loop turns, and so reads what has come, at least this often before anyone is judged. */
const stepsOfSilence = 4;

/**
 * Keeps a slow or broken tier from slowing down pulls: once it is silent for too long, nobody asks it until a probe,
 * which no client waits for, finds it working.
 *
 * Silence is measured over everything asked, not for each question: a tier that is busy and keeps answering is not
 * in trouble, one that a single question hangs in is.
 */
export function createBreaker(options: BreakerOptions): Breaker {
  const { name, stallMs, retryMs, maxRetryMs, probe, isAway, onChange } = options;
  const waiting = new Set<(error: TierAway) => void>();
  let smallOnes = 0;
  let lastSignMs = 0;
  let silentSteps = 0;
  let watch: NodeJS.Timeout | undefined;
  let retry: NodeJS.Timeout | undefined;
  let isOpen = false;
  let isClosed = false;

  function trip(error: unknown): void {
    if (isOpen || isClosed) return;
    isOpen = true;
    for (const reject of waiting) reject(new TierAway(name, { cause: error }));
    waiting.clear();
    onChange(error);
    scheduleProbe(retryMs);
  }

  function judged(error: unknown): unknown {
    if (error instanceof TierAway || !isAway(error)) return error;
    trip(error);
    return new TierAway(name, { cause: error });
  }

  function scheduleProbe(waitMs: number): void {
    // Spread out, so that a fleet does not come back in one step.
    retry = setTimeout(() => void tryAgain(waitMs), waitMs * (0.75 + Math.random() / 2)).unref();
  }

  async function tryAgain(waitedMs: number): Promise<void> {
    const limit = Promise.withResolvers<never>();
    const timer = setTimeout(() => limit.reject(new Error(`no answer within ${stallMs} ms`)), stallMs).unref();
    try {
      await Promise.race([probe(), limit.promise]);
      if (isClosed) return;
      isOpen = false;
      onChange(undefined);
    } catch {
      if (!isClosed) scheduleProbe(Math.min(waitedMs * 2, maxRetryMs));
    } finally {
      clearTimeout(timer);
    }
  }

  function onSign(): void {
    lastSignMs = performance.now();
    silentSteps = 0;
  }

  function startWatch(): void {
    watch ??= setTimeout(onWatch, stallMs / stepsOfSilence).unref();
  }

  function onWatch(): void {
    watch = undefined;
    if (waiting.size === 0) return;
    // A step counts once, however long it took: this process may have been busy itself, its questions not even written.
    silentSteps++;
    const patience = smallOnes > 0 ? 1 : largePatience;
    const isStalled = silentSteps >= stepsOfSilence * patience && performance.now() - lastSignMs >= stallMs * patience;
    if (isStalled) trip(new Error(`nothing came for ${stallMs * patience} ms`));
    else startWatch();
  }

  async function watched<T>(action: () => Promise<T>): Promise<T> {
    if (isOpen || isClosed) throw new TierAway(name);
    const { promise: away, reject } = Promise.withResolvers<never>();
    if (waiting.size === 0) onSign();
    waiting.add(reject);
    startWatch();
    try {
      const acting = action();
      acting.catch(() => undefined);
      return await Promise.race([acting, away]);
    } catch (error) {
      throw judged(error);
    } finally {
      waiting.delete(reject);
      onSign();
    }
  }

  return {
    get isOpen() {
      return isOpen;
    },

    async run(action) {
      smallOnes++;
      try {
        return await watched(action);
      } finally {
        smallOnes--;
      }
    },

    runLarge: watched,

    async pass(action) {
      if (isOpen || isClosed) throw new TierAway(name);
      try {
        return await action();
      } catch (error) {
        throw judged(error);
      }
    },

    trip,

    close() {
      isClosed = true;
      clearTimeout(watch);
      clearTimeout(retry);
    },
  };
}
