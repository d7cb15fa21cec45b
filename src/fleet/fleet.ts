import type { Blob } from '../cache/tier.ts';
import type { Digest } from '../oci/digest.ts';

/** One download that the fleet has in common. Each upstream has its own: one that lies must not speak for another. */
export interface FleetKey {
  readonly upstream: string;
  readonly digest: Digest;
  /** The repository that it is downloaded through. */
  readonly repository: string;
}

/** The processes that act as one mirror: replicas around one Redis, or the workers of one machine. */
export interface Fleet {
  /** Followers need no copy of their own: the leader's lands in the store that they share. */
  readonly sharesStore: boolean;
  /** Undefined where nobody can say who downloads: then everyone does for itself. Never rejects. */
  join(key: FleetKey): Promise<Leader | Follower | undefined>;
  close(): Promise<void>;
}

/** Someone leads, and brings nothing: whoever waits had better go on without this fleet. */
export class FleetStalled extends Error {
  constructor(leader: string) {
    super(`${leader} that downloads it brings nothing`);
    this.name = 'FleetStalled';
  }
}

/** Whoever got here first, and downloads. */
export interface Leader {
  readonly role: 'leader';
  /** Someone else has taken over, for instance after this process was stopped for a while. */
  readonly isLost: boolean;
  /**
   * Lets the others follow, while it grows; resolves when all of it is passed on or the lead is lost. Closes `blob`.
   *
   * @param again opens it once more, for followers that each have their own pace
   */
  share(blob: Blob, again: () => Promise<Blob>): Promise<void>;
  /** The download came to nothing, or nobody needs it: another may lead. */
  leave(): Promise<void>;
}

/** Everyone else. */
export interface Follower {
  readonly role: 'follower';
  /**
   * The leader's copy from `from` on, as it grows. Undefined when the leader is gone: then it is time to join again.
   * Throws FleetStalled, as its body does, when the leader is there and nothing comes.
   *
   * @param mayRead asked with the repository that the leader downloads through, before anything is read
   */
  follow(from: number, mayRead: (repository: string) => Promise<void>): Promise<Followed | undefined>;
}

export interface Followed {
  readonly size: number;
  /** Throws when the leader is gone before the end. */
  readonly body: AsyncIterable<Buffer>;
  cancel(): void;
}
