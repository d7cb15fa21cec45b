import { pieces } from '../cache/bytes.ts';
import type { Blob } from '../cache/tier.ts';
import { contentKey } from '../cache/records.ts';
import { isKind } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import type { RepositoryName, Tag } from '../oci/reference.ts';
import type { Source } from '../upstream/registries.ts';
import type { Blobs } from './blobs.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import type { Overlay, PullParts } from './parts.ts';
import type { Referrers } from './referrers.ts';
import type { Tags } from './tags.ts';

/**
 * What repositories have, part by part: for those who go through whole images. Over registries that are offline it
 * gives what is here, and throws manifestNotHeld and blobNotHeld for the rest.
 */
export interface Reader {
  /** @throws NarrowsError nameUnknown for a registry that is not configured */
  find(name: RepositoryName): Source;
  /** What a tag means now; undefined where the upstream has none. @throws NarrowsError the upstream's trouble */
  tag(source: Source, tag: Tag): Promise<HeldManifest | undefined>;
  manifest(source: Source, digest: Digest): Promise<HeldManifest | undefined>;
  referrers(source: Source, subject: Digest, freshMs: number): Promise<readonly JsonObject[]>;
  overlaysOf(source: Source): readonly Overlay[];
  /** The size of a blob that is here, and that the repository is known to have. Nothing is read. */
  held(source: Source, digest: Digest): Promise<number | undefined>;
  /** The whole of a blob that is no larger than a manifest may be; undefined for a larger one. @throws NarrowsError */
  small(source: Source, digest: Digest): Promise<Buffer | undefined>;
  /** From the nearest tier, else downloaded. The caller closes it. @throws NarrowsError */
  blob(source: Source, digest: Digest): Promise<Blob>;
  /**
   * Resolves when it has been read to its end, verified, and kept where it can be.
   *
   * @throws NarrowsError, or the signal's reason
   */
  fetch(source: Source, digest: Digest, onBytes: (bytes: number) => void, signal: AbortSignal): Promise<void>;
}

export function createReader(
  { store, records, registries, rules }: PullParts,
  tags: Tags,
  manifests: Manifests,
  blobs: Blobs,
  referrers: Referrers,
): Reader {
  return {
    find: (name) => registries.find(name, undefined, undefined),
    tag: (source, tag) =>
      tags.ask(source, tag).catch((error: unknown) => {
        if (isKind(error, 'manifestUnknown')) return undefined;
        throw error;
      }),
    manifest: (source, digest) => manifests.byDigest(source, digest),
    referrers: referrers.all,
    overlaysOf: ({ key }) => rules.overlaysOf(key),
    async held(source, digest) {
      const found = await store.locate(digest);
      if (!found) return undefined;
      const isKnown = source.isHosted
        ? await source.upstream.blobHead(source.repository, digest)
        : await records.blobs.get(contentKey(source, digest));
      return isKnown && found.bytes;
    },
    small: (source, digest) => blobs.readSmall(source, digest, rules.maxManifestBytes),
    blob: blobs.open,
    async fetch(source, digest, onBytes, signal) {
      const blob = await blobs.open(source, digest);
      const leave = () => void blob.close();
      signal.addEventListener('abort', leave);
      try {
        // While it was being opened nobody was listening.
        signal.throwIfAborted();
        for await (const piece of pieces(blob)) onBytes(piece.length);
        await blob.verified;
      } catch (error) {
        signal.throwIfAborted();
        throw error;
      } finally {
        signal.removeEventListener('abort', leave);
        await blob.close();
      }
      // A reader is told the end a moment before the copy has its name.
      await blobs.landed(source, digest);
    },
  };
}
