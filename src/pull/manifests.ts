import { baseType, isImageConfigType, isMediaType } from '../oci/media-types.ts';
import { isForeign, readConfigPlatform } from '../oci/manifest.ts';
import type { Descriptor, Document, Manifest } from '../oci/manifest.ts';
import { NarrowsError, isUpstreamTrouble } from '../errors.ts';
import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { formatPlatform } from '../oci/platform.ts';
import type { Tag } from '../oci/reference.ts';
import { contentKey } from '../cache/records.ts';
import type { ManifestRecord, NarrowedRecord } from '../cache/records.ts';
import type { CacheState } from '../cache/tier.ts';
import type { Source } from '../upstream/registries.ts';
import type { Blobs } from './blobs.ts';
import type { Keeping } from './keeping.ts';
import type { Homes } from './homes.ts';
import { createOnce } from './once.ts';
import type { PullParts } from './parts.ts';
import { prepare } from './recipe.ts';
import type { Savings } from './savings.ts';

/** A manifest's bytes, exactly as their digest says. */
export interface HeldManifest {
  readonly digest: Digest;
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly state: CacheState;
  /** How long it is yet believed to be what the tag means, by which it was found. */
  readonly freshForMs?: number;
  /** The index that it was narrowed from, where it was made here. */
  readonly narrowedFrom?: Digest;
}

export interface Manifests {
  /** Undefined where neither this mirror made it nor the upstream has it. @throws NarrowsError the upstream's trouble */
  byDigest(source: Source, digest: Digest): Promise<HeldManifest | undefined>;
  /** The same for what a repository shows, wherever it lives. */
  shown(source: Source, digest: Digest): Promise<HeldManifest | undefined>;
  /** An image that a repository shows; undefined for what is no image. */
  imageOf(source: Source, digest: Digest): Promise<Manifest | undefined>;
  /** What a tag means now, in one GET; for upstreams that do not say so on HEAD. */
  fetchTag(source: Source, tag: Tag): Promise<HeldManifest | undefined>;
}

