import type { PartialReader } from '../cache/tier.ts';

/** Someone who reads along with a download. */
export interface FlightReader {
  readonly isClient: boolean;
  isOpen: boolean;
  /** Where it reads next, what lies before is done with but for what it was lent; Infinity once it has read all. */
  position: number;
  file: PartialReader | undefined;
}

/** All readers of a download, and what of its memory is in their hands. */
export interface Readers {
  readonly size: number;
  readonly hasClients: boolean;
  /** Where the one is that has read most, of those who have not read all; beyond everything where there is none. */
  readonly foremost: number;
  /** Where the one is that has read least; beyond everything where there is none. */
  readonly rearmost: number;
  add(isClient: boolean): FlightReader;
  /** @returns false where it has left before */
  leave(reader: FlightReader): boolean;
  /** What a read gives is its reader's until the second read after it. @returns the piece */
  lend(reader: FlightReader, piece: Buffer): Buffer;
  /** The download has no use for these any more. */
  drop(pieces: readonly Buffer[]): void;
}

/**
 * @param onFree told of each dropped piece, at once or when no reader looks at it any more; of several in one memory
 *   that is looked at, of the last alone
 */
export function createReaders(onFree: (piece: Buffer) => void): Readers {
  const lent = new Map<FlightReader, readonly [before: Buffer | undefined, latest: Buffer | undefined]>();
  /** How many look at it, by memory and not by view: what was lent may be a part of a piece. */
  const holders = new Map<ArrayBufferLike, number>();
  const dropped = new Map<ArrayBufferLike, Buffer>();

  function hold(piece: Buffer | undefined): void {
    if (piece) holders.set(piece.buffer, (holders.get(piece.buffer) ?? 0) + 1);
  }

  function release(piece: Buffer | undefined): void {
    if (!piece) return;
    const left = holders.get(piece.buffer)! - 1;
    if (left > 0) return void holders.set(piece.buffer, left);
    holders.delete(piece.buffer);
    const whole = dropped.get(piece.buffer);
    dropped.delete(piece.buffer);
    if (whole) onFree(whole);
  }

  return {
    get size() {
      return lent.size;
    },
    get hasClients() {
      return lent.keys().some(({ isClient }) => isClient);
    },
    get foremost() {
      let foremost = -1;
      for (const { position } of lent.keys()) if (position > foremost && position < Infinity) foremost = position;
      return foremost < 0 ? Infinity : foremost;
    },
    get rearmost() {
      let rearmost = Infinity;
      for (const { position } of lent.keys()) if (position < rearmost) rearmost = position;
      return rearmost;
    },
    add(isClient) {
      const reader: FlightReader = { isClient, isOpen: true, position: 0, file: undefined };
      lent.set(reader, [undefined, undefined]);
      return reader;
    },
    leave(reader) {
      const pieces = lent.get(reader);
      if (!pieces) return false;
      lent.delete(reader);
      reader.isOpen = false;
      reader.file?.close();
      pieces.forEach(release);
      return true;
    },
    lend(reader, piece) {
      const inHand = lent.get(reader);
      // Who has left meanwhile looks at nothing any more.
      if (!inHand) return piece;
      const [before, latest] = inHand;
      hold(piece);
      release(before);
      lent.set(reader, [latest, piece]);
      return piece;
    },
    drop(pieces) {
      for (const piece of pieces) {
        if (holders.has(piece.buffer)) dropped.set(piece.buffer, piece);
        else onFree(piece);
      }
    },
  };
}
