import { join } from 'node:path';
import t from 'tap';
import { createRecords } from '../../src/cache/records.ts';
import type { DemandRecord } from '../../src/cache/records.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'], seed: 'demanded' });
const beginMs = Date.parse('2026-01-01');
const minuteMs = 60_000;
const app = 'docker.io/library/app';

async function stage(t: Teardown) {
  const clock = { ms: beginMs };
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  for (const name of ['app', 'mark-1', 'mark-2']) upstream.putImage(`library/${name}`, '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, now: () => clock.ms });
  const database = openSqliteRecords(join(mirror.store, 'records.sqlite'), 2 ** 20);
  t.teardown(() => database.close());
  const { demand } = createRecords({
    local: database.adapter,
    onTrouble(error) {
      throw error;
    },
  });
  /** What is written down when it is so. */
  const noted = async (holds: (record: DemandRecord) => boolean, what: string) => {
    let record: DemandRecord | undefined;
    await until(async () => (record = await demand.get(app)) !== undefined && holds(record), what);
    return record!;
  };
  const pull = (platform: string, reference = '1', name = app) =>
    mirror.get(`${platform && `/p/${platform}`}/v2/${name}/manifests/${reference}`, { accept });
  let marks = 0;
  /** Whatever was to be written before this has been: a repository that nobody asked for yet is asked for last. */
  const settled = async () => {
    const mark = `docker.io/library/mark-${++marks}`;
    await pull('linux-arm64', '1', mark);
    await until(async () => (await demand.get(mark)) !== undefined, 'the last note');
    return demand.get(app);
  };
  return { clock, mirror, noted, pull, settled };
}

void t.test('who pulls a tag for a platform is noted, with the time', async (t) => {
  const { clock, noted, pull } = await stage(t);
  t.equal((await pull('linux-arm64')).status, 200);
  t.same(await noted(() => true, 'the platform'), { platforms: { 'linux/arm64': beginMs }, notedAtMs: beginMs });
  clock.ms += minuteMs;
  await pull('linux-amd64');
  t.same(await noted(({ platforms }) => 'linux/amd64' in platforms, 'the other platform'), {
    platforms: { 'linux/amd64': beginMs + minuteMs, 'linux/arm64': beginMs },
    notedAtMs: beginMs + minuteMs,
  });
});

void t.test('who asks for several platforms at once copies them, and runs none', async (t) => {
  const { pull, settled } = await stage(t);
  t.equal((await pull('linux-amd64_linux-arm64')).status, 200);
  t.same(Object.keys((await settled())?.platforms ?? {}), []);
});

void t.test('many at once, each for another platform: none is lost', async (t) => {
  const { pull, settled } = await stage(t);
  await Promise.all(['linux-amd64', 'linux-arm64', 'linux-arm-v7'].map((platform) => pull(platform)));
  const { platforms = {} } = (await settled()) ?? {};
  t.same(Object.keys(platforms).toSorted(), ['linux/amd64', 'linux/arm/v7', 'linux/arm64']);
});

void t.test('of whoever says no platform, the child that it fetches by digest tells', async (t) => {
  const { noted, pull, settled } = await stage(t);
  const arm64 = image.children[1]!.manifest.digest;
  t.equal((await pull('')).status, 200);
  t.equal((await pull('', image.index.digest)).status, 200);
  t.equal(await settled(), undefined, 'the index is for all of them, and tells nothing');
  t.equal((await pull('', arm64)).status, 200);
  t.same((await noted(() => true, 'the platform')).platforms, { 'linux/arm64': beginMs });
});

void t.test('any, a HEAD, blobs and lists teach nothing', async (t) => {
  const { mirror, pull, settled } = await stage(t);
  const [child] = image.children as [(typeof image.children)[number]];
  t.equal((await pull('any')).status, 200);
  t.equal((await pull('any', child.manifest.digest)).status, 200);
  t.equal((await mirror.head(`/p/linux-arm64/v2/${app}/manifests/1`, { accept })).status, 200);
  t.equal((await mirror.head(`/v2/${app}/manifests/${child.manifest.digest}`, { accept })).status, 200);
  t.equal((await mirror.get(`/p/linux-arm64/v2/${app}/blobs/${child.config.digest}`)).status, 200);
  t.equal((await mirror.get(`/p/linux-arm64/v2/${app}/tags/list`)).status, 200);
  t.equal(await settled(), undefined);
});

void t.test('what is refused teaches nothing', async (t) => {
  const { pull, settled } = await stage(t);
  t.equal((await pull('linux-riscv64')).status, 404, 'a platform that there is not');
  t.equal((await pull('linux-arm64', 'nothing')).status, 404);
  t.equal(await settled(), undefined);
});

void t.test('it is written once an hour: within it the first time stands, after it the new one', async (t) => {
  const { clock, noted, pull, settled } = await stage(t);
  await pull('linux-arm64');
  await noted(() => true, 'the platform');
  clock.ms += 59 * minuteMs;
  await pull('linux-arm64');
  t.same((await settled())?.platforms, { 'linux/arm64': beginMs });
  clock.ms += 2 * minuteMs;
  await pull('linux-arm64');
  t.same((await settled())?.platforms, { 'linux/arm64': beginMs + 61 * minuteMs });
});

void t.test('it outlives the mirror', async (t) => {
  const { mirror, noted, pull } = await stage(t);
  await pull('linux-arm64');
  await noted(() => true, 'the platform');
  await mirror.stop();
  t.same((await noted(() => true, 'the platform')).platforms, { 'linux/arm64': beginMs });
});
