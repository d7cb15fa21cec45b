import { Command } from 'commander';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { formatBytes, formatTable } from './show.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface SetsFlags extends StoreFlags {
  readonly drop?: string;
}

export function setsCommand(io: Io): Command {
  return withStoreOptions(
    new Command('sets')
      .description('the sets of images that stay in this store, and what is in one')
      .argument('[set]', 'show the images of this one')
      .option('--drop <set>', 'let it go: what no other set holds may be evicted then'),
  )
    .addHelpText('after', '\nExample:\n  narrows sets edge-2026-11\n  narrows sets --drop edge-2026-10')
    .action((set: string | undefined, flags: SetsFlags) =>
      withWorkbench(flags, io, (bench) => show(bench, set, flags, io)),
    );
}

async function show({ storage }: Workbench, set: string | undefined, flags: SetsFlags, io: Io): Promise<void> {
  const { sets } = storage.catalog;
  if (flags.drop !== undefined) {
    if (!sets.drop(flags.drop)) throw new CommandError(1, `There is no set ${flags.drop} in this store.`);
    io.out(`The set ${flags.drop} is dropped; narrows gc takes away what is too much now.\n`);
    return;
  }
  const found = set === undefined ? sets.all() : sets.entries(set);
  if (set !== undefined && found.length === 0)
    throw new CommandError(1, `There is no set ${set} in this store; narrows sets lists them.`);
  if (flags.json) return io.out(`${JSON.stringify(found, undefined, 2)}\n`);
  if (found.length === 0)
    return io.out('There is no set here yet: narrows warm IMAGE --platform linux/arm64 --set NAME makes one.\n');
  io.out(set === undefined ? listOf(sets.all()) : tableOf(sets.entries(set)));
}

function listOf(all: ReturnType<Workbench['storage']['catalog']['sets']['all']>): string {
  const rows = all.map(({ name, images, incomplete, bytes, warmedAtMs }) => [
    name,
    String(images),
    incomplete === 0 ? 'complete' : `${incomplete} incomplete`,
    formatBytes(bytes),
    new Date(warmedAtMs).toISOString().slice(0, 16).replace('T', ' '),
  ]);
  return formatTable(['SET', 'IMAGES', 'STATUS', 'SIZE', 'LAST WARMED (UTC)'], rows);
}

function tableOf(entries: ReturnType<Workbench['storage']['catalog']['sets']['entries']>): string {
  const rows = entries.map(({ image, platforms, isComplete, digest }) => [
    image,
    platforms.join(', '),
    isComplete ? 'complete' : 'incomplete',
    digest,
  ]);
  return formatTable(['IMAGE', 'PLATFORMS', 'STATUS', 'DIGEST'], rows);
}
