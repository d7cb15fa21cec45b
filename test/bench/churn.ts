import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChurnOrder, ChurnResult } from './churn-clients.ts';
import { median, settleDisk, startNarrows, startNginx, startWorker, usageOf } from './processes.ts';
import type { Server } from './processes.ts';
import type { UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface ChurnFigures {
  readonly server: string;
  readonly room: string;
  readonly blobsPerSecond: number;
  readonly cpuMsEach: number;
  /** What was on the disk at the end. */
  readonly storeMiB: number;
}

const MiB = 2 ** 20;
const blobBytes = 256 * 1024;
const blobs = 2000;
const clients = 16;
/** An eighth of what is pulled. */
const smallBytes = 64 * MiB;

type Start = (url: string, store: string) => Promise<Server>;

const cases: [room: string, Start][] = [
  ['for all', (url, store) => startNarrows(url, { store })],
  ['for an eighth', (url, store) => startNarrows(url, { store, maxDiskBytes: smallBytes })],
  ['for all', (url, store) => startNginx(url, { store })],
  ['for an eighth', (url, store) => startNginx(url, { store, maxDiskBytes: smallBytes })],
];

/** New blobs all the time: what does it cost that others have to go? */
export async function benchChurn(
  rounds: number,
  hasNginx: boolean,
  onStep: (text: string) => void,
): Promise<ChurnFigures[]> {
  const upstream = startWorker<UpstreamOrder, UpstreamReady>('upstream.ts');
  const puller = startWorker<ChurnOrder, ChurnResult>('churn-clients.ts');
  try {
    const { url, digests } = await upstream.ask({ bytes: blobBytes, blobs, bytesPerSecond: 0 });
    const found = new Map<string, ChurnFigures[]>();
    for (let round = 0; round < rounds; round++) {
      for (const [room, start] of cases.slice(0, hasNginx ? 4 : 2)) {
        onStep(`${blobs} blobs of 256 KiB that are not here, room ${room} …`);
        const one = await measure(room, start, url, digests, puller.ask);
        const key = `${one.server} ${room}`;
        found.set(key, [...(found.get(key) ?? []), one]);
      }
    }
    return [...found.values()].map((all) => ({
      ...all[0]!,
      blobsPerSecond: median(all.map((one) => one.blobsPerSecond)),
      cpuMsEach: median(all.map((one) => one.cpuMsEach)),
      storeMiB: Math.max(...all.map((one) => one.storeMiB)),
    }));
  } finally {
    upstream.stop();
    puller.stop();
  }
}

async function measure(
  room: string,
  start: Start,
  url: string,
  digests: readonly string[],
  ask: (order: ChurnOrder) => Promise<ChurnResult>,
): Promise<ChurnFigures> {
  const store = await mkdtemp(join(tmpdir(), 'churn-bench-'));
  const server = await start(url, store);
  try {
    settleDisk();
    const before = usageOf(server.pid).cpuSeconds;
    const urls = digests.map((digest) => `${server.url}/v2/library/x/blobs/${digest}`);
    const { seconds, whole } = await ask({ urls, clients });
    if (whole !== digests.length) throw new Error(`${server.name}: ${whole} of ${digests.length} are whole`);
    const cpuSeconds = usageOf(server.pid).cpuSeconds - before;
    return {
      server: server.name,
      room,
      blobsPerSecond: digests.length / seconds,
      cpuMsEach: (1000 * cpuSeconds) / digests.length,
      storeMiB: diskUsed(store) / MiB,
    };
  } finally {
    await server.stop();
    await rm(store, { recursive: true, force: true });
  }
}

function diskUsed(folder: string): number {
  return Number(/^\d+/.exec(spawnSync('du', ['-sb', folder]).stdout.toString())?.[0]);
}
