import type { Hash } from 'node:crypto';
import type { Partial } from '../cache/tier.ts';
import { startHash } from '../oci/digest.ts';
import type { FlightOptions } from './flight-options.ts';

/** What an earlier download of the same blob left behind, to go on from. */
export interface TakenUp {
  readonly partial: Partial;
  /** Of what is there already. */
  readonly hash: Hash;
  /** Of the whole blob. */
  readonly size: number;
}

const pieceBytes = 1024 * 1024;

/** Undefined where nothing is left, or nothing that can be used: without the size nobody knows what is still to come. */
export async function takeUp(options: FlightOptions): Promise<TakenUp | undefined> {
  const partial = await options.takeUp?.();
  if (!partial) return undefined;
  const size = await options.expectedSize();
  const isUsable = size !== undefined && partial.startBytes <= size;
  const hash = isUsable ? await hashAgain(partial, options) : undefined;
  if (size !== undefined && hash) return { partial, hash, size };
  await partial.close();
  return undefined;
}

async function hashAgain(partial: Partial, { digest, onTrouble }: FlightOptions): Promise<Hash | undefined> {
  const reader = partial.reader();
  const running = startHash(digest);
  try {
    for (let position = 0; position < partial.startBytes;) {
      const piece = await reader.read(position, Math.min(pieceBytes, partial.startBytes - position));
      running.update(piece);
      position += piece.length;
    }
    return running;
  } catch (error) {
    onTrouble(error);
    return undefined;
  } finally {
    reader.close();
  }
}
