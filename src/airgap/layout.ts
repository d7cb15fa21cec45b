import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { asObject } from '../oci/json.ts';
import type { JsonObject } from '../oci/json.ts';
import { isTag, parseImageName } from '../oci/reference.ts';
import type { ImageName, Tag } from '../oci/reference.ts';
import type { HeldManifest } from '../pull/manifests.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { annotations } from './bundle.ts';
import type { LayoutEntry } from './bundle.ts';
import { documentOf } from './gathering.ts';
import { clause } from './parts.ts';
import { BundleError } from './tar.ts';

/** An image of a layout: where it belongs, and what it is. */
export interface LayoutImage extends ImageName {
  readonly source: Source;
  readonly entry: LayoutEntry;
}

/** What is said about images: a signature's tag, or a manifest that names its subject. */
export interface LayoutAbout {
  readonly source: Source;
  readonly tag: Tag | undefined;
  readonly entry: LayoutEntry;
}

export interface Layout {
  readonly images: readonly LayoutImage[];
  readonly about: readonly LayoutAbout[];
}

/**
 * What the entries of an `index.json` are called here.
 *
 * @param as what to call the images of a layout that does not say it in full
 * @throws BundleError for one that nobody says the name of
 */
export function readLayout(entries: readonly LayoutEntry[], find: Reader['find'], as: ImageName | undefined): Layout {
  const images: LayoutImage[] = [];
  const about: LayoutAbout[] = [];
  // Where some have a name, the others are what belongs to those (oras lists attestations so).
  const [plain, nameless] = entries.some(isNamed)
    ? [entries.filter(isNamed), entries.filter((one) => !isNamed(one))]
    : [entries, []];
  for (const entry of plain) {
    const repository = entry.annotations[annotations.repository];
    const { name, reference } = repository === undefined ? imageNameOf(entry, as) : nameIn(repository, entry);
    const source = sourceOf(find, name, entry);
    if (repository === undefined) images.push({ name, reference, source, entry });
    else about.push({ source, tag: tagIn(entry), entry });
  }
  for (const entry of nameless) {
    const repository = entry.annotations[annotations.repository];
    const source = repository === undefined ? images[0]?.source : sourceOf(find, nameIn(repository, entry).name, entry);
    if (source) about.push({ source, tag: undefined, entry });
  }
  if (images.length > 0) return { images, about };
  throw new BundleError('index.json', 'names no image');
}

function isNamed({ annotations: notes }: LayoutEntry): boolean {
  return annotations.name in notes || annotations.containerdName in notes;
}

/** In full, as this program, containerd and buildah write it; or as skopeo and umoci do, who write the tag alone. */
function imageNameOf(entry: LayoutEntry, as: ImageName | undefined): ImageName {
  const full = entry.annotations[annotations.containerdName] ?? entry.annotations[annotations.name];
  if (full !== undefined && full.includes('/')) return nameIn(full, entry);
  if (!as) {
    const called =
      full === undefined
        ? 'has no name'
        : `is called ${JSON.stringify(full.slice(0, 80))}, which is no image of a registry`;
    throw new BundleError('index.json', `${entry.digest} ${called}; say which it is: --as docker.io/library/alpine`);
  }
  // A tag of the layout goes before none: `latest` is what `as` means where it names none.
  return full !== undefined && isTag(full) ? { name: as.name, reference: { kind: 'tag', tag: full } } : as;
}

function nameIn(text: string, { digest }: LayoutEntry): ImageName {
  try {
    return parseImageName(text);
  } catch (cause) {
    throw new BundleError(
      'index.json',
      `${digest} is called ${JSON.stringify(text.slice(0, 160))}, which is no image`,
      { cause },
    );
  }
}

