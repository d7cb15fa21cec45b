import { setTimeout as delay } from 'node:timers/promises';
import { recentBytes } from './window.ts';

/** Together: what nobody keeps up with takes at most 5 ms longer for each MiB. */
const everyBytes = 1024 * 1024;
const maxWaitMs = 5;

export interface LeadOptions {
  received(): number;
  /** So much has been written, and read by the one reader who has read most. */
  used(): number;
  /** Resolves when there may be more of it. */
  changed(): Promise<void>;
}

/** How far a download is ahead of whoever needs its bytes. */
export interface Lead {
  /** Resolves when the foremost reader and the disk are near, and after a moment in any case. */
  letCatchUp(): Promise<void>;
}

/**
 * A download that runs ahead as fast as it can leaves its reader and the disk with bytes that are no longer in the
 * processor's caches, and needs new memory for each: what is near costs half. A reader that is slow, or a disk that
 * hangs, is waited for so little that others hardly notice.
 */
export function createLead({ received, used, changed }: LeadOptions): Lead {
  let waitedAt = 0;

  const isLong = () => received() - used() > recentBytes;

  return {
    async letCatchUp() {
      if (received() - waitedAt < everyBytes || !isLong()) return;
      waitedAt = received();
      const late = delay(maxWaitMs, true);
      for (let isLate = false; !isLate && isLong();) isLate = (await Promise.race([changed(), late])) === true;
    },
  };
}
