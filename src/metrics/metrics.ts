import { AggregatorRegistry, Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { Answered } from '../http/answered.ts';
import type { PullObserver } from '../pull/parts.ts';
import { platformLabel, servedLabel } from './labels.ts';

export type MetricsJson = readonly object[];

/** What is looked up when someone asks for the metrics. */
export interface Gauges {
  readonly stores: readonly { readonly tier: string; readonly bytes: number; readonly maxBytes: number }[];
  /** What is on the disk for one platform alone, for `several`, and for what nobody knows. */
  readonly platforms: readonly { readonly platform: string; readonly bytes: number }[];
  readonly upstreams: readonly {
    readonly name: string;
    readonly remaining?: number;
    readonly limit?: number;
    /** How long it is left alone yet. */
    readonly backoffMs: number;
  }[];
}

export interface Metrics {
  /** The exposition text and its Content-Type. */
  render(): Promise<{ text: string; contentType: string }>;
  /** The same for another process to put together with those of others. */
  toJson(): Promise<MetricsJson>;
  /** Asked each time; the last one that was given counts. */
  observe(gauges: () => Gauges): void;
  answered(answered: Answered): void;
  upstreamAnswered(upstream: string, outcome: string): void;
  upstreamSent(upstream: string, bytes: number): void;
  readonly pull: Omit<PullObserver, 'trouble'>;
  tierTrouble(tier: string): void;
  /** A tier was passed by, because it is being left alone. */
  tierSkipped(tier: string): void;
  tierAvailable(tier: string, isAvailable: boolean): void;
  /** How long a tier took to find out whether it has something. */
  tierAnswered(tier: string, ms: number): void;
  evicted(tier: string, bytes: number): void;
}

const quickly = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10];

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Counter({ name: `narrows_${name}`, help, labelNames, registers });
  const gauge = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge({ name: `narrows_${name}`, help, labelNames, registers });
  /** Of several processes that look at the same thing, one is right. */
  const shared = <L extends string>(name: string, help: string, aggregator: 'max' | 'min', ...labelNames: L[]) =>
    new Gauge({ name: `narrows_${name}`, help, labelNames, registers, aggregator });
  collectDefaultMetrics({ register: registry });

  const requests = counter(
    'requests_total',
    'Answers to clients, by status, view, where the bytes came from, and the platform that the caller was taken for',
    ...(['status', 'view', 'cache', 'platform'] as const),
  );
  const seconds = new Histogram({
    name: 'narrows_request_seconds',
    help: 'Time from the request line to the last byte',
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers,
  });
  const sentBytes = counter(
    'sent_bytes_total',
    'Bytes of whole answers to clients, by where they came from and by platform',
    ...(['cache', 'platform'] as const),
  );
  const upstreamRequests = counter(
    'upstream_requests_total',
    'Requests to upstreams, by status or kind of trouble',
    ...(['upstream', 'outcome'] as const),
  );
  const upstreamBytes = counter(
    'upstream_bytes_total',
    'Bytes of manifests, lists and blobs that came from upstreams',
    'upstream',
  );
  const received = counter('download_bytes_total', 'Bytes of blobs that came from upstreams, by platform', 'platform');
  const spared = gauge(
    'spared_bytes',
    'Bytes of other platforms of the images that were fetched since the start, which a mirror that knows no platforms would have fetched too; a platform that nobody asked for counts like the mean of those that were',
  );
  const flights = counter('downloads_total', 'Blob downloads that ended, by outcome', 'outcome');
  const flying = gauge('downloads_running', 'Blob downloads that run');
  const joins = counter('download_joins_total', 'Readers that joined a download that ran already');
  const resumes = counter('download_resumes_total', 'Times that a download was taken up again where it broke off');
  const mismatches = counter('verification_failures_total', 'Downloads whose bytes were not those of their digest');
  const lies = counter(
    'platform_lies_total',
    'Children whose config names another platform than their index; answered with the whole index',
  );
  const stale = counter(
    'stale_answers_total',
    'Tags answered with what they last meant, the upstream being in trouble',
  );
  const tagAge = new Histogram({
    name: 'narrows_tag_age_seconds',
    help: 'How long ago an upstream was last asked for a tag, when the tag was answered',
    buckets: [1, 10, 60, 600, 3600, 86_400, 604_800],
    registers,
  });
  const troubles = counter('tier_troubles_total', 'Failures of a storage tier that were treated as a miss', 'tier');
  const skips = counter(
    'tier_skips_total',
    'Times that a storage tier was passed by, because it is being left alone',
    'tier',
  );
  const tierSeconds = new Histogram({
    name: 'narrows_tier_seconds',
    help: 'How long a storage tier took to find out whether it has something',
    labelNames: ['tier'],
    buckets: quickly,
    registers,
  });
  const available = shared(
    'tier_available',
    '1 while a storage tier is used, 0 while it is being left alone',
    'min',
    'tier',
  );
  const evictedBytes = counter(
    'evicted_bytes_total',
    'Bytes that were taken out of a storage tier to keep it within its bound',
    'tier',
  );
  const storeBytes = shared('store_bytes', 'Bytes of content in a storage tier', 'max', 'tier');
  const storeMax = shared('store_max_bytes', 'How much a storage tier may hold', 'max', 'tier');
  const platformBytes = shared('store_platform_bytes', 'Bytes on the disk, by platform', 'max', 'platform');
  const budgetLeft = shared(
    'upstream_budget_remaining',
    'Manifests that an upstream still gives out in its window, as its last answer said',
    'min',
    'upstream',
  );
  const budgetLimit = shared('upstream_budget_limit', 'Manifests that it gives out in a window', 'max', 'upstream');
  const backoff = shared(
    'upstream_backoff_seconds',
    'How long an upstream that limited the rate is left alone yet',
    'max',
    'upstream',
  );

  const answers = createSums(({ status, view, cache, platform }, count, bytes) => {
    const label = platformLabel(platform);
    sentBytes.inc({ cache, platform: label }, bytes);
    requests.inc({ status, view, cache, platform: label }, count);
  });

  let look: (() => Gauges) | undefined;
  function refresh(): void {
    answers.tell();
    const found = look?.();
    if (!found) return;
    for (const { tier, bytes, maxBytes } of found.stores) {
      storeBytes.set({ tier }, bytes);
      storeMax.set({ tier }, maxBytes);
    }
    for (const { platform, bytes } of found.platforms) platformBytes.set({ platform }, bytes);
    for (const { name, remaining, limit, backoffMs } of found.upstreams) {
      if (remaining !== undefined) budgetLeft.set({ upstream: name }, remaining);
      if (limit !== undefined) budgetLimit.set({ upstream: name }, limit);
      backoff.set({ upstream: name }, backoffMs / 1000);
    }
  }

  return {
    toJson() {
      refresh();
      return registry.getMetricsAsJSON();
    },
    async render() {
      refresh();
      return { text: await registry.metrics(), contentType: registry.contentType };
    },
    observe: (gauges) => void (look = gauges),
    answered({ status, view = 'none', cache = 'none', platform, ms, bytes }) {
      answers.add({ status, view, cache, platform }, bytes);
      seconds.observe(ms / 1000);
    },
    upstreamSent: (upstream, bytes) => upstreamBytes.inc({ upstream }, bytes),
    upstreamAnswered: (upstream, outcome) => upstreamRequests.inc({ upstream, outcome }),
    pull: {
      flightStarted: () => flying.inc(),
      flightJoined: () => joins.inc(),
      flightResumed: () => resumes.inc(),
      flightReceived: (served, bytes) => received.inc({ platform: servedLabel(served) }, bytes),
      flightMismatched: () => mismatches.inc(),
      flightLanded(_digest, { outcome }) {
        flying.dec();
        flights.inc({ outcome });
      },
      spared: (bytes) => spared.inc(bytes),
      platformLie: () => lies.inc(),
      stale: () => stale.inc(),
      tagAnswered: (ageMs) => tagAge.observe(ageMs / 1000),
    },
    tierTrouble: (tier) => troubles.inc({ tier }),
    tierSkipped: (tier) => skips.inc({ tier }),
    tierAnswered: (tier, ms) => tierSeconds.observe({ tier }, ms / 1000),
    evicted: (tier, bytes) => evictedBytes.inc({ tier }, bytes),
    tierAvailable: (tier, isAvailable) => available.set({ tier }, isAvailable ? 1 : 0),
  };
}

