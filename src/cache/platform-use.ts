import { Worker } from 'node:worker_threads';
import type { PlatformUse } from './platform-use-thread.ts';

export type { PlatformUse } from './platform-use-thread.ts';

export interface PlatformUses {
  /** As it was when it was last counted. That goes on behind the answer, and not more often than each minute. */
  last(): readonly PlatformUse[];
  /** Counts now. @throws what is wrong with the books */
  count(): Promise<readonly PlatformUse[]>;
}

const againMs = 60_000;

/** Counts in a thread of its own: of a million blobs it takes seconds, in which nobody should wait. */
export function createPlatformUses(
  catalogPath: string,
  now: () => number,
  onTrouble: (error: unknown) => void,
): PlatformUses {
  let found: readonly PlatformUse[] = [];
  let countedAtMs = -Infinity;
  let counting: Promise<readonly PlatformUse[]> | undefined;

  function run(): Promise<readonly PlatformUse[]> {
    return new Promise((resolve, reject) => {
      const thread = new Worker(new URL('./platform-use-thread.ts', import.meta.url), { workerData: catalogPath });
      thread.unref();
      thread.once('message', resolve);
      thread.once('error', reject);
      thread.once('exit', () => reject(new Error('the thread that counts has ended')));
    });
  }

  async function count(): Promise<readonly PlatformUse[]> {
    counting ??= run().finally(() => (counting = undefined));
    countedAtMs = now();
    found = await counting;
    return found;
  }

  return {
    count,
    last() {
      if (Math.abs(now() - countedAtMs) >= againMs) count().catch(onTrouble);
      return found;
    },
  };
}
