import type { CacheState, Partial } from '../cache/tier.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobAnswer } from '../upstream/upstream.ts';
import type { ResumeLimits } from './resuming.ts';

export interface FlightLimits extends ResumeLimits {
  /** With no reader left, a download goes on if at most this much is missing. What tells no size may not be larger. */
  readonly maxUnreadBytes: number;
}

export interface FlightOptions {
  readonly digest: Digest;
  readonly limits: FlightLimits;
  /** How much of the newest content may be kept in memory now, for the readers that keep up to share. */
  windowBytes(): number;
  /** Bytes, from the manifest that lists the blob; asked where the upstream does not tell. */
  expectedSize(): Promise<number | undefined>;
  /** Asked again each time it breaks off. Undefined where the upstream has no such blob. */
  fetch(from: number): Promise<FlightAnswer | undefined>;
  /** Where the copy grows; undefined where no tier can take it. */
  begin(): Promise<Partial | undefined>;
  /** What a download of it left behind that broke off; undefined for nothing. */
  takeUp?(): Promise<Partial | undefined>;
  /** The first answer tells another size than was expected: what was expected may be wrong as well. */
  onOtherSize?(): void;
  /** All has come, and it is other content than that of the digest. */
  onMismatch?(): Promise<void>;
  /** It broke off, and is taken up where it stopped. */
  onResume?(): void;
  onTrouble(error: unknown): void;
}

/** Where the bytes come from this time. */
export interface FlightAnswer extends BlobAnswer {
  /** Absent for the upstream's. */
  readonly origin?: CacheState;
  /** Someone else puts it into the same store. */
  readonly isKeptElsewhere?: boolean;
}

/** How a flight ended; `abandoned` is nobody's fault. */
export type Landing =
  { readonly outcome: 'done' | 'abandoned' } | { readonly outcome: 'failed'; readonly error: unknown };

/** How far a flight has come. */
export interface FlightProgress {
  readonly receivedBytes: number;
  /** Of these, what came in this flight: the rest was left from before. */
  readonly freshBytes: number;
  /** Absent while nobody has told. */
  readonly size?: number;
  readonly readers: number;
  readonly origin: CacheState;
}
