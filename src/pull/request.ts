import type { Identity } from '../access/identity.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reference, RepositoryName } from '../oci/reference.ts';
import type { Blob } from '../cache/tier.ts';
import type { Caller } from './choose-platform.ts';

/** What a URL of the distribution API asks for, read once. */
export type Route =
  | (Place & { readonly kind: 'ping' })
  | (Place & { readonly kind: 'catalog'; readonly page: Page })
  | (Place & { readonly kind: 'manifest'; readonly name: RepositoryName; readonly reference: Reference })
  | (Place & { readonly kind: 'blob'; readonly name: RepositoryName; readonly digest: Digest })
  | (Place & { readonly kind: 'tags'; readonly name: RepositoryName; readonly page: Page })
  | (Place & {
      readonly kind: 'referrers';
      readonly name: RepositoryName;
      readonly digest: Digest;
      readonly artifactType?: string;
      readonly page: Page;
    });

export interface Place {
  /** The path as the client wrote it, for links to the next page. */
  readonly path: string;
  /** The platform set in the path, as written. */
  readonly pathSet?: string;
  /** `?ns=`: the registry that the client's reference names. */
  readonly namespace?: string;
}

/** `?n=` and `?last=`: how many, and after which. */
export interface Page {
  readonly n?: number;
  readonly last?: string;
}

/** How a listener answers tags, where the caller names no form. */
export type EndpointView = 'image' | 'index' | 'combined' | 'alternates';

/** A request as a pull sees it: no socket, nothing left to parse. */
export interface PullRequest {
  readonly route: Route;
  readonly method: 'GET' | 'HEAD';
  readonly accept: string | undefined;
  readonly by: Identity;
  readonly caller: Caller;
  /** What the listener says: how one platform is answered, and which upstream stands for none. */
  readonly endpointView: EndpointView;
  readonly endpointUpstream: string | undefined;
}

/** An answer. With a blob, `http` reads it, cuts it to the range asked for, and closes it. */
export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Body;
  /** For so long, whoever has the same right and asks the same gets the same. */
  readonly goodForMs?: number | undefined;
}

export type Body =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'blob'; readonly blob: Blob }
  /** A HEAD whose body nobody opened. */
  | { readonly kind: 'size'; readonly size: number }
  /** For a status that has none. */
  | { readonly kind: 'none' };
