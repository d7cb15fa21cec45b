import { containerds, createSandbox, startContainerd } from '../fixtures/clients.ts';
import { startFaultProxy } from '../fixtures/fault-proxy.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasProgram, median, settleDisk, startWorker, usageOf } from './processes.ts';
import type { Server } from './processes.ts';
import { direct } from './servers.ts';
import type { Starter } from './servers.ts';
import { within } from './stage.ts';
import type { ImagesOrder, ImagesReady } from './upstream.ts';

export interface ImagesFigures {
  readonly latencyMs: number;
  readonly server: string;
  /** From a mirror that has none of them, and then once more. */
  readonly coldSeconds: number;
  readonly againSeconds: number;
  /** What came over the line for the first pull, over what the images have for this platform. */
  readonly movedRatio: number;
  readonly cpuSeconds: number;
}

const architecture = 'arm64';
const scale = 16;
const latencies = [0, 100];

/** Eight official images, for one platform, pulled one after the other by a containerd that has nothing. */
export async function benchImages(
  rounds: number,
  starts: readonly Starter[],
  onStep: (text: string) => void,
): Promise<ImagesFigures[]> {
  const upstream = startWorker<ImagesOrder, ImagesReady>('upstream.ts');
  try {
    const ready = await upstream.ask({ architecture, scale });
    const figures: ImagesFigures[] = [];
    for (const latencyMs of latencies) {
      onStep(`eight images for ${architecture}, ${latencyMs} ms away …`);
      const found = new Map<string, ImagesFigures[]>();
      for (let round = 0; round < rounds; round++) {
        for (const start of [direct, ...starts]) {
          const one = await within((stage) => pullTwice(stage, ready, start, latencyMs));
          found.set(one.server, [...(found.get(one.server) ?? []), one]);
        }
      }
      for (const all of found.values()) figures.push(middle(all));
    }
    return figures;
  } finally {
    upstream.stop();
  }
}

async function pullTwice(
  stage: Teardown,
  ready: ImagesReady,
  start: Starter,
  latencyMs: number,
): Promise<ImagesFigures> {
  const line = await startFaultProxy(stage, ready.url);
  if (latencyMs > 0) line.suffer({ latencyMs });
  const server = await start(`http://127.0.0.1:${line.port}`);
  stage.teardown(() => server.stop());
  const coldSeconds = await pullAll(server, ready.references);
  const movedRatio = line.passedBytes / ready.closureBytes;
  const againSeconds = await pullAll(server, ready.references);
  const { cpuSeconds } = usageOf(server.pid);
  return { latencyMs, server: server.name, coldSeconds, againSeconds, movedRatio, cpuSeconds };
}

/** What it unpacks is not the mirror's affair: the content alone is fetched. */
function pullAll(server: Server, references: readonly string[]): Promise<number> {
  return within(async (stage) => {
    const program = containerds.find((one) => hasProgram(one))!;
    const sandbox = await createSandbox(stage);
    const { ctr } = await startContainerd(stage, sandbox, program);
    const hosts = `server = "${server.url}"\n\n[host."${server.url}"]\n  capabilities = ["pull", "resolve"]\n`;
    await sandbox.write('certs.d/docker.io/hosts.toml', hosts);
    settleDisk();
    const started = performance.now();
    for (const reference of references) {
      const options = ['--platform', `linux/${architecture}`, '--hosts-dir', `${sandbox.home}/certs.d`];
      const { code, err } = await ctr('content', 'fetch', ...options, reference);
      if (code !== 0) throw new Error(`${server.name}, ${reference}: ${err}`);
    }
    return (performance.now() - started) / 1000;
  });
}

function middle(all: readonly ImagesFigures[]): ImagesFigures {
  const of = (read: (one: ImagesFigures) => number) => median(all.map(read));
  return {
    ...all[0]!,
    coldSeconds: of((one) => one.coldSeconds),
    againSeconds: of((one) => one.againSeconds),
    movedRatio: of((one) => one.movedRatio),
    cpuSeconds: of((one) => one.cpuSeconds),
  };
}
