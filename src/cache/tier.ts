import type { Digest } from '../oci/digest.ts';

/** Where an answer's bytes came from; the word in `Narrows-Cache`. */
export type CacheState = `hit-${TierName}` | 'joined' | 'miss' | 'revalidated' | 'stale';

/** The places that hold content, nearest first. */
export type TierName = 'memory' | 'disk' | 'redis' | 's3';

/** Bytes of a known size, readable at any place while their holder keeps them open. */
export interface Content {
  readonly size: number;
  /**
   * At least one and at most `maxBytes` bytes from `position`, which is below `size`. Waits for what is still on its
   * way. The buffer is for looking at alone, and stays as it is until the second read after this one or until this is
   * closed, so that one can be sent while the next fills.
   */
  read(position: number, maxBytes: number): Promise<Buffer>;
  /** Never rejects, and may be called again. */
  close(): Promise<void>;
}

/** The content of a digest. */
export interface Blob extends Content {
  readonly state: CacheState;
  /**
   * Resolves when every byte is known to hash to the digest, rejects when it does not; undefined when that is known
   * already. Bytes may be passed on before, a complete answer may not.
   */
  readonly verified: Promise<void> | undefined;
  /** Says that no read will come any more, before waiting for `verified`: a source that paces itself need not wait. */
  doneReading?(): void;
}

/**
 * One place that holds blobs by digest. Undefined is "not here"; a throw is a broken tier, which whoever asks treats
 * as a miss. Nothing is ever visible under a digest that it does not hash to.
 */
export interface Tier {
  readonly name: TierName;
  open(digest: Digest): Promise<Blob | undefined>;
  /** The size of what is here: nothing is read, and it does not count as used. */
  has(digest: Digest): Promise<number | undefined>;
  /** Resolves when durable; on failure, a digest that does not match included, nothing is left behind. */
  put(digest: Digest, blob: Blob): Promise<void>;
  delete(digest: Digest): Promise<void>;
}

/** A blob in the making: appended to at its end, readable from its start. */
export interface Partial {
  /** The buffers are the caller's again when it resolves or rejects. */
  append(chunks: readonly Buffer[]): Promise<void>;
  /** As `Blob.read`, for bytes that were appended; buffers are the reader's own, so each reader makes one. */
  reader(): PartialReader;
  /** Makes it durable under its digest, which the caller has verified. */
  commit(digest: Digest): Promise<void>;
  /** What was there when it was opened, appended to by one that broke off. */
  readonly startBytes: number;
  /** Ends it. What was not committed leaves nothing behind, unless the next one is to go on with it. */
  close(options?: { readonly isForLater: boolean }): Promise<void>;
}

export interface PartialReader {
  read(position: number, maxBytes: number): Promise<Buffer>;
  /** Gives its buffers back. */
  close(): void;
}

/** A tier that a download can grow in before it has its name. */
export interface GrowingTier extends Tier {
  begin(digest: Digest): Promise<Partial>;
  /** What one that broke off has left of it, for one alone to go on with; undefined for nothing. */
  takeUp(digest: Digest): Promise<Partial | undefined>;
}

/** All tiers as one: those of this machine are opened, those farther away downloaded from. It never throws for a tier's trouble: that is a miss, or a copy less. */
export interface Store {
  open(digest: Digest): Promise<Blob | undefined>;
  /** @param bytes verified by the caller */
  put(digest: Digest, bytes: Buffer): Promise<void>;
  /** Which tier has it, and how large it is; nothing is read, and it does not count as used. */
  locate(digest: Digest): Promise<{ tier: TierName; bytes: number } | undefined>;
  /** The whole of what is small, verified, from any tier; undefined for one of more than `maxBytes` as well. */
  read(digest: Digest, maxBytes: number): Promise<{ bytes: Buffer; state: CacheState } | undefined>;
  /** Undefined when no tier can take it. */
  begin(digest: Digest): Promise<Partial | undefined>;
  /** Undefined where nothing of it is left from before. */
  takeUp(digest: Digest): Promise<Partial | undefined>;
  /**
   * The copy of a tier that is farther away, to be downloaded like an upstream's; its buffers are the reader's own.
   *
   * @param except those that had their chance, by the state of their blobs
   */
  far(digest: Digest, except?: ReadonlySet<CacheState>): Promise<Blob | undefined>;
  /** What is here gets copies in the tiers that are farther away, in the background. */
  spread(digest: Digest): void;
  /** Content that came from a tier farther away was not that of the digest. */
  distrust(digest: Digest): Promise<void>;
}
