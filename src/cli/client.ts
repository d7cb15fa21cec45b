import { Command } from 'commander';
import { formatPlatform, parsePlatform } from '../oci/platform.ts';
import { parseAddress } from '../config.ts';
import type { Config } from '../config.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { loadConfig } from './load-config.ts';
import { collect } from './serve.ts';
import { snippets } from './snippets.ts';
import type { Snippet } from './snippets.ts';

interface ClientFlags {
  config?: string;
  mirror?: string;
  platform?: string[];
  registry?: string[];
  json?: boolean;
}

export function clientCommand(io: Io): Command {
  return new Command('client')
    .description('prints the configuration of a client that points it at this mirror for a platform')
    .argument('<name>', Object.keys(snippets).join(', '))
    .option('--platform <os/arch>', 'the platform of the machines, or any; repeatable', collect)
    .option('--mirror <url>', 'where the clients reach this mirror (default: the first listener)')
    .option('--registry <name>', 'a registry to mirror; repeatable (default: all of the configuration)', collect)
    .option('--config <file>', 'configuration of the mirror, in YAML')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  narrows client containerd --mirror http://mirror.example:5000 --platform linux/arm64',
    )
    .action((name: string, flags: ClientFlags) => client(name, flags, io));
}

async function client(name: string, flags: ClientFlags, io: Io): Promise<void> {
  const write = Object.hasOwn(snippets, name) ? snippets[name] : undefined;
  if (!write) throw new CommandError(2, `There is no client ${name}; there is: ${Object.keys(snippets).join(', ')}.`);
  const { config } = await loadConfig(flags.config, {}, io);
  const snippet = write({
    mirror: mirrorUrl(flags.mirror, config),
    set: pathSet(flags.platform ?? ['any'], config),
    registries: flags.registry ?? Object.keys(config.upstreams),
  });
  io.out(flags.json ? `${JSON.stringify(snippet, undefined, 2)}\n` : asText(snippet));
}

function mirrorUrl(text: string | undefined, config: Config): URL {
  if (text !== undefined) {
    if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return new URL(text);
    throw new CommandError(2, `--mirror ${text} is no URL such as http://mirror.example:5000.`);
  }
  const [listener] = config.listen;
  const { host, port } = parseAddress(listener!.address)!;
  return new URL(`${listener!.tls ? 'https' : 'http'}://${host === '::' ? 'localhost' : host}:${port}`);
}

/** The spelling of paths: a platform with - for /, several joined by _, a named set as it is. */
function pathSet(platforms: readonly string[], config: Config): string {
  const parts = platforms
    .flatMap((text) => text.split(','))
    .map((text) => {
      if (text === 'any' || text in config.platforms.sets) return text;
      const platform = parsePlatform(text);
      if (platform) return formatPlatform(platform).replaceAll('/', '-');
      throw new CommandError(2, `--platform ${text} is no platform such as linux/arm64, no named set, and not any.`);
    });
  return parts.join('_');
}

function asText(files: readonly Snippet[]): string {
  return files
    .map(({ path, text, note }) => `# ${path}\n${note ? `# ${note.replaceAll('\n', '\n# ')}\n` : ''}${text}\n`)
    .join('\n');
}
