import { NarrowsError } from '../errors.ts';
import { isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import { asObject, parseJson } from './json.ts';
import type { Json, JsonObject } from './json.ts';
import { baseType, isIndexType, isManifestType, isMediaType, mediaTypes } from './media-types.ts';
import { normalise } from './platform.ts';
import type { Platform } from './platform.ts';

/** A descriptor of the image specification; `source` is the JSON it was read from, unknown fields and all. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly platform?: Platform;
  readonly annotations: Readonly<Record<string, string>>;
  readonly source: JsonObject;
}

/** An OCI image index or a Docker manifest list. */
export interface Index {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly manifests: readonly Descriptor[];
  readonly source: JsonObject;
}

/** An OCI image manifest or a Docker one of schema 2. */
export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly source: JsonObject;
}

/** A document that is passed on as it is: another schema, another kind, or digests that are not understood here. */
export interface Opaque {
  readonly kind: 'opaque';
  readonly mediaType: string;
}

export type Document = Index | Manifest | Opaque;

/**
 * Reads what a registry gave as a manifest.
 *
 * @param contentType the Content-Type that came with it
 * @throws NarrowsError upstreamManifestInvalid for what `readDocument` refuses
 */
export function parseDocument(bytes: Uint8Array, contentType: string): Document {
  try {
    return readDocument(bytes, contentType);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    const message = `The upstream's answer is no usable manifest: ${cause.message}.`;
    throw new NarrowsError('upstreamManifestInvalid', message, { cause });
  }
}

/**
 * Reads a manifest, wherever it comes from.
 *
 * @throws SyntaxError with the reason, for what is no JSON object, or one that two readers could take for two
 *   different things: an index with layers, a type that contradicts the content (CVE-2021-41190)
 */
export function readDocument(bytes: Uint8Array, contentType: string): Document {
  const source = readSource(bytes);
  const mediaType = mediaTypeOf(contentType, source);
  const hasChildren = Array.isArray(source['manifests']);
  const hasContent = Array.isArray(source['layers']) || asObject(source['config']) !== undefined;
  if (hasChildren && hasContent) throw new SyntaxError('it is an index and an image at once');
  if (isIndexType(mediaType) && !hasChildren) throw new SyntaxError(`it is called ${mediaType} and lists no manifests`);
  if (isManifestType(mediaType) && !hasContent) {
    throw new SyntaxError(`it is called ${mediaType} and has no config or layers`);
  }
  if (hasChildren && isIndexType(mediaType)) return readIndex(source, mediaType);
  if (hasContent && isManifestType(mediaType)) return readManifest(source, mediaType);
  return { kind: 'opaque', mediaType };
}

const decisiveKeys = new Map(
  [
    'schemaVersion',
    'mediaType',
    'artifactType',
    'manifests',
    'config',
    'layers',
    'subject',
    'annotations',
    'digest',
    'size',
    'platform',
    'urls',
    'data',
    'architecture',
    'os',
    'os.version',
    'os.features',
    'variant',
  ].map((key) => [foldKey(key), key]),
);

/** Could someone take it for one of the keys that decide what a document is? */
export function isDecisiveKey(text: string): boolean {
  return decisiveKeys.has(foldKey(text));
}

/** As Go's encoding/json compares keys: in any case, and two letters outside of ASCII are ones within. */
function foldKey(key: string): string {
  return key.replaceAll('\u017f', 's').replaceAll('\u212a', 'k').toLowerCase();
}

/** A JSON object whose keys no two readers take for different ones. @throws SyntaxError with the reason */
export function readSource(bytes: Uint8Array): JsonObject {
  const source = asObject(parseStrictly(bytes));
  if (!source) throw new SyntaxError('it is not a JSON object');
  // Clients written in Go read keys in any case: to them, `Manifests` beside `manifests` is another list.
  checkKeys(source);
  return source;
}

/** @throws SyntaxError for a key that another reader takes for one that decides, or for another of the same object */
function checkKeys(value: Json | undefined): void {
  if (Array.isArray(value)) return value.forEach(checkKeys);
  const object = asObject(value);
  if (!object) return;
  const seen = new Set<string>();
  for (const [key, entry] of Object.entries(object)) {
    const folded = foldKey(key);
    if (seen.has(folded) || (decisiveKeys.get(folded) ?? key) !== key) {
      throw new SyntaxError(`it spells a key as ${JSON.stringify(key.slice(0, 80))}`);
    }
    seen.add(folded);
    // Their keys are anyone's, and nobody reads them in any case but theirs.
    if (key !== 'annotations' && key !== 'labels') checkKeys(entry);
  }
}

function parseStrictly(bytes: Uint8Array): Json {
  try {
    return parseJson(bytes);
  } catch (cause) {
    // The parser's words quote what it read: a line's end in them would make two sentences of one.
    const reason = (cause as Error).message.replaceAll(/\p{Cc}+/gu, ' ');
    throw new SyntaxError(`it is not strict JSON (${reason})`, { cause });
  }
}

