import { Command } from 'commander';
import { keepUp } from '../airgap/keep-up.ts';
import { parseHours } from '../airgap/schedule.ts';
import { warm } from '../airgap/warm.ts';
import type { WarmedImage } from '../airgap/warm.ts';
import type { Config } from '../config.ts';
import { count, duration, size } from '../config-values.ts';
import { warmParts } from '../wiring/airgap-parts.ts';
import type { Background } from '../wiring/airgap-parts.ts';
import { warmSets } from '../wiring/keeper.ts';
import { platformsFor, readSetName } from './choice.ts';
import { placesOf, readImageList, wantedOf } from './image-list.ts';
import type { ImageFlags } from './image-list.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { createBoard } from './progress-board.ts';
import type { Board } from './progress-board.ts';
import { collect } from './serve.ts';
import { formatBytes, formatCount, formatDuration, formatTable, printable } from './show.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface WarmFlags extends StoreFlags, ImageFlags {
  readonly platform?: string[];
  readonly set?: string;
  readonly add?: boolean;
  readonly watch?: boolean;
  readonly every?: string;
  readonly jobs?: string;
  readonly bandwidth?: string;
}

/** Where images go that no set was named for. */
export const defaultSet = 'default';

export function warmCommand(io: Io): Command {
  return withStoreOptions(
    new Command('warm')
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
      .option('--watch', 'stay, and fetch what moved every so often')
      .option('--every <duration>', 'how often; else what warm.every says, or 1h')
      .option('--jobs <count>', 'downloads at once; else warm.downloads')
      .option('--bandwidth <size>', 'what all of it may take in a second, as 5MiB; else warm.bandwidth')
      .option('--no-referrers', 'leave out signatures, SBOMs and attestations'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  narrows warm -f k8s/ --platform linux/arm64 --set edge-2026-11\n  helm template . | narrows warm -f - --platform linux/arm64',
    )
    .action((images: string[], flags: WarmFlags) => run(images, flags, io));
}

async function run(args: readonly string[], flags: WarmFlags, io: Io): Promise<void> {
  const list = await readImageList(args, flags, io);
  const set = readSetName(flags.set ?? defaultSet);
  const everyMs = flags.every === undefined ? undefined : readValue('--every', flags.every, duration);
  const stopping = new AbortController();
  io.onStop(() => stopping.abort());
  let places: ReadonlyMap<string, readonly string[]> = new Map();
  const reports = await withWorkbench(flags, io, async (opened) => {
    const bench = { ...opened, config: withLimits(opened.config, flags) };
    const platforms = platformsFor(flags.platform, bench);
    const wanted = wantedOf(list, bench.pull.reader, platforms, flags.referrers);
    places = placesOf(list, bench.pull.reader);
    if (wanted.length === 0) throw new CommandError(2, 'Say which images: as arguments, or with -f FILE.');
    const done = await onBoard(bench, io, wanted.length, stopping.signal, (background, board) =>
      warm(warmParts(background, board), set, wanted),
    );
    // A named set is what it was last said to be; without a name, images come together one by one.
    if (flags.set !== undefined && !flags.add && list.unusable.length === 0) dropOthers(bench, set, done, io);
    if (!flags.watch) return done;
    io.out(summary(done, places, list.unusable, set));
    await watch(bench, set, everyMs ?? bench.config.warm.every ?? defaultEveryMs, stopping.signal, io);
    return undefined;
  });
  if (!reports) return;
  if (flags.json) io.out(`${JSON.stringify({ set, images: reports, unusable: list.unusable }, undefined, 2)}\n`);
  else io.out(summary(reports, places, list.unusable, set));
  const failed = reports.filter(({ status }) => status !== 'complete').length + list.unusable.length;
  if (failed === 0) return;
  const all = formatCount(reports.length + list.unusable.length, 'image');
  throw new CommandError(
    1,
    `${failed} of ${all} not complete. Mend what is said above and run the same again: nothing is fetched twice.`,
  );
}

const defaultEveryMs = 3_600_000;

/** What the command line says goes before what the configuration does. */
function withLimits(config: Config, { jobs, bandwidth }: WarmFlags): Config {
  return {
    ...config,
    warm: {
      ...config.warm,
      ...(jobs !== undefined && { downloads: readValue('--jobs', Number(jobs), count) }),
      ...(bandwidth !== undefined && { bandwidth: readValue('--bandwidth', bandwidth, size) }),
    },
  };
}

function readValue(flag: string, value: unknown, kind: typeof size | typeof count): number {
  const read = kind.safeParse(value);
  if (read.success && read.data > 0) return read.data;
  throw new CommandError(
    2,
    `${flag} ${String(value)}: ${read.error?.issues[0]?.message ?? 'expected more than nothing'}.`,
  );
}

async function onBoard<T>(
  { config, ...work }: Workbench,
  io: Io,
  imageCount: number,
  signal: AbortSignal,
  action: (background: Background, board: Board) => Promise<T>,
): Promise<T> {
  const board = createBoard(io, imageCount);
  const onWait = (_: string, waitMs: number, why: string) =>
    board.say(`${why} Waiting ${formatDuration(waitMs / 1000)}.`);
  try {
    return await action({ config, work, signal, now: Date.now, onWait }, board);
  } finally {
    board.end();
  }
}

/** Until it is stopped. Trouble in one round is for the next one to mend. */
async function watch(bench: Workbench, set: string, everyMs: number, signal: AbortSignal, io: Io): Promise<void> {
  const { sets } = bench.storage.catalog;
  await keepUp({
    everyMs,
    hours: bench.config.warm.hours.map(parseHours),
    signal,
    now: Date.now,
    onWait: (untilMs) => io.err(`looking again at ${new Date(untilMs).toLocaleTimeString()}\n`),
    async round(ending) {
      const reports = await onBoard(bench, io, sets.entries(set).length, ending, (background, board) =>
        warmSets(background, board, (name) => name === set),
      );
      if (!reports) return io.err('another process keeps this store warm; looking again later\n');
      const fetchedBytes = reports.reduce((total, report) => total + report.fetchedBytes, 0);
      const failed = reports.filter(({ status }) => status !== 'complete').length;
      io.out(`${formatCount(reports.length, 'image')}, ${formatBytes(fetchedBytes)} fetched, ${failed} not complete\n`);
    },
  });
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

function summary(
  reports: readonly WarmedImage[],
  places: ReadonlyMap<string, readonly string[]>,
  unusable: readonly string[],
  set: string,
): string {
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
  const problems = reports.flatMap(({ image, problems: all }) =>
    all.map((problem) => `  ${image}${namedIn(places.get(image))}: ${problem}\n`),
  );
  const skipped = unusable.map((sentence) => `  ${sentence}\n`);
  const complete = reports.filter(({ status }) => status === 'complete').length;
  const fetchedBytes = reports.reduce((total, report) => total + report.fetchedBytes, 0);
  const last = `${complete} of ${formatCount(reports.length, 'image')} complete, ${formatBytes(fetchedBytes)} fetched; they stay as the set ${set}\n`;
  const list = [...problems, ...skipped];
  return `${table}\n${list.length > 0 ? `Not complete:\n${printable(list.join(''))}\n` : ''}${last}`;
}

function namedIn(places: readonly string[] | undefined): string {
  return places?.[0] === undefined ? '' : ` (${places[0]})`;
}
