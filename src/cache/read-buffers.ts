/** The smallest stride, two of which each reader may have, whatever the budget. */
const minStrideBytes = 16 * 1024;
const maxStrideBytes = 1024 * 1024;

interface Held {
  readonly buffer: Buffer;
}

/** Buffers out of one budget: in use, resting with content that may be wanted again, or free. */
export interface ReadBuffers<T extends Held> {
  /** How much to read at once, as there is room now: a power of two. */
  strideBytes(): number;
  /** At least that long. */
  take(bytes: number): Buffer;
  /** What is not in use, and will not be found again, is for the next who takes one. */
  give(buffer: Buffer): void;
  recycle(holder: T): void;
  /** Gone for good: someone may still look at it. */
  forget(buffer: Buffer): void;
  /** Nobody uses it now. The one that has rested longest goes first where there is no room. */
  rest(holder: T, onGone: () => void): void;
  /** It is used again. */
  wake(holder: T): void;
}

/**
 * New buffers of a megabyte are slow: the kernel clears each of their pages at first use. So those that were used are
 * used again, as far as the budget allows.
 */
export function createReadBuffers<T extends Held>(budgetBytes: number): ReadBuffers<T> {
  const resting = new Map<T, () => void>();
  const free = new Map<number, Buffer[]>();
  let usedBytes = 0;
  let restingBytes = 0;
  let freeBytes = 0;

  /** Leaves room for so many bytes, as far as that can be had; a buffer of that length which went for it is returned. */
  function makeRoom(length: number): Buffer | undefined {
    const isTight = () => usedBytes + restingBytes + freeBytes + length > budgetBytes;
    for (const [others, buffers] of free) {
      while (isTight() && buffers.pop()) freeBytes -= others;
    }
    for (const [holder, onGone] of resting) {
      if (!isTight()) return undefined;
      resting.delete(holder);
      restingBytes -= holder.buffer.length;
      onGone();
      if (holder.buffer.length === length) return holder.buffer;
    }
    return undefined;
  }

  function wake(holder: T): void {
    if (!resting.delete(holder)) return;
    restingBytes -= holder.buffer.length;
    usedBytes += holder.buffer.length;
  }

  function give(buffer: Buffer): void {
    usedBytes -= buffer.length;
    if (usedBytes + restingBytes + freeBytes + buffer.length > budgetBytes) return;
    const others = free.get(buffer.length) ?? [];
    free.set(buffer.length, others);
    others.push(buffer);
    freeBytes += buffer.length;
  }

  return {
    strideBytes() {
      // An eighth of what is left each time: the first of a crowd leave room for those who come after them.
      const share = Math.max(0, budgetBytes - usedBytes) / 8;
      return Math.max(minStrideBytes, Math.min(maxStrideBytes, powerOfTwoWithin(share)));
    },
    take(bytes) {
      const length = Math.max(minStrideBytes, powerOfTwoAround(bytes));
      const spare = free.get(length)?.pop();
      if (spare) freeBytes -= length;
      const buffer = spare ?? makeRoom(length) ?? Buffer.allocUnsafeSlow(length);
      usedBytes += length;
      return buffer;
    },
    give,
    recycle(holder) {
      wake(holder);
      give(holder.buffer);
    },
    forget(buffer) {
      usedBytes -= buffer.length;
    },
    rest(holder, onGone) {
      usedBytes -= holder.buffer.length;
      restingBytes += holder.buffer.length;
      resting.set(holder, onGone);
    },
    wake,
  };
}

function powerOfTwoWithin(bytes: number): number {
  return bytes < 1 ? 0 : 2 ** Math.floor(Math.log2(bytes));
}

function powerOfTwoAround(bytes: number): number {
  return bytes < 1 ? 0 : 2 ** Math.ceil(Math.log2(bytes));
}
