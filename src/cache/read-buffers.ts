import { createSlab } from './slab.ts';

/** The smallest stride, two of which each reader may have, whatever the budget. */
const minStrideBytes = 16 * 1024;
const maxStrideBytes = 1024 * 1024;

interface Held {
  readonly buffer: Buffer;
}

/** Buffers out of one budget: in use, or resting with content that may be wanted again. */
export interface ReadBuffers<T extends Held> {
  /** How much to read at once, as there is room now: a power of two. @param readers of the same, who follow each other */
  strideBytes(readers: number): number;
  /** At least that long. */
  take(bytes: number): Buffer;
  /** Nobody uses it now, or looks for what is in it. */
  recycle(holder: T): void;
  /** Nobody uses it now. The one that has rested longest goes first where there is no room. */
  rest(holder: T, onGone: () => void): void;
  /** It is used again. */
  wake(holder: T): void;
  /** The same for a buffer that its user makes for itself, and that nobody else is given. */
  borrow(bytes: number): Buffer;
  returned(buffer: Buffer): void;
}

export function createReadBuffers<T extends Held>(budgetBytes: number): ReadBuffers<T> {
  const slab = createSlab({ bytes: budgetBytes, minBytes: minStrideBytes, maxBytes: maxStrideBytes });
  const resting = new Map<T, () => void>();
  /** Beyond the budget: the smallest, for those who have come when all of it was in use. */
  const beyond = new Set<Buffer>();
  let usedBytes = 0;

  function makeRoom(length: number): Buffer | undefined {
    for (const [holder, onGone] of resting) {
      resting.delete(holder);
      onGone();
      give(holder.buffer);
      const buffer = slab.take(length);
      if (buffer) return buffer;
    }
    return undefined;
  }

  function give(buffer: Buffer): void {
    if (!beyond.delete(buffer)) slab.give(buffer);
  }

  function wake(holder: T): void {
    if (resting.delete(holder)) usedBytes += holder.buffer.length;
  }

  return {
    strideBytes(readers) {
      // An eighth of what is left each time: the first of a crowd leave room for those who come after them.
      const share = Math.max(0, budgetBytes - usedBytes) / 8;
      // Many who read the same are apart by as much as each of them is sent at once, and all that is to stay here.
      const step = (2 * budgetBytes) / readers;
      return Math.max(minStrideBytes, Math.min(maxStrideBytes, powerOfTwoWithin(Math.min(share, step))));
    },
    take(bytes) {
      const length = Math.max(minStrideBytes, powerOfTwoAround(bytes));
      const found = slab.take(length) ?? makeRoom(length);
      const buffer = found ?? Buffer.allocUnsafeSlow(length);
      if (!found) beyond.add(buffer);
      usedBytes += length;
      return buffer;
    },
    recycle(holder) {
      if (!resting.delete(holder)) usedBytes -= holder.buffer.length;
      give(holder.buffer);
    },
    rest(holder, onGone) {
      usedBytes -= holder.buffer.length;
      // Beyond the budget nothing stays that nobody uses.
      if (beyond.delete(holder.buffer)) onGone();
      else resting.set(holder, onGone);
    },
    wake,
    borrow(bytes) {
      usedBytes += bytes;
      return Buffer.allocUnsafeSlow(bytes);
    },
    returned: (buffer) => void (usedBytes -= buffer.length),
  };
}

function powerOfTwoWithin(bytes: number): number {
  return bytes < 1 ? 0 : 2 ** Math.floor(Math.log2(bytes));
}

function powerOfTwoAround(bytes: number): number {
  return bytes < 1 ? 0 : 2 ** Math.ceil(Math.log2(bytes));
}
