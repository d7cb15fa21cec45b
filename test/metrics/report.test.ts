import t from 'tap';
import { createMetrics, joinMetricsJson } from '../../src/metrics/metrics.ts';
import { reportOf } from '../../src/metrics/report.ts';

function counted() {
  const metrics = createMetrics();
  const answered = { id: 'x', method: 'GET', url: '/', status: 200, ms: 5, client: '::1', isWhole: true };
  metrics.answered({ ...answered, bytes: 100, cache: 'hit-disk', platform: 'linux/arm64; via=path' });
  metrics.answered({ ...answered, bytes: 50, cache: 'miss', platform: 'linux/amd64; via=path' });
  for (const outcome of ['200', '404', '503', 'rateLimited']) metrics.upstreamAnswered('up', outcome);
  metrics.upstreamSent('up', 70);
  metrics.tierAvailable('redis', false);
  metrics.observe(() => ({
    stores: [
      { tier: 'disk', bytes: 5, maxBytes: 10 },
      { tier: 'redis', bytes: 1, maxBytes: 2 },
    ],
    platforms: [{ platform: 'linux/arm64', bytes: 5 }],
    upstreams: [{ name: 'quiet', remaining: 3, limit: 100, backoffMs: 2000 }],
  }));
  return metrics;
}

void t.test('report: metrics in the words of people', async (t) => {
  const report = reportOf(await counted().toJson());
  t.match(report, {
    platforms: [
      { platform: 'linux/amd64', requests: 1, bytes: 50 },
      { platform: 'linux/arm64', requests: 1, bytes: 100 },
    ],
    sources: [
      { cache: 'hit-disk', requests: 1, bytes: 100 },
      { cache: 'miss', requests: 1, bytes: 50 },
    ],
    sentBytes: 150,
    upstreamBytes: 70,
    upstreams: [
      { name: 'up', requests: 4, troubles: 2, bytes: 70, backoffS: 0 },
      { name: 'quiet', requests: 0, remaining: 3, limit: 100, backoffS: 2 },
    ],
    stores: [
      { tier: 'disk', bytes: 5, maxBytes: 10, isAvailable: true },
      { tier: 'redis', isAvailable: false },
    ],
    held: [{ platform: 'linux/arm64', bytes: 5 }],
  });
  t.ok(report.residentBytes > 1_000_000);
});

void t.test('report: of several processes together', async (t) => {
  const joined = await joinMetricsJson([await counted().toJson(), await counted().toJson()]);
  const report = reportOf(joined);
  t.equal(report.sentBytes, 300);
  t.match(report.stores[0], { tier: 'disk', bytes: 5 });
  t.match(report.upstreams[0], { name: 'up', requests: 8 });
});

void t.test('report: of nothing yet', async (t) => {
  const report = reportOf(await createMetrics().toJson());
  t.match(report, { platforms: [], sources: [], sentBytes: 0, upstreamBytes: 0, sparedBytes: 0, upstreams: [] });
});
