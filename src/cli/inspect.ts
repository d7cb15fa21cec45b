import { Command } from 'commander';
import { NarrowsError } from '../errors.ts';
import { parseImageName } from '../oci/reference.ts';
import type { Inspection } from '../pull/inspect.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { collect } from './serve.ts';
import { formatBytes, formatTable } from './show.ts';
import { readPlatforms, withWorkbench } from './workbench.ts';
import type { StoreFlags } from './workbench.ts';

interface InspectFlags extends StoreFlags {
  readonly platform?: string[];
}

export function inspectCommand(io: Io): Command {
  return new Command('inspect')
    .description('the platforms of an image: how large they are, and what of them is held here')
    .argument('<image>', 'as ghcr.io/org/app:1 or alpine@sha256:…')
    .option('--platform <os/arch>', 'these alone; repeatable, or a list with commas, or a named set', collect)
    .option('--config <file>', 'configuration in YAML')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  narrows inspect docker.io/library/alpine:3.20 --platform linux/arm64,linux/amd64',
    )
    .action((image: string, flags: InspectFlags) => inspect(image, flags, io));
}

async function inspect(text: string, flags: InspectFlags, io: Io): Promise<void> {
  const found = await withWorkbench(flags, io, async ({ pull, sets }) => {
    const wanted = readPlatforms(flags.platform, sets);
    try {
      return await pull.inspect(parseImageName(text), wanted);
    } catch (error) {
      if (error instanceof NarrowsError) throw new CommandError(1, error.message, { cause: error });
      throw error;
    }
  });
  io.out(flags.json ? `${JSON.stringify(found, undefined, 2)}\n` : tableOf(found));
}

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
