import { rm, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load } from './load.ts';
import { startWorker, usageOf } from './processes.ts';
import type { Starter } from './servers.ts';
import type { UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface CrowdFigures {
  readonly server: string;
  readonly clients: number;
  readonly idleMiB: number;
  readonly rssMiB: number;
  readonly bytesPerSecond: number;
}

/** What a blob of 1 GiB costs in memory, with a few who want it and with many. */
export async function benchCrowd(starts: readonly Starter[], onStep: (text: string) => void): Promise<CrowdFigures[]> {
  const upstream = startWorker<UpstreamOrder, UpstreamReady>('upstream.ts');
  const store = await mkdtemp(join(tmpdir(), 'narrows-crowd-'));
  try {
    const { url, digests } = await upstream.ask({ bytes: 2 ** 30, blobs: 1, bytesPerSecond: 0 });
    const path = `/v2/library/x/blobs/${digests[0]}`;
    const figures: CrowdFigures[] = [];
    for (const start of starts) {
      for (const clients of [1, 16, 256]) {
        const server = await start(url, { store });
        onStep(`${server.name}: ${clients} of a blob of 1 GiB …`);
        try {
          // It is fetched, or hashed again after the start, before anything is measured.
          await (await fetch(server.url + path)).body?.pipeTo(new WritableStream());
          const idleMiB = usageOf(server.pid).rssMiB;
          const { rssMiB, bytesPerSecond } = await load(server, path, { clients, seconds: 10, headers: [] });
          figures.push({ server: server.name, clients, idleMiB, rssMiB, bytesPerSecond });
        } finally {
          await server.stop();
        }
      }
    }
    return figures;
  } finally {
    upstream.stop();
    await rm(store, { recursive: true, force: true });
  }
}
