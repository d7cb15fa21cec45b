import { NarrowsError, isKind, isNotHeld } from '../errors.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseRepositoryName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { blobPath } from './bundle.ts';
import type { Contents, LayoutEntry } from './bundle.ts';
import type { Part } from './gathering.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree } from './image-tree.ts';
import type { Layout, LayoutImage } from './layout.ts';
import { clause, eachOnce } from './parts.ts';
import { BundleError } from './tar.ts';

/**
 * Is all there that the image consists of, for the platforms that it is said to be here for? A layout that says nothing
 * of that is taken for those whose manifests it has.
 *
 * @throws BundleError for what is missing, or contradicts itself
 */
export async function vouchFor(
  reader: Reader,
  { source, reference, entry }: LayoutImage,
  contents: Contents | undefined,
): Promise<ImageTree> {
  const repository = parseRepositoryName(source.key);
  const name = imageName({ repository, reference });
  if (reference.kind === 'digest' && reference.digest !== entry.digest) throw contradiction(name, entry);
  const platforms = platformsOf(name, contents);
  const wanted = { repository, reference, platforms, withReferrers: true };
  const tree = await readImageTree(reader, wanted, Infinity).catch((error: unknown) => {
    if (!(error instanceof NarrowsError)) throw error;
    const reason = `is ${name}, and cannot be used: ${reasonOf(error)}`;
    throw new BundleError(blobPath(entry.digest), reason, { cause: error });
  });
  checkRoot(tree, entry);
  const isSparse = contents === undefined;
  const parts = knownParts(tree, isSparse);
  await checkParts(reader, tree, parts);
  return { ...tree, parts, wanted: { ...wanted, platforms: isSparse ? presentPlatforms(tree, parts) : platforms } };
}

function contradiction(image: string, { digest }: LayoutEntry): BundleError {
  return new BundleError('index.json', `says that ${image} is ${digest}`);
}

function checkRoot({ image, root }: ImageTree, entry: LayoutEntry): void {
  const { digest, bytes } = entry;
  if (root.digest !== digest) throw contradiction(image, entry);
  if (root.bytes.length === bytes) return;
  throw new BundleError('index.json', `says ${bytes} bytes of ${digest}, which has ${root.bytes.length}`);
}

/**
 * Without what a layout of others leaves out: it may hold some platforms of an index alone. What it has must be what it
 * says it is.
 */
function knownParts({ image, root, gaps, parts }: ImageTree, isSparse: boolean): Part[] {
  const wrong = gaps.find(({ error }) => !isNotHeld(error));
  if (wrong) {
    throw new BundleError(blobPath(wrong.digest ?? root.digest), `belongs to ${image}, and ${reasonOf(wrong.error)}`);
  }
  const [gap] = gaps;
  if (gap && !isSparse) throw missing(gap.digest ?? root.digest, image);
  const absent = new Set(gaps.map(({ digest }) => digest));
  const known = parts.filter(({ digest }) => !absent.has(digest));
  const hasContent = known.some(({ kind, isAbout }) => !isAbout && (kind === 'config' || kind === 'layer'));
  if (gap && !hasContent) throw missing(gap.digest ?? root.digest, image);
  return known;
}

async function checkParts(reader: Reader, { image, source }: ImageTree, parts: readonly Part[]): Promise<void> {
  for (const { digest, bytes } of eachOnce(parts)) {
    const size = isEmptyDigest(digest) ? 0 : await reader.held(source, digest);
    if (size === undefined) throw missing(digest, image);
    if (size !== bytes) throw new BundleError(blobPath(digest), `has ${size} bytes, and ${image} says ${bytes} of it`);
  }
}

/** What was wrong with a document, without where others would have got it. */
function reasonOf(error: NarrowsError): string {
  return isKind(error, 'upstreamManifestInvalid') && error.cause instanceof Error ? error.cause.message : clause(error);
}

/** Two lists say what a bundle holds; they have to say the same. */
export function checkNames({ images }: Layout, contents: Contents): void {
  const listed = new Set(contents.images.map(({ image, digest }) => `${image} ${digest}`));
  const named = images.map(({ source, reference, entry }) => {
    const image = imageName({ repository: parseRepositoryName(source.key), reference });
    return `${image} ${entry.digest}`;
  });
  const stranger = [...named, ...listed].find((one) => !listed.has(one) || !named.includes(one));
  if (stranger !== undefined) throw new BundleError('index.json', `and the contents do not agree on ${stranger}`);
}

/** A signature that is named has to be there: nobody would miss it before it is needed. */
export async function checkAbout(
  { about }: Layout,
  sizeOf: (source: Source, digest: Digest) => Promise<number | undefined>,
): Promise<void> {
  for (const { source, entry } of about) {
    const size = await sizeOf(source, entry.digest);
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
