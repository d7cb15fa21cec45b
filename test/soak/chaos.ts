import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { TestRedis } from '../fixtures/redis.ts';
import type { Script, TestRegistry } from '../fixtures/registry.ts';

export interface ChaosParts {
  readonly registry: TestRegistry;
  readonly redis: TestRedis;
  /** Stores whose files are tampered with. */
  readonly stores: readonly string[];
  /** kill -9 of one replica, and its next start. */
  restartReplica(): Promise<void>;
  random(): number;
}

/** Something that goes wrong for a while. */
export interface Trouble {
  readonly name: string;
  run(): Promise<void>;
}

/** What goes wrong in a soak, in the order in which it comes round. */
export function troubles({ registry, redis, stores, restartReplica, random }: ChaosParts): Trouble[] {
  const upstream = (name: string, script: Script, ms: number): Trouble => ({
    name,
    async run() {
      registry.script = script;
      await delay(ms);
      registry.script = undefined;
    },
  });
  return [
    upstream(
      'upstream answers 503 to every third question',
      (_, response) => {
        if (random() > 0.33) return false;
        response.writeHead(503, { 'retry-after': '1' }).end();
        return true;
      },
      6000,
    ),
    { name: 'a replica is killed and starts again', run: restartReplica },
    {
      name: 'Redis stands still for 3 s',
      async run() {
        redis.signal('SIGSTOP');
        await delay(3000);
        redis.signal('SIGCONT');
      },
    },
    upstream(
      'upstream breaks off every second connection',
      (_, response) => {
        if (random() > 0.5) return false;
        response.socket?.resetAndDestroy();
        return true;
      },
      6000,
    ),
    { name: 'Redis is killed and comes back empty', run: () => redis.restart() },
    {
      name: 'bytes of kept blobs are changed on the disk',
      async run() {
        for (const store of stores) await tamper(store, random);
      },
    },
    upstream(
      'upstream limits the rate',
      (_, response) => Boolean(response.writeHead(429, { 'retry-after': '2' }).end()),
      4000,
    ),
    { name: 'Redis loses everything', run: () => Promise.resolve(void redis.cli('FLUSHALL')) },
    upstream('upstream sends other bytes than it says', flipped, 6000),
  ];
}

/** A body of the right length and of zeros. */
const flipped: Script = ({ method, path }, response) => {
  const isBlob = method === 'GET' && path.includes('/blobs/');
  if (!isBlob) return false;
  response.writeHead(200, { 'content-length': '70000' }).end(Buffer.alloc(70_000));
  return true;
};

/** One byte in one of every five blobs. */
async function tamper(store: string, random: () => number): Promise<void> {
  const folder = join(store, 'blobs', 'sha256');
  for (const name of await readdir(folder).catch(() => [])) {
    if (random() > 0.2) continue;
    const file = await open(join(folder, name), 'r+').catch(() => undefined);
    if (!file) continue;
    const { size } = await file.stat();
    if (size > 0) await file.write(Buffer.from([Math.floor(random() * 256)]), 0, 1, Math.floor(random() * size));
    await file.close();
  }
}
