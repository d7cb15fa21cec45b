import type { FileHandle } from 'node:fs/promises';
import type { Digest } from '../oci/digest.ts';
import { createReadBuffers } from './read-buffers.ts';
import type { ReadBuffers } from './read-buffers.ts';
import type { PartialReader } from './tier.ts';
import { wholeOf } from './whole-file.ts';
import type { WholeFile } from './whole-file.ts';

/** A file that others may read as well. */
export interface SharedFile extends WholeFile {
  /** What it holds: readers share what they read of the same, whatever the file system says of numbers and times. */
  readonly digest: Digest;
}

export interface FileReaders {
  /**
   * Reads reject once a file that is whole is not what it was: its bytes may not be those that were verified.
   *
   * @param whole absent for a file that grows
   */
  open(file: FileHandle, whole?: SharedFile): PartialReader;
}

/** A stretch of a file, in memory or on its way there. */
interface Chunk {
  readonly buffer: Buffer;
  /** Resolves with the number of bytes that are in it. */
  readonly filled: Promise<number>;
  /** Reads whose result may still be in use. */
  users: number;
  /** Where others find it. */
  readonly among: Shared;
  readonly key: string;
}

/** A chunk that a position is in, taken for a reader. */
interface Taken {
  readonly chunk: Chunk;
  /** Its place in the file. */
  readonly start: number;
  /** Another reader began to fill it. */
  readonly isJoined: boolean;
}

interface Shared {
  readers: number;
  /** By place and length. */
  readonly chunks: Map<string, Chunk>;
}

/**
 * Readers whose buffers come out of one budget: a few read in large strides, a thousand in small ones. A crowd that
 * wants the same file at the same time, as machines do that start one image, has the disk read it once.
 */
export function createFileReaders(budgetBytes: number): FileReaders {
  const buffers = createReadBuffers<Chunk>(budgetBytes);
  const files = new Map<string, Shared>();

  function join(whole: SharedFile): Shared {
    const key = keyOf(whole);
    const shared = files.get(key) ?? { readers: 0, chunks: new Map() };
    files.set(key, shared);
    shared.readers++;
    return shared;
  }

  /** What nobody reads any more is not kept: the kernel has it as well. */
  function leave(whole: SharedFile, shared: Shared): void {
    if (--shared.readers > 0) return;
    files.delete(keyOf(whole));
    for (const chunk of shared.chunks.values()) if (chunk.users === 0) buffers.recycle(chunk);
    shared.chunks.clear();
  }

  function take(chunk: Chunk): Chunk {
    if (chunk.users++ === 0) buffers.wake(chunk);
    return chunk;
  }

  /** One who reads alone is followed by nobody, and is fastest in memory that was used a moment ago. */
  function release(chunk: Chunk): void {
    if (--chunk.users > 0) return;
    const { among, key } = chunk;
    const isFound = among.chunks.get(key) === chunk;
    if (isFound && among.readers > 1) return buffers.rest(chunk, () => among.chunks.delete(key));
    if (isFound) among.chunks.delete(key);
    return buffers.recycle(chunk);
  }

  /** On the grid of its length, so that others who come to this place meet it there. */
  function shareChunk(file: FileHandle, shared: Shared, whole: SharedFile, position: number): Taken {
    const stride = buffers.strideBytes(shared.readers);
    const start = position - (position % stride);
    const key = `${start} ${stride}`;
    const found = shared.chunks.get(key);
    if (found) return { chunk: take(found), start, isJoined: true };
    const length = Math.min(stride, whole.size - start);
    const buffer = buffers.take(length);
    const filled = fill(file, whole, buffer.subarray(0, length), start);
    const chunk: Chunk = { buffer, filled, users: 1, among: shared, key };
    shared.chunks.set(key, chunk);
    filled.catch(() => shared.chunks.get(key) === chunk && shared.chunks.delete(key));
    return { chunk, start, isJoined: false };
  }

  return {
    open(file, whole) {
      const shared = whole && join(whole);
      return whole && shared
        ? sharingReader({
            chunkAt: (position) => shareChunk(file, shared, whole, position),
            release,
            onClose: () => leave(whole, shared),
          })
        : lonelyReader(file, buffers);
    },
  };
}

interface SharingReader {
  chunkAt(position: number): Taken;
  release(chunk: Chunk): void;
  onClose(): void;
}

function sharingReader({ chunkAt, release, onClose }: SharingReader): PartialReader {
  /** Of the last read and the one before. */
  let held: Chunk[] = [];
  let isClosed = false;

  async function filledAt(position: number): Promise<Taken & { length: number }> {
    for (;;) {
      if (isClosed) throw closed();
      const taken = chunkAt(position);
      try {
        return { ...taken, length: await taken.chunk.filled };
      } catch (error) {
        release(taken.chunk);
        // Whoever began to read this may have left before it was there: that is no failure of ours.
        if (!taken.isJoined) throw error;
      }
    }
  }

  return {
    async read(position, maxBytes) {
      if (held.length === 2) release(held.shift()!);
      const { chunk, start, length } = await filledAt(position);
      const at = position - start;
      if (isClosed || at >= length) {
        release(chunk);
        throw isClosed ? closed() : tooShort(position);
      }
      held.push(chunk);
      return chunk.buffer.subarray(at, Math.min(length, at + maxBytes));
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      held.forEach(release);
      held = [];
      onClose();
    },
  };
}

/** Two buffers by turns: while one is being sent, the other fills. */
function lonelyReader(file: FileHandle, buffers: ReadBuffers<Chunk>): PartialReader {
  const own: (Buffer | undefined)[] = [];
  let turn = 0;
  let isClosed = false;
  return {
    async read(position, maxBytes) {
      if (isClosed) throw closed();
      turn = 1 - turn;
      const length = Math.min(maxBytes, buffers.strideBytes(1));
      const held = own[turn];
      // Grown when needed, and shrunk when many have come since.
      const fits = held !== undefined && held.length >= length && held.length <= 4 * length;
      if (held && !fits) buffers.returned(held);
      const buffer = fits ? held : buffers.borrow(length);
      own[turn] = buffer;
      const { bytesRead } = await file.read(buffer, 0, length, position);
      if (bytesRead === 0) throw tooShort(position);
      return buffer.subarray(0, bytesRead);
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      // Not for others: who reads what is still being written may be passing it on.
      for (const buffer of own.splice(0)) if (buffer) buffers.returned(buffer);
    },
  };
}

async function fill(file: FileHandle, whole: SharedFile, buffer: Buffer, start: number): Promise<number> {
  let filled = 0;
  for (let bytesRead = -1; filled < buffer.length && bytesRead !== 0; filled += bytesRead) {
    ({ bytesRead } = await file.read(buffer, filled, buffer.length - filled, start + filled));
  }
  // After the read: what writes to a file sets its time before the new bytes can be seen.
  const { identity } = await wholeOf(file);
  if (identity !== whole.identity) throw new Error(`${whole.digest} was changed while it was read`);
  return filled;
}

function keyOf({ digest, identity }: SharedFile): string {
  return `${digest} ${identity}`;
}

function closed(): Error {
  return new Error('the reader is closed');
}

function tooShort(position: number): Error {
  return new Error(`the file ends at ${position}, before its blob does`);
}
