import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import type { Descriptor, Index } from '../oci/manifest.ts';

export interface Narrowed {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly mediaType: string;
}

/**
 * The index with only the children in `keep`, and with what others add to it. Deterministic, because its digest is
 * handed out and must be answerable by every replica and after every loss: the order and all fields are those of the
 * original, known to us or not, and the JSON is compact.
 */
export function narrowIndex(index: Index, keep: readonly Descriptor[], added: readonly JsonObject[] = []): Narrowed {
  const kept = new Set(keep);
  const manifests = [...index.manifests.filter((child) => kept.has(child)).map((child) => child.source), ...added];
  const bytes = Buffer.from(JSON.stringify({ ...index.source, manifests }));
  return { bytes, digest: digestOf(bytes), mediaType: index.mediaType };
}
