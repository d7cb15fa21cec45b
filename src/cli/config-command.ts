import { Command } from 'commander';
import { stringify } from 'yaml';
import { jsonSchema } from '../config-schema.ts';
import type { Io } from './io.ts';
import { defaultConfigUrl, loadConfig } from './load-config.ts';
import { readFile } from 'node:fs/promises';

export function configCommand(io: Io): Command {
  return new Command('config')
    .description('prints the effective configuration, secrets redacted, or all its mistakes')
    .option('--config <file>', 'configuration in YAML')
    .option('--json', 'print JSON')
    .option('--schema', 'print the JSON Schema of the configuration, for editors')
    .addHelpText('after', '\nExample:\n  narrows config --config /etc/narrows.yaml')
    .action(async (flags: { config?: string; json?: boolean; schema?: boolean }) => {
      if (flags.schema) {
        const defaults = await readFile(defaultConfigUrl, 'utf8');
        io.out(`${JSON.stringify(jsonSchema(defaults), undefined, 2)}\n`);
        return;
      }
      const { source } = await loadConfig(flags.config, {}, io);
      const shown = redact(source);
      io.out(flags.json ? `${JSON.stringify(shown, undefined, 2)}\n` : stringify(shown));
    });
}

/** Passwords, and logins in addresses, which people put there. */
function redact(value: unknown, key = ''): unknown {
  if (value !== null && (key === 'password' || key === 'secretAccessKey')) return '…';
  if (/^(?:proxy|url|endpoint)$/.test(key) && typeof value === 'string') return value.replace(/\/\/[^/?#]*@/, '//…@');
  if (Array.isArray(value)) return value.map((entry) => redact(entry));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, redact(entry, name)]));
}
