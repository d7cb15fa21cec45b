import type { Identity } from '../access/identity.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reference, RepositoryName, Tag } from '../oci/reference.ts';

/** A write of the distribution API, read once; `path` is as the client wrote it, for the addresses in the answer. */
export type PushRoute = { readonly path: string; readonly name: RepositoryName; readonly namespace?: string } & (
  | { readonly kind: 'put-manifest'; readonly reference: Reference; readonly tags: readonly Tag[] }
  | { readonly kind: 'delete-manifest'; readonly reference: Reference }
  | { readonly kind: 'delete-blob'; readonly digest: Digest }
  | { readonly kind: 'start-upload'; readonly digest?: Digest; readonly mount?: Digest; readonly from?: RepositoryName }
  | { readonly kind: 'upload-status'; readonly id: string }
  | { readonly kind: 'append-upload'; readonly id: string }
  | { readonly kind: 'finish-upload'; readonly id: string; readonly digest: Digest }
  | { readonly kind: 'cancel-upload'; readonly id: string }
);

/** A push without its socket. */
export interface PushRequest {
  readonly route: PushRoute;
  readonly by: Identity;
  readonly contentType: string;
  /** `Content-Range` as written. */
  readonly contentRange: string | undefined;
  /** Of the body, where it is known beforehand. */
  readonly bytes: number | undefined;
  /** Breaks off with the client. */
  readonly body: AsyncIterable<Buffer>;
}
