/** Clients that go through a list of blobs together, in a process of their own; each looks at the length of what it gets. */
import { Agent, request } from 'node:http';

export interface ChurnOrder {
  readonly urls: readonly string[];
  readonly clients: number;
}

export interface ChurnResult {
  readonly seconds: number;
  readonly whole: number;
}

function pull(url: string, agent: Agent): Promise<boolean> {
  return new Promise((resolve) => {
    const sent = request(url, { agent }, (response) => {
      let bytes = 0;
      response.on('data', (chunk: Buffer) => (bytes += chunk.length));
      response.on('error', () => undefined);
      response.on('close', () => {
        resolve(response.statusCode === 200 && String(bytes) === response.headers['content-length']);
      });
    });
    sent.on('error', () => resolve(false));
    sent.end();
  });
}

async function pullAll({ urls, clients }: ChurnOrder): Promise<ChurnResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const left = urls.values();
  let whole = 0;
  const started = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (const url of left) if (await pull(url, agent)) whole++;
    }),
  );
  agent.destroy();
  return { seconds: (performance.now() - started) / 1000, whole };
}

process.on('message', (order: ChurnOrder) => {
  void pullAll(order).then((result) => process.send!(result));
});
