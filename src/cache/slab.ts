/**
 * One piece of memory, given out in powers of two (a buddy system). Buffers of a megabyte that come and go cost more
 * than what is read into them: the kernel clears each page that is new to a process, and the runtime counts what it has
 * not collected yet as used.
 */
export interface Slab {
  /** Undefined where no stretch of that length is free. @param bytes a power of two from the smallest to the largest */
  take(bytes: number): Buffer | undefined;
  /** @param buffer one that `take` gave, once nobody looks at it any more */
  give(buffer: Buffer): void;
}

export interface SlabOptions {
  readonly bytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
}

export function createSlab({ bytes, minBytes, maxBytes }: SlabOptions): Slab {
  /** Places of what is free, by its length; what was used last is taken first, as it is in the processor's cache. */
  const free = new Map<number, number[]>();
  for (let length = minBytes; length <= maxBytes; length *= 2) free.set(length, []);
  let memory: Buffer | undefined;

  /** Not before it is needed; and then the kernel gives pages only as they are used. A machine may have less than that. */
  function allocate(): Buffer {
    const whole = bytes - (bytes % minBytes);
    let found: Buffer;
    try {
      found = Buffer.allocUnsafeSlow(whole);
    } catch {
      return Buffer.alloc(0);
    }
    let start = 0;
    for (let length = maxBytes; length >= minBytes; length /= 2) {
      for (; start + length <= whole; start += length) free.get(length)!.push(start);
    }
    return found;
  }

  function place(length: number): number | undefined {
    const places = free.get(length);
    if (!places) return undefined;
    const start = places.pop();
    if (start !== undefined) return start;
    const larger = place(length * 2);
    if (larger !== undefined) places.push(larger + length);
    return larger;
  }

  return {
    take(length) {
      memory ??= allocate();
      const start = place(length);
      return start === undefined ? undefined : memory.subarray(start, start + length);
    },
    give({ byteOffset, length }) {
      let start = byteOffset;
      let bytesFree = length;
      for (; bytesFree < maxBytes; bytesFree *= 2) {
        const places = free.get(bytesFree)!;
        // In numbers, not in bits: those end at 32.
        const other = (start / bytesFree) % 2 === 0 ? start + bytesFree : start - bytesFree;
        const at = places.indexOf(other);
        if (at < 0) break;
        // With its other half it is one again.
        places.splice(at, 1);
        start = Math.min(start, other);
      }
      free.get(bytesFree)!.push(start);
    },
  };
}