interface AnswerKind {
  readonly status: number;
  readonly view: string;
  readonly cache: string;
  readonly platform: string | undefined;
}

interface Sum {
  readonly kind: AnswerKind;
  count: number;
  bytes: number;
}

function isSame(one: AnswerKind, other: AnswerKind): boolean {
  const { status, view, cache, platform } = other;
  return one.status === status && one.view === view && one.cache === cache && one.platform === platform;
}

const maxKinds = 1000;

/** Sums up answers of a kind until somebody looks: labels are looked up slowly, and there are few kinds. */
function createSums(tellKind: (kind: AnswerKind, count: number, bytes: number) => void) {
  const sums = new Map<string, Sum>();
  /** Mostly the next answer is of the same kind. */
  let last: Sum | undefined;

  function tell(): void {
    for (const { kind, count, bytes } of sums.values()) tellKind(kind, count, bytes);
    sums.clear();
    last = undefined;
  }

  function sumOf(kind: AnswerKind): Sum {
    const key = `${kind.status} ${kind.view} ${kind.cache} ${kind.platform}`;
    const known = sums.get(key);
    if (known) return known;
    // Callers make up platforms.
    if (sums.size >= maxKinds) tell();
    const sum = { kind, count: 0, bytes: 0 };
    sums.set(key, sum);
    return sum;
  }

  return {
    tell,
    add(kind: AnswerKind, bytes: number) {
      if (!last || !isSame(last.kind, kind)) last = sumOf(kind);
      last.count++;
      last.bytes += bytes;
    },
  };
}

/** The metrics of several processes as those of one. */
export async function joinMetrics(all: readonly MetricsJson[]): Promise<{ text: string; contentType: string }> {
  const joined = AggregatorRegistry.aggregate([...all] as object[]);
  return { text: await joined.metrics(), contentType: joined.contentType };
}

/** The same for who goes on counting. */
export async function joinMetricsJson(all: readonly MetricsJson[]): Promise<MetricsJson> {
  return AggregatorRegistry.aggregate([...all] as object[]).getMetricsAsJSON();
}
