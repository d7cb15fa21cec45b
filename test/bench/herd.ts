import type { HerdOrder, HerdResult } from './herd-clients.ts';
import { settleDisk, startWorker, usageOf } from './processes.ts';
import type { Server } from './processes.ts';
import type { Starter } from './servers.ts';
import type { UpstreamCount, UpstreamOrder, UpstreamReady } from './upstream.ts';

export interface HerdFigures {
  readonly server: string;
  readonly clients: number;
  readonly right: number;
  readonly upstreamGets: number;
  readonly upstreamHeads: number;
  readonly seconds: number;
  readonly lastHeadMs: number;
  readonly lastFirstByteMs: number;
  readonly rssGrowthMiB: number;
  readonly cpuSeconds: number;
}

const blobBytes = 32 * 1024 * 1024;
const bytesPerSecond = 50_000_000;

/** Many clients at once want one blob that is not here: how often is the upstream asked, and what does it cost? */
export async function benchHerd(
  clients: number,
  starts: readonly Starter[],
  onStep: (text: string) => void,
): Promise<HerdFigures[]> {
  const upstream = startWorker<UpstreamOrder | 'count', UpstreamReady & UpstreamCount>('upstream.ts');
  const { url, digests } = await upstream.ask({ bytes: blobBytes, blobs: 1, bytesPerSecond });
  const digest = digests[0]!;
  const figures: HerdFigures[] = [];
  for (const start of starts) {
    const server = await start(url);
    onStep(`${server.name}: ${clients} clients of one cold blob of 32 MiB, upstream at 50 MB/s …`);
    figures.push(await measure(server, digest, clients, () => upstream.ask('count')));
    await server.stop();
  }
  upstream.stop();
  return figures;
}

async function measure(
  server: Server,
  digest: string,
  clients: number,
  count: () => Promise<UpstreamCount>,
): Promise<HerdFigures> {
  const herd = startWorker<HerdOrder, HerdResult>('herd-clients.ts');
  await count();
  settleDisk();
  const before = usageOf(server.pid);
  const result = await herd.ask({ url: `${server.url}/v2/library/x/blobs/${digest}`, digest, clients, hashing: 20 });
  const after = usageOf(server.pid);
  herd.stop();
  const { gets, heads } = await count();
  return {
    server: server.name,
    clients,
    right: result.right,
    upstreamGets: gets,
    upstreamHeads: heads,
    seconds: result.seconds,
    lastHeadMs: result.lastHeadMs,
    lastFirstByteMs: result.lastFirstByteMs,
    rssGrowthMiB: after.peakMiB - before.rssMiB,
    cpuSeconds: after.cpuSeconds - before.cpuSeconds,
  };
}
