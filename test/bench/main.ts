/**
 * npm run bench [-- --what cached,cold --rounds 5 --json]: figures of this machine, beside those of what else is
 * installed, by turns. `--peer name='command {upstream} {port} {store}'` adds another mirror.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { benchBundle } from './bundle.ts';
import { benchCached } from './cached.ts';
import { benchChurn } from './churn.ts';
import { benchCold } from './cold.ts';
import { benchCrowd } from './crowd.ts';
import { benchHerd } from './herd.ts';
import { benchImages } from './images.ts';
import { hasProgram, startBare, startNarrows } from './processes.ts';
import { benchRedis } from './redis.ts';
import { hashedNginx, starters } from './servers.ts';
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

const { values } = parseArgs({
  options: {
    what: { type: 'string', default: 'cached,workers,cold,images,crowd,herd,churn,redis,silent,bundle,start' },
    /** Of the cached ones, those whose names it fits. */
    loads: { type: 'string', default: '' },
    clients: { type: 'string', default: '1000' },
    only: { type: 'string' },
    peer: { type: 'string', multiple: true, default: [] },
    gib: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const say = (text: string) => void (values.json || process.stdout.write(text));
const onStep = (text: string) => say(`${text}\n`);
const rounds = Number(values.rounds);
const all = starters(values.peer, values.only);
// The two ways of nginx to send differ in nothing else.
const once = starters(values.peer, values.only, 'nginx, sendfile');

const yardsticks = [startBare, ...(hasProgram('nginx') ? [hashedNginx] : [])];

const cached = { rounds, seconds: Number(values.seconds), onStep };
const twoWorkers = (url: string) => startNarrows(url, { workers: 2 });

const benches: Record<string, { program?: string; run(): Promise<unknown>; show(found: never): string }> = {
  cached: {
    program: 'wrk',
    run: () => benchCached({ ...cached, servers: all, which: new RegExp(values.loads) }),
    show: cachedTable,
  },
  workers: {
    program: 'wrk',
    run: () => benchCached({ ...cached, servers: [startNarrows, twoWorkers], which: /logs in/ }),
    show: cachedTable,
  },
  cold: {
    run: () => benchCold(rounds, values.only === undefined ? [...once, ...yardsticks] : once, onStep),
    show: coldTable,
  },
  images: { program: 'containerd', run: () => benchImages(rounds, once, onStep), show: imagesTable },
  crowd: { program: 'wrk', run: () => benchCrowd(once, onStep), show: crowdTable },
  herd: { run: () => benchHerd(Number(values.clients), once, onStep), show: herdTable },
  churn: { run: () => benchChurn(rounds, hasProgram('nginx'), onStep), show: churnTable },
  redis: { program: 'redis-server', run: () => benchRedis(rounds, onStep), show: redisTable },
  silent: { program: 'redis-server', run: () => benchSilentRedis(onStep), show: silentLine },
  bundle: { run: () => benchBundle(Number(values.gib), onStep), show: bundleTable },
  start: { run: () => benchStart(rounds, onStep), show: startTable },
};

const machine = `${cpus().length} × ${cpus()[0]?.model}, Node ${process.versions.node}`;
say(`${machine}\n\n`);
const found: Record<string, unknown> = { machine };
for (const what of values.what.split(',')) {
  const bench = benches[what];
  if (!bench) throw new Error(`there is no bench ${what}: ${Object.keys(benches).join(', ')}`);
  if (bench.program !== undefined && !hasProgram(bench.program)) {
    say(`${bench.program} is not installed: nothing measures ${what}\n\n`);
    continue;
  }
  found[what] = await bench.run();
  say(`\n${bench.show(found[what] as never)}\n`);
}
if (values.json) process.stdout.write(`${JSON.stringify(found, undefined, 2)}\n`);

function silentLine({ p99Ms, addedMs }: SilentRedisFigures): string {
  return `p99 ${p99Ms.silent.toFixed(0)} ms, without Redis ${p99Ms.none.toFixed(0)} ms: ${addedMs.toFixed(0)} ms more\n`;
}
