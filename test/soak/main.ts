import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { footprintOf } from '../fixtures/footprint.ts';
import type { Footprint } from '../fixtures/footprint.ts';
import { buildImage } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { startRedis } from '../fixtures/redis.ts';
import { startRegistry } from '../fixtures/registry.ts';
import { troubles } from './chaos.ts';
import { startLoad } from './load.ts';
import type { Outcomes } from './load.ts';

/**
 * Two replicas around one Redis, clients that pull all the time, and one trouble after the other. Ends with 1 where a
 * byte was wrong, something was "not found" that is there, or the replica that lives throughout goes on growing.
 *
 * `npm run soak -- --minutes 30`, `--json` for machines, `--seed N` for the same choices again.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string', default: '1' },
    clients: { type: 'string', default: '12' },
    json: { type: 'boolean', default: false },
  },
});
const endMs = Number(values.minutes) * 60_000;
const calmMs = 4000;

/** A small generator (mulberry32): choices that can be had again. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const endings: (() => unknown)[] = [];
const t = { teardown: (ending: () => unknown) => void endings.push(ending) };
const random = generator(Number(values.seed));

const registry = await startRegistry();
t.teardown(() => registry.close());
const images = Array.from({ length: 40 }, (_, at) => {
  const image = buildImage({
    platforms: ['linux/amd64', 'linux/arm64'],
    // Some are received into large buffers, and sent while they come.
    payloadBytes: at % 8 === 7 ? 5_000_000 : 20_000 * (1 + (at % 30)),
    seed: `soak ${at}`,
  });
  registry.putImage(`team/r${at}`, '1', image);
  return image;
});
const redis = await startRedis(t, '--maxmemory', '16mb', '--maxmemory-policy', 'allkeys-lru');

interface Replica {
  readonly store: string;
  serve: ServeProcess;
}

async function startReplica(store: string): Promise<ServeProcess> {
  const config = join(await temporaryFolder(t), 'narrows.yaml');
  const settings = {
    upstreams: { up: { url: registry.url } },
    defaultUpstream: 'up',
    tags: { fresh: '2s', missing: '1s' },
    cache: {
      // Less than there is: something has to go all the time.
      disk: { path: store, maxSize: '24MiB' },
      memory: { maxSize: '4MiB', maxBlobSize: '64KiB' },
      redis: { url: redis.url, maxSize: '8MiB' },
    },
    limits: { downloadResumeDelay: '50ms' },
    log: { level: 'info' },
  };
  await writeFile(config, JSON.stringify(settings));
  return startServe(t, { args: ['--config', config] });
}

async function openReplica(): Promise<Replica> {
  const store = await temporaryFolder(t);
  return { store, serve: await startReplica(store) };
}

const [lasting, killed] = [await openReplica(), await openReplica()];
const load = startLoad({
  clients: Number(values.clients),
  images,
  random,
  urls: () => [lasting.serve.url, killed.serve.url],
});
const list = troubles({
  registry,
  redis,
  stores: [lasting.store, killed.store],
  random,
  async restartReplica() {
    killed.serve.child.kill('SIGKILL');
    await killed.serve.exit;
    killed.serve = await startReplica(killed.store);
  },
});

const started = performance.now();
const samples: Footprint[] = [];
const happened: Record<string, number> = {};
let now = 'calm';

function showProgress({ right, wrong, broken }: Outcomes): void {
  const share = Math.min(1, (performance.now() - started) / endMs);
  const bar = '#'.repeat(Math.round(share * 24)).padEnd(24, '.');
  const rss = Math.round((samples.at(-1)?.rssBytes ?? 0) / 2 ** 20);
  const line = `[${bar}] ${Math.round(share * 100)} %  ${right} right, ${wrong.length} wrong, ${broken} broken off  ${rss} MiB  ${now}`;
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`);
  else process.stderr.write(`${line}\n`);
}

const over = new AbortController();
async function watch(): Promise<void> {
  while (!over.signal.aborted) {
    samples.push(await footprintOf(lasting.serve.child.pid!));
    showProgress(load.outcomes);
    await delay(Math.min(10_000, endMs / 40));
  }
}

const watching = watch();
for (let at = 0; performance.now() - started < endMs; at++) {
  const trouble = list[at % list.length]!;
  now = trouble.name;
  await trouble.run();
  happened[now] = (happened[now] ?? 0) + 1;
  now = 'calm';
  await delay(calmMs);
}
over.abort();
await watching;
await load.stop();
if (process.stderr.isTTY) process.stderr.write('\n');

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
}

/** The second half of the time against the quarter before it: what a server takes once is no growth. */
function growthOf(key: keyof Footprint): { before: number; after: number } {
  const of = (from: number, to: number) =>
    median(
      samples.slice(Math.floor(samples.length * from), Math.ceil(samples.length * to)).map((sample) => sample[key]),
    );
  return { before: of(0.25, 0.5), after: of(0.75, 1) };
}

const rss = growthOf('rssBytes');
const descriptors = growthOf('descriptors');
const { right, wrong, broken, left, refused, notFound, away, bytes } = load.outcomes;
const isGrowing = rss.after > rss.before * 1.15 + 16 * 2 ** 20 || descriptors.after > descriptors.before + 60;
const crashes = lasting.serve.child.exitCode !== null || lasting.serve.output().includes('"status":500');
const holds = right > 0 && wrong.length === 0 && notFound.length === 0 && !isGrowing && !crashes;
const report = {
  minutes: Math.round((performance.now() - started) / 6000) / 10,
  seed: Number(values.seed),
  requests: { right, wrong: wrong.length, notFound: notFound.length, broken, left, away, refused },
  movedMiB: Math.round(bytes / 2 ** 20),
  troubles: happened,
  rssMiB: { before: Math.round(rss.before / 2 ** 20), after: Math.round(rss.after / 2 ** 20) },
  descriptors,
  crashes,
  holds,
};
if (values.json) console.log(JSON.stringify(report));
else {
  console.table({ ...report.requests, refused: JSON.stringify(refused), movedMiB: report.movedMiB });
  console.table(happened);
  console.table({ 'resident memory, MiB': report.rssMiB, descriptors });
  for (const line of [...wrong, ...notFound].slice(0, 20)) console.log(`WRONG ${line}`);
  console.log(`${report.minutes} minutes, seed ${values.seed}: ${holds ? 'it held' : 'IT DID NOT HOLD'}`);
}
for (const ending of endings.toReversed()) await ending();
process.exit(holds ? 0 : 1);
