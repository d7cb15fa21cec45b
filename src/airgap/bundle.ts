import { digestOf, hexOf, isDigest, parseDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { asObject, parseJson } from '../oci/json.ts';
import type { Json, JsonObject } from '../oci/json.ts';
import { parsePlatform } from '../oci/platform.ts';
import { isSetName } from './parts.ts';
import { BundleError } from './tar.ts';

/** A blob of a bundle, or one that it counts on. */
export interface Listed {
  readonly digest: Digest;
  readonly bytes: number;
}

export interface BundledImage {
  /** `docker.io/library/alpine:3.20`. */
  readonly image: string;
  readonly digest: Digest;
  /** Those that are in the bundle, with what it counts on; `any` alone for all. */
  readonly platforms: readonly string[];
  readonly referrers: boolean;
}

/**
 * What a bundle holds, in its first pages: all of it is known before the first blob is read, and a change to any byte
 * of the bundle contradicts it. The file has its own digest for a name, so that it cannot be changed either.
 */
export interface Contents {
  /** The set that was exported, where it was one. */
  readonly set?: string;
  readonly images: readonly BundledImage[];
  /** Of `oci-layout` and `index.json`. */
  readonly files: readonly (Listed & { readonly path: string })[];
  /** In the order of the archive. */
  readonly blobs: readonly Listed[];
  /** What an earlier bundle brought: it is not in this one. */
  readonly needs: readonly Listed[];
  /** The earlier bundles, by the digests of their contents. */
  readonly since: readonly Digest[];
}

/** An OCI image layout (image-spec, image-layout.md) with the contents beside it. */
export const layoutFile = Buffer.from('{"imageLayoutVersion":"1.0.0"}');
export const blobPath = (digest: Digest) => `blobs/${digest.replace(':', '/')}`;
export const contentsPath = (digest: Digest) => `narrows/${hexOf(digest)}.json`;
export const signaturePath = (digest: Digest) => `narrows/${hexOf(digest)}.sig`;

/** @param path of contents, already known to be one */
export function contentsDigest(path: string): Digest {
  return parseDigest(`sha256:${path.replace(/^narrows\/|\.json$/g, '')}`);
}

const version = 1;

export function writeContents(contents: Contents): { bytes: Buffer; digest: Digest } {
  const bytes = Buffer.from(`${JSON.stringify({ narrowsBundle: version, ...contents }, undefined, 1)}\n`);
  return { bytes, digest: digestOf(bytes) };
}

/** @throws BundleError for what this version of the program did not write */
export function readContents(bytes: Buffer, path: string): Contents {
  const broken = (reason: string) => new BundleError(path, reason);
  if (path !== contentsPath(digestOf(bytes))) throw broken('is not what its name says: it was changed on the way');
  const source = asObject(parse(bytes, broken));
  if (source?.['narrowsBundle'] !== version) throw broken('is of another version of narrows');
  const { set } = source;
  if (set !== undefined && (typeof set !== 'string' || !isSetName(set))) throw broken('names a set that is no name');
  const blobs = list(source, 'blobs').map((entry) => readListed(entry, broken));
  if (new Set(blobs.map(({ digest }) => digest)).size < blobs.length) throw broken('lists a blob twice');
  const files = list(source, 'files').map((entry) => ({ ...readListed(entry, broken), path: textOf(entry['path']) }));
  if (files.map(({ path: name }) => name).join() !== 'oci-layout,index.json')
    throw broken('lists other files than a layout has');
  return {
    ...(set !== undefined && { set }),
    images: list(source, 'images').map((entry) => readImage(entry, broken)),
    files,
    blobs,
    needs: list(source, 'needs').map((entry) => readListed(entry, broken)),
    since: strings(source['since']).filter(isDigest),
  };
}

/** Blobs are lists of a hundred thousand entries: they are looked at one by one, below. */
function parse(bytes: Buffer, broken: (reason: string) => BundleError): Json {
  try {
    return JSON.parse(bytes.toString()) as Json;
  } catch {
    throw broken('is no JSON');
  }
}

function readImage(entry: JsonObject, broken: (reason: string) => BundleError): BundledImage {
  const { image, digest, platforms, referrers } = entry;
  if (typeof image !== 'string' || typeof digest !== 'string' || !isDigest(digest)) throw broken('names no image');
  const names = strings(platforms);
  if (names.length === 0 || !names.every((name) => name === 'any' || parsePlatform(name))) {
    throw broken('names an image for no platform');
  }
  return { image, digest, platforms: names, referrers: referrers === true };
}

function readListed({ digest, bytes }: JsonObject, broken: (reason: string) => BundleError): Listed {
  const isSize = typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes >= 0;
  if (typeof digest === 'string' && isDigest(digest) && isSize) return { digest, bytes };
  throw broken('lists what is no blob');
}

function list(source: JsonObject, key: string): JsonObject[] {
  const value = source[key];
  return Array.isArray(value) ? value.map((entry) => asObject(entry) ?? {}) : [];
}

function textOf(value: Json | undefined): string {
  return typeof value === 'string' ? value : '';
}

function strings(value: Json | undefined): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

export const annotations = {
  name: 'org.opencontainers.image.ref.name',
  /** What containerd takes for the name of an image that it imports. */
  containerdName: 'io.containerd.image.name',
  /** Of an image: the platforms that are here. */
  platforms: 'narrows.platforms',
  /** Of what says something about an image: the repository that it belongs to. */
  repository: 'narrows.repository',
} as const;

/** An entry of `index.json`. */
export interface LayoutEntry extends Listed {
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly annotations: Readonly<Record<string, string>>;
}

export function writeIndex(entries: readonly LayoutEntry[]): Buffer {
  const manifests = entries.map(({ mediaType, digest, bytes, artifactType, annotations: notes }) => ({
    mediaType,
    digest,
    size: bytes,
    ...(artifactType !== undefined && { artifactType }),
    annotations: notes,
  }));
  return Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }),
  );
}

function brokenIndex(reason: string): BundleError {
  return new BundleError('index.json', reason);
}

/** @throws BundleError for what is no index of a layout */
export function readIndex(bytes: Buffer): LayoutEntry[] {
  let source: JsonObject | undefined;
  try {
    source = asObject(parseJson(bytes));
  } catch (error) {
    throw brokenIndex(`is no index: ${(error as Error).message}`);
  }
  if (!Array.isArray(source?.['manifests'])) throw brokenIndex('lists no manifests');
  return list(source, 'manifests').map((entry) => {
    const { mediaType, artifactType, annotations: notes } = entry;
    const listed = readListed({ digest: entry['digest'], bytes: entry['size'] }, brokenIndex);
    return {
      ...listed,
      mediaType: typeof mediaType === 'string' ? mediaType : '',
      ...(typeof artifactType === 'string' && { artifactType }),
      annotations: Object.fromEntries(
        Object.entries(asObject(notes) ?? {}).filter((note): note is [string, string] => typeof note[1] === 'string'),
      ),
    };
  });
}
