import { bytesBlob, pieces } from '../cache/bytes.ts';
import type { Blob } from '../cache/tier.ts';
import { NarrowsError } from '../errors.ts';
import { digestOf, isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { annotations, blobPath, contentsPath, layoutFile, signaturePath, writeContents, writeIndex } from './bundle.ts';
import type { Contents, LayoutEntry, Listed } from './bundle.ts';
import type { Part } from './gathering.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree, Wanted } from './image-tree.ts';
import { eachOnce, platformNames, suppliersOf } from './parts.ts';
import { endOfArchive, paddingOf, writeHeader } from './tar.ts';

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
  readonly kind: Part['kind'];
}

/** Documents first, for who reads along; else by digest, whatever came first when they were looked for. */
function byPlace(places: ReadonlyMap<Digest, Place>): (one: Listed, other: Listed) => number {
  const order = ['index', 'manifest', 'config', 'layer'];
  const rank = ({ digest }: Listed) => order.indexOf(places.get(digest)!.kind);
  return (one, other) => rank(one) - rank(other) || (one.digest < other.digest ? -1 : 1);
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
      places.set(digest, { source: tree.source, kind });
    }
  }
  const known = new Set(
    since.flatMap(({ contents }) => [...contents.blobs, ...contents.needs].map(({ digest }) => digest)),
  );
  const all = [...held.values()].toSorted(byPlace(places));
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
  const written = writeContents(contents);
  const entries = [
    { path: contentsPath(written.digest), bytes: written.bytes.length },
    ...contents.files,
    ...contents.blobs.map((blob) => ({ path: blobPath(blob.digest), bytes: blob.bytes })),
  ];
  const bytes = entries.reduce((total, entry) => total + entryBytes(entry), endOfArchive.length);
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
    ...byText(companions, ({ tag }) => tag).map(({ tag, digest, mediaType: type, bytes }) => ({
      mediaType: type,
      digest,
      bytes,
      annotations: { [annotations.name]: `${key}:${tag}`, [annotations.repository]: key },
    })),
    ...byText(referrers, ({ digest }) => digest).map(({ digest, bytes, mediaType: type }) => ({
      mediaType: type,
      digest,
      bytes,
      annotations: { [annotations.repository]: key },
    })),
  ];
}

function byText<T>(values: readonly T[], textOf: (value: T) => string): T[] {
  return values.toSorted((one, other) => (textOf(one) < textOf(other) ? -1 : 1));
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

async function openPart(reader: Reader, { source, kind }: Place, digest: Digest): Promise<Blob> {
  if (kind === 'config' || kind === 'layer') return reader.blob(source, digest);
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

function entryBytes({ path, bytes }: { readonly path: string; readonly bytes: number }): number {
  return writeHeader(path, bytes).length + bytes + paddingOf(bytes);
}