function sourceOf(find: Reader['find'], name: ImageName['name'], { digest }: LayoutEntry): Source {
  let source: Source;
  try {
    source = find(name);
  } catch (cause) {
    throw new BundleError('index.json', `${digest} is ${name}: ${clause(cause)}`, { cause });
  }
  if (!source.isHosted) return source;
  // What is hosted has owners; an archive is none of them.
  throw new BundleError(
    'index.json',
    `${digest} belongs to ${name}, which is hosted here: push it, as with skopeo copy`,
  );
}

function tagIn({ annotations: notes }: LayoutEntry): Tag | undefined {
  const name = notes[annotations.name];
  const tag = name?.slice(name.lastIndexOf(':') + 1);
  return tag !== undefined && isTag(tag) ? tag : undefined;
}

/** Reads the bytes of a document, wherever they lie; undefined for what is not here. */
export type ReadDocument = (source: Source, digest: Digest) => Promise<Buffer | undefined>;

/**
 * A layout as a repository's content, so that it is gone through as every other image is. What is not in it, and not
 * in the store, is not held.
 */
export async function createLayoutReader(
  { images, about }: Layout,
  find: Reader['find'],
  readDocument: ReadDocument,
  sizeOf: (source: Source, digest: Digest) => Promise<number | undefined>,
): Promise<Reader> {
  const typeOf = new Map<Digest, string>();
  const tags = new Map<string, Digest>();
  const subjects = new Map<string, JsonObject[]>();
  for (const { source, reference, entry } of images) {
    typeOf.set(entry.digest, entry.mediaType);
    if (reference.kind === 'tag') name(source, reference.tag, entry);
  }
  for (const { source, tag, entry } of about) {
    typeOf.set(entry.digest, entry.mediaType);
    if (tag) name(source, tag, entry);
    else await file(source, entry);
  }

  function name({ key }: Source, tag: Tag, { digest }: LayoutEntry): void {
    const before = tags.get(`${key}:${tag}`);
    if (before && before !== digest) {
      throw new BundleError('index.json', `calls both ${before} and ${digest} ${key}:${tag}`);
    }
    tags.set(`${key}:${tag}`, digest);
  }

  /** A referrer is found by what it says of itself, as registries do (distribution-spec "Listing Referrers"). */
  async function file(source: Source, { digest, bytes, mediaType }: LayoutEntry): Promise<void> {
    const held = await readDocument(source, digest);
    const document = held && documentOf({ bytes: held, mediaType });
    if (!document || document.kind === 'opaque') return;
    const subject = asObject(document.source['subject'])?.['digest'];
    const artifactType =
      document.source['artifactType'] ?? (document.kind === 'manifest' ? document.config.mediaType : undefined);
    const notes = document.source['annotations'];
    const listed = {
      mediaType: document.mediaType,
      digest,
      size: bytes,
      ...(typeof artifactType === 'string' && { artifactType }),
      ...(asObject(notes) && { annotations: notes }),
    };
    if (typeof subject !== 'string') return;
    const key = `${source.key}@${subject}`;
    subjects.set(key, [...(subjects.get(key) ?? []), listed]);
  }

  async function manifest(source: Source, digest: Digest): Promise<HeldManifest> {
    const bytes = await readDocument(source, digest);
    if (!bytes) throw notHeld(digest);
    // Where no descriptor has named a type, the document does.
    const mediaType = documentOf({ bytes, mediaType: typeOf.get(digest) ?? '' }).mediaType;
    return { digest, bytes, mediaType, state: 'hit-disk' };
  }

  return {
    find,
    async tag(source, tag) {
      const digest = tags.get(`${source.key}:${tag}`);
      return digest && manifest(source, digest);
    },
    manifest,
    referrers: (source, subject) => Promise.resolve(subjects.get(`${source.key}@${subject}`) ?? []),
    overlaysOf: () => [],
    held: sizeOf,
    small: readDocument,
    blob: (_, digest) => Promise.reject(notHeld(digest)),
    fetch: (_, digest) => Promise.reject(notHeld(digest)),
  };
}

function notHeld(digest: Digest): NarrowsError {
  return new NarrowsError('manifestNotHeld', `${digest} is not in the bundle, and not here.`);
}
