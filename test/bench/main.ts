/** `npm run bench`, and `npm run bench -- --help` for what can be chosen. */
import { cpus } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { benchBundle } from './bundle.ts';
import { benchCached } from './cached.ts';
import { benchChurn } from './churn.ts';
import { benchCold } from './cold.ts';
import { benchCrowd } from './crowd.ts';
import { benchHerd } from './herd.ts';
import { benchImages } from './images.ts';
import { hasProgram, startBare, startNarrows, startNginx } from './processes.ts';
import { benchRedis } from './redis.ts';
import { hashedByClients, starters } from './servers.ts';
import type { Starter } from './servers.ts';
import { benchSilentRedis } from './silent-redis.ts';
import type { SilentRedisFigures } from './silent-redis.ts';
import { benchStart } from './start.ts';
import {
  bundleTable,
  cachedTable,
  churnTable,
  coldTable,
  crowdTable,
  herdTable,
  imagesTable,
  redisTable,
  startTable,
} from './tables.ts';

interface Values {
  readonly what: string;
  readonly loads?: RegExp;
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: number;
  readonly gib: number;
  readonly only?: string;
  readonly peer: readonly string[];
  readonly json: boolean;
}

const everything = 'cached,workers,cold,images,crowd,herd,churn,redis,silent,bundle,start';

function number(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It is a number from 1.');
  return Number(text);
}

function size(text: string): number {
  if (!(Number(text) > 0)) throw new InvalidArgumentError('It is a number above 0.');
  return Number(text);
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new InvalidArgumentError('It is a regular expression.');
  }
}

function which(text: string): string {
  const wrong = text.split(',').find((name) => !everything.split(',').includes(name));
  if (wrong !== undefined) throw new InvalidArgumentError(`There is no ${wrong}: ${everything}.`);
  return text;
}

function withPeer(peer: string, others: readonly string[]): string[] {
  if (!/^[^=]+=./.test(peer)) throw new InvalidArgumentError('It is a name, "=" and a command.');
  return [...others, peer];
}

const values = new Command('npm run bench --')
  .description('Figures of this machine, of narrows and of what else is installed, by turns')
  .option(
    '--what <list>',
    'which, all of them as a rule; "bundle" takes four times --gib in the folder for temporary files',
    which,
    everything,
  )
  .option('--loads <pattern>', 'of the cached ones, those whose names it fits', pattern)
  .option('--rounds <n>', 'how often each is measured; crowd, herd, silent and bundle have one round', number, 5)
  .option('--seconds <n>', 'how long each cached load is measured', number, 5)
  .option('--clients <n>', 'in the herd', number, 1000)
  .option('--gib <n>', 'the size of the bundle', size, 1)
  .option('--only <name>', 'the one server of this name (cached, cold, images, crowd, herd)')
  .option(
    '--peer <name=command>',
    'another mirror, with {upstream}, {port} and {store} (cached, cold, images, crowd, herd)',
    withPeer,
    [],
  )
  .option('--json', 'for machines', false)
  .addHelpText(
    'after',
    '\nneeded: wrk; for their rows nginx, docker-registry, redis-server, and root and containerd for images',
  )
  .parse()
  .opts<Values>();

const say = (text: string) => void (values.json || process.stdout.write(text));
const onStep = (text: string) => say(`${text}\n`);
const { rounds, seconds } = values;
function serversBut(...without: string[]): Starter[] {
  const found = starters(values.peer, values.only, without);
  if (found.length === 0) throw new Error(`no server is called ${values.only} there`);
  return found;
}
const all = serversBut();
// What nginx has opened it has no use for where each asks for something else, or all for the same for long.
const forCrowds = () => serversBut('nginx, open files');
// What comes from upstream is sent the same way in all of them.
const forMisses = () => serversBut('nginx, open files', 'nginx, sendfile');

const hashed = [hashedByClients(startNarrows), ...(hasProgram('nginx') ? [hashedByClients(startNginx)] : [])];
const yardsticks = [startBare, ...hashed];

const cached = { rounds, seconds, onStep };
const twoWorkers = (url: string) => startNarrows(url, { workers: 2 });

const benches: Record<string, { program?: string; run(): Promise<unknown>; show(found: never): string }> = {
  cached: {
    program: 'wrk',
    run: () => benchCached({ ...cached, servers: all, which: values.loads ?? /./ }),
    show: cachedTable,
  },
  workers: {
    program: 'wrk',
    run: () => benchCached({ ...cached, servers: [startNarrows, twoWorkers], which: /with a credential/ }),
    show: cachedTable,
  },
  cold: {
    run: () => benchCold(rounds, [...forMisses(), ...(values.only === undefined ? yardsticks : [])], onStep),
    show: coldTable,
  },
  images: { program: 'containerd', run: () => benchImages(rounds, forMisses(), onStep), show: imagesTable },
  crowd: { program: 'wrk', run: () => benchCrowd(forCrowds(), onStep), show: crowdTable },
  herd: { run: () => benchHerd(values.clients, forCrowds(), onStep), show: herdTable },
  churn: { run: () => benchChurn(rounds, hasProgram('nginx'), onStep), show: churnTable },
  redis: { program: 'redis-server', run: () => benchRedis(rounds, onStep), show: redisTable },
  silent: { program: 'redis-server', run: () => benchSilentRedis(onStep), show: silentLine },
  bundle: { run: () => benchBundle(values.gib, onStep), show: bundleTable },
  start: { run: () => benchStart(rounds, onStep), show: startTable },
};

const machine = `${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}`;
say(`${machine}\n\n`);
const found: Record<string, unknown> = { machine };
try {
  for (const what of values.what.split(',')) {
    const bench = benches[what]!;
    if (bench.program !== undefined && !hasProgram(bench.program)) {
      process.stderr.write(`${bench.program} is not installed: nothing measures ${what}\n\n`);
      continue;
    }
    found[what] = await bench.run();
    say(`\n${bench.show(found[what] as never)}\n`);
  }
} finally {
  // What was measured before something failed took its time.
  if (values.json) process.stdout.write(`${JSON.stringify(found, undefined, 2)}\n`);
}

function silentLine({ p99Ms, addedMs }: SilentRedisFigures): string {
  return `p99 ${p99Ms.silent.toFixed(0)} ms, without Redis ${p99Ms.none.toFixed(0)} ms: ${addedMs.toFixed(0)} ms more\n`;
}
