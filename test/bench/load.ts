import { spawn } from 'node:child_process';
import { usageOf } from './processes.ts';
import type { Server } from './processes.ts';

/** What one run of a load on one server came to. */
export interface Round {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly cpuSecondsPerGb: number;
  readonly cpuMsPerRequest: number;
  /** The most that was resident while it ran. */
  readonly rssMiB: number;
  readonly refused: number;
}

export interface Shape {
  readonly clients: number;
  readonly seconds: number;
  readonly headers: readonly string[];
}

/** wrk, in a process of its own: keep-alive connections that ask again as soon as they were answered. */
export async function load(server: Server, path: string, { clients, seconds, headers }: Shape): Promise<Round> {
  const before = usageOf(server.pid).cpuSeconds;
  let rssMiB = 0;
  const looking = setInterval(() => (rssMiB = Math.max(rssMiB, usageOf(server.pid).rssMiB)), 100);
  const named = headers.flatMap((header) => ['-H', header]);
  const args = ['-t1', `-c${clients}`, `-d${seconds}s`, '--timeout', '60s', ...named, server.url + path];
  const child = spawn('wrk', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  await new Promise((resolve) => child.once('close', resolve));
  clearInterval(looking);
  const [, requests = '', time = '', timeUnit = ''] = /(\d+) requests in ([\d.]+)([smh])/.exec(out) ?? [];
  if (requests === '') throw new Error(`wrk does not say how many requests it made: ${out}`);
  const took = Number(time) * { s: 1, m: 60, h: 3600 }[timeUnit as 's'];
  const [, amount = '0', unit = 'B'] = /Transfer\/sec:\s+([\d.]+)(B|KB|MB|GB)/.exec(out) ?? [];
  const bytesPerSecond = Number(amount) * { B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 }[unit as 'B'];
  const cpuSeconds = usageOf(server.pid).cpuSeconds - before;
  return {
    requestsPerSecond: Number(requests) / took,
    bytesPerSecond,
    cpuSecondsPerGb: cpuSeconds / ((bytesPerSecond * took) / 1e9),
    cpuMsPerRequest: (1000 * cpuSeconds) / Number(requests),
    rssMiB,
    refused: Number(/Non-2xx or 3xx responses: (\d+)/.exec(out)?.[1] ?? 0),
  };
}
