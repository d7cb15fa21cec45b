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
  readonly nearest: number;
  /** Where the one is that has read least; beyond everything where there is none. */
  readonly furthest: number;
  add(isClient: boolean): FlightReader;
  /** @returns false where it has left before */
  leave(reader: FlightReader): boolean;
  /** What a read gives is its reader's until the second read after it. @param piece undefined for a buffer of its own */
  lend(reader: FlightReader, piece: Buffer | undefined): void;
  /** The download has no use for these any more. */
  drop(pieces: readonly Buffer[]): void;
}

/** @param onFree told of each dropped piece, at once or when no reader looks at it any more */
export function createReaders(onFree: (piece: Buffer) => void): Readers {
  const lent = new Map<FlightReader, readonly [before: Buffer | undefined, latest: Buffer | undefined]>();
  /** How many look at it, by memory and not by view: what was lent may be a part of a piece. */
  const lookers = new Map<ArrayBufferLike, number>();
  const dropped = new Map<ArrayBufferLike, Buffer>();

  function take(piece: Buffer | undefined): void {
    if (piece) lookers.set(piece.buffer, (lookers.get(piece.buffer) ?? 0) + 1);
  }

  function putDown(piece: Buffer | undefined): void {
    if (!piece) return;
    const left = lookers.get(piece.buffer)! - 1;
    if (left > 0) return void lookers.set(piece.buffer, left);
    lookers.delete(piece.buffer);
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
    get nearest() {
      let nearest = -1;
      for (const { position } of lent.keys()) if (position > nearest && position < Infinity) nearest = position;
      return nearest < 0 ? Infinity : nearest;
    },
    get furthest() {
      let furthest = Infinity;
      for (const { position } of lent.keys()) if (position < furthest) furthest = position;
      return furthest;
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
      pieces.forEach(putDown);
      return true;
    },
    lend(reader, piece) {
      const [before, latest] = lent.get(reader)!;
      take(piece);
      putDown(before);
      lent.set(reader, [latest, piece]);
    },
    drop(pieces) {
      for (const piece of pieces) {
        if (lookers.has(piece.buffer)) dropped.set(piece.buffer, piece);
        else onFree(piece);
      }
    },
  };
}
