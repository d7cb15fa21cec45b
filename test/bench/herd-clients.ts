/** Many clients of one blob in a process of their own; each hashes what it gets. */
import { createHash } from 'node:crypto';
import { Agent, request } from 'node:http';

export interface HerdOrder {
  readonly url: string;
  readonly digest: string;
  readonly clients: number;
  /** How many of them hash what they get; of the others lengths alone are looked at, not to be slower than servers. */
  readonly hashing: number;
}

export interface HerdResult {
  /** Clients that got every byte right. */
  readonly right: number;
  readonly seconds: number;
  readonly lastHeadMs: number;
  readonly lastFirstByteMs: number;
  readonly bytes: number;
}

interface One {
  isRight: boolean;
  headMs: number;
  firstByteMs: number;
  bytes: number;
}

function pull(url: string, digest: string | undefined, agent: Agent): Promise<One> {
  const started = performance.now();
  return new Promise((resolve) => {
    const one: One = { isRight: false, headMs: Infinity, firstByteMs: Infinity, bytes: 0 };
    const hash = createHash('sha256');
    const sent = request(url, { agent }, (response) => {
      one.headMs = performance.now() - started;
      response.on('data', (chunk: Buffer) => {
        if (one.bytes === 0) one.firstByteMs = performance.now() - started;
        one.bytes += chunk.length;
        if (digest !== undefined) hash.update(chunk);
      });
      response.on('error', () => undefined);
      response.on('close', () => {
        const isWhole = response.complete && String(one.bytes) === response.headers['content-length'];
        const isSame = digest === undefined || `sha256:${hash.digest('hex')}` === digest;
        one.isRight = response.statusCode === 200 && isWhole && isSame;
        resolve(one);
      });
    });
    sent.on('error', () => resolve(one));
    sent.end();
  });
}

process.on('message', (order: HerdOrder) => {
  void herd(order).then((result) => process.send!(result));
});

async function herd({ url, digest, clients, hashing }: HerdOrder): Promise<HerdResult> {
  const agent = new Agent({ keepAlive: false, maxSockets: Infinity });
  const started = performance.now();
  const all = await Promise.all(
    Array.from({ length: clients }, (_, at) => pull(url, at < hashing ? digest : undefined, agent)),
  );
  return {
    right: all.filter(({ isRight }) => isRight).length,
    seconds: (performance.now() - started) / 1000,
    lastHeadMs: Math.max(...all.map(({ headMs }) => headMs)),
    lastFirstByteMs: Math.max(...all.map(({ firstByteMs }) => firstByteMs)),
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
