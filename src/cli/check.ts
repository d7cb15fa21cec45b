import { Command } from 'commander';
import { check } from '../airgap/check.ts';
import type { CheckedImage, CheckedPlatform } from '../airgap/check.ts';
import { sum } from '../airgap/parts.ts';
import { createTurns } from '../airgap/turns.ts';
import { chosenImages } from './choice.ts';
import type { ChoiceFlags } from './choice.ts';
import { readImageList } from './image-list.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { collect } from './serve.ts';
import { formatBytes, formatCount, formatTable, printable } from './show.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags } from './workbench.ts';

interface CheckFlags extends StoreFlags, ChoiceFlags {
  readonly details?: boolean;
}

/** Each looks at hundreds of files. */
const atOnce = 8;

export function checkCommand(io: Io): Command {
  return withStoreOptions(
    new Command('check')
      .description('is each image here, whole, for each platform? Asks this store alone')
      .argument('[image...]', 'as ghcr.io/org/app:1 or alpine@sha256:…; none for all sets')
      .option(
        '-f, --file <file>',
        'a list, any YAML that names images, a folder of such, or - for standard input',
        collect,
      )
      .option('--platform <os/arch>', 'repeatable, or a list with commas, or a named set; any for all', collect)
      .option('--set <name>', 'the images of this set, for the platforms that it was made for')
      .option('--no-referrers', 'do not look for signatures, SBOMs and attestations')
      .option('--details', 'also list each digest that is missing'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  narrows check --set edge-2026-11\n  narrows check -f k8s/ --platform linux/arm64',
    )
    .action((images: string[], flags: CheckFlags) => run(images, flags, io));
}

async function run(args: readonly string[], flags: CheckFlags, io: Io): Promise<void> {
  const list = await readImageList(args, flags, io);
  const checked = await withWorkbench({ ...flags, offline: true }, io, async (bench) => {
    const turns = createTurns(atOnce);
    const wanted = chosenImages(bench, list, flags);
    const all = await Promise.all(wanted.map((one) => turns.run(() => check(bench.pull.reader, one))));
    return [...new Map(all.flat().map((one) => [one.image, one])).values()];
  });
  const lacking = checked.filter(({ status }) => status !== 'complete');
  const isWhole = lacking.length + list.unusable.length === 0;
  if (flags.json) {
    io.out(`${JSON.stringify({ complete: isWhole, images: checked, unusable: list.unusable }, undefined, 2)}\n`);
  } else {
    io.out(tableOf(checked));
    if (flags.details) io.out(detailsOf(checked));
    for (const sentence of list.unusable) io.out(`\n${printable(sentence)}\n`);
  }
  if (!isWhole) throw new CommandError(1, advice(checked, lacking, flags));
  if (!flags.json) io.out(`\n${formatCount(checked.length, 'image')} complete: nothing of them is missing here\n`);
}

const aboutAll = '(index, signatures)';

function tableOf(checked: readonly CheckedImage[]): string {
  const rows = checked.flatMap(({ image, platforms, status, problem }) => {
    const shown = platforms.filter(({ platform, bytes }) => platform !== '' || bytes > 0);
    if (shown.length === 0) return [[image, '-', status, '-', '-', problem ?? '']];
    return shown.map((one, at) => [
      at === 0 ? image : '',
      one.platform || aboutAll,
      one.status,
      one.status === 'absent' || one.status === 'not offered' || one.status === 'supplied'
        ? '-'
        : formatBytes(one.bytes),
      one.missing.length === 0 ? '-' : formatBytes(sum(one.missing)),
      missingText(one),
    ]);
  });
  return formatTable(['IMAGE', 'PLATFORM', 'HERE', 'SIZE', 'MISSING', ''], rows);
}

/** `2 layers, 1 config`. */
function missingText({ missing, status }: CheckedPlatform): string {
  if (status === 'supplied') return 'by another repository, below';
  const kinds = new Map<string, number>();
  for (const { kind } of missing) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  return [...kinds].map(([kind, count]) => formatCount(count, kind)).join(', ');
}

function detailsOf(checked: readonly CheckedImage[]): string {
  const rows = checked.flatMap(({ image, platforms }) =>
    platforms.flatMap(({ platform, missing }) =>
      missing.map(({ digest, bytes, kind }) => [image, platform || aboutAll, kind, formatBytes(bytes), digest]),
    ),
  );
  return rows.length === 0 ? '' : `\n${formatTable(['IMAGE', 'PLATFORM', 'MISSING', 'SIZE', 'DIGEST'], rows)}`;
}

/** What is wrong, and what to type next. */
function advice(checked: readonly CheckedImage[], lacking: readonly CheckedImage[], flags: CheckFlags): string {
  const missing = lacking.flatMap(({ platforms }) => platforms.flatMap((one) => one.missing));
  const distinct = [...new Map(missing.map((one) => [one.digest, one])).values()];
  const known = distinct.length > 0 ? `: ${formatBytes(sum(distinct))} are known to be missing` : '';
  const unpublished = lacking.filter(({ status }) => status === 'not offered').length;
  const images = lacking
    .slice(0, 3)
    .map(({ image }) => image)
    .join(' ');
  const more = lacking.length > 3 ? ' …' : '';
  const own = new Set(lacking.flatMap((one) => one.platforms.map(({ platform }) => platform)).filter(Boolean));
  const platforms = flags.platform ?? [...own];
  const set = flags.set === undefined ? '' : ` --set ${flags.set} --add`;
  const files = flags.file?.map((file) => ` -f ${file}`).join('');
  const next =
    unpublished === lacking.length
      ? `They are not published for it: narrows inspect ${lacking[0]?.image ?? 'IMAGE'} shows what there is.`
      : `Where there is network: narrows warm ${files?.slice(1) ?? `${images}${more}`}${formatPlatforms(platforms)}${set}`;
  return `${lacking.length} of ${formatCount(checked.length, 'image')} not complete${known}. ${next}`;
}

function formatPlatforms(platforms: readonly string[]): string {
  return ` --platform ${platforms.join(',') || 'linux/arm64'}`;
}
