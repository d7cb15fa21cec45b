import { Command, Option } from 'commander';
import { operator } from '../access/identity.ts';
import { NarrowsError } from '../errors.ts';
import { mediaTypes } from '../oci/media-types.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseImageName } from '../oci/reference.ts';
import type { ImageName } from '../oci/reference.ts';
import type { Inspection } from '../pull/inspect.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { collect } from './serve.ts';
import { formatBytes, formatTable } from './show.ts';
import { readPlatforms, withWorkbench } from './workbench.ts';
import type { StoreFlags, Workbench } from './workbench.ts';

interface InspectFlags extends StoreFlags {
  readonly platform?: string[];
  readonly format?: string;
  readonly offline?: boolean;
}

const formats = ['table', 'json', 'index', 'alternates', 'combined'] as const;
type Format = (typeof formats)[number];

export function inspectCommand(io: Io): Command {
  return new Command('inspect')
    .description('the platforms of an image: how large they are, and what of them is held here')
    .argument('<image>', 'as ghcr.io/org/app:1 or alpine@sha256:…')
    .option('--platform <os/arch>', 'these alone; repeatable, or a list with commas, or a named set', collect)
    .option('--config <file>', 'configuration in YAML')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share')
    .addOption(
      new Option('--format <format>', 'or a document: the index for these platforms, or one of those of 2015')
        .choices(formats)
        .default('table'),
    )
    .option('--offline', 'go by what is here alone')
    .option('--json', 'the same as --format json')
    .addHelpText(
      'after',
      '\nExample:\n  narrows inspect docker.io/library/alpine:3.20 --platform linux/arm64,linux/amd64',
    )
    .action((image: string, flags: InspectFlags) => inspect(image, flags, io));
}

async function inspect(text: string, flags: InspectFlags, io: Io): Promise<void> {
  const format = flags.json ? 'json' : (flags.format as Format);
  const printed = await withWorkbench(flags, io, async (bench) => {
    const wanted = readPlatforms(flags.platform, bench.sets);
    try {
      const image = parseImageName(text);
      if (format !== 'table' && format !== 'json') return await documentOf(bench, image, wanted, format);
      const found = await bench.pull.inspect(image, wanted);
      return format === 'json' ? `${JSON.stringify(found, undefined, 2)}\n` : tableOf(found);
    } catch (error) {
      if (error instanceof NarrowsError) throw new CommandError(1, error.message, { cause: error });
      throw error;
    }
  });
  io.out(printed);
}

/** What a client is answered that asks for this form, on lines that people can read. */
async function documentOf(
  { pull }: Workbench,
  { name, reference }: ImageName,
  wanted: PlatformSet,
  form: Exclude<Format, 'table' | 'json'>,
): Promise<string> {
  const reply = await pull({
    route: { kind: 'manifest', path: '', name, reference },
    method: 'GET',
    accept: form === 'index' ? indexTypes : mediaTypes[form],
    by: operator,
    caller: { listenerSet: wanted },
    endpointView: 'index',
    endpointUpstream: undefined,
  });
  if (reply.body.kind !== 'bytes') throw new CommandError(1, `${name} has no such document.`);
  return `${JSON.stringify(JSON.parse(reply.body.bytes.toString()), undefined, 2)}\n`;
}

const indexTypes = [mediaTypes.ociIndex, mediaTypes.dockerList, mediaTypes.ociManifest, mediaTypes.dockerManifest].join(
  ', ',
);

function tableOf({ image, digest, platforms }: Inspection): string {
  const rows = platforms.map(({ platform, status, bytes, heldBytes, missing, digest: child }) => [
    platform,
    status,
    // Before its manifest is here, nobody knows what else belongs to it.
    status === 'present' || status === 'partial' ? formatBytes(bytes) : '-',
    status === 'not offered' ? '-' : formatBytes(heldBytes),
    String(missing.length),
    child ?? '',
  ]);
  const table = formatTable(['PLATFORM', 'HERE', 'SIZE', 'HELD', 'MISSING', 'DIGEST'], rows);
  return `${image}\n${digest}\n\n${platforms.length > 0 ? table : 'This is no image for platforms.\n'}`;
}
