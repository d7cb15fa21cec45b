import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { isForeign, parseDocument } from '../oci/manifest.ts';
import type { Descriptor, Document, Manifest } from '../oci/manifest.ts';
import { isIndexType, isManifestType } from '../oci/media-types.ts';
import type { JsonObject } from '../oci/json.ts';
import type { HeldManifest } from '../pull/manifests.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { createTurns } from './turns.ts';
import type { Tag } from '../oci/reference.ts';

/** One digest that belongs to an image, for one of its platforms. */
export interface Part {
  readonly digest: Digest;
  readonly bytes: number;
  readonly kind: 'index' | 'manifest' | 'config' | 'layer';
  readonly mediaType: string;
  /** As `linux/arm64`; empty for what belongs to all of them. */
  readonly platform: string;
  /** It is no part of what runs: it says something about it. */
  readonly isAbout: boolean;
}

/** A tag that stands for a digest of the image by its name. */
export interface Companion {
  readonly tag: Tag;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: number;
}

export interface Gap {
  /** The document that could not be read; absent for a question that could not be asked. */
  readonly digest?: Digest;
  readonly platform: string;
  readonly error: NarrowsError;
}

export interface Gathered {
  readonly parts: readonly Part[];
  readonly companions: readonly Companion[];
  /** Manifests that name a digest of the image as their subject, and the lists that say so. */
  readonly referrers: readonly Part[];
  readonly referrerLists: ReadonlyMap<Digest, readonly JsonObject[]>;
  /** Those that were read. */
  readonly documents: readonly HeldManifest[];
  /** What could not be read, so that not all that belongs to the image is known. */
  readonly gaps: readonly Gap[];
}

/** What is found on the way through an image: each digest once for each platform, and what could not be read. */
export interface Gathering {
  readonly source: Source;
  readonly referrersFreshMs: number;
  add(part: Part): void;
  addContent(manifest: Manifest, platform: string, isAbout: boolean): void;
  addCompanion(companion: Companion): void;
  /** @returns false for one that is known already */
  addReferrer(part: Part): boolean;
  /** Asks the reader in its turn. @throws the signal's reason */
  ask<T>(question: () => Promise<T>): Promise<T>;
  /** A manifest or an index that something lists, with all that it lists in its turn. */
  follow(child: Descriptor, platform: string, isAbout: boolean): Promise<void>;
  followDocument(document: Document, platform: string, isAbout: boolean): Promise<void>;
  note(error: unknown, platform: string, digest?: Digest): void;
  /** A document that was read on the way. */
  addDocument(held: HeldManifest): void;
  /** What is listed as said about a digest. */
  addList(subject: Digest, list: readonly JsonObject[]): void;
  gathered(): Gathered;
}

const maxIndexDepth = 4;
/** Of one image, for each platform; the largest in the field have a few hundred. */
const maxDocuments = 4096;
const maxReferrers = 1000;
/** Questions of one image at once. */
const atOnce = 16;

