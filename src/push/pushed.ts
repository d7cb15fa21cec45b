import { NarrowsError } from '../errors.ts';
import { readAlternates } from '../oci/alternates.ts';
import type { Alternates } from '../oci/alternates.ts';
import { readCombined } from '../oci/combined.ts';
import type { Combined } from '../oci/combined.ts';
import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import { isForeign, isPlatform, readDescriptor, readDocument, readStrings } from '../oci/manifest.ts';
import type { Descriptor, Index, Manifest } from '../oci/manifest.ts';
import { baseType, mediaTypes } from '../oci/media-types.ts';
import { readIndexLabels } from '../oci/part.ts';

/** A manifest as it was pushed. */
export interface Pushed {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly document: PushedDocument;
  /** What has to be here before it, and how large that has to be. */
  readonly blobs: readonly Needed[];
  readonly manifests: readonly Needed[];
  /** What it refers to, which need not be here. */
  readonly subject?: Digest;
}

export type PushedDocument =
  Index | Manifest | (Combined & { readonly kind: 'combined' }) | (Alternates & { readonly kind: 'alternates' });

export interface Needed {
  readonly digest: Digest;
  readonly bytes: number;
  /** What runs somewhere is a manifest; caches of builders list blobs. */
  readonly isImage?: boolean;
}

/** @throws NarrowsError manifestInvalid */
export function readPushed(bytes: Buffer, contentType: string): Pushed {
  try {
    return read(bytes, contentType);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw invalid(cause.message, cause);
  }
}

/** For what is found out about a document later: it is as invalid as what is seen at once. @throws NarrowsError manifestInvalid */
export async function asInvalid<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw cause instanceof SyntaxError ? invalid(cause.message, cause) : cause;
  }
}

export function invalid(reason: string, cause?: unknown): NarrowsError {
  return new NarrowsError('manifestInvalid', `This is no usable manifest: ${reason}.`, { cause });
}

function read(bytes: Buffer, contentType: string): Pushed {
  const type = baseType(contentType);
  if (type === mediaTypes.combined) {
    const document = readCombined(bytes);
    const layers = document.images.flatMap((image) => image.layers);
    const blobs = [document.target, ...layers];
    const manifests = childrenIn(document.labels);
    return { bytes, mediaType: type, document: { ...document, kind: 'combined' }, blobs, manifests };
  }
  if (type === mediaTypes.alternates) {
    const document = readAlternates(bytes);
    const blobs = [document.target, ...document.dependencies];
    const manifests = [...document.alternates, ...childrenIn(document.labels)];
    return { bytes, mediaType: type, document: { ...document, kind: 'alternates' }, blobs, manifests };
  }
  const document = readDocument(bytes, contentType);
  if (document.kind === 'opaque') throw new SyntaxError(reasonOfOpaque(document.mediaType));
  const subject = readSubject(document.source);
  const common = { bytes, mediaType: document.mediaType, document, ...(subject && { subject }) };
  if (document.kind === 'index') return { ...common, blobs: [], manifests: document.manifests.map(neededChild) };
  // A config is what the image is: it is never left where someone else has it.
  const blobs = [document.config, ...document.layers.filter((layer) => !isForeign(layer))].map(needed);
  return { ...common, blobs, manifests: [] };
}

function childrenIn(labels: Readonly<Record<string, string>>): Needed[] {
  return readIndexLabels(labels)?.index.manifests.map(neededChild) ?? [];
}

function reasonOfOpaque(mediaType: string): string {
  const isKnown = [mediaTypes.ociIndex, mediaTypes.ociManifest, mediaTypes.dockerList, mediaTypes.dockerManifest].some(
    (known) => known === mediaType,
  );
  return isKnown ? 'a descriptor in it is not valid' : `${mediaType} is not taken here`;
}

function needed({ digest, size }: { digest: Digest; size: number }): Needed {
  return { digest, bytes: size };
}

function neededChild({ digest, size, platform }: Descriptor): Needed {
  return { digest, bytes: size, isImage: isPlatform(platform) };
}

function readSubject(source: JsonObject): Digest | undefined {
  if (source['subject'] === undefined) return undefined;
  const subject = readDescriptor(source['subject']);
  if (!subject) throw new SyntaxError('its subject is no descriptor');
  return subject.digest;
}

/** In characters: a list of a thousand referrers has to stay one that can be sent. */
const maxListedAnnotations = 16_384;

/** How it stands among the referrers of its subject (distribution-spec, "Listing Referrers"). */
export function referrerOf({ bytes, mediaType, document }: Pushed, digest: Digest): JsonObject {
  const { source } = document;
  const config = document.kind === 'manifest' ? document.config.mediaType : undefined;
  const artifactType =
    typeof source['artifactType'] === 'string' && source['artifactType'] !== '' ? source['artifactType'] : config;
  const annotations = readStrings(source['annotations']);
  const isShort = JSON.stringify(annotations).length <= maxListedAnnotations;
  return {
    mediaType,
    digest,
    size: bytes.length,
    ...(artifactType !== undefined && { artifactType }),
    ...(Object.keys(annotations).length > 0 && isShort && { annotations }),
  };
}

export function digestFor(bytes: Buffer, wanted: Digest | undefined): Digest {
  return digestOf(bytes, wanted?.startsWith('sha512:') ? 'sha512' : 'sha256');
}
