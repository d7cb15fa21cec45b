import { stat } from 'node:fs/promises';
import { Command } from 'commander';
import { check } from '../airgap/check.ts';
import type { CheckedImage } from '../airgap/check.ts';
import { importBundle } from '../airgap/import.ts';
import type { Imported } from '../airgap/import.ts';
import { BundleError } from '../airgap/tar.ts';
import { readTar } from '../airgap/tar-reader.ts';
import type { TarEntry } from '../airgap/tar-reader.ts';
import { openStaging } from '../cache/staging.ts';
import { NarrowsError } from '../errors.ts';
import { parseImageName } from '../oci/reference.ts';
import type { ImageName } from '../oci/reference.ts';
import { importParts } from '../wiring/airgap-parts.ts';
import { folderEntries, openBundle } from './bundle-files.ts';
import { readSetName } from './choice.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { formatCount, formatTable, showProgress } from './show.ts';
import { readVerifier } from './signing.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface ImportFlags extends StoreFlags {
  readonly as?: string;
  readonly set?: string;
  readonly verifyKey?: string;
}

export function importCommand(io: Io): Command {
  return withStoreOptions(
    new Command('import')
      .description('takes a bundle, or any OCI image layout, into the store: all of it, or nothing')
      .argument('<bundle...>', 'a tar, its first part or all of them, the folder of a layout, or - for standard input')
      .option('--as <image>', 'what to call the image of a layout that does not say it in full')
      .option('--set <name>', 'the set it belongs to, where it is not the one that the bundle says')
      .option('--verify-key <pem>', 'take only what is signed by the private key of this public one'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  narrows import /media/usb/edge.tar --store /var/lib/narrows\n  narrows import app-layout/ --as ghcr.io/org/app:1',
    )
    .action((paths: string[], flags: ImportFlags) => run(paths, flags, io));
}

async function run(paths: readonly string[], flags: ImportFlags, io: Io): Promise<void> {
  const checkSignature = await readVerifier(flags.verifyKey);
  const as = flags.as === undefined ? undefined : readName(flags.as);
  const set = flags.set === undefined ? undefined : readSetName(flags.set);
  await withWorkbench({ ...flags, offline: true }, io, async (bench) => {
    const { imported, checked } = await take(bench, paths, { as, set }, checkSignature, io);
    if (flags.json) io.out(`${JSON.stringify({ set: imported.set, images: checked }, undefined, 2)}\n`);
    else io.out(summary(imported, checked));
  });
}

function readName(text: string): ImageName {
  try {
    return parseImageName(text);
  } catch (error) {
    throw new CommandError(2, `--as ${text}: ${(error as Error).message}`, { cause: error });
  }
}

async function take(
  bench: Workbench,
  paths: readonly string[],
  options: { as: ImageName | undefined; set: string | undefined },
  checkSignature: Awaited<ReturnType<typeof readVerifier>>,
  io: Io,
): Promise<{ imported: Imported; checked: CheckedImage[] }> {
  const { entries, totalBytes, isFolder, close } = await openEntries(paths, io);
  const staging = await openStaging(bench.config.cache.disk.path, Date.now);
  if (!staging) {
    await close();
    throw new CommandError(1, 'Another import into this store is under way; wait for it to end.');
  }
  const progress = showProgress(io, 'importing', totalBytes ?? 0);
  const stopping = new AbortController();
  io.onStop(() => stopping.abort());
  const parts = importParts({
    config: bench.config,
    work: bench,
    staging,
    checkSignature,
    onBytes: progress.add,
    now: Date.now,
  });
  try {
    const imported = await importBundle(parts, entries, { ...options, isFolder, signal: stopping.signal });
    progress.end();
    const checked = await Promise.all(imported.images.map(({ wanted }) => check(bench.pull.reader, wanted)));
    return { imported, checked: checked.flat() };
  } catch (error) {
    progress.end();
    throw refusal(error, stopping.signal);
  } finally {
    staging.close();
    await close();
  }
}

function refusal(error: unknown, { aborted }: AbortSignal): unknown {
  if (aborted) return new CommandError(1, 'Interrupted; the same command goes on where it stopped.', { cause: error });
  if (error instanceof BundleError)
    return new CommandError(1, `Refused, and nothing of it was kept. ${error.message}.`, { cause: error });
  if (error instanceof NarrowsError) return new CommandError(1, error.message, { cause: error });
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  return new CommandError(
    1,
    `It could not be read or kept (${syscall}: ${code}); the same command goes on where it stopped.`,
    { cause: error },
  );
}

interface Entries {
  entries(isStrict: () => boolean): AsyncIterable<TarEntry>;
  readonly totalBytes: number | undefined;
  readonly isFolder: boolean;
  close(): Promise<void>;
}

async function openEntries(paths: readonly string[], io: Io): Promise<Entries> {
  const folder = paths.length === 1 && (await stat(paths[0]!).catch(() => undefined))?.isDirectory();
  if (folder)
    return {
      entries: () => folderEntries(paths[0]!),
      totalBytes: undefined,
      isFolder: true,
      close: () => Promise.resolve(),
    };
  const bundle = await openBundle(paths, io);
  return {
    entries: (isStrict) => readTar(bundle.source, isStrict),
    totalBytes: bundle.bytes,
    isFolder: false,
    close: bundle.close,
  };
}

function summary({ set, images }: Imported, checked: readonly CheckedImage[]): string {
  const rows = checked.flatMap(({ image, platforms, digest = '' }) => {
    const shown = platforms.filter(({ platform }) => platform !== '');
    if (shown.length === 0) return [[image, '-', 'complete', digest]];
    return shown.map(({ platform, status }, at) =>
      at === 0 ? [image, platform, status, digest] : ['', platform, status, ''],
    );
  });
  const table = formatTable(['IMAGE', 'PLATFORM', 'HERE', 'DIGEST'], rows);
  return `${table}\n${formatCount(images.length, 'image')} taken in; they stay as the set ${set}\nServe them without a network: narrows serve --offline\n`;
}
