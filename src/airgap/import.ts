import { NarrowsError, isKind, isNotHeld } from '../errors.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseRepositoryName } from '../oci/reference.ts';
import type { ImageName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import { blobPath } from './bundle.ts';
import type { Contents } from './bundle.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree } from './image-tree.ts';
import { createLayoutReader, readLayout } from './layout.ts';
import type { Layout, LayoutImage } from './layout.ts';
import { clause, eachOnce } from './parts.ts';
import { publish } from './publish.ts';
import type { PublishParts } from './publish.ts';
import { receive } from './receive.ts';
import type { ReceiveParts } from './receive.ts';
import { BundleError } from './tar.ts';
import type { TarEntry } from './tar-reader.ts';

export interface ImportParts extends ReceiveParts, PublishParts {
  readonly find: Reader['find'];
  /** A document that the store has. */
  readStored(digest: Digest): Promise<Buffer | undefined>;
  readonly maxDocumentBytes: number;
}

export interface ImportOptions {
  /** What to call images whose layout does not say it in full. */
  readonly as: ImageName | undefined;
  /** Where they stay; by default what the bundle says. */
  readonly set: string | undefined;
  /** The entries come from a folder: a bundle that was unpacked is a layout like others. */
  readonly isFolder: boolean;
  readonly signal: AbortSignal;
}

export interface Imported {
  readonly set: string;
  readonly images: readonly ImageTree[];
}

const defaultSet = 'default';

/**
 * Takes a bundle into the store: all of it, or nothing. It is read to its end and found right before anything of it can
 * be seen; what was read when it is interrupted need not be read again.
 *
 * @param open the entries; told that it is one of ours, it is strict from there on
 * @throws BundleError with the entry and the reason, when nothing of it stays
 */
export async function importBundle(
  parts: ImportParts,
  open: (isStrict: () => boolean) => AsyncIterable<TarEntry>,
  { as, set, isFolder, signal }: ImportOptions,
): Promise<Imported> {
  const seen = new Set<Digest>();
  let isOurs = false;
  try {
    const { contents, index } = await receive(
      parts,
      interruptible(
        open(() => isOurs),
        signal,
      ),
      seen,
      () => (isOurs = true),
      isFolder,
    );
    const layout = readLayout(index, parts.find, as);
    if (contents) checkNames(layout, contents);
    const sizeOf = async (digest: Digest) => (await parts.staging.has(digest)) ?? parts.has(digest);
    const readDocument = async (digest: Digest) =>
      (await parts.staging.read(digest, parts.maxDocumentBytes)) ?? parts.readStored(digest);
    const reader = await createLayoutReader(layout, parts.find, readDocument, sizeOf);
    await checkAbout(layout, sizeOf);
    const images: ImageTree[] = [];
    for (const image of layout.images) images.push(await vouchFor(reader, image, contents));
    const name = set ?? contents?.set ?? defaultSet;
    await publish(parts, name, images, contents?.set !== undefined);
    await parts.staging.clear();
    return { set: name, images };
  } catch (error) {
    // Interrupted, or with a broken medium, it goes on later; what is wrong leaves nothing.
    if (error instanceof BundleError) await parts.staging.discard(seen);
    throw error;
  }
}

async function* interruptible(entries: AsyncIterable<TarEntry>, signal: AbortSignal): AsyncGenerator<TarEntry> {
  for await (const entry of entries) {
    signal.throwIfAborted();
    yield {
      ...entry,
      async *content() {
        for await (const piece of entry.content()) {
          signal.throwIfAborted();
          yield piece;
        }
      },
    };
  }
}

/**
 * Is all there that the image consists of, for the platforms that it is said to be here for? A layout that says nothing
 * of that is taken for those whose manifests it has.
 *
 * @throws BundleError for what is missing, or contradicts itself
 */
async function vouchFor(reader: Reader, image: LayoutImage, contents: Contents | undefined): Promise<ImageTree> {
  const { source, reference, entry } = image;
  const repository = parseRepositoryName(source.key);
  const name = imageName({ repository, reference });
  if (reference.kind === 'digest' && reference.digest !== entry.digest) {
    throw new BundleError('index.json', `${name} is said to be ${entry.digest}`);
  }
  const platforms = platformsOf(name, contents);
  const tree = await readImageTree(reader, { repository, reference, platforms, withReferrers: true }, Infinity).catch(
    (error: unknown) => {
      if (!(error instanceof NarrowsError)) throw error;
      throw new BundleError(blobPath(entry.digest), `is ${name}, and cannot be used: ${reasonOf(error)}`, {
        cause: error,
      });
    },
  );
  if (tree.root.digest !== entry.digest)
    throw new BundleError('index.json', `calls ${entry.digest} and another ${name}`);
  if (tree.root.bytes.length !== entry.bytes) {
    throw new BundleError(
      'index.json',
      `says ${entry.bytes} bytes of ${entry.digest}, which has ${tree.root.bytes.length}`,
    );
  }
  const isSparse = contents === undefined;
  // A layout of others may hold some platforms of an index alone. What it has must be what it says it is.
  const absent = new Set(tree.gaps.flatMap(({ digest, error }) => (isNotHeld(error) && digest ? [digest] : [])));
  const wrong = tree.gaps.find(({ error }) => !isNotHeld(error));
  if (wrong)
    throw new BundleError(blobPath(wrong.digest ?? entry.digest), `belongs to ${name}, and ${reasonOf(wrong.error)}`);
  if (tree.gaps[0] && !isSparse) throw missing(tree.gaps[0].digest ?? entry.digest, name);
  const parts = tree.parts.filter(({ digest }) => !absent.has(digest));
  for (const { digest, bytes } of eachOnce(parts)) {
    const size = isEmptyDigest(digest) ? 0 : await reader.held(source, digest);
    if (size === undefined) throw missing(digest, name);
    if (size !== bytes) throw new BundleError(blobPath(digest), `has ${size} bytes, and ${name} says ${bytes} of it`);
  }
  const hasContent = parts.some(({ kind, isAbout }) => !isAbout && (kind === 'config' || kind === 'layer'));
  if (absent.size > 0 && !hasContent) throw missing([...absent][0]!, name);
  return {
    ...tree,
    parts,
    wanted: { ...tree.wanted, platforms: isSparse ? presentPlatforms(tree, parts) : platforms },
  };
}

/** What was wrong with a document, without where others would have got it. */
function reasonOf(error: NarrowsError): string {
  return isKind(error, 'upstreamManifestInvalid') && error.cause instanceof Error ? error.cause.message : clause(error);
}

/** Two lists say what a bundle holds; they have to say the same. */
function checkNames({ images }: Layout, contents: Contents): void {
  const listed = new Set(contents.images.map(({ image, digest }) => `${image} ${digest}`));
  const named = images.map(({ source, reference, entry }) => {
    const image = imageName({ repository: parseRepositoryName(source.key), reference });
    return `${image} ${entry.digest}`;
  });
  const stranger = [...named, ...listed].find((one) => !listed.has(one) || !named.includes(one));
  if (stranger !== undefined) throw new BundleError('index.json', `and the contents do not agree on ${stranger}`);
}

/** A signature that is named has to be there: nobody would miss it before it is needed. */
async function checkAbout({ about }: Layout, sizeOf: (digest: Digest) => Promise<number | undefined>): Promise<void> {
  for (const { source, entry } of about) {
    const size = await sizeOf(entry.digest);
    if (size === undefined) throw missing(entry.digest, source.key);
    if (size !== entry.bytes) {
      throw new BundleError('index.json', `says ${entry.bytes} bytes of ${entry.digest}, which has ${size}`);
    }
  }
}

function missing(digest: Digest, image: string): BundleError {
  return new BundleError(blobPath(digest), `belongs to ${image}, and is neither in the bundle nor here`);
}

function platformsOf(image: string, contents: Contents | undefined): PlatformSet {
  const said = contents?.images.find((one) => one.image === image)?.platforms;
  if (said === undefined || said.includes('any')) return 'any';
  const platforms = said.map(parsePlatform);
  if (platforms.every((platform) => platform !== undefined)) return platforms;
  throw new BundleError('the contents', `say of ${image} that it is for ${said.join(', ')}, which is no platform`);
}

/** Of an index of which only some platforms are there, those. */
function presentPlatforms({ branches }: ImageTree, parts: ImageTree['parts']): PlatformSet {
  const present = branches.filter(({ platform }) =>
    parts.some((part) => part.platform === platform && part.kind === 'manifest'),
  );
  const platforms = present.map(({ platform }) => parsePlatform(platform)).filter((one) => one !== undefined);
  return platforms.length === branches.length || platforms.length === 0 ? 'any' : platforms;
}
