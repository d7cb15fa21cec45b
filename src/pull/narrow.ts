import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { Descriptor, Index } from '../oci/manifest.ts';

export interface Narrowed {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly mediaType: string;
}

/**
 * The index with only the children in `keep`. Deterministic, because its digest is handed out and must be answerable
 * by every replica and after every loss: the order and all fields are those of the original, known to us or not, and
 * the JSON is compact.
 */
export function narrowIndex(index: Index, keep: readonly Descriptor[]): Narrowed {
  const kept = new Set(keep);
  const manifests = index.manifests.filter((child) => kept.has(child)).map((child) => child.source);
  const bytes = Buffer.from(JSON.stringify({ ...index.source, manifests }));
  return { bytes, digest: digestOf(bytes), mediaType: index.mediaType };
}
