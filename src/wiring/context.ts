import type { Config } from '../config.ts';
import type { CoordinatorLink } from '../fleet/worker-fleet.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';

/** What every part is put together with. */
export interface Context {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  now(): number;
  /** What a server calls itself to others. */
  readonly pseudonym?: string;
  /** Where this process is one of several that serve together. */
  readonly team?: Team | undefined;
  /** A command beside the server of a store: it takes nothing away but what it was asked to. */
  readonly isCommand?: boolean;
  /** What ends each part, in the order of their starts. */
  readonly closers: (() => unknown)[];
}

export interface Team {
  readonly coordinator: CoordinatorLink;
  /** The socket where the other workers find this one. */
  readonly place: string;
}
