import { table } from '../demo/show.ts';
import type { BundleFigures } from './bundle.ts';
import type { CachedFigures } from './cached.ts';
import type { ChurnFigures } from './churn.ts';
import type { ColdFigures } from './cold.ts';
import type { CrowdFigures } from './crowd.ts';
import type { HerdFigures } from './herd.ts';
import type { ImagesFigures } from './images.ts';
import type { RedisFigures } from './redis.ts';
import type { ReadResult } from './redis-reader.ts';
import type { StartFigures } from './start.ts';

/** `1.21 nginx  1.98 docker-registry`: how much faster than each of the others. */
function ratios(all: Readonly<Record<string, number>>): string {
  return Object.entries(all)
    .map(([server, ratio]) => `${ratio.toFixed(2)} ${server}`)
    .join('  ');
}

export function cachedTable(figures: readonly CachedFigures[]): string {
  const rows = figures.map((one) => {
    const isLarge = one.bytesPerSecond / one.requestsPerSecond > 100_000 || one.requestsPerSecond === 0;
    const spread = one.spread.map((bytes) => (bytes / 1e6).toFixed(0)).join(' to ');
    return [
      one.load,
      one.server,
      isLarge ? `${Math.round(one.bytesPerSecond / 1e6)} MB/s` : `${Math.round(one.requestsPerSecond)}/s`,
      `${spread} MB/s`,
      isLarge ? `${one.cpuSecondsPerGb.toFixed(2)} s/GB` : `${one.cpuMsPerRequest.toFixed(3)} ms each`,
      `${Math.round(one.rssMiB)} MiB`,
      one.refused === 0 ? '' : `${one.refused} refused`,
      one.server.startsWith('narrows') ? ratios(one.ratios) : '',
    ];
  });
  return table([['load', 'server', 'median', 'spread', 'processor', 'memory', '', 'faster than, times'], ...rows]);
}

export function coldTable(figures: readonly ColdFigures[]): string {
  const rows = figures.map((one) => [
    one.load,
    one.server,
    `${one.firstByteMs.toFixed(1)} ms`,
    `${one.seconds.toFixed(3)} s`,
    one.spread.map((seconds) => seconds.toFixed(3)).join(' to '),
    one.server === 'narrows' ? ratios(one.ratios) : '',
  ]);
  return table([['blob', 'server', 'first byte', 'all of it', 'spread', 'faster than, times'], ...rows]);
}

export function crowdTable(figures: readonly CrowdFigures[]): string {
  const rows = figures.map((one) => [
    one.server,
    String(one.clients),
    `${Math.round(one.bytesPerSecond / 1e6)} MB/s`,
    `${Math.round(one.idleMiB)} MiB`,
    `${Math.round(one.rssMiB)} MiB`,
  ]);
  return table([['server', 'clients of 1 GiB', 'throughput', 'memory before', 'memory meanwhile'], ...rows]);
}

export function imagesTable(figures: readonly ImagesFigures[]): string {
  const rows = figures.map((one) => [
    `${one.latencyMs} ms`,
    one.server,
    `${one.coldSeconds.toFixed(2)} s`,
    `${one.againSeconds.toFixed(2)} s`,
    `${one.movedRatio.toFixed(2)} ×`,
    one.server === 'direct' ? '' : `${one.cpuSeconds.toFixed(1)} s`,
  ]);
  return table([
    ['upstream away', 'server', 'eight images', 'once more', 'moved, of the images', 'processor'],
    ...rows,
  ]);
}

export function churnTable(figures: readonly ChurnFigures[]): string {
  const rows = figures.map((one) => [
    one.server,
    one.room,
    `${Math.round(one.blobsPerSecond)}/s`,
    `${one.cpuMsEach.toFixed(2)} ms each`,
    `${Math.round(one.storeMiB)} MiB`,
  ]);
  return table([['server', 'room', 'blobs of 256 KiB', 'processor', 'on the disk then'], ...rows]);
}

export function startTable(figures: readonly StartFigures[]): string {
  const rows = figures.map(({ blobs, firstMs, medianMs, residentBytes }) => [
    blobs.toLocaleString('en'),
    `${Math.round(firstMs)} ms`,
    `${Math.round(medianMs)} ms`,
    `${Math.round(residentBytes / 2 ** 20)} MiB`,
  ]);
  return table([['blobs in the store', 'first start', 'later starts', 'memory then'], ...rows]);
}

export function bundleTable(figures: readonly BundleFigures[]): string {
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

export function herdTable(figures: readonly HerdFigures[]): string {
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

export function redisTable(figures: readonly RedisFigures[]): string {
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
