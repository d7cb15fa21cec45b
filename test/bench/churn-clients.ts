/** Clients that go through a list of blobs together, in a process of their own; each looks at the length of what it gets. */
import { Agent } from 'node:http';
import { pull } from './pull.ts';

export interface ChurnOrder {
  readonly urls: readonly string[];
  readonly clients: number;
}

export interface ChurnResult {
  readonly seconds: number;
  readonly whole: number;
}

async function pullAll({ urls, clients }: ChurnOrder): Promise<ChurnResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const left = urls.values();
  let whole = 0;
  const started = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (const url of left) if ((await pull(url, undefined, agent)).isRight) whole++;
    }),
  );
  agent.destroy();
  return { seconds: (performance.now() - started) / 1000, whole };
}

process.on('message', (order: ChurnOrder) => {
  void pullAll(order).then((result) => process.send!(result));
});
