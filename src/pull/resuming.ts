import { setTimeout as delay } from 'node:timers/promises';
import { NarrowsError, isUpstreamTrouble } from '../errors.ts';

export interface ResumeLimits {
  /** How often in a row a cut download is taken up again without progress. */
  readonly maxResumes: number;
  /** The first wait; each further one is twice as long. */
  readonly resumeDelayMs: number;
}

export interface Resumable {
  readonly limits: ResumeLimits;
  readonly signal: AbortSignal;
  /** Bytes that are here; the next attempt goes on from there. */
  received(): number;
  /** Has anyone been told that the content is coming? Before, a failure is an answer: clients have other hosts to ask. */
  isPromised(): boolean;
  onResume(): void;
}

/** What an attempt must bring for those before it to be forgotten: a few bytes a time would keep us knocking for ever. */
const minProgressBytes = 64 * 1024;
const maxDoublings = 6;
/** Clients wait with us: beyond this, theirs is the better patience. */
const maxAskedMs = 60_000;

/**
 * Runs `attempt` until one comes to its end, each from where the one before broke off.
 *
 * @throws NarrowsError why the last attempt failed
 */
export async function resuming(attempt: () => Promise<void>, resumable: Resumable): Promise<void> {
  const { limits, signal, received, isPromised, onResume } = resumable;
  for (let resumes = 0; ; resumes++) {
    const before = received();
    try {
      await attempt();
      return;
    } catch (error) {
      if (received() - before >= minProgressBytes) resumes = 0;
      const mayComeBack = !(error instanceof NarrowsError) || isUpstreamTrouble(error);
      if (!mayComeBack || !isPromised() || signal.aborted || resumes >= limits.maxResumes) throw toFailure(error);
      const patience = limits.resumeDelayMs * 2 ** Math.min(resumes, maxDoublings);
      const asked = error instanceof NarrowsError ? (error.retryAfterS ?? 0) * 1000 : 0;
      onResume();
      await delay(Math.max(patience * (0.5 + Math.random() / 2), Math.min(asked, maxAskedMs)), undefined, { signal });
    }
  }
}

/** Whoever closes does not wait for what may never come. @param onLate gets what comes after all */
export async function unlessAborted<T>(
  waiting: Promise<T>,
  signal: AbortSignal,
  onLate: (late: T) => void,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => {
    waiting.then(onLate).catch(() => undefined);
    reject(new Error('nobody reads it any more'));
  };
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([waiting, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function toFailure(error: unknown): NarrowsError {
  if (error instanceof NarrowsError) return error;
  return new NarrowsError('upstreamUnusable', 'The download from the upstream broke off.', { cause: error });
}

/** @param size what it said; undefined where it did not */
export function tooLong(size: number | undefined): NarrowsError {
  const most = size ?? 'can be taken without knowing the size';
  return new NarrowsError('upstreamUnusable', `The upstream sends more than ${most} bytes.`);
}
