import type { NarrowedRecord } from '../cache/records.ts';
import { writeAlternates } from '../oci/alternates.ts';
import { writeCombined } from '../oci/combined.ts';
import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { isPlatform, parseDocument } from '../oci/manifest.ts';
import type { Document, Index, Manifest } from '../oci/manifest.ts';
import { mediaTypes } from '../oci/media-types.ts';
import { platformImages } from '../oci/part.ts';
import { fit, parsePlatform } from '../oci/platform.ts';
import { narrowIndex } from './narrow.ts';
import type { Narrowed } from './narrow.ts';

export interface Original {
  readonly bytes: Buffer;
  readonly mediaType: string;
  /** What is in the bytes. */
  readonly document: Document;
}

/** An index to which others add where the publisher has a single image. */
const empty: Index = {
  kind: 'index',
  mediaType: mediaTypes.ociIndex,
  manifests: [],
  source: { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] },
};

/** What a recipe starts from; undefined for what nothing can be made of. */
export function baseOf(document: Document): Index | undefined {
  if (document.kind === 'opaque') return undefined;
  return document.kind === 'index' ? document : empty;
}

/**
 * Makes a document of this mirror, the same one each time.
 *
 * @param manifestOf the image under a digest; undefined for what is none
 * @returns undefined where the original is not what the recipe was written for
 */
export async function prepare(
  original: Original,
  recipe: NarrowedRecord,
  manifestOf: (digest: Digest, mediaType: string) => Promise<Manifest | undefined>,
): Promise<Narrowed | undefined> {
  const base = baseOf(original.document);
  if (!base) return undefined;
  const kept = recipe.kept.map((place) => base.manifests[place]).filter((child) => child !== undefined);
  const isWhole = base !== empty && kept.length === base.manifests.length && !recipe.added?.length;
  const narrowed = isWhole ? undefined : narrowIndex(base, kept, recipe.added);
  if (!recipe.as) return narrowed ?? narrowIndex(base, kept);
  const { bytes, mediaType } = narrowed ?? original;
  const index = narrowed ? parseDocument(bytes, mediaType) : base;
  return index.kind === 'index'
    ? describe(recipe.as, recipe.primary, { bytes, mediaType, index }, manifestOf)
    : undefined;
}

/** Of one document: more stays an index. */
const maxImages = 256;
const maxImageBytes = 8 * 1024 * 1024;
/** Children asked for at once. */
const atOnce = 8;

async function describe(
  as: 'combined' | 'alternates',
  primaryName: string | undefined,
  { bytes, mediaType, index }: { bytes: Buffer; mediaType: string; index: Index },
  manifestOf: (digest: Digest, mediaType: string) => Promise<Manifest | undefined>,
): Promise<Narrowed | undefined> {
  const children = index.manifests.filter(({ platform }) => isPlatform(platform));
  const totalBytes = children.reduce((sum, { size }) => sum + size, 0);
  if (children.length > maxImages || totalBytes > maxImageBytes) return undefined;
  const manifests = new Map<Digest, Manifest>();
  for (let at = 0; at < children.length; at += atOnce) {
    await Promise.all(
      children.slice(at, at + atOnce).map(async (child) => {
        const manifest = await manifestOf(child.digest, child.mediaType);
        if (manifest) manifests.set(child.digest, manifest);
      }),
    );
  }
  const images = platformImages(index, (digest) => manifests.get(digest));
  const wanted = parsePlatform(primaryName ?? '');
  const primary = images.find(({ platform }) => wanted && fit(wanted, platform) === 0) ?? images[0];
  if (!primary) return undefined;
  const write = as === 'combined' ? writeCombined : writeAlternates;
  const document = write({ bytes, mediaType, images, primary });
  return { bytes: document, digest: digestOf(document), mediaType: mediaTypes[as] };
}
