import { Command } from 'commander';
import { collectable } from '../cache/collect.ts';
import type { Collectable } from '../cache/collect.ts';
import { isWanted } from '../pull/keeping.ts';
import type { Swept } from '../push/sweep.ts';
import { keptPlatforms } from '../wiring/pull-rules.ts';
import { openSweeper } from '../wiring/push-parts.ts';
import type { Io } from './io.ts';
import { collect } from './serve.ts';
import { formatBytes, formatCount, formatTable, showProgress } from './show.ts';
import { readPlatforms, withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface GcFlags extends StoreFlags {
  readonly dryRun?: boolean;
  readonly keepPlatform?: string[];
}

export function gcCommand(io: Io): Command {
  return withStoreOptions(
    new Command('gc')
      .description('takes away what is too much: what serves other platforms, then the least recently used')
      .option(
        '--keep-platform <os/arch>',
        'what serves others alone goes; repeatable, or a list, or a named set',
        collect,
      )
      .option('--dry-run', 'say what would go, and leave it'),
  )
    .addHelpText('after', '\nExample:\n  narrows gc --keep-platform linux/arm64 --dry-run')
    .action((flags: GcFlags) => withWorkbench(flags, io, (bench) => gc(bench, flags, io)));
}

async function gc(bench: Workbench, flags: GcFlags, io: Io): Promise<void> {
  const { storage, sets, config } = bench;
  const swept = flags.dryRun ? undefined : await sweep(bench);
  await storage.reconciled;
  const { catalog } = storage;
  const keep = flags.keepPlatform ? readPlatforms(flags.keepPlatform, sets) : keptPlatforms(config, sets);
  const heldBytes = catalog.totalBytes();
  const found = [
    ...collectable({ catalog, maxBytes: config.cache.disk.maxSize, isWanted: (served) => isWanted(served, keep) }),
  ];
  const goingBytes = found.reduce((sum, { bytes }) => sum + bytes, 0);
  if (!flags.dryRun) await takeAway(storage, found, goingBytes, io);
  if (flags.json) {
    io.out(
      `${JSON.stringify({ dryRun: flags.dryRun ?? false, heldBytes, goingBytes, blobs: found, hosted: swept }, undefined, 2)}\n`,
    );
    return;
  }
  if (swept && swept.blobs + swept.manifests > 0) {
    const what = `${formatCount(swept.manifests, 'manifest')} and ${formatCount(swept.blobs, 'blob')}`;
    io.out(`${what} of what is hosted here had no use any more (${formatBytes(swept.bytes)})\n`);
  }
  if (found.length > 0) io.out(`${tableOf(found)}\n`);
  const goes = flags.dryRun ? 'would go' : 'gone';
  io.out(`${formatCount(found.length, 'blob')}, ${formatBytes(goingBytes)} of ${formatBytes(heldBytes)} ${goes}\n`);
}

/** What was pushed here and nothing refers to; its content goes with what is least recently used. */
async function sweep({ storage, config }: Workbench): Promise<Swept | undefined> {
  return storage.hosted && openSweeper({ config, now: Date.now }, storage.hosted).sweep();
}

async function takeAway(
  { disk, store }: Workbench['storage'],
  found: readonly Collectable[],
  totalBytes: number,
  io: Io,
): Promise<void> {
  const progress = showProgress(io, 'removing', totalBytes);
  for (const { digest, bytes, reason } of found) {
    await disk.delete(digest);
    // The bound is that of this disk; a platform that nobody runs is not wanted anywhere.
    if (reason === 'platform') await store.distrust(digest);
    progress.add(bytes);
  }
  progress.end();
}

/** By what it is for: single blobs are what JSON is for. */
function tableOf(found: readonly Collectable[]): string {
  const groups = new Map<string, { reason: string; platforms: string; blobs: number; bytes: number }>();
  for (const { reason, platforms, bytes } of found) {
    const serves = platforms.length > 0 ? platforms.join(', ') : 'unknown';
    const group = groups.get(`${reason} ${serves}`) ?? { reason, platforms: serves, blobs: 0, bytes: 0 };
    group.blobs++;
    group.bytes += bytes;
    groups.set(`${reason} ${serves}`, group);
  }
  const why = { platform: 'other platform', bound: 'least recently used' } as Record<string, string>;
  const rows = [...groups.values()]
    .toSorted((one, other) => other.bytes - one.bytes)
    .map(({ reason, platforms, blobs, bytes }) => [platforms, why[reason]!, String(blobs), formatBytes(bytes)]);
  return formatTable(['SERVES', 'WHY', 'BLOBS', 'SIZE'], rows);
}
