import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { checkCommand } from './check.ts';
import { clientCommand } from './client.ts';
import { configCommand } from './config-command.ts';
import { exportCommand } from './export.ts';
import { gcCommand } from './gc.ts';
import { historyCommand } from './history.ts';
import { importCommand } from './import.ts';
import { inspectCommand } from './inspect.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { serveCommand } from './serve.ts';
import { setsCommand } from './sets.ts';
import { printable } from './show.ts';
import { verifyCommand } from './verify.ts';
import { warmCommand } from './warm.ts';

/** Runs a command line, without the program's own name. @returns the exit code: 0 done, 1 did not hold, 2 wrong use */
export async function run(args: readonly string[], io: Io): Promise<0 | 1 | 2> {
  const program = new Command('narrows')
    .description('a pull-through mirror for container registries that moves only the platforms you run')
    .version(
      (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version,
    );
  for (const command of [
    serveCommand(io),
    warmCommand(io),
    checkCommand(io),
    exportCommand(io),
    importCommand(io),
    setsCommand(io),
    inspectCommand(io),
    historyCommand(io),
    gcCommand(io),
    verifyCommand(io),
    clientCommand(io),
    configCommand(io),
  ])
    program.addCommand(command);
  for (const command of [program, ...program.commands]) {
    command
      .exitOverride()
      .configureOutput({ writeOut: io.out, writeErr: io.err })
      .showHelpAfterError('(narrows --help tells more)');
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    // Commander has printed its own.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!(error instanceof CommandError)) throw error;
    io.err(`${printable(error.message)}\n`);
    return error.exitCode;
  }
}
