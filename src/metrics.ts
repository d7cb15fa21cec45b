import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Answered } from './http/answered.ts';
import type { PullObserver } from './pull/parts.ts';

export type MetricsJson = readonly object[];

export interface Metrics {
  /** The exposition text and its Content-Type. */
  render(): Promise<{ text: string; contentType: string }>;
  /** The same for another process to put together with those of others. */
  toJson(): Promise<MetricsJson>;
  answered(answered: Answered): void;
  upstreamAnswered(upstream: string, outcome: string): void;
  upstreamSent(upstream: string, bytes: number): void;
  readonly pull: Pick<PullObserver, 'flightStarted' | 'flightLanded' | 'platformLie' | 'stale'>;
  tierTrouble(tier: string): void;
  /** A tier was passed by, because it is being left alone. */
  tierSkipped(tier: string): void;
  tierAvailable(tier: string, isAvailable: boolean): void;
  evicted(tier: string, bytes: number): void;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Counter({
    name: 'narrows_requests_total',
    help: 'Answers to clients, by status, view and where the bytes came from',
    labelNames: ['status', 'view', 'cache'],
    registers,
  });
  const seconds = new Histogram({
    name: 'narrows_request_seconds',
    help: 'Time from the request line to the last byte',
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers,
  });
  const upstreamRequests = new Counter({
    name: 'narrows_upstream_requests_total',
    help: 'Requests to upstreams, by status or kind of trouble',
    labelNames: ['upstream', 'outcome'],
    registers,
  });
  const sentBytes = new Counter({
    name: 'narrows_sent_bytes_total',
    help: 'Bytes of whole answers to clients, by where they came from',
    labelNames: ['cache'],
    registers,
  });
  const upstreamBytes = new Counter({
    name: 'narrows_upstream_bytes_total',
    help: 'Bytes of manifests, lists and blobs that came from upstreams',
    labelNames: ['upstream'],
    registers,
  });
  const flights = new Counter({
    name: 'narrows_downloads_total',
    help: 'Blob downloads from upstreams that ended, by outcome',
    labelNames: ['outcome'],
    registers,
  });
  const flying = new Gauge({ name: 'narrows_downloads_running', help: 'Blob downloads that run', registers });
  const lies = new Counter({
    name: 'narrows_platform_lies_total',
    help: 'Children whose config names another platform than their index; answered with the whole index',
    registers,
  });
  const stale = new Counter({
    name: 'narrows_stale_answers_total',
    help: 'Tags answered with what they last meant, the upstream being in trouble',
    registers,
  });
  const troubles = new Counter({
    name: 'narrows_tier_troubles_total',
    help: 'Failures of a storage tier that were treated as a miss',
    labelNames: ['tier'],
    registers,
  });
  const skips = new Counter({
    name: 'narrows_tier_skips_total',
    help: 'Times that a storage tier was passed by, because it is being left alone',
    labelNames: ['tier'],
    registers,
  });
  const evictedBytes = new Counter({
    name: 'narrows_evicted_bytes_total',
    help: 'Bytes that were taken out of a storage tier to keep it within its bound',
    labelNames: ['tier'],
    registers,
  });
  const available = new Gauge({
    name: 'narrows_tier_available',
    help: '1 while a storage tier is used, 0 while it is being left alone',
    aggregator: 'min',
    labelNames: ['tier'],
    registers,
  });

  return {
    toJson: () => registry.getMetricsAsJSON(),
    render: async () => ({ text: await registry.metrics(), contentType: registry.contentType }),
    answered({ status, view, cache, ms, bytes }) {
      sentBytes.inc({ cache: cache ?? 'none' }, bytes);
      requests.inc({ status, view: view ?? 'none', cache: cache ?? 'none' });
      seconds.observe(ms / 1000);
    },
    upstreamSent: (upstream, bytes) => upstreamBytes.inc({ upstream }, bytes),
    upstreamAnswered: (upstream, outcome) => upstreamRequests.inc({ upstream, outcome }),
    pull: {
      flightStarted: () => flying.inc(),
      flightLanded(_digest, { outcome }) {
        flying.dec();
        flights.inc({ outcome });
      },
      platformLie: () => lies.inc(),
      stale: () => stale.inc(),
    },
    tierTrouble: (tier) => troubles.inc({ tier }),
    tierSkipped: (tier) => skips.inc({ tier }),
    evicted: (tier, bytes) => evictedBytes.inc({ tier }, bytes),
    tierAvailable: (tier, isAvailable) => available.set({ tier }, isAvailable ? 1 : 0),
  };
}

/** The metrics of several processes as those of one. */
export async function joinMetrics(all: readonly MetricsJson[]): Promise<{ text: string; contentType: string }> {
  const joined = AggregatorRegistry.aggregate([...all] as object[]);
  return { text: await joined.metrics(), contentType: joined.contentType };
}
