import { NarrowsError } from '../errors.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import type { Part } from './gathering.ts';
import { createTurns } from './turns.ts';

/** The disk of this machine, where what is warmed has to lie. */
export interface Shelf {
  has(digest: Digest): Promise<number | undefined>;
  /** From another tier of this machine, where it is in one. */
  bring(digest: Digest): Promise<void>;
  /** What may not go, and how much the disk may hold. */
  pinnedBytes(): number;
  readonly maxBytes: number;
}

export interface FetcherOptions {
  readonly reader: Pick<Reader, 'fetch'>;
  readonly shelf: Pick<Shelf, 'has' | 'bring'>;
  /** Downloads at once. */
  readonly atOnce: number;
  readonly signal: AbortSignal;
}

/** Brings parts of images to the disk, each digest once, whoever else of this run wants it. */
export interface Fetcher {
  missing(parts: readonly Part[]): Promise<Part[]>;
  /** @throws NarrowsError, or the signal's reason */
  fetch(source: Source, part: Part, onBytes: (bytes: number) => void): Promise<void>;
}

export function createFetcher({ reader, shelf, atOnce, signal }: FetcherOptions): Fetcher {
  const turns = createTurns(atOnce);
  const running = new Map<Digest, Promise<void>>();

  async function isHere({ digest, bytes }: Part): Promise<boolean> {
    return isEmptyDigest(digest) || (await shelf.has(digest)) === bytes;
  }

  async function bring(source: Source, part: Part, onBytes: (bytes: number) => void): Promise<void> {
    signal.throwIfAborted();
    // Documents are here since the image was gone through.
    if (part.kind === 'config' || part.kind === 'layer') await reader.fetch(source, part.digest, onBytes, signal);
    if (await isHere(part)) return;
    // What came from memory has no copy on the disk.
    await shelf.bring(part.digest);
    if (await isHere(part)) return;
    const why = 'cache.platforms leaves it out, the disk is full, or it is not of the size that is said of it';
    throw new NarrowsError('storeUnavailable', `${part.digest} was fetched and not kept: ${why}.`);
  }

  return {
    async missing(parts) {
      const here = await Promise.all(parts.map(isHere));
      return parts.filter((_, at) => !here[at]);
    },

    async fetch(source, part, onBytes) {
      const before = running.get(part.digest);
      const isDone = before?.then(
        () => true,
        // Another repository's failure says nothing of this one.
        () => false,
      );
      if (await isDone) return;
      const started = turns.run(() => bring(source, part, onBytes));
      running.set(part.digest, started);
      await started;
    },
  };
}
