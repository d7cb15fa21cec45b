import type { Partial, PartialReader } from '../cache/tier.ts';
import type { Digest } from '../oci/digest.ts';

export interface GrowingCopyOptions {
  /** Where it grows; undefined where no tier can take it. */
  open(): Promise<Partial | undefined>;
  /** All that has come from this place on, in pieces. */
  from(position: number): Buffer[];
  /** It has grown, or stopped growing. */
  onChange(): void;
  onTrouble(error: unknown): void;
}

/** What a download leaves in a tier. The tier may fail at any moment: then nothing is kept. */
export interface GrowingCopy {
  /** The tier takes what comes, as far as is known: false before the beginning, and from its first failure on. */
  readonly isKept: boolean;
  /** So much of it can be read from the tier. */
  readonly flushedBytes: number;
  /** What was left from before goes on. */
  goOn(partial: Partial): void;
  /** It is to grow, unless it has begun already; nobody waits for its place to be made. */
  begin(): void;
  /** More has come. */
  grow(): void;
  /** Resolves when nothing is being written. */
  settled(): Promise<void>;
  /** What was written stays readable until the end. */
  reader(): PartialReader | undefined;
  /** It is whole and verified, and gets its name. */
  commit(digest: Digest): Promise<void>;
  close(how: { readonly isForLater: boolean }): Promise<void>;
}

export function createGrowingCopy({ open, from, onChange, onTrouble }: GrowingCopyOptions): GrowingCopy {
  let partial: Partial | undefined;
  let isKept = false;
  let flushedBytes = 0;
  let writing: Promise<void> | undefined;

  /** In the order of arrival, all that has come meanwhile in one go. */
  async function write(): Promise<void> {
    try {
      // Always after this turn: whoever began it has to know of it before its end.
      const place = (partial = await (partial ?? open()));
      isKept = place !== undefined;
      if (!place) return;
      for (let chunks = from(flushedBytes); chunks.length > 0; chunks = from(flushedBytes)) {
        await place.append(chunks);
        flushedBytes += chunks.reduce((sum, { length }) => sum + length, 0);
        onChange();
      }
    } catch (error) {
      isKept = false;
      onTrouble(error);
    } finally {
      writing = undefined;
      onChange();
    }
  }

  const copy: GrowingCopy = {
    get isKept() {
      return isKept;
    },
    get flushedBytes() {
      return flushedBytes;
    },
    goOn(left) {
      [partial, isKept, flushedBytes] = [left, true, left.startBytes];
    },
    begin() {
      if (partial) return;
      isKept = true;
      copy.grow();
    },
    grow() {
      if (isKept) writing ??= write();
    },
    async settled() {
      if (!writing) return;
      await writing;
      await copy.settled();
    },
    reader: () => partial?.reader(),
    async commit(digest) {
      if (isKept) await partial?.commit(digest).catch(onTrouble);
    },
    async close(how) {
      const closing = partial;
      partial = undefined;
      await closing?.close(how).catch(onTrouble);
    },
  };
  return copy;
}
