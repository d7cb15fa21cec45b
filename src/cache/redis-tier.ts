import { finish, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { chunks, verify } from './bytes.ts';
import {
  blobKeys,
  chunkBytes,
  chunkCount,
  chunkLength,
  formatCopy,
  graceMs,
  newGeneration,
  parseCopy,
  publishCopy,
  removeCopy,
} from './redis-copies.ts';
import type { Copy } from './redis-copies.ts';
import type { RedisBounds } from './redis-bounds.ts';
import type { Redis } from './redis.ts';
import type { Blob, Content, Tier } from './tier.ts';

export interface RedisTierOptions {
  readonly redis: Redis;
  readonly bounds: RedisBounds;
  /** Larger blobs are declined. */
  readonly maxBlobBytes: number;
  /** How long a copy lives that nobody reads; without it, until it is taken away. */
  readonly ttlMs?: number;
  /** Before every key, where it is another than that of Redis. */
  readonly prefix?: string;
  /** For chunks that are read ahead, all readers together. */
  readonly maxBufferBytes: number;
}

/** How many chunks a reader has on their way at most, so that Redis works while the last chunk is being sent. */
const maxAhead = 3;

/** Blobs as chunks of exact bytes, present only when whole; `redis-copies` has their form. */
export function createRedisTier(options: RedisTierOptions): Tier {
  const { redis, bounds, maxBlobBytes, ttlMs, maxBufferBytes, prefix = redis.prefix } = options;
  const life = ttlMs === undefined ? [] : ['PX', String(ttlMs)];
  const keysOf = (digest: Digest) => blobKeys({ prefix }, digest);
  let aheadBytes = 0;

  async function find(digest: Digest): Promise<Copy | undefined> {
    const { meta } = keysOf(digest);
    const text = await redis.command(meta, 'GETEX', meta, ...life);
    return Buffer.isBuffer(text) ? parseCopy(text) : undefined;
  }

  async function readChunk(digest: Digest, { size, generation }: Copy, index: number): Promise<Buffer> {
    const key = keysOf(digest).chunk(generation, index);
    // Being read keeps it alive, as it does in the order of eviction.
    const chunk = await redis.transfer(key, 'GETEX', key, ...life);
    if (Buffer.isBuffer(chunk) && chunk.length === chunkLength(size, index)) return chunk;
    await take(digest, { size, generation });
    throw new Error(`chunk ${index} of ${digest} is ${Buffer.isBuffer(chunk) ? 'torn' : 'gone'}`);
  }

  /** A copy with a hole or a wrong byte is none. Its chunks stay for a while, for those who are in the middle of it. */
  async function take(digest: Digest, copy: Copy): Promise<void> {
    const keys = keysOf(digest);
    const removed = await redis.run(removeCopy, [keys.meta], formatCopy(copy));
    await expire(digest, copy, graceMs);
    // Where another took its place, it is that one which stands in the books.
    if (removed === 1) await bounds.removed(digest);
  }

  /** What failed may have failed after it was to be found. */
  async function giveUp(digest: Digest, copy: Copy): Promise<void> {
    await redis.run(removeCopy, [keysOf(digest).meta], formatCopy(copy));
    await expire(digest, copy, 1);
  }

  async function expire(digest: Digest, { size, generation }: Copy, ms: number): Promise<void> {
    const keys = keysOf(digest);
    const all = Array.from({ length: chunkCount(size) }, (_, index) => keys.chunk(generation, index));
    await Promise.all(all.map((key) => redis.command(key, 'PEXPIRE', key, String(ms))));
  }

  function readerOf(digest: Digest, copy: Copy): Content {
    /** Chunks that are here or on their way, in order. */
    const ahead = new Map<number, Promise<Buffer>>();
    let isClosed = false;

    function fetch(index: number): Promise<Buffer> {
      const found = ahead.get(index);
      if (found) return found;
      aheadBytes += chunkBytes;
      const fetching = readChunk(digest, copy, index);
      fetching.catch(() => undefined);
      ahead.set(index, fetching);
      return fetching;
    }

    function drop(isWanted: (index: number) => boolean): void {
      for (const index of ahead.keys()) {
        if (isWanted(index)) continue;
        ahead.delete(index);
        aheadBytes -= chunkBytes;
      }
    }

    return {
      size: copy.size,
      async read(position, maxBytes) {
        if (isClosed) throw new Error('the reader is closed');
        const index = Math.floor(position / chunkBytes);
        drop((held) => held >= index && held < index + maxAhead);
        const current = fetch(index);
        for (let next = index + 1; next < Math.min(index + maxAhead, chunkCount(copy.size)); next++) {
          if (aheadBytes + chunkBytes > maxBufferBytes && !ahead.has(next)) break;
          void fetch(next);
        }
        const chunk = await current;
        const offset = position - index * chunkBytes;
        return chunk.subarray(offset, offset + maxBytes);
      },
      close() {
        isClosed = true;
        drop(() => false);
        return Promise.resolve();
      },
    };
  }

  function blobOf(digest: Digest, copy: Copy): Blob {
    let verified: Promise<void> | undefined;
    return {
      ...readerOf(digest, copy),
      state: 'hit-redis',
      /** A pass of its own over the chunks, for those who read this and not the download that it feeds. */
      get verified() {
        return (verified ??= verifyCopy(digest, copy));
      },
    };
  }

  async function verifyCopy(digest: Digest, copy: Copy): Promise<void> {
    const content = readerOf(digest, copy);
    try {
      if (await verify(content, digest)) return;
    } finally {
      await content.close();
    }
    await take(digest, copy);
    throw new Error(`Redis holds other content than that of ${digest}`);
  }

  async function store(digest: Digest, blob: Blob, copy: Copy): Promise<void> {
    const keys = keysOf(digest);
    const running = startHash(digest);
    const all: string[] = [];
    for await (const chunk of chunks(blob, 0, chunkBytes)) {
      running.update(chunk);
      const key = keys.chunk(copy.generation, all.length);
      all.push(key);
      await redis.transfer(key, 'SET', key, chunk, ...life);
    }
    await blob.verified;
    if (!finish(running, digest)) throw new Error(`content does not hash to ${digest}`);
    const answer = await redis.run(publishCopy, [keys.meta, ...all], formatCopy(copy), String(ttlMs ?? 0));
    if (answer === 0) throw new Error(`Redis did not keep ${digest} while it was written`);
    const before = Buffer.isBuffer(answer) ? parseCopy(answer) : undefined;
    if (before?.size === copy.size) await expire(digest, before, graceMs);
    await bounds.added(digest, blob.size);
  }

  return {
    name: 'redis',

    async open(digest) {
      const copy = await find(digest);
      if (!copy) return undefined;
      // Nobody waits for it: at worst a copy goes earlier than it should.
      bounds.used(digest).catch(() => undefined);
      return blobOf(digest, copy);
    },

    async has(digest) {
      const { meta } = keysOf(digest);
      const text = await redis.command(meta, 'GET', meta);
      return Buffer.isBuffer(text) ? parseCopy(text)?.size : undefined;
    },

    async put(digest, blob) {
      const copy = { size: blob.size, generation: newGeneration() };
      try {
        if (blob.size > maxBlobBytes) return;
        await store(digest, blob, copy);
      } catch (error) {
        await giveUp(digest, copy).catch(() => undefined);
        throw error;
      } finally {
        await blob.close();
      }
    },

    async delete(digest) {
      const copy = await find(digest);
      if (copy) await take(digest, copy);
    },
  };
}
