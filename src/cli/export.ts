import { basename } from 'node:path';
import { Command } from 'commander';
import { planBundle, writeBundle } from '../airgap/export.ts';
import type { BundlePlan } from '../airgap/export.ts';
import { contentsDigest, readContents } from '../airgap/bundle.ts';
import type { Contents } from '../airgap/bundle.ts';
import { BundleError } from '../airgap/tar.ts';
import { readTar } from '../airgap/tar-reader.ts';
import { size } from '../config-values.ts';
import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { createBundleWriter, openBundle } from './bundle-files.ts';
import type { BundleWriter } from './bundle-files.ts';
import { chosenImages } from './choice.ts';
import type { ChoiceFlags } from './choice.ts';
import { readImageList } from './image-list.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { collect } from './serve.ts';
import { formatBytes, formatCount, formatTable, showProgress } from './show.ts';
import { readSigner } from './signing.ts';
import { withStoreOptions, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface ExportFlags extends StoreFlags, ChoiceFlags {
  readonly output: string;
  readonly since?: string[];
  readonly split?: string;
  readonly signKey?: string;
}

export function exportCommand(io: Io): Command {
  return withStoreOptions(
    new Command('export')
      .description('writes images to a bundle: a tar of an OCI image layout, with their signatures and attestations')
      .argument('[image...]', 'as ghcr.io/org/app:1 or alpine@sha256:…; none for the images of --set')
      .requiredOption('-o, --output <file>', 'where to write it; - for standard output')
      .option(
        '-f, --file <file>',
        'a list, any YAML that names images, a folder of such, or - for standard input',
        collect,
      )
      .option('--platform <os/arch>', 'repeatable, or a list with commas, or a named set; any for all', collect)
      .option('--set <name>', 'the images of this set, for the platforms that it was made for')
      .option('--no-referrers', 'leave out signatures, SBOMs and attestations')
      .option('--since <bundle>', 'leave out what this earlier bundle holds; repeatable', collect)
      .option('--split <size>', 'in parts of this size, as 4GiB: FILE.001, FILE.002, …')
      .option('--sign-key <pem>', 'sign what the bundle says it holds with this private key'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  narrows export --set edge-2026-11 -o edge.tar\n  narrows export --set edge-2026-12 --since edge.tar --split 4GiB -o /media/usb/december.tar',
    )
    .action((images: string[], flags: ExportFlags) => run(images, flags, io));
}

async function run(args: readonly string[], flags: ExportFlags, io: Io): Promise<void> {
  const partBytes = flags.split === undefined ? undefined : readSize(flags.split);
  const sign = flags.signKey === undefined ? undefined : await readSigner(flags.signKey);
  const since = await Promise.all((flags.since ?? []).map((path) => contentsOf(path, io)));
  const list = await readImageList(args, flags, io);
  await withWorkbench({ ...flags, offline: true }, io, async (bench) => {
    const images = chosenImages(bench, list, flags);
    const isSet = list.images.length === 0 && flags.set !== undefined;
    const plan = await planned(bench, images, { since, ...(isSet && { set: flags.set }) });
    const files = await write(bench, plan, sign, flags, partBytes, io);
    const say = flags.output === '-' ? io.err : io.out;
    if (flags.json) say(`${JSON.stringify({ written: files, ...plan.contents }, undefined, 2)}\n`);
    else say(summary(plan, files));
  });
}

function readSize(text: string): number {
  const read = size.safeParse(text);
  // Smaller ones would be files without end; a header has to fit in any case.
  if (read.success && read.data >= 1024 * 1024) return read.data;
  throw new CommandError(2, `--split ${text}: expected a size of at least 1MiB, such as 4GiB.`);
}

/** What an earlier bundle holds stands at its beginning: the rest of it need not be here. */
async function contentsOf(path: string, io: Io): Promise<{ digest: Digest; contents: Contents }> {
  const bundle = await openBundle([path], io);
  try {
    for await (const entry of readTar(bundle.source, () => true)) {
      const pieces: Buffer[] = [];
      for await (const piece of entry.content()) pieces.push(Buffer.from(piece));
      const contents = readContents(Buffer.concat(pieces), entry.path);
      return { digest: contentsDigest(entry.path), contents };
    }
    throw new BundleError(path, 'is empty');
  } catch (error) {
    if (error instanceof BundleError)
      throw new CommandError(2, `--since ${path} is no bundle of narrows: ${error.message}.`, { cause: error });
    throw error;
  } finally {
    await bundle.close();
  }
}

async function planned(
  { pull }: Workbench,
  images: Parameters<typeof planBundle>[1],
  options: Omit<Parameters<typeof planBundle>[0], 'reader'>,
): Promise<BundlePlan> {
  try {
    return await planBundle({ reader: pull.reader, ...options }, images);
  } catch (error) {
    if (!(error instanceof NarrowsError)) throw error;
    throw new CommandError(1, `${error.message} narrows check says what is missing; nothing was written.`, {
      cause: error,
    });
  }
}

async function write(
  { pull }: Workbench,
  plan: BundlePlan,
  sign: ((bytes: Buffer) => Buffer) | undefined,
  { output }: ExportFlags,
  partBytes: number | undefined,
  io: Io,
): Promise<string[]> {
  const writer = output === '-' ? standardOutput(io) : createBundleWriter(output, partBytes);
  const progress = showProgress(io, 'exporting', plan.bytes);
  let isStopped = false;
  io.onStop(() => (isStopped = true));
  try {
    for await (const bytes of writeBundle(pull.reader, plan, sign)) {
      if (isStopped) throw new CommandError(1, 'Interrupted; nothing was written under its name.');
      await writer.write(bytes);
      progress.add(bytes.length);
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    if (error instanceof NarrowsError) throw new CommandError(1, error.message, { cause: error });
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || error instanceof CommandError) throw error;
    throw new CommandError(1, `${output} cannot be written (${code}).`, { cause: error });
  } finally {
    progress.end();
  }
}

function standardOutput(io: Io): BundleWriter {
  return { write: io.write, finish: () => Promise.resolve(['-']), abandon: () => Promise.resolve() };
}

function summary({ contents, bytes, notOffered }: BundlePlan, files: readonly string[]): string {
  const rows = contents.images.map(({ image, platforms, digest }) => [image, platforms.join(', '), digest]);
  const needs = contents.needs.reduce((total, one) => total + one.bytes, 0);
  const [first = ''] = files;
  const parts = files.length > 1 ? ` to ${files.at(-1)}` : '';
  return [
    formatTable(['IMAGE', 'PLATFORMS', 'DIGEST'], rows),
    '\n',
    ...notOffered.map((text) => `not published, and not in it: ${text}\n`),
    `${first}${parts}: ${formatCount(contents.images.length, 'image')}, ${formatCount(contents.blobs.length, 'blob')}, ${formatBytes(bytes)}\n`,
    ...(contents.needs.length > 0
      ? [
          `It goes on from the earlier bundle, and needs ${formatCount(contents.needs.length, 'blob')} (${formatBytes(needs)}) of that to be there\n`,
        ]
      : []),
    ...(first === '-' ? [] : [onTheOtherSide(first)]),
  ].join('');
}

/** The sums name the files alone: where they lie is another place there. */
function onTheOtherSide(first: string): string {
  const sums = `${basename(first.replace(/\.001$/, ''))}.sha256`;
  return `On the other side, in their folder: sha256sum -c ${sums} && narrows import ${basename(first)}\n`;
}
