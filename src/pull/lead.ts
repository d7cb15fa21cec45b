import { setTimeout as delay } from 'node:timers/promises';

/** What this far behind has left the processor's caches, and what is newer is kept for latecomers anyway. */
const maxLeadBytes = 4 * 1024 * 1024;
/** Together: a download is slowed down to 200 MiB a second, and by nobody to less. */
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
  /** Resolves when the readers and the disk are near, and after a moment in any case. */
  shorten(): Promise<void>;
}

/**
 * On a machine that is busy with one download the upstream wins the race for the processor, and everything that it
 * sends has to be fetched from main memory twice, by then, for its reader and for the disk; in new memory, besides. A
 * reader that is slow, or a disk that hangs, is waited for so little that other readers do not notice.
 */
export function createLead({ received, used, changed }: LeadOptions): Lead {
  let shortenedAt = 0;

  const isLong = () => received() - used() > maxLeadBytes;

  return {
    async shorten() {
      if (received() - shortenedAt < everyBytes || !isLong()) return;
      shortenedAt = received();
      const late = delay(maxWaitMs, true);
      for (let isLate = false; !isLate && isLong();) isLate = (await Promise.race([changed(), late])) === true;
    },
  };
}
