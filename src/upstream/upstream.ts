import type { Digest } from '../oci/digest.ts';
import type { Reference, RepositoryName } from '../oci/reference.ts';

/**
 * A registry that is fetched from. In every method undefined is its own "there is no such thing", and a throw is
 * trouble on the way (NarrowsError: denied, rateLimited, upstreamUnusable, upstreamUnavailable, upstreamTimeout).
 */
export interface Upstream {
  readonly name: string;
  /** HEAD of a manifest: what a tag means now, at no cost to a pull quota. */
  head(repository: RepositoryName, reference: Reference): Promise<ManifestHead | undefined>;
  manifest(repository: RepositoryName, reference: Reference): Promise<ManifestAnswer | undefined>;
  blobHead(repository: RepositoryName, digest: Digest): Promise<BlobHead | undefined>;
  /** @param from bytes to leave out; the answer says where it really starts */
  blob(repository: RepositoryName, digest: Digest, from: number): Promise<BlobAnswer | undefined>;
  /** `tags/list` or `referrers/<digest>`, as the upstream gives it. */
  list(repository: RepositoryName, path: string, query: URLSearchParams): Promise<ListAnswer | undefined>;
  /** What is left of a pull quota, as the last answer said; undefined where none did. */
  budget?(): Budget | undefined;
  /** How long it is left alone yet, for it limited the rate. */
  backoffMs?(): number;
}

/** A registry as one caller sees it, for the time of a question. */
export interface CallersUpstream extends Pick<Upstream, 'name' | 'head' | 'manifest' | 'blobHead' | 'list'> {
  /** Passes where the registry takes the caller's credential. @throws NarrowsError denied, and trouble as above */
  enter(): Promise<void>;
  close(): Promise<void>;
}

/** How many manifests may still be fetched, of how many within one window. */
export interface Budget {
  readonly remaining: number;
  readonly limit: number;
  /** When there is more again, where that was said: milliseconds since 1970. */
  readonly resetsAtMs?: number;
}

export interface ManifestHead {
  /** Absent where the upstream does not say, or says what is no digest. */
  readonly digest?: Digest;
  readonly contentType: string;
}

export interface ManifestAnswer {
  readonly bytes: Buffer;
  readonly contentType: string;
}

export interface BlobHead {
  /** Bytes; absent where the upstream does not say. */
  readonly size?: number;
}

export interface BlobAnswer extends BlobHead {
  /** The position of the body's first byte. */
  readonly offset: number;
  readonly body: AsyncIterable<Buffer>;
  /**
   * Nobody looks at this piece of the body any more: others are received in its place. Whoever wraps the body and keeps
   * pieces of it must leave this out.
   */
  recycle?(piece: Buffer): void;
  cancel(): void;
}

export interface ListAnswer {
  readonly bytes: Buffer;
  /** The query of the `next` link, where there is one. */
  readonly next?: URLSearchParams;
}
