import { isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import { asObject } from './json.ts';
import type { Json, JsonObject } from './json.ts';
import { isDecisiveKey, readDocument } from './manifest.ts';
import type { Descriptor, Index, Manifest } from './manifest.ts';
import { isMediaType } from './media-types.ts';
import { formatPlatform } from './platform.ts';
import type { Platform } from './platform.ts';

/** A descriptor of the documents of 2015. One spells its size `size`, the other `length`. */
export interface Part {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly bytes: number;
  readonly labels: Readonly<Record<string, string>>;
  /** The JSON it was read from, unknown fields and all. */
  readonly source: JsonObject;
}

export type SizeKey = 'size' | 'length';

/** More than any image has; together with the limit on a manifest it bounds what reading one costs. */
export const maxParts = 1000;

/** @param where names the place in the document, for the reason. @throws SyntaxError with the reason */
export function readPart(value: Json | undefined, sizeKey: SizeKey, where: string): Part {
  const source = asObject(value);
  if (!source) throw new SyntaxError(`${where} is no descriptor`);
  const { mediaType, digest } = source;
  const bytes = source[sizeKey];
  if (typeof mediaType !== 'string' || !isMediaType(mediaType.toLowerCase())) {
    throw new SyntaxError(`${where} has no mediaType`);
  }
  if (typeof digest !== 'string' || !isDigest(digest)) throw new SyntaxError(`${where} has no digest`);
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
    throw new SyntaxError(`${where} has no ${sizeKey}`);
  }
  return { mediaType, digest, bytes, labels: readLabels(source['labels'], where), source };
}

/** @throws SyntaxError with the reason */
export function readParts(value: Json | undefined, sizeKey: SizeKey, where: string): Part[] {
  if (!Array.isArray(value)) throw new SyntaxError(`${where} is no list`);
  if (value.length > maxParts) throw new SyntaxError(`${where} has more than ${maxParts} entries`);
  return value.map((entry, at) => readPart(entry, sizeKey, `${where}[${at}]`));
}

/** @throws SyntaxError with the reason */
export function readLabels(value: Json | undefined, where: string): Record<string, string> {
  if (value === undefined) return {};
  const labels = asObject(value);
  if (!labels || Object.values(labels).some((label) => typeof label !== 'string')) {
    throw new SyntaxError(`the labels of ${where} are no map of text`);
  }
  return labels as Record<string, string>;
}

/** A descriptor of today in the spelling of then; everything else that it says stays. */
export function partJson({ source, ...descriptor }: Descriptor, sizeKey: SizeKey): JsonObject {
  const others = Object.entries(source).filter(([key]) => !ownKeys.has(key.toLowerCase()));
  return {
    // Some indexes leave it out; these documents may not.
    mediaType: descriptor.mediaType || 'application/octet-stream',
    [sizeKey]: descriptor.size,
    digest: descriptor.digest,
    ...Object.fromEntries(others),
  };
}

/** What is said here in another way, and what would be read in another way here. */
const ownKeys = new Set(['mediatype', 'digest', 'size', 'length', 'platform', 'labels']);

/**
 * A document of 2015 must not be an image or an index as well, to who does not go by its type.
 *
 * @throws SyntaxError with the reason
 */
export function checkOneKind(source: JsonObject): void {
  const stranger = ['manifests', 'config', 'layers'].find((key) => source[key] !== undefined);
  if (stranger !== undefined) throw new SyntaxError(`it has ${stranger} as well`);
}

/** What was said of a document before its time travels in its labels: the whole index, so that nothing is lost. */
const indexLabel = 'narrows.index';
const indexTypeLabel = 'narrows.index.type';

export function indexLabels(bytes: Uint8Array, mediaType: string): Record<string, string> {
  return { [indexLabel]: new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), [indexTypeLabel]: mediaType };
}

export interface CarriedIndex {
  readonly bytes: Buffer;
  readonly index: Index;
}

/** The index that a document was made from; undefined for one that was not. @throws SyntaxError with the reason */
export function readIndexLabels(labels: Readonly<Record<string, string>>): CarriedIndex | undefined {
  const text = labels[indexLabel];
  if (text === undefined) return undefined;
  const bytes = Buffer.from(text);
  const index = readDocument(bytes, labels[indexTypeLabel] ?? '');
  if (index.kind !== 'index') throw new SyntaxError(`the label ${indexLabel} is no index`);
  return { bytes, index };
}

/** An image of an index, as the documents of 2015 list it. */
export interface PlatformImage {
  readonly platform: Platform;
  readonly child: Descriptor;
  readonly manifest: Manifest;
}

/**
 * The images of an index for its platforms, in its order, each platform once: twins are in the index alone.
 *
 * @param manifestOf undefined for what is no image
 */
export function platformImages(index: Index, manifestOf: (digest: Digest) => Manifest | undefined): PlatformImage[] {
  const images = new Map<string, PlatformImage>();
  for (const child of index.manifests) {
    const { platform } = child;
    const manifest = manifestOf(child.digest);
    if (!platform || !canBeSpelled(platform) || !manifest || images.has(formatPlatform(platform))) continue;
    images.set(formatPlatform(platform), { platform, child, manifest });
  }
  return [...images.values()];
}

/** What may stand in an entry of the combined document beside its operating system, and is a map all the same. */
export const besides: ReadonlySet<string> = new Set(['labels', 'annotations']);

const word = /^[A-Za-z0-9_.-]{1,64}$/;

/** Is it a word that can be a key or a label, and that nobody reads as anything else? */
export function isPlatformWord(text: string): boolean {
  return word.test(text);
}

function canBeSpelled({ os, architecture, variant, osVersion }: Platform): boolean {
  if (besides.has(os) || isDecisiveKey(os) || isDecisiveKey(architecture)) return false;
  return [os, architecture, ...[variant, osVersion].filter((text) => text !== undefined)].every(isPlatformWord);
}

/** What a document of 2015 is made of. */
export interface IndexToWrite {
  /** The index, exactly as it was published. */
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  /** At least one, in the order of the index; see `platformImages`. */
  readonly images: readonly PlatformImage[];
  readonly primary: PlatformImage;
}
