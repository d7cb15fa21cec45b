import { bytesBlob, pieces } from '../cache/bytes.ts';
import type { Blob } from '../cache/tier.ts';
import { NarrowsError } from '../errors.ts';
import { digestOf, isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { annotations, blobPath, contentsPath, layoutFile, signaturePath, writeContents, writeIndex } from './bundle.ts';
import type { Contents, LayoutEntry, Listed } from './bundle.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree, Wanted } from './image-tree.ts';
import { eachOnce, platformNames, suppliersOf } from './parts.ts';
import { blockBytes, endOfArchive, paddingOf, writeHeader } from './tar.ts';

/** A bundle before it is written: all of it is known, and nothing has been read but documents. */
export interface BundlePlan {
  readonly contents: Contents;
  readonly index: Buffer;
  /** Of the whole archive, signature apart. */
  readonly bytes: number;
  /** Platforms that were asked for and that images are not published for. */
  readonly notOffered: readonly string[];
  /** Where a digest is read from. */
  placeOf(digest: Digest): Place;
}

interface Place {
  readonly source: Source;
  readonly isDocument: boolean;
}

export interface ExportOptions {
  /** Over registries that are offline. */
  readonly reader: Reader;
  readonly set?: string;
  /** Earlier bundles: what they hold, or count on themselves, is left out. */
  readonly since: readonly { readonly digest: Digest; readonly contents: Contents }[];
}

/** @throws NarrowsError for an image that is not all here, with what is missing */
export async function planBundle(
  { reader, set, since }: ExportOptions,
  images: readonly Wanted[],
): Promise<BundlePlan> {
  const trees = await readTrees(reader, images);
  const held = new Map<Digest, Listed>();
  const places = new Map<Digest, Place>();
  for (const tree of trees) {
    for (const { digest, bytes, kind } of eachOnce(tree.parts)) {
      if (isEmptyDigest(digest) || places.has(digest)) continue;
      held.set(digest, { digest, bytes });
      places.set(digest, { source: tree.source, isDocument: kind === 'index' || kind === 'manifest' });
    }
  }
  const known = new Set(
    since.flatMap(({ contents }) => [...contents.blobs, ...contents.needs].map(({ digest }) => digest)),
  );
  const all = [...held.values()];
  const index = writeIndex(trees.flatMap(entriesOf));
  const contents: Contents = {
    ...(set !== undefined && { set }),
    images: trees.map(({ image, root, wanted }) => ({
      image,
      digest: root.digest,
      platforms: platformNames(wanted.platforms),
      referrers: wanted.withReferrers,
    })),
    files: [
      { path: 'oci-layout', digest: digestOf(layoutFile), bytes: layoutFile.length },
      { path: 'index.json', digest: digestOf(index), bytes: index.length },
    ],
    blobs: all.filter(({ digest }) => !known.has(digest)),
    needs: all.filter(({ digest }) => known.has(digest)),
    since: since.map(({ digest }) => digest),
  };
  const notOffered = trees.flatMap(({ image, branches }) =>
    branches.filter(({ status }) => status === 'not offered').map(({ platform }) => `${image} for ${platform}`),
  );
  const sizes = [
    writeContents(contents).bytes.length,
    ...[...contents.files, ...contents.blobs].map(({ bytes }) => bytes),
  ];
  const bytes = sizes.reduce((total, size) => total + entryBytes(size), endOfArchive.length);
  return { contents, index, bytes, notOffered, placeOf: (digest) => places.get(digest)! };
}

/** In the order of their names, so that the same images are the same bundle. */
async function readTrees(reader: Reader, images: readonly Wanted[]): Promise<ImageTree[]> {
  const trees = new Map<string, ImageTree>();
  for (let round = images; round.length > 0;) {
    const read: ImageTree[] = [];
    for (const wanted of round) {
      const tree = await readImageTree(reader, wanted, Infinity);
      await requireAll(reader, tree);
      trees.set(`${imageName(wanted)} ${platformNames(wanted.platforms).join()}`, tree);
      read.push(tree);
    }
    round = read
      .flatMap((tree) => suppliersOf(reader, tree))
      .filter((wanted) => !trees.has(`${imageName(wanted)} ${platformNames(wanted.platforms).join()}`));
  }
  return [...trees].toSorted(([one], [other]) => (one < other ? -1 : 1)).map(([, tree]) => tree);
}

/** What is carried across a gap has to be all there: on the other side nothing can be fetched. */
async function requireAll(reader: Reader, tree: ImageTree): Promise<void> {
  const gap = tree.gaps[0];
  const missing: string[] = gap ? [gap.digest ?? gap.error.message] : [];
  for (const { digest, bytes, kind } of eachOnce(tree.parts)) {
    if (kind === 'index' || kind === 'manifest' || isEmptyDigest(digest)) continue;
    if ((await reader.held(tree.source, digest)) !== bytes) missing.push(digest);
  }
  if (missing.length === 0) return;
  const rest = missing.length > 1 ? ` and ${missing.length - 1} more` : '';
  throw new NarrowsError(
    'storeUnavailable',
    `${tree.image} is not all here: ${missing[0]}${rest} ${missing.length > 1 ? 'are' : 'is'} missing.`,
  );
}

function entriesOf({ image, wanted, root, companions, referrers }: ImageTree): LayoutEntry[] {
  const key = wanted.repository;
  return [
    {
      mediaType: root.mediaType,
      digest: root.digest,
      bytes: root.bytes.length,
      annotations: {
        [annotations.name]: image,
        [annotations.containerdName]: image,
        [annotations.platforms]: platformNames(wanted.platforms).join(','),
      },
    },
    ...companions.map(({ tag, digest, mediaType: type, bytes }) => ({
      mediaType: type,
      digest,
      bytes,
      annotations: { [annotations.name]: `${key}:${tag}`, [annotations.repository]: key },
    })),
    ...referrers.map(({ digest, bytes, mediaType: type }) => ({
      mediaType: type,
      digest,
      bytes,
      annotations: { [annotations.repository]: key },
    })),
  ];
}

/**
 * The archive, as it is written: the same bytes each time for the same content. Every blob is read to its digest before
 * the next one.
 *
 * @param sign makes a signature of the contents, where the bundle is to have one
 * @throws NarrowsError for a blob that has gone, or is wrong
 */
export async function* writeBundle(
  reader: Reader,
  { contents, index, placeOf }: BundlePlan,
  sign?: (contents: Buffer) => Buffer,
): AsyncGenerator<Buffer> {
  const { bytes, digest } = writeContents(contents);
  yield* fileEntry(contentsPath(digest), bytes);
  if (sign) yield* fileEntry(signaturePath(digest), sign(bytes));
  yield* fileEntry('oci-layout', layoutFile);
  yield* fileEntry('index.json', index);
  for (const listed of contents.blobs) yield* blobEntry(reader, placeOf(listed.digest), listed);
  yield endOfArchive;
}

function* fileEntry(path: string, bytes: Buffer): Generator<Buffer> {
  yield writeHeader(path, bytes.length);
  yield bytes;
  yield Buffer.alloc(paddingOf(bytes.length));
}

async function* blobEntry(reader: Reader, place: Place, { digest, bytes }: Listed): AsyncGenerator<Buffer> {
  yield writeHeader(blobPath(digest), bytes);
  const blob = await openPart(reader, place, digest);
  try {
    if (blob.size !== bytes) throw changed(digest);
    yield* pieces(blob);
    // Not before it is known to be what its name says does anything follow.
    await blob.verified;
  } finally {
    await blob.close();
  }
  yield Buffer.alloc(paddingOf(bytes));
}

async function openPart(reader: Reader, { source, isDocument }: Place, digest: Digest): Promise<Blob> {
  if (!isDocument) return reader.blob(source, digest);
  const held = await reader.manifest(source, digest);
  if (!held) throw changed(digest);
  return bytesBlob(held.bytes, held.state);
}

function changed(digest: Digest): NarrowsError {
  return new NarrowsError(
    'storeUnavailable',
    `${digest} is not what it was when it was counted; narrows verify mends the store.`,
  );
}

function entryBytes(bytes: number): number {
  return blockBytes + bytes + paddingOf(bytes);
}
