/** Many clients of one blob in a process of their own; each hashes what it gets. */
import { Agent } from 'node:http';
import { pull } from './pull.ts';

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