/** Manifests by digest: here, else made again if it was made here, else from the upstream. Never rewritten. */
export function createManifests(
  { store, records, reading, rules }: PullParts,
  keeping: Keeping,
  blobs: Blobs,
  homes: Homes,
  savings: Savings,
): Manifests {
  const fetching = createOnce<HeldManifest | undefined>();

  async function openHere(source: Source, digest: Digest): Promise<HeldManifest | undefined> {
    const held = await known(source, digest);
    if (!held) return undefined;
    const found = await store.read(digest, rules.maxManifestBytes);
    if (!found) return undefined;
    // Another replica has learnt from it; this one has not.
    if (found.state === 'hit-redis' || found.state === 'hit-s3') {
      const document = reading.readLeniently({ digest, bytes: found.bytes, mediaType: held.mediaType });
      if (document) keeping.learn(digest, document);
    }
    return { digest, ...found, mediaType: held.mediaType };
  }

  /** Does the repository have it? Of one that is hosted here, what is remembered counts only while its books cannot be read. */
  async function known(source: Source, digest: Digest): Promise<ManifestRecord | undefined> {
    const key = contentKey(source, digest);
    const remembered = await records.manifests.get(key);
    if (!source.isHosted) return remembered;
    try {
      const head = await source.upstream.head(source.repository, { kind: 'digest', digest });
      if (head && !remembered) await records.manifests.set(key, { mediaType: head.contentType });
      if (!head && remembered) await records.manifests.delete(key);
      return head && { mediaType: head.contentType };
    } catch (error) {
      if (isUpstreamTrouble(error)) return remembered;
      throw error;
    }
  }

  async function makeAgain(source: Source, digest: Digest, recipe: NarrowedRecord): Promise<HeldManifest | undefined> {
    // What was narrowed is never narrowed from: a recipe that leads to a recipe was not written here.
    const original = (await openHere(source, recipe.index)) ?? (await fetch(source, recipe.index));
    if (!original) return undefined;
    const read = { ...original, document: reading.read(original) };
    const made = await prepare(read, recipe, (child) => imageOf(source, child));
    // A recipe of another version of this program, or one that someone wrote, makes another document.
    if (made?.digest !== digest) return undefined;
    return { ...made, digest, state: original.state, narrowedFrom: recipe.index };
  }

  async function fetch(source: Source, digest: Digest): Promise<HeldManifest | undefined> {
    const answer = await source.upstream.manifest(source.repository, { kind: 'digest', digest });
    if (!answer) return undefined;
    const { bytes, contentType } = answer;
    return keep(source, digest, bytes, contentType, reading.readLeniently({ digest, bytes, mediaType: contentType }));
  }

  async function keep(
    source: Source,
    digest: Digest,
    bytes: Buffer,
    contentType: string,
    document: Document | undefined,
  ): Promise<HeldManifest> {
    const mediaType = document?.mediaType ?? opaqueType(contentType);
    const held: HeldManifest = { digest, bytes, mediaType, state: 'miss' };
    savings.fetched(source.key, digest, bytes.length + sizeOf(blobsOf(document)));
    if (document) await learn(source, digest, document);
    if (!keeping.mayKeep(digest)) return held;
    await store.put(digest, bytes);
    await records.blobs.setMany(
      blobsOf(document).map(({ digest: blob, size }) => ({ key: contentKey(source, blob), value: { size } })),
    );
    await records.manifests.set(contentKey(source, digest), { mediaType });
    await records.repositories.set(source.key, true);
    return held;
  }

  /** Where it matters what content is for, an image that no index lists is placed by its config. */
  async function learn(source: Source, digest: Digest, document: Document): Promise<void> {
    keeping.learn(digest, document);
    if (!keeping.isChoosy || document.kind !== 'manifest' || !isImageConfigType(document.config.mediaType)) return;
    if (!keeping.isUnplaced(digest)) return;
    await records.blobs.set(contentKey(source, document.config.digest), { size: document.config.size });
    const config = await blobs.readSmall(source, document.config.digest, rules.maxManifestBytes);
    const platform = config && readConfigPlatform(config);
    if (platform) keeping.learnPlatform(digest, formatPlatform(platform));
  }

  async function byDigest(source: Source, digest: Digest): Promise<HeldManifest | undefined> {
    const here = await openHere(source, digest);
    // What was kept under other rules is refused by those of now.
    if (here) keeping.check(digest);
    if (here) return here;
    const { value, joined } = await fetching.run(contentKey(source, digest), () => obtain(source, digest));
    return value && joined && value.state === 'miss' ? { ...value, state: 'joined' } : value;
  }

  async function shown(source: Source, digest: Digest): Promise<HeldManifest | undefined> {
    const home = await homes.of(source, digest);
    const held = await byDigest(home, digest);
    if (held && home !== source) {
      const document = reading.readLeniently(held);
      await homes.bringParts(source, home, blobsOf(document));
    }
    return held;
  }

  async function imageOf(source: Source, digest: Digest): Promise<Manifest | undefined> {
    const held = await shown(source, digest);
    const document = held && reading.readLeniently(held);
    return document?.kind === 'manifest' ? document : undefined;
  }

  async function obtain(source: Source, digest: Digest): Promise<HeldManifest | undefined> {
    let recipeTrouble: unknown;
    const recipe = await records.narrowed.mustGet(contentKey(source, digest)).catch((error: unknown) => {
      recipeTrouble = error;
      return undefined;
    });
    const made = recipe ? await makeAgain(source, digest, recipe) : undefined;
    // Looked for again: it may have come while someone else was asking.
    const found = made ?? (await openHere(source, digest)) ?? (await fetch(source, digest));
    if (found || recipeTrouble === undefined) return found;
    throw new NarrowsError('storeUnavailable', `Whether this mirror made ${digest} cannot be looked up now.`, {
      cause: recipeTrouble,
    });
  }

  return {
    byDigest,
    shown,
    imageOf,
    async fetchTag(source, tag) {
      const answer = await source.upstream.manifest(source.repository, { kind: 'tag', tag });
      if (!answer) return undefined;
      const { bytes, contentType } = answer;
      const digest = digestOf(bytes);
      // No digest vouches for these bytes: a login page must not become what a tag means.
      return keep(source, digest, bytes, contentType, reading.read({ digest, bytes, mediaType: contentType }));
    },
  };
}

/** What cannot be read is bytes to whoever gets it: no page of a browser, whatever its upstream calls it. */
function opaqueType(contentType: string): string {
  const type = baseType(contentType);
  return isMediaType(type) && !type.startsWith('text/') ? type : 'application/octet-stream';
}

function sizeOf(descriptors: readonly Descriptor[]): number {
  return descriptors.reduce((total, { size }) => total + size, 0);
}

/** What a repository holds if it holds this manifest: registries take none whose blobs they do not have. */
function blobsOf(document: Document | undefined): Descriptor[] {
  if (document?.kind !== 'manifest') return [];
  return [document.config, ...document.layers.filter((layer) => !isForeign(layer))];
}