export function createGathering(
  reader: Reader,
  source: Source,
  referrersFreshMs: number,
  signal?: AbortSignal,
): Gathering {
  const turns = createTurns(atOnce);
  const followed = new Map<string, Promise<void>>();
  let isTooMuch = false;
  const parts = new Map<string, Part>();
  const companions = new Map<string, Companion>();
  const referrers = new Map<Digest, Part>();
  const gaps: Gap[] = [];
  const documents = new Map<Digest, HeldManifest>();
  const referrerLists = new Map<Digest, readonly JsonObject[]>();

  function add(part: Part): void {
    const key = `${part.digest} ${part.platform}`;
    if (!parts.has(key)) parts.set(key, part);
  }

  function addContent({ config, layers }: Manifest, platform: string, isAbout: boolean): void {
    add({ ...sizeOf(config), kind: 'config', platform, isAbout });
    for (const layer of layers.filter((one) => !isForeign(one))) {
      add({ ...sizeOf(layer), kind: 'layer', platform, isAbout });
    }
  }

  function note(error: unknown, platform: string, digest?: Digest): void {
    if (!(error instanceof NarrowsError)) throw error;
    gaps.push({ error, platform, ...(digest && { digest }) });
  }

  /** Once for each platform, however often it is listed: a few small indexes can list one another's children a million times. */
  async function follow(child: Descriptor, platform: string, isAbout: boolean, depth = 0): Promise<void> {
    const key = `${child.digest} ${platform} ${isAbout}`;
    if (followed.has(key)) return followed.get(key);
    if (followed.size >= maxDocuments) return tooMany(platform);
    const running = followOnce(child, platform, isAbout, depth);
    followed.set(key, running);
    return running;
  }

  function tooMany(platform: string): void {
    if (isTooMuch) return;
    isTooMuch = true;
    note(new NarrowsError('upstreamManifestInvalid', `It consists of more than ${maxDocuments} documents.`), platform);
  }

  async function followOnce(child: Descriptor, platform: string, isAbout: boolean, depth: number): Promise<void> {
    const kind = isIndexType(child.mediaType) ? 'index' : 'manifest';
    add({ ...sizeOf(child), kind, platform, isAbout });
    try {
      const held = await ask(() => reader.manifest(source, child.digest));
      if (!held) {
        throw new NarrowsError('manifestUnknown', `${source.key} lists ${child.digest} and does not hold it.`);
      }
      documents.set(held.digest, held);
      // What says that it is an image has to be one: else nobody knows what belongs to it.
      const isKnown = isManifestType(child.mediaType) || isIndexType(child.mediaType);
      const document = isKnown ? parseDocument(held.bytes, child.mediaType) : documentOf(held);
      await followDocument(document, platform, isAbout, depth);
    } catch (error) {
      note(error, platform, child.digest);
    }
  }

  function ask<T>(question: () => Promise<T>): Promise<T> {
    return turns.run(() => {
      signal?.throwIfAborted();
      return question();
    });
  }

  async function followDocument(document: Document, platform: string, isAbout: boolean, depth = 0): Promise<void> {
    if (document.kind === 'manifest') addContent(document, platform, isAbout);
    if (document.kind !== 'index') return;
    if (depth >= maxIndexDepth) {
      const message = `It has indexes within indexes, more than ${maxIndexDepth} deep.`;
      return note(new NarrowsError('upstreamManifestInvalid', message), platform);
    }
    await Promise.all(document.manifests.map((child) => follow(child, platform, isAbout, depth + 1)));
  }

  return {
    source,
    referrersFreshMs,
    add,
    addContent,
    addCompanion: (companion) => void companions.set(companion.tag, companion),
    addReferrer(part) {
      if (referrers.has(part.digest)) return false;
      if (referrers.size >= maxReferrers) {
        tooMany(part.platform);
        return false;
      }
      referrers.set(part.digest, part);
      return true;
    },
    ask,
    follow,
    followDocument,
    note,
    addDocument: (held) => void documents.set(held.digest, held),
    addList: (subject, list) => void (list.length > 0 && referrerLists.set(subject, list)),
    gathered: () => ({
      parts: [...parts.values()],
      companions: [...companions.values()],
      referrers: [...referrers.values()],
      referrerLists,
      documents: [...documents.values()],
      gaps,
    }),
  };
}

function sizeOf({ digest, size, mediaType }: Pick<Descriptor, 'digest' | 'size' | 'mediaType'>) {
  return { digest, bytes: size, mediaType };
}

/** Bytes by digest are what they are: what cannot be read lists nothing. */
export function documentOf({ bytes, mediaType }: Pick<HeldManifest, 'bytes' | 'mediaType'>): Document {
  try {
    return parseDocument(bytes, mediaType);
  } catch (error) {
    if (error instanceof NarrowsError) return { kind: 'opaque', mediaType };
    throw error;
  }
}
