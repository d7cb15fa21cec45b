import type { Config } from '../config.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

/** What every part is put together with. */
export interface Context {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  now(): number;
  /** What ends each part, in the order of their starts. */
  readonly closers: (() => unknown)[];
}
