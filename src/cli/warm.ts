import { Command } from 'commander';
import { warm } from '../airgap/warm.ts';
import type { WarmedImage } from '../airgap/warm.ts';
import type { Wanted } from '../airgap/image-tree.ts';
import { warmParts } from '../wiring/airgap-parts.ts';
import { platformsFor, readSetName } from './choice.ts';
import { readImageList, wantedOf } from './image-list.ts';
import type { ImageFlags, ImageList } from './image-list.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { createBoard } from './progress-board.ts';
import { collect } from './serve.ts';
import { formatBytes, formatCount, formatDuration, formatTable } from './show.ts';
import { withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface WarmFlags extends StoreFlags, ImageFlags {
  readonly platform?: string[];
  readonly set?: string;
  readonly add?: boolean;
}

/** Where images go that no set was named for. */
export const defaultSet = 'default';

export function warmCommand(io: Io): Command {
  return new Command('warm')
    .description('fetches images for the platforms you run, whole, and keeps them')
    .argument('[image...]', 'as ghcr.io/org/app:1 or alpine@sha256:…')
    .option(
      '-f, --file <file>',
      'a list, any YAML that names images, a folder of such, or - for standard input',
      collect,
    )
    .option('--platform <os/arch>', 'repeatable, or a list with commas, or a named set; any for all', collect)
    .option('--set <name>', 'what to call these images together; they stay until the set is replaced or dropped')
    .option('--add', 'add to the set instead of replacing it')
    .option('--no-referrers', 'leave out signatures, SBOMs and attestations')
    .option('--config <file>', 'configuration in YAML')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  narrows warm -f k8s/ --platform linux/arm64 --set edge-2026-11\n  helm template . | narrows warm -f - --platform linux/arm64',
    )
    .action((images: string[], flags: WarmFlags) => run(images, flags, io));
}

async function run(args: readonly string[], flags: WarmFlags, io: Io): Promise<void> {
  const list = await readImageList(args, flags, io);
  const set = readSetName(flags.set ?? defaultSet);
  const reports = await withWorkbench(flags, io, async (bench) => {
    const platforms = platformsFor(flags.platform, bench);
    const wanted = wantedOf(list, bench.pull.reader, platforms, flags.referrers);
    const done = await warmAll(bench, set, wanted, io);
    // A named set is what it was last said to be; without a name, images come together one by one.
    if (flags.set !== undefined && !flags.add) dropOthers(bench, set, done, io);
    return done;
  });
  if (flags.json) io.out(`${JSON.stringify({ set, images: reports, unusable: list.unusable }, undefined, 2)}\n`);
  else io.out(summary(reports, list, set));
  const failed = reports.filter(({ status }) => status !== 'complete').length;
  if (failed + list.unusable.length > 0) {
    throw new CommandError(
      1,
      `${formatCount(failed + list.unusable.length, 'image')} of ${reports.length + list.unusable.length} not complete; run the same again when the reasons above are mended: what is here is not fetched twice.`,
    );
  }
}

async function warmAll(bench: Workbench, set: string, wanted: readonly Wanted[], io: Io): Promise<WarmedImage[]> {
  const stopping = new AbortController();
  io.onStop(() => stopping.abort());
  const board = createBoard(io, wanted.length);
  try {
    const background = {
      config: bench.config,
      work: bench,
      signal: stopping.signal,
      now: Date.now,
      onWait: (_: string, waitMs: number, why: string) => board.say(`${why} Waiting ${formatDuration(waitMs / 1000)}.`),
    };
    return await warm(warmParts(background, board), set, wanted);
  } finally {
    board.end();
  }
}

/** Only once all that is wanted now is here: what a set was is better than nothing. */
function dropOthers({ storage }: Workbench, set: string, reports: readonly WarmedImage[], io: Io): void {
  if (reports.some(({ status }) => status !== 'complete')) return;
  const { sets } = storage.catalog;
  const wanted = new Set(reports.map(({ image }) => image));
  const others = sets.entries(set).filter(({ image }) => !wanted.has(image));
  for (const { image } of others) sets.remove(set, image);
  if (others.length > 0) io.err(`${formatCount(others.length, 'image')} no longer in the set ${set}\n`);
}

function summary(reports: readonly WarmedImage[], { images, unusable }: ImageList, set: string): string {
  const rows = reports.flatMap(({ image, platforms, status, bytes, fetchedBytes }) => {
    const all = platforms.length > 0 ? platforms : [{ platform: '-', status }];
    return all.map((one, at) => [
      at === 0 ? image : '',
      one.platform,
      one.status,
      at === 0 ? formatBytes(bytes) : '',
      at === 0 ? formatBytes(fetchedBytes) : '',
    ]);
  });
  const table = formatTable(['IMAGE', 'PLATFORM', 'STATUS', 'SIZE', 'FETCHED'], rows);
  const placesOf = new Map(images.map(({ image, places }) => [image, places]));
  const problems = reports.flatMap(({ image, problems: all }) =>
    all.map((problem) => `  ${image}${namedIn(placesOf.get(image))}: ${problem}\n`),
  );
  const skipped = unusable.map((sentence) => `  ${sentence}\n`);
  const complete = reports.filter(({ status }) => status === 'complete').length;
  const fetchedBytes = reports.reduce((total, report) => total + report.fetchedBytes, 0);
  const last = `${complete} of ${formatCount(reports.length, 'image')} complete, ${formatBytes(fetchedBytes)} fetched; they stay as the set ${set}\n`;
  const list = [...problems, ...skipped];
  return `${table}\n${list.length > 0 ? `Not complete:\n${list.join('')}\n` : ''}${last}`;
}

function namedIn(places: readonly string[] | undefined): string {
  return places?.[0] === undefined ? '' : ` (${places[0]})`;
}
