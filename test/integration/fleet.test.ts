import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { download } from '../fixtures/downloads.ts';
import type { Download } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const large = noise('a blob of the fleet', 32 * 1024 * 1024);
const digest = digestOf(large);
const path = `/v2/docker.io/library/x/blobs/${digest}`;

interface Stage {
  readonly registry: TestRegistry;
  readonly redis: TestRedis;
  readonly replicas: readonly ServeProcess[];
  start(): Promise<ServeProcess>;
}

async function prepare(t: Test, count: number): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('library/x', { bytes: large, digest, mediaType: 'application/octet-stream' });
  const redis = await startRedis(t);
  const start = async () =>
    startServe(t, {
      args: [
        ...['--upstream', `docker.io=${registry.url}`, '--redis', redis.url],
        ...['--store', await temporaryFolder(t)],
      ],
    });
  const replicas = await Promise.all(Array.from({ length: count }, start));
  return { registry, redis, replicas, start };
}

function isRight({ status, body, isComplete }: Download): boolean {
  return status === 200 && isComplete && body.equals(large);
}

void t.test('fleet: 300 clients of three replicas, one cold blob, one download', { skip }, async (t) => {
  const { registry, replicas } = await prepare(t, 3);
  registry.blobBytesPerSecond = 50e6;
  const all = await Promise.all(Array.from({ length: 300 }, (_, at) => download(replicas[at % 3]!.url + path)));
  t.equal(all.filter(isRight).length, 300);
  t.equal(registry.count('GET blobs'), 1);
});
