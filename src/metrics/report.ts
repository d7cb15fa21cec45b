import type { MetricsJson } from './metrics.ts';

/** What counts up, or is so now, for those who look on; all of it since the start of the processes. */
export interface Report {
  readonly platforms: readonly { readonly platform: string; readonly requests: number; readonly bytes: number }[];
  /** By `Narrows-Cache`. */
  readonly sources: readonly { readonly cache: string; readonly requests: number; readonly bytes: number }[];
  readonly sentBytes: number;
  readonly upstreamBytes: number;
  /** Of other platforms, what a mirror that knows none would have fetched. */
  readonly sparedBytes: number;
  readonly upstreams: readonly UpstreamReport[];
  readonly stores: readonly StoreReport[];
  readonly held: readonly { readonly platform: string; readonly bytes: number }[];
  readonly downloads: Readonly<Record<'done' | 'failed' | 'abandoned' | 'joined' | 'resumed' | 'mismatched', number>>;
  readonly staleAnswers: number;
  readonly loopDelayMs: number;
  readonly residentBytes: number;
}

export interface UpstreamReport {
  readonly name: string;
  readonly requests: number;
  /** Of these, what was no answer of a registry: 5xx, 429, time-outs and the like. */
  readonly troubles: number;
  readonly bytes: number;
  readonly remaining?: number;
  readonly limit?: number;
  readonly backoffS: number;
}

export interface StoreReport {
  readonly tier: string;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly isAvailable: boolean;
}

interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly metricName?: string;
}

/** Puts the metrics of one process, or of several that were joined, into the words of people. */
export function reportOf(metrics: MetricsJson): Report {
  const all = new Map((metrics as { name: string; values: Sample[] }[]).map(({ name, values }) => [name, values]));
  const samples = (name: string): Sample[] => all.get(name) ?? [];
  const total = (name: string) => samples(name).reduce((sum, { value }) => sum + value, 0);
  const one = (name: string, labels: Record<string, string>) => sumOf(samples(name), labels);
  const values = (name: string, label: string) =>
    [...new Set(samples(name).map(({ labels }) => String(labels[label])))].toSorted();

  const byLabel = (label: 'platform' | 'cache') =>
    values('narrows_requests_total', label).map((value) => ({
      requests: one('narrows_requests_total', { [label]: value }),
      bytes: one('narrows_sent_bytes_total', { [label]: value }),
      value,
    }));
  const upstreams = new Set([
    ...values('narrows_upstream_requests_total', 'upstream'),
    ...values('narrows_upstream_backoff_seconds', 'upstream'),
  ]);
  const landed = (outcome: string) => one('narrows_downloads_total', { outcome });

  return {
    platforms: byLabel('platform').map(({ value: platform, ...rest }) => ({ platform, ...rest })),
    sources: byLabel('cache').map(({ value: cache, ...rest }) => ({ cache, ...rest })),
    sentBytes: total('narrows_sent_bytes_total'),
    upstreamBytes: total('narrows_upstream_bytes_total'),
    sparedBytes: Math.max(0, total('narrows_spared_bytes')),
    upstreams: [...upstreams].map((name) => upstreamOf(name, samples)),
    stores: values('narrows_store_bytes', 'tier').map((tier) => ({
      tier,
      bytes: one('narrows_store_bytes', { tier }),
      maxBytes: one('narrows_store_max_bytes', { tier }),
      isAvailable: samples('narrows_tier_available').every(
        ({ labels, value }) => labels['tier'] !== tier || value === 1,
      ),
    })),
    held: values('narrows_store_platform_bytes', 'platform').map((platform) => ({
      platform,
      bytes: one('narrows_store_platform_bytes', { platform }),
    })),
    downloads: {
      done: landed('done'),
      failed: landed('failed'),
      abandoned: landed('abandoned'),
      joined: total('narrows_download_joins_total'),
      resumed: total('narrows_download_resumes_total'),
      mismatched: total('narrows_verification_failures_total'),
    },
    staleAnswers: total('narrows_stale_answers_total'),
    loopDelayMs: Math.round(total('nodejs_eventloop_lag_p99_seconds') * 10_000) / 10,
    residentBytes: total('process_resident_memory_bytes'),
  };
}

function sumOf(samples: readonly Sample[], labels: Record<string, string>): number {
  const fits = ({ labels: own }: Sample) => Object.entries(labels).every(([name, value]) => own[name] === value);
  return samples.filter(fits).reduce((sum, { value }) => sum + value, 0);
}

/** 401 is how a registry asks who we are, 403 and 404 are answers. */
function isTrouble({ labels }: Sample): boolean {
  return !/^(?:[123]\d\d|40[134])$/.test(String(labels['outcome']));
}

function upstreamOf(name: string, samples: (name: string) => Sample[]): UpstreamReport {
  const of = (metric: string) => samples(metric).filter(({ labels }) => labels['upstream'] === name);
  const requests = of('narrows_upstream_requests_total');
  const remaining = of('narrows_upstream_budget_remaining')[0]?.value;
  const limit = of('narrows_upstream_budget_limit')[0]?.value;
  return {
    name,
    requests: sumOf(requests, {}),
    troubles: sumOf(requests.filter(isTrouble), {}),
    bytes: sumOf(of('narrows_upstream_bytes_total'), {}),
    ...(remaining !== undefined && { remaining }),
    ...(limit !== undefined && { limit }),
    backoffS: of('narrows_upstream_backoff_seconds')[0]?.value ?? 0,
  };
}
