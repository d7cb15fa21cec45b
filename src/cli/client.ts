import { Command } from 'commander';
import { formatPlatform, parsePlatform } from '../oci/platform.ts';
import { parseAddress } from '../config-values.ts';
import type { Config } from '../config.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { loadConfig } from './load-config.ts';
import { collect } from './serve.ts';
import { snippets } from './snippets.ts';

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
    .option(
      '--platform <os/arch>',
      'what the machines run, a named set, or any; repeatable (default: what the mirror knows of them)',
      collect,
    )
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
  const mirror = mirrorUrl(flags.mirror, config);
  const files = write({
    mirror,
    set: flags.platform && pathSet(flags.platform, config),
    registries: (flags.registry ?? Object.keys(config.upstreams)).map((registry) => checkRegistry(registry, config)),
  });
  if (flags.json) {
    io.out(`${JSON.stringify(files, undefined, 2)}\n`);
    return;
  }
  // The file alone goes to standard output, so that it can be put in its place by the shell.
  for (const { path, note, text } of files) {
    io.err(`# ${path}\n${note ? `# ${note.replaceAll('\n', '\n# ')}\n` : ''}`);
    io.out(text);
  }
  if (isLocal(mirror)) io.err(`# Only this machine can reach ${mirror.host}: for others, give --mirror.\n`);
}

function mirrorUrl(text: string | undefined, config: Config): URL {
  if (text !== undefined) {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url && /^https?:$/.test(url.protocol) && url.pathname === '/') return url;
    throw new CommandError(2, `--mirror ${text} is no URL such as http://mirror.example:5000, without a path.`);
  }
  const [listener] = config.listen;
  const { host, port } = parseAddress(listener!.address)!;
  if (host === '::' || host === '0.0.0.0') {
    throw new CommandError(2, 'The mirror listens at every address: say by --mirror which one clients use.');
  }
  return new URL(`${listener!.tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`);
}

function isLocal(mirror: URL): boolean {
  return /^(?:127\.|localhost$|\[::1\]$)/.test(mirror.hostname);
}

function checkRegistry(name: string, config: Config): string {
  if (Object.hasOwn(config.upstreams, name)) return name;
  throw new CommandError(
    2,
    `--registry ${name} is not under upstreams in the configuration: the mirror would refuse it.`,
  );
}

/** The spelling of paths: a platform with - for /, several joined by _, a named set or any by itself. */
function pathSet(platforms: readonly string[], config: Config): string {
  const parts = platforms.flatMap((text) => text.split(','));
  const [only = ''] = parts;
  if (parts.length === 1 && (only === 'any' || Object.hasOwn(config.platforms.sets, only))) return only;
  const spelled = parts.map((text) => {
    const platform = parsePlatform(text);
    if (platform) return formatPlatform(platform).replaceAll('/', '-');
    throw new CommandError(
      2,
      `--platform ${text} is no platform such as linux/arm64; a named set, or any, stands alone.`,
    );
  });
  return spelled.join('_');
}
