import t from 'tap';
import { parseDigest } from '../../src/oci/digest.ts';
import { createMetrics, joinMetrics } from '../../src/metrics/metrics.ts';
import type { Metrics } from '../../src/metrics/metrics.ts';

const digest = parseDigest(`sha256:${'0'.repeat(64)}`);

const answered = (more: object = {}) => ({
  id: 'x',
  method: 'GET',
  url: '/v2/',
  status: 200,
  ms: 30,
  client: '127.0.0.1',
  isWhole: true,
  bytes: 5,
  ...more,
});

/** The samples of the exposition text, each by its name and labels in order. */
async function samplesOf(metrics: Metrics): Promise<Map<string, number>> {
  const { text } = await metrics.render();
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    samples.map((line) => {
      const [, name = '', labels = '', value = ''] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      return [`${name}{${labels.split(',').toSorted().join()}}`, Number(value)];
    }),
  );
}

void t.test('metrics: answers are counted by status, view and where the bytes came from', async (t) => {
  const metrics = createMetrics();
  metrics.answered(answered({ view: 'image', cache: 'miss' }));
  metrics.answered(answered({ view: 'image', cache: 'miss' }));
  metrics.answered(answered({ status: 404 }));
  const samples = await samplesOf(metrics);
  t.equal(samples.get('narrows_requests_total{cache="miss",platform="none",status="200",view="image"}'), 2);
  t.equal(samples.get('narrows_requests_total{cache="none",platform="none",status="404",view="none"}'), 1);
});

void t.test('metrics: how long answers took is told in seconds', async (t) => {
  const metrics = createMetrics();
  for (const ms of [3, 30, 700]) metrics.answered(answered({ ms }));
  const samples = await samplesOf(metrics);
  t.equal(samples.get('narrows_request_seconds_count{}'), 3);
  t.ok(Math.abs(samples.get('narrows_request_seconds_sum{}')! - 0.733) < 1e-9);
  t.equal(samples.get('narrows_request_seconds_bucket{le="0.005"}'), 1);
  t.equal(samples.get('narrows_request_seconds_bucket{le="0.1"}'), 2);
  t.equal(samples.get('narrows_request_seconds_bucket{le="+Inf"}'), 3);
});

void t.test('metrics: a download is running until it lands, well or not', async (t) => {
  const metrics = createMetrics();
  const { pull } = metrics;
  for (let at = 0; at < 3; at++) pull.flightStarted(digest);
  t.equal((await samplesOf(metrics)).get('narrows_downloads_running{}'), 3);
  pull.flightLanded(digest, { outcome: 'done' });
  pull.flightLanded(digest, { outcome: 'failed', error: new Error('cut') });
  const samples = await samplesOf(metrics);
  t.equal(samples.get('narrows_downloads_running{}'), 1);
  t.equal(samples.get('narrows_downloads_total{outcome="done"}'), 1);
  t.equal(samples.get('narrows_downloads_total{outcome="failed"}'), 1);
});

void t.test('metrics: upstream answers, lies, stale answers and broken tiers have counters of their own', async (t) => {
  const metrics = createMetrics();
  metrics.upstreamAnswered('docker.io', '200');
  metrics.upstreamAnswered('docker.io', '200');
  metrics.upstreamAnswered('ghcr.io', 'timeout');
  metrics.pull.platformLie('docker.io/library/x', digest);
  metrics.pull.stale('docker.io/library/x', 'latest', new Error('down'));
  metrics.tierTrouble('disk');
  const samples = await samplesOf(metrics);
  t.equal(samples.get('narrows_upstream_requests_total{outcome="200",upstream="docker.io"}'), 2);
  t.equal(samples.get('narrows_upstream_requests_total{outcome="timeout",upstream="ghcr.io"}'), 1);
  t.equal(samples.get('narrows_platform_lies_total{}'), 1);
  t.equal(samples.get('narrows_stale_answers_total{}'), 1);
  t.equal(samples.get('narrows_tier_troubles_total{tier="disk"}'), 1);
});

