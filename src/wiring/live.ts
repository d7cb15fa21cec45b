import type { MetricsJson } from '../metrics/metrics.ts';
import { reportOf } from '../metrics/report.ts';
import type { Report } from '../metrics/report.ts';
import type { Download } from '../pull/blobs.ts';
import type { PullWork } from './pull-parts.ts';

/** What one process has to tell of itself. */
export interface ProcessReport {
  readonly metrics: MetricsJson;
  readonly downloads: readonly Download[];
}

/** What `/api/live` answers. */
export interface Live extends Report {
  readonly nowMs: number;
  readonly startedAtMs: number;
  readonly isOffline: boolean;
  /** There are actions for someone. */
  readonly mayAct: boolean;
  readonly running: readonly Download[];
}

/** Of one process. @param metrics its own */
export async function processReport(
  metrics: { toJson(): Promise<MetricsJson> },
  { downloads }: Pick<PullWork, 'downloads'>,
): Promise<ProcessReport> {
  return { metrics: await metrics.toJson(), downloads: downloads() };
}

/** @param metrics of all processes as one */
export function liveOf(
  metrics: MetricsJson,
  downloads: readonly Download[],
  state: Pick<Live, 'nowMs' | 'startedAtMs' | 'isOffline' | 'mayAct'>,
): Live {
  const running = downloads.toSorted((one, other) => one.startedAtMs - other.startedAtMs);
  return { ...state, ...reportOf(metrics), running };
}
