import type { Log } from '../log.ts';
import type { PullObserver } from '../pull/parts.ts';

/** Counts what happens in pulls, and logs what an operator wants to read of it. */
export function observe(log: Log, counters: Omit<PullObserver, 'trouble'>): PullObserver {
  return {
    ...counters,
    flightMismatched(digest) {
      counters.flightMismatched(digest);
      log.error({ digest }, 'a download was other content than that of its digest; nothing of it was kept');
    },
    flightLanded(digest, landing) {
      counters.flightLanded(digest, landing);
      if (landing.outcome === 'failed') log.warn({ digest, err: landing.error }, 'a download failed');
    },
    platformLie(repository, child) {
      counters.platformLie(repository, child);
      log.warn(
        { repository, child },
        'an index says another platform than the config of its child; answering with the whole index',
      );
    },
    stale(repository, tag, error) {
      counters.stale(repository, tag, error);
      log.warn({ repository, tag, err: error }, 'the upstream is in trouble; answering with what the tag last meant');
    },
    trouble: (what, error) => log.warn({ err: error }, `${what} failed; going on without`),
  };
}
