import { NarrowsError } from '../errors.ts';

/** The newest stretch of a growing content, in the pieces that it came in. */
export interface Window {
  readonly start: number;
  readonly end: number;
  readonly bytes: number;
  push(chunk: Buffer): void;
  /** Up to `maxBytes` from `position`, without copying; undefined where the window does not hold that place. */
  read(position: number, maxBytes: number): Buffer | undefined;
  /** All pieces from `position` on, which is where one of them starts. */
  from(position: number): Buffer[];
  /** Drops from the front until at most `maxBytes` are held, but nothing that reaches beyond `limit`. @returns what was dropped */
  trim(maxBytes: number, limit: number): Buffer[];
}

/** @param from where the content begins that it is to hold */
export function createWindow(from = 0): Window {
  const chunks: Buffer[] = [];
  const starts: number[] = [];
  let start = from;
  let end = from;

  /** The last piece that starts at or before `position`. */
  function find(position: number): number {
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[middle]! <= position) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  return {
    get start() {
      return start;
    },
    get end() {
      return end;
    },
    get bytes() {
      return end - start;
    },
    push(chunk) {
      chunks.push(chunk);
      starts.push(end);
      end += chunk.length;
    },
    read(position, maxBytes) {
      if (position < start || position >= end) return undefined;
      const index = find(position);
      const offset = position - starts[index]!;
      return chunks[index]!.subarray(offset, offset + maxBytes);
    },
    from(position) {
      return position >= end ? [] : chunks.slice(find(position));
    },
    trim(maxBytes, limit) {
      let count = 0;
      for (; end - start > maxBytes && start + chunks[count]!.length <= limit; count++) start += chunks[count]!.length;
      starts.splice(0, count);
      return chunks.splice(0, count);
    },
  };
}

/** For those who come a moment later. */
export const recentBytes = 4 * 1024 * 1024;

/**
 * Of what is on the disk as well: what is young when it goes costs the runtime least.
 *
 * @param rearmost where the reader is that has read least
 */
export function worthKeeping(rearmost: number, received: number, maxBytes: number): number {
  return Math.min(maxBytes, Math.max(recentBytes, received - rearmost));
}

/**
 * The place before which no reader needs anything.
 *
 * @param rearmost where the reader is that has read least
 * @throws NarrowsError where nobody may come to read it from its start
 */
export function readByAll(rearmost: number, received: number, size?: number): number {
  if (size !== undefined) return Math.min(received, rearmost);
  throw new NarrowsError('upstreamUnusable', 'The upstream does not tell the size, and there is no disk to find out.');
}
