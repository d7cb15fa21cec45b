import type { Digest } from '../oci/digest.ts';
import { attestedDigest, isPlatform, readDescriptor, readDocument } from '../oci/manifest.ts';
import type { Index } from '../oci/manifest.ts';
import { isComposedType, mediaTypes } from '../oci/media-types.ts';
import { formatPlatform, platformJson } from '../oci/platform.ts';
import type { Platform } from '../oci/platform.ts';
import { imagesOfAlternates, imagesOfCombined } from './described.ts';
import type { DescribedImages, Made } from './described.ts';
import { changedEntries, entriesOf, entryName, other } from './entries.ts';
import type { Entry } from './entries.ts';
import { asInvalid, invalid } from './pushed.ts';
import type { Pushed } from './pushed.ts';
import type { Shelf } from './shelf.ts';

/** What a push says of a tag. */
export interface Composition {
  readonly entries: ReadonlyMap<string, Entry>;
  /** It speaks of these platforms and of no others; else it is all that the tag is to mean. */
  readonly isPart: boolean;
  /** What a document of 2015 describes and was not there before. */
  readonly made: readonly Made[];
}

/**
 * What of a tag is meant by what was pushed to it.
 *
 * An image is one platform. So is an index of one platform with what is said about it, which is how builders give a
 * single image with its provenance. A Docker list and the documents of 2015 speak of the platforms that they have. Any
 * other index is the whole.
 *
 * @throws NarrowsError manifestInvalid for a document that contradicts itself or what is here
 */
export async function composition(pushed: Pushed, digest: Digest, shelf: Shelf): Promise<Composition> {
  const { document } = pushed;
  switch (document.kind) {
    case 'manifest': {
      const platform = await shelf.platformOf(document);
      const entry = entryOf(pushed, digest, platform);
      return { entries: new Map([[entry.name, entry]]), isPart: platform !== undefined, made: [] };
    }
    case 'index':
      return { entries: entriesOf(document), isPart: isPartial(document), made: [] };
    case 'combined':
      return fromImages(await imagesOfCombined(document, shelf));
    case 'alternates':
      return fromImages(await imagesOfAlternates(document, shelf));
    default:
      return document satisfies never;
  }
}

function entryOf(
  { bytes, mediaType }: { bytes: Buffer; mediaType: string },
  digest: Digest,
  platform?: Platform,
): Entry {
  const descriptor = { mediaType, digest, size: bytes.length };
  if (!platform) return { name: other, children: [readDescriptor(descriptor)!] };
  const child = readDescriptor({ ...descriptor, platform: platformJson(platform) })!;
  return { name: entryName(platform), platform, children: [child] };
}

function isPartial(index: Index): boolean {
  if (index.mediaType === mediaTypes.dockerList) return true;
  const images = index.manifests.filter(({ platform }) => isPlatform(platform));
  const about = index.manifests.filter((child) => attestedDigest(child) === images[0]?.digest);
  return images.length === 1 && about.length > 0 && about.length + 1 === index.manifests.length;
}

function fromImages({ manifests, made }: DescribedImages): Composition {
  if (manifests.length === 0) throw new SyntaxError('it describes no image');
  return { entries: entriesOf({ manifests }), isPart: true, made };
}

/** A document that a tag means. */
export interface TagDocument {
  readonly digest: Digest;
  readonly mediaType: string;
}

/** What a tag means, by platforms; with the index where it is one. */
export interface TagEntries {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly index?: Index;
}

export async function entriesOfTag({ digest, mediaType }: TagDocument, shelf: Shelf): Promise<TagEntries> {
  const bytes = await shelf.bytes(digest);
  const document = isComposedType(mediaType) ? undefined : readDocument(bytes, mediaType);
  if (document?.kind === 'index') return { entries: entriesOf(document), index: document };
  const platform = document?.kind === 'manifest' ? await shelf.platformOf(document) : undefined;
  const entry = entryOf({ bytes, mediaType }, digest, platform);
  return { entries: new Map([[entry.name, entry]]) };
}

/** The platforms that are not the same in two documents of a tag; `from` is what it means now, if anything. */
export async function changesBetween(from: TagDocument | undefined, to: TagDocument, shelf: Shelf): Promise<Entry[]> {
  const before = from ? (await entriesOfTag(from, shelf)).entries : new Map<string, Entry>();
  return changedEntries(before, (await entriesOfTag(to, shelf)).entries);
}

/**
 * An index may call an image what it likes; what runs is what its config says. Each image is looked into once.
 *
 * @param isManifest is it a manifest of this repository, and no blob that looks like one?
 * @throws NarrowsError manifestInvalid
 */
export async function checkTruth(
  entries: Iterable<Entry>,
  shelf: Shelf,
  isManifest: (digest: Digest) => Promise<boolean>,
): Promise<void> {
  const asked = new Map<string, Platform | undefined>();
  for (const { platform, name, children } of entries) {
    if (!platform) continue;
    for (const child of children.filter((one) => isPlatform(one.platform))) {
      if (!asked.has(child.digest)) {
        if (!(await isManifest(child.digest)))
          throw invalid(`it lists ${child.digest} for ${name}, which is no image here`);
        // What is here may be another kind of thing than the index calls it.
        asked.set(child.digest, await asInvalid(() => shelf.platformOfChild(child)));
      }
      const says = asked.get(child.digest);
      if (!says || (says.os === platform.os && says.architecture === platform.architecture)) continue;
      throw invalid(`it lists ${child.digest} for ${name}, and the image itself is for ${formatPlatform(says)}`);
    }
  }
}