void t.test('metrics: the text is what Prometheus reads, each name with its help and type', async (t) => {
  const { text, contentType } = await createMetrics().render();
  t.match(contentType, /^text\/plain; version=/);
  const told = (kind: string) =>
    [...text.matchAll(new RegExp(`^# ${kind} (\\S+) \\S`, 'gm'))].map(([, name = '']) => name);
  t.ok(told('TYPE').length >= 8, told('TYPE').join());
  t.same(new Set(told('HELP')), new Set(told('TYPE')));
  // Of the process and of Node.js, the names that their dashboards know.
  for (const name of told('TYPE')) t.match(name, /^(?:narrows|process|nodejs)_[a-z0-9_]+$/);
});

void t.test('metrics: two mirrors in one process do not count each other', async (t) => {
  const [one, other] = [createMetrics(), createMetrics()];
  one.tierTrouble('disk');
  one.pull.stale('x', 'y', undefined);
  t.equal((await samplesOf(other)).get('narrows_tier_troubles_total{tier="disk"}'), undefined);
  t.equal((await samplesOf(other)).get('narrows_stale_answers_total{}'), 0);
  t.equal((await samplesOf(one)).get('narrows_stale_answers_total{}'), 1);
});

void t.test('metrics: no label holds what a caller chose', async (t) => {
  const metrics = createMetrics();
  for (let at = 0; at < 50; at++) {
    metrics.answered(
      answered({ id: `id-${at}`, url: `/v2/name-${at}/manifests/1`, client: `10.0.0.${at}`, platform: `os-${at}/x` }),
    );
    metrics.pull.stale(`docker.io/name-${at}`, `tag-${at}`, new Error(`error-${at}`));
    metrics.pull.platformLie(`docker.io/name-${at}`, digest);
  }
  const { text } = await metrics.render();
  const own = text.split('\n').filter((line) => line.startsWith('narrows_'));
  t.notMatch(own.join('\n'), /-\d|10\.0\.0|sha256/);
});

void t.test('metrics: what is looked up is looked up when it is asked for', async (t) => {
  const metrics = createMetrics();
  let bytes = 0;
  metrics.observe(() => ({
    stores: [{ tier: 'disk', bytes: (bytes += 10), maxBytes: 1000 }],
    platforms: [{ platform: 'linux/arm64', bytes: 7 }],
    upstreams: [
      { name: 'docker.io', remaining: 76, limit: 100, backoffMs: 1500 },
      { name: 'ghcr.io', backoffMs: 0 },
    ],
  }));
  await samplesOf(metrics);
  const samples = await samplesOf(metrics);
  t.equal(samples.get('narrows_store_bytes{tier="disk"}'), 20);
  t.equal(samples.get('narrows_store_max_bytes{tier="disk"}'), 1000);
  t.equal(samples.get('narrows_store_platform_bytes{platform="linux/arm64"}'), 7);
  t.equal(samples.get('narrows_upstream_budget_remaining{upstream="docker.io"}'), 76);
  t.equal(samples.get('narrows_upstream_backoff_seconds{upstream="docker.io"}'), 1.5);
  t.equal(samples.get('narrows_upstream_backoff_seconds{upstream="ghcr.io"}'), 0);
  t.equal(samples.get('narrows_upstream_budget_remaining{upstream="ghcr.io"}'), undefined, 'nobody said');
});

void t.test('metrics: those of several processes: what each counts adds up, what all look at does not', async (t) => {
  const [one, other] = [createMetrics(), createMetrics()];
  for (const metrics of [one, other]) {
    metrics.pull.spared(100);
    metrics.pull.flightReceived(['linux/arm64'], 50);
    metrics.observe(() => ({ stores: [{ tier: 'disk', bytes: 10, maxBytes: 20 }], platforms: [], upstreams: [] }));
  }
  one.pull.spared(-30);
  const { text } = await joinMetrics([await one.toJson(), await other.toJson()]);
  t.match(text, /^narrows_spared_bytes 170$/m);
  t.match(text, /^narrows_download_bytes_total\{platform="linux\/arm64"\} 100$/m);
  t.match(text, /^narrows_store_bytes\{tier="disk"\} 10$/m);
});
