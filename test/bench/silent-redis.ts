import { createHash } from 'node:crypto';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import { startRedis } from '../fixtures/redis.ts';
import { startRegistry } from '../fixtures/registry.ts';

export interface SilentRedisFigures {
  readonly requests: number;
  /** Of cold and warm blobs, in milliseconds: a mirror whose Redis has just fallen silent, and one that has none. */
  readonly p99Ms: { readonly silent: number; readonly none: number };
  readonly addedMs: number;
}

const blobBytes = 64 * 1024;
const blobs = 100;

/** What a Redis that is stopped costs the pulls: it is silent from the first request on, for as long as they last. */
export async function benchSilentRedis(onStep: (text: string) => void): Promise<SilentRedisFigures> {
  const ends: (() => unknown)[] = [];
  const t = { teardown: (end: () => unknown) => void ends.push(end) };
  try {
    const registry = await startRegistry();
    t.teardown(registry.close);
    const contents = Array.from({ length: blobs }, (_, at) => noise(`silent ${at}`, blobBytes));
    for (const bytes of contents) {
      registry.put('library/x', { bytes, digest: digestOf(bytes), mediaType: 'application/octet-stream' });
    }
    const redis = await startRedis(t);
    const start = async (...args: string[]) => {
      const common = ['--upstream', `docker.io=${registry.url}`, '--store', await temporaryFolder(t)];
      return startServe(t, { args: [...common, ...args] });
    };
    const mirrors = { silent: await start('--redis', redis.url), none: await start() };
    onStep(`A silent Redis: ${2 * blobs} pulls beside those of a mirror without one …`);
    redis.signal('SIGSTOP');
    t.teardown(() => redis.signal('SIGCONT'));
    const took = { silent: [] as number[], none: [] as number[] };
    for (let round = 0; round < 2; round++) {
      for (const bytes of contents) {
        for (const which of ['silent', 'none'] as const) {
          took[which].push(await pull(`${mirrors[which].url}/v2/docker.io/library/x/blobs/${digestOf(bytes)}`));
        }
      }
    }
    const p99Ms = { silent: p99(took.silent), none: p99(took.none) };
    return { requests: took.silent.length, p99Ms, addedMs: p99Ms.silent - p99Ms.none };
  } finally {
    for (const end of ends.toReversed()) await end();
  }
}

async function pull(url: string): Promise<number> {
  const started = performance.now();
  const answer = await fetch(url);
  const body = Buffer.from(await answer.arrayBuffer());
  const ms = performance.now() - started;
  if (!url.endsWith(createHash('sha256').update(body).digest('hex'))) throw new Error('wrong bytes');
  return ms;
}

function p99(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.ceil(values.length * 0.99) - 1]!;
}
