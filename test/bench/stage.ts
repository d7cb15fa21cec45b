import type { Teardown } from '../fixtures/mirror.ts';

/** Runs with a stage whose parts go when it ends. */
export async function within<T>(run: (stage: Teardown) => Promise<T>): Promise<T> {
  const ends: (() => unknown)[] = [];
  try {
    return await run({ teardown: (end) => void ends.push(end) });
  } finally {
    for (const end of ends.toReversed()) await end();
  }
}
