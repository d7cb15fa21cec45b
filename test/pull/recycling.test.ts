import * as fc from 'fast-check';
import t from 'tap';
import { createDiskTier } from '../../src/cache/disk.ts';
import { readAll } from '../../src/cache/bytes.ts';
import type { Blob, Partial } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { flightOf } from '../fixtures/flights.ts';
import { tryMany } from '../fixtures/fuzz.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

/**
 * The memory of a download is received into again, and here it is overwritten the moment it is given back: whoever would
 * still look at it, be it a slow reader or the disk, gets other bytes than those of the blob.
 */
const bytes = noise('recycled', 1024 * 1024);
const digest = digestOf(bytes);
const windowBytes = 100_000;
const maxPieceBytes = 150_000;

interface Habit {
  readonly from: number;
  readonly readBytes: number;
  /** Turns of the event loop between two reads. */
  readonly pause: number;
  /** After so many reads it leaves. */
  readonly reads: number;
  /** When it comes: once so much has been received. */
  readonly comesAt: number;
}

const habits: fc.Arbitrary<Habit> = fc.record({
  from: fc.oneof(fc.constant(0), fc.nat(bytes.length - 1)),
  readBytes: fc.integer({ min: 1_000, max: 200_000 }),
  pause: fc.nat(4),
  reads: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 10 })),
  comesAt: fc.oneof(fc.constant(0), fc.nat(bytes.length)),
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Reads as a client is sent to: the one before is still leaving while the next is read. @returns what was wrong */
async function follow(blob: Blob, { from, readBytes, pause, reads }: Habit): Promise<string | undefined> {
  let before: { at: number; piece: Buffer } | undefined;
  try {
    let at = from;
    for (let count = 0; at < blob.size && count < reads; count++) {
      const piece = await blob.read(at, readBytes);
      for (let turns = 0; turns < pause; turns++) await turn();
      for (const each of before ? [before, { at, piece }] : [{ at, piece }]) {
        if (!each.piece.equals(bytes.subarray(each.at, each.at + each.piece.length)))
          return `other bytes at ${each.at}`;
      }
      before = { at, piece };
      at += piece.length;
    }
    blob.doneReading?.();
    if (at === blob.size) await blob.verified;
    return undefined;
  } finally {
    await blob.close();
  }
}

/** @returns whether each piece came back once, and what was wrong */
async function fly(lengths: readonly number[], readers: readonly Habit[], begin: () => Promise<Partial | undefined>) {
  let count = 0;
  let recycled = 0;
  const spare: Buffer[] = [];
  async function* body() {
    for (let at = 0, index = 0; at < bytes.length; index++) {
      const memory = spare.pop() ?? Buffer.allocUnsafeSlow(maxPieceBytes);
      const piece = memory.subarray(0, bytes.copy(memory, 0, at, at + lengths[index % lengths.length]!));
      at += piece.length;
      count++;
      await turn();
      yield piece;
    }
  }
  const flight = flightOf(
    body(),
    { digest, windowBytes: () => windowBytes, begin },
    {
      size: bytes.length,
      recycle(piece) {
        recycled++;
        spare.push(Buffer.from(piece.buffer).fill(0xee));
      },
    },
  );
  const first = await flight.open('first');
  const outcomes = await Promise.all([
    follow(first, { from: 0, readBytes: 50_000, pause: 1, reads: Infinity, comesAt: 0 }),
    ...readers.map(async (habit) => {
      while (flight.isJoinable && flight.progress.receivedBytes < habit.comesAt) await turn();
      return flight.isJoinable ? follow(await flight.open('joined'), habit) : undefined;
    }),
  ]);
  const landing = await flight.landed;
  return { isAllRecycled: recycled === count, landing, wrong: outcomes.filter((outcome) => outcome !== undefined) };
}

const lengths = fc.array(fc.integer({ min: 2_000, max: maxPieceBytes }), { minLength: 1, maxLength: 8 });

void t.test('recycling: nobody sees memory that was given back, with a copy on the disk', async (t) => {
  const disk = await createDiskTier({
    path: await temporaryFolder(t),
    maxVerified: 10,
    maxBufferBytes: 1024 * 1024,
    maxLeftoverBytes: 0,
  });
  t.teardown(() => disk.close());
  await tryMany(
    t,
    fc.asyncProperty(lengths, fc.array(habits, { maxLength: 6 }), async (pieces, readers) => {
      const { isAllRecycled, landing, wrong } = await fly(pieces, readers, () => disk.begin(digest));
      const kept = await disk.open(digest);
      const copy = kept && (await readAll(kept));
      await disk.delete(digest);
      return wrong.length === 0 && isAllRecycled && landing.outcome === 'done' && copy?.equals(bytes) === true;
    }),
    400,
  );
});

void t.test('recycling: nobody sees memory that was given back, with no copy but the window', async (t) => {
  await tryMany(
    t,
    fc.asyncProperty(lengths, fc.array(habits, { maxLength: 6 }), async (pieces, readers) => {
      const { isAllRecycled, landing, wrong } = await fly(pieces, readers, () => Promise.resolve(undefined));
      return wrong.length === 0 && isAllRecycled && landing.outcome === 'done';
    }),
    400,
  );
});
