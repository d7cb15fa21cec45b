import { randomUUID } from 'node:crypto';
import type { Digest } from '../oci/digest.ts';
import type { Redis } from './redis.ts';
import { script } from './redis.ts';

/** About as much as a client library moves best; more would hold up others on the connection. */
export const chunkBytes = 1024 * 1024;

/** One copy of a blob: its chunks are `0` to `ceil(size / chunkBytes) - 1`, all of them full but the last. */
export interface Copy {
  readonly size: number;
  /** Each copy has its own chunks, so that two writers of one digest never mix theirs. */
  readonly generation: string;
}

/** Everything of one digest has one hash tag, and so one place in a cluster. */
export interface BlobKeys {
  /** Which copy is whole; the only way to a copy. */
  readonly meta: string;
  chunk(generation: string, index: number): string;
  /** Keys of this digest for other purposes, which have to change together with its copies. */
  of(what: string): string;
}

export function blobKeys({ prefix }: Pick<Redis, 'prefix'>, digest: Digest): BlobKeys {
  const base = `${prefix}{${digest}}`;
  return {
    meta: `${base}:blob`,
    chunk: (generation, index) => `${base}:${generation}:${index}`,
    of: (what) => `${base}:${what}`,
  };
}

export function chunkCount(size: number): number {
  return Math.ceil(size / chunkBytes);
}

/** How long the chunk at `index` is in a blob of `size`. */
export function chunkLength(size: number, index: number): number {
  return Math.min(chunkBytes, size - index * chunkBytes);
}

export function newGeneration(): string {
  return randomUUID();
}

export function formatCopy({ size, generation }: Copy): string {
  return JSON.stringify({ version: 1, size, generation, chunkBytes });
}

/** The configuration allows no larger blob: a size that was made up must not be counted in chunks. */
const maxCopyBytes = 2 ** 29;

/** What others can write to is looked at before it is believed; what `formatCopy` would not say is no copy. */
export function parseCopy(text: Buffer): Copy | undefined {
  try {
    const value = JSON.parse(text.toString()) as Record<string, unknown> | null;
    const { size, generation } = value ?? {};
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0 || size > maxCopyBytes) return undefined;
    if (typeof generation !== 'string' || !/^[0-9a-f-]{36}$/.test(generation)) return undefined;
    return text.equals(Buffer.from(formatCopy({ size, generation }))) ? { size, generation } : undefined;
  } catch {
    return undefined;
  }
}

/** Who reads a copy that is being taken away reads on for this long. */
export const graceMs = 60_000;

/**
 * KEYS: meta, then all chunks of the copy. ARGV: the copy, its time to live in ms (0 for no end). Answers the copy that was
 * there before, 1 where there was none, or 0 where a chunk is missing: a copy is present only when whole.
 */
export const publishCopy = script(`
  for i = 2, #KEYS do if redis.call('EXISTS', KEYS[i]) == 0 then return 0 end end
  local before = redis.call('GET', KEYS[1])
  if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
  return before or 1
`);

/** KEYS: meta. ARGV: the copy that it must still name. Another's newer copy stays. */
export const removeCopy = script(`
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  return redis.call('DEL', KEYS[1])
`);
