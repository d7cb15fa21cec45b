import { Command } from 'commander';
import { operator } from '../access/identity.ts';
import { NarrowsError } from '../errors.ts';
import { parseImageName } from '../oci/reference.ts';
import type { Step } from '../push/books.ts';
import { createHistory } from '../push/history.ts';
import type { TagHistory } from '../push/history.ts';
import { pushParts } from '../wiring/push-parts.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { formatTable } from './show.ts';
import { withWorkbench } from './workbench.ts';
import type { StoreFlags } from './workbench.ts';

interface HistoryFlags extends StoreFlags {
  readonly restore?: string;
}

export function historyCommand(io: Io): Command {
  return new Command('history')
    .description('the steps of a tag that is pushed to here: what changed, who did it and when')
    .argument('<image>', 'as team/app:1')
    .option('--restore <step>', 'put a step back, as a new one')
    .option('--config <file>', 'configuration in YAML')
    .option('--store <dir>', 'where the cache is kept')
    .option('--redis <url>', 'the Redis that replicas share')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  narrows history team/app:1 --restore 3')
    .action((image: string, flags: HistoryFlags) => history(image, flags, io));
}

async function history(image: string, flags: HistoryFlags, io: Io): Promise<void> {
  const wanted = flags.restore === undefined ? undefined : readStep(flags.restore);
  const found = await withWorkbench(flags, io, async ({ storage, config }) => {
    const { name, reference } = parse(image);
    const now = Date.now;
    const hosted = storage.hosted;
    if (!hosted)
      throw new CommandError(1, 'Nothing is hosted here: no repository in the configuration says hosted: true.');
    const books = createHistory(pushParts({ config, now }, hosted));
    try {
      if (wanted !== undefined) await books.restore(name, reference, wanted, operator);
      return await books.of(name, reference);
    } catch (error) {
      if (error instanceof NarrowsError) throw new CommandError(1, error.message, { cause: error });
      throw error;
    }
  });
  io.out(flags.json ? `${JSON.stringify(found, undefined, 2)}\n` : tableOf(image, found));
}

function readStep(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new CommandError(2, `${JSON.stringify(text)} is no step: give the number that the history shows.`);
}

function parse(image: string): { name: string; reference: string } {
  if (/^[^/]+:\d+\//.test(image)) {
    throw new CommandError(2, 'Give the name without the address of the mirror, as in team/app:1.');
  }
  try {
    const { name, reference } = parseImageName(image);
    if (reference.kind === 'tag') return { name, reference: reference.tag };
  } catch (error) {
    throw new CommandError(2, (error as Error).message, { cause: error });
  }
  throw new CommandError(2, 'A digest has no history: name a tag, as in team/app:1.');
}

function tableOf(image: string, { current, steps }: TagHistory): string {
  const rows = steps.map((step) => [
    String(step.step),
    new Date(step.atMs).toISOString().replace('T', ' ').slice(0, 19),
    step.by,
    whatChanged(step),
    `${step.digest}${step.step === current.step ? ' (now)' : ''}`,
  ]);
  return `${image}\n${current.digest}\n\n${formatTable(['STEP', 'WHEN (UTC)', 'WHO', 'CHANGED', 'DIGEST'], rows)}`;
}

function whatChanged({ changed, restored }: Step): string {
  const what = changed.join(', ') || 'nothing';
  return restored === undefined ? what : `${what} (step ${restored} put back)`;
}