const generic = new Set(['', 'application/json', 'application/octet-stream', 'text/plain']);

function mediaTypeOf(contentType: string, source: JsonObject): string {
  const outer = baseType(contentType);
  const inner = typeof source['mediaType'] === 'string' ? source['mediaType'] : undefined;
  for (const type of [outer, inner]) {
    if (type && !isMediaType(type.toLowerCase()))
      throw new SyntaxError(`${JSON.stringify(type.slice(0, 80))} is no media type`);
  }
  // Plain file servers give manifests under no type of their own: then the document says what it is.
  if (generic.has(outer)) return inner ?? guess(source) ?? (outer || 'application/octet-stream');
  if (inner !== undefined && inner !== outer && (isKnown(inner) || isKnown(outer))) {
    throw new SyntaxError(`its Content-Type is ${outer} and its mediaType ${inner}`);
  }
  return outer;
}

function isKnown(mediaType: string): boolean {
  return isIndexType(mediaType) || isManifestType(mediaType);
}

function guess(source: JsonObject): string | undefined {
  if (Array.isArray(source['manifests'])) return mediaTypes.ociIndex;
  return asObject(source['config']) ? mediaTypes.ociManifest : undefined;
}

function readIndex(source: JsonObject, mediaType: string): Index | Opaque {
  const manifests = readAll(source['manifests'], readDescriptor);
  if (!manifests) return { kind: 'opaque', mediaType };
  const artifactType = source['artifactType'];
  return {
    kind: 'index',
    mediaType,
    ...(typeof artifactType === 'string' && artifactType !== '' && { artifactType }),
    manifests,
    source,
  };
}

function readManifest(source: JsonObject, mediaType: string): Manifest | Opaque {
  const config = readDescriptor(source['config']);
  const layers = readAll(source['layers'] ?? [], readDescriptor);
  return config && layers ? { kind: 'manifest', mediaType, config, layers, source } : { kind: 'opaque', mediaType };
}

/** More children or layers than any image has: such a document is passed on, not gone through. */
export const maxEntries = 1000;

function readAll<T>(values: Json | undefined, read: (value: Json) => T | undefined): T[] | undefined {
  if (!Array.isArray(values) || values.length > maxEntries) return undefined;
  const all = values.map(read);
  return all.every((one) => one !== undefined) ? all : undefined;
}

// A digest of an algorithm that is not known here makes the whole document opaque: it can be passed on, not chosen from.
export function readDescriptor(value: Json | undefined): Descriptor | undefined {
  const source = asObject(value);
  if (!source) return undefined;
  const { mediaType, digest, size } = source;
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined;
  const platform = readPlatform(source['platform']);
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    digest,
    size,
    ...(platform && { platform }),
    annotations: readStrings(source['annotations']),
    source,
  };
}

/** The platform of a descriptor or an image config, whose fields have the same names; undefined where it names none. */
export function readPlatform(value: Json | undefined): Platform | undefined {
  const source = asObject(value);
  const os = source?.['os'];
  const architecture = source?.['architecture'];
  if (!source || typeof os !== 'string' || typeof architecture !== 'string' || !os || !architecture) return undefined;
  const variant = source['variant'];
  const osVersion = source['os.version'];
  const features = source['os.features'];
  return normalise({
    os,
    architecture,
    ...(typeof variant === 'string' && { variant }),
    ...(typeof osVersion === 'string' && { osVersion }),
    ...(Array.isArray(features) && { osFeatures: features.filter((feature) => typeof feature === 'string') }),
  });
}

export function readStrings(value: Json | undefined): Record<string, string> {
  const entries = Object.entries(asObject(value) ?? {});
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}

/** BuildKit files what it says about an image beside it, as a child for `unknown/unknown` that names its subject. */
export function attestedDigest(child: Descriptor): string | undefined {
  // What runs somewhere is an image, whatever it says that it speaks of: clients take it for one.
  if (isPlatform(child.platform)) return undefined;
  return child.annotations['vnd.docker.reference.digest'];
}

/** Is it one that something runs on? */
export function isPlatform(platform: Platform | undefined): platform is Platform {
  return platform !== undefined && platform.os !== 'unknown' && platform.architecture !== 'unknown';
}

/** The platform that an image's config says; undefined for what is no config, or says it in two ways. */
export function readConfigPlatform(bytes: Uint8Array): Platform | undefined {
  try {
    const config = asObject(parseJson(bytes));
    const isPlain = Object.keys(config ?? {}).every((key) => (decisiveKeys.get(foldKey(key)) ?? key) === key);
    return isPlain ? readPlatform(config) : undefined;
  } catch {
    return undefined;
  }
}

/** Those stay where their publisher has them: a registry takes the manifest without the blob. */
export function isForeign({ mediaType, source }: Descriptor): boolean {
  return source['urls'] !== undefined || /nondistributable|foreign/.test(mediaType);
}
