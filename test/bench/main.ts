/**
 * npm run bench [-- --clients 1000 --only narrows --json]: figures of this machine, beside those of what else is
 * installed. `-- --what redis` (or cached, herd, silent, bundle, start) for one of them.
 */
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { table } from '../demo/show.ts';
import { benchBundle } from './bundle.ts';
import type { BundleFigures } from './bundle.ts';
import { benchCached } from './cached.ts';
import type { CachedFigures } from './cached.ts';
import { benchHerd } from './herd.ts';
import type { HerdFigures } from './herd.ts';
import { benchRedis } from './redis.ts';
import type { RedisFigures } from './redis.ts';
import type { ReadResult } from './redis-reader.ts';
import { benchSilentRedis } from './silent-redis.ts';
import type { SilentRedisFigures } from './silent-redis.ts';
import { benchStart } from './start.ts';
import type { StartFigures } from './start.ts';

const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '1000' },
    only: { type: 'string' },
    what: { type: 'string', default: 'cached,herd,redis,silent,bundle,start' },
    gib: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const say = (text: string) => void (values.json || process.stdout.write(text));

say(`${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}\n\n`);
const what = values.what.split(',');
const found: {
  cached?: CachedFigures[] | undefined;
  herd?: HerdFigures[];
  redis?: RedisFigures[];
  silent?: SilentRedisFigures;
  bundle?: BundleFigures[];
  start?: StartFigures[];
} = {};
if (what.includes('cached')) {
  found.cached = await benchCached(Number(values.rounds), (text) => say(`${text}\n`));
  say(found.cached ? `\n${cachedTable(found.cached)}\n` : 'wrk is not installed: nothing measures what is cached\n\n');
}
if (what.includes('herd')) {
  found.herd = await benchHerd(Number(values.clients), values.only, (text) => say(`${text}\n`));
  say(`\n${herdTable(found.herd)}\n`);
}
if (what.includes('redis') && spawnSync('sh', ['-c', 'command -v redis-server']).status === 0) {
  found.redis = await benchRedis(Number(values.rounds), (text) => say(`${text}\n`));
  say(`\n${redisTable(found.redis)}\n`);
}
if (what.includes('silent') && spawnSync('sh', ['-c', 'command -v redis-server']).status === 0) {
  found.silent = await benchSilentRedis((text) => say(`${text}\n`));
  const { p99Ms, addedMs } = found.silent;
  say(
    `p99 ${p99Ms.silent.toFixed(0)} ms, without Redis ${p99Ms.none.toFixed(0)} ms: ${addedMs.toFixed(0)} ms more\n\n`,
  );
}
if (what.includes('bundle')) {
  found.bundle = await benchBundle(Number(values.gib), (text) => say(`${text}\n`));
  say(`\n${bundleTable(found.bundle)}\n`);
}
if (what.includes('start')) {
  found.start = await benchStart(Number(values.rounds), (text) => say(`${text}\n`));
  say(`\n${startTable(found.start)}\n`);
}
if (values.json) process.stdout.write(`${JSON.stringify(found, undefined, 2)}\n`);

function cachedTable(figures: readonly CachedFigures[]): string {
  const rows = figures.map((one) => [
    one.load,
    one.server,
    `${Math.round(one.requestsPerSecond)}/s`,
    `${Math.round(one.bytesPerSecond / 1e6)} MB/s`,
    one.bytesPerSecond > 20e6 ? `${one.cpuSecondsPerGb.toFixed(2)} s/GB` : `${one.cpuMsPerRequest.toFixed(3)} ms`,
    `${Math.round(one.peakMiB)} MiB`,
    String(one.refused),
    Object.values(one.ratios)
      .map((ratio) => ratio.toFixed(2))
      .join('  '),
  ]);
  return table([
    ['load', 'server', 'requests', 'throughput', 'processor', 'peak', 'refused', 'ratio to the others'],
    ...rows,
  ]);
}

function startTable(figures: readonly StartFigures[]): string {
  const rows = figures.map(({ blobs, firstMs, medianMs, residentBytes }) => [
    blobs.toLocaleString('en'),
    `${Math.round(firstMs)} ms`,
    `${Math.round(medianMs)} ms`,
    `${Math.round(residentBytes / 2 ** 20)} MiB`,
  ]);
  return table([['blobs in the store', 'first start', 'later starts', 'memory then'], ...rows]);
}

function bundleTable(figures: readonly BundleFigures[]): string {
  const rows = figures.map((one) => [
    one.command,
    `${(one.bytes / 2 ** 30).toFixed(1)} GiB`,
    `${one.seconds.toFixed(1)} s`,
    `${(one.bytes / 1e6 / one.seconds).toFixed(0)} MB/s`,
    `${((one.cpuSeconds * 1e9) / one.bytes).toFixed(2)} s/GB`,
    `${one.peakRssMiB.toFixed(0)} MiB`,
  ]);
  return table([['command', 'bundle', 'time', 'throughput', 'processor', 'peak memory'], ...rows]);
}

function herdTable(figures: readonly HerdFigures[]): string {
  const rows = figures.map((one) => [
    one.server,
    `${one.right}/${one.clients}`,
    String(one.upstreamGets),
    String(one.upstreamHeads),
    `${one.lastHeadMs.toFixed(0)} ms`,
    `${one.lastFirstByteMs.toFixed(0)} ms`,
    `${one.seconds.toFixed(1)} s`,
    `+${one.rssGrowthMiB.toFixed(0)} MiB`,
    `${one.cpuSeconds.toFixed(1)} s`,
  ]);
  const counts = ['server', 'right', 'upstream GET', 'HEAD'];
  return table([[...counts, 'last head', 'last first byte', 'all done', 'peak memory', 'processor'], ...rows]);
}

function redisTable(figures: readonly RedisFigures[]): string {
  const rows = figures.flatMap(({ readers, raw, tier, ratio }) => [
    [`client library, ${readers} at once`, ...cells(raw), ''],
    [`narrows, ${readers} at once`, ...cells(tier), ratio.toFixed(2)],
  ]);
  return table([['reads of Redis', 'throughput', 'processor', 'longest stall', 'ratio'], ...rows]);
}

function cells(one: ReadResult): string[] {
  return [
    `${one.megabytesPerSecond.toFixed(0)} MB/s`,
    `${one.cpuMsPerMegabyte.toFixed(2)} ms/MB`,
    `${one.longestStallMs.toFixed(0)} ms`,
  ];
}
