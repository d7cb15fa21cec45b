import type { Staging } from '../cache/staging.ts';
import { isDigest, matches } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { asObject, parseJson } from '../oci/json.ts';
import {
  annotations,
  blobPath,
  contentsDigest,
  contentsPath,
  readContents,
  readIndex,
  signaturePath,
} from './bundle.ts';
import type { Contents, LayoutEntry, Listed } from './bundle.ts';
import { BundleError } from './tar.ts';
import type { TarEntry } from './tar-reader.ts';

export interface ReceiveParts {
  readonly staging: Staging;
  /** The size of what the store has. */
  has(digest: Digest): Promise<number | undefined>;
  /** How much more may stay in the store for good. */
  keptBytes(): number;
  /** Makes room on the disk by what may go, where there is as much of it. @returns how much there is then */
  makeRoom(bytes: number): Promise<number>;
  /** What is here already must not go meanwhile. */
  hold(digests: readonly Digest[]): void;
  /** @throws BundleError for contents that are not signed as they have to be */
  checkSignature(contents: Buffer | undefined, signature: Buffer | undefined): void;
  /** What has been seen of how much, where that is known. */
  onBytes(bytes: number, totalBytes: number | undefined): void;
}

/** A bundle that has been read to its end: every blob of it hashes to its name, and lies in the staging or the store. */
export interface Received {
  /** Absent for a layout that others wrote. */
  readonly contents: Contents | undefined;
  readonly index: readonly LayoutEntry[];
}

const ours = /^narrows\/[0-9a-f]{64}\.(?:json|sig)$/;
const maxIndexBytes = 16 * 1024 * 1024;
const maxContentsBytes = 64 * 1024 * 1024;
const maxSmallBytes = 64 * 1024;

/**
 * Reads the entries of a bundle, or of an OCI image layout of whatever origin. Nothing is done by their names, and
 * nothing that is not right is staged.
 *
 * @param seen is told of each digest before it is staged, so that all of it can be taken back
 * @throws BundleError with the entry and the reason
 */
export async function receive(
  parts: ReceiveParts,
  entries: AsyncIterable<TarEntry>,
  seen: Set<Digest>,
  onBundle: () => void,
  isFolder: boolean,
): Promise<Received> {
  const iterator = entries[Symbol.asyncIterator]();
  const first = await iterator.next();
  const rest: AsyncIterable<TarEntry> = { [Symbol.asyncIterator]: () => iterator };
  if (first.done) throw new BundleError('the archive', 'is empty');
  if (!/^narrows\/[0-9a-f]{64}\.json$/.test(first.value.path)) {
    return receiveLayout(parts, first.value, rest, seen, isFolder);
  }
  onBundle();
  return receiveBundle(parts, first.value, rest, seen);
}

/** What this program wrote says beforehand what comes, to the byte: anything else is a change. */
async function receiveBundle(
  parts: ReceiveParts,
  first: TarEntry,
  rest: AsyncIterable<TarEntry>,
  seen: Set<Digest>,
): Promise<Received> {
  if (!first.isPlain) throw new BundleError(first.path, 'has a header that no bundle of narrows has');
  const bytes = await readWhole(first, maxContentsBytes);
  const contents = readContents(bytes, first.path);
  const totalBytes = contents.blobs.reduce((total, blob) => total + blob.bytes, 0);
  const digest = contentsDigest(first.path);
  const expected: (Listed & { path: string })[] = [
    ...contents.files,
    ...contents.blobs.map((blob) => ({ ...blob, path: blobPath(blob.digest) })),
  ];
  const iterator = rest[Symbol.asyncIterator]();
  let read = await iterator.next();
  const signature = !read.done && read.value.path === signaturePath(digest) ? read.value : undefined;
  // Before anything else is believed of what it says.
  parts.checkSignature(bytes, signature && (await readWhole(signature, maxSmallBytes)));
  await prepare(parts, contents);
  if (signature) read = await iterator.next();
  let index: Buffer | undefined;
  let at = 0;
  for (; !read.done; read = await iterator.next()) {
    const entry = read.value;
    const next = expected[at++];
    if (!next) throw new BundleError(entry.path, 'is more than the bundle says it holds');
    if (entry.path !== next.path) throw new BundleError(entry.path, `stands where ${next.path} should be`);
    if (entry.bytes !== next.bytes)
      throw new BundleError(entry.path, `has ${entry.bytes} bytes instead of ${next.bytes}`);
    if (at <= contents.files.length) {
      const file = await readWhole(entry, maxIndexBytes);
      checkDigest(file, next);
      if (entry.path === 'index.json') index = file;
    } else {
      await takeBlob(parts, entry, next.digest, seen, totalBytes);
    }
  }
  const lacking = expected[at];
  if (lacking) throw new BundleError(lacking.path, 'is missing');
  if (!index) throw new BundleError('index.json', 'is missing');
  return { contents, index: readIndex(index) };
}

/** What the bundle counts on is here and stays, and there is room for the rest. @throws BundleError */
async function prepare(parts: ReceiveParts, contents: Contents): Promise<void> {
  parts.hold([...contents.needs, ...contents.blobs].map(({ digest }) => digest));
  await checkNeeds(parts, contents);
  const take = createRoom(parts, 'the bundle');
  await take(contents.blobs);
}

/** A layout as others write it: in any order, with folders and files beside it that say nothing of the content. */
async function receiveLayout(
  parts: ReceiveParts,
  first: TarEntry,
  rest: AsyncIterable<TarEntry>,
  seen: Set<Digest>,
  isFolder: boolean,
): Promise<Received> {
  parts.checkSignature(undefined, undefined);
  let index: LayoutEntry[] | undefined;
  let isLayout = false;
  const paths = new Set<string>();
  const takeRoom = createRoom(parts, 'the layout');
  async function take(entry: TarEntry): Promise<void> {
    const path = entry.path.replace(/^\.\//, '');
    if (paths.has(path)) throw new BundleError(path, 'is there twice');
    paths.add(path);
    const [, algorithm, hex] = /^blobs\/([a-z0-9]+)\/([0-9a-f]+)$/.exec(path) ?? [];
    const digest = `${algorithm}:${hex}`;
    if (isDigest(digest)) {
      await takeRoom([{ digest, bytes: entry.bytes }]);
      return takeBlob(parts, entry, digest, seen, undefined);
    }
    if (path === 'index.json') index = readIndex(await readWhole(entry, maxIndexBytes));
    else if (path === 'oci-layout') isLayout = isLayoutFile(await readWhole(entry, maxSmallBytes));
    else if (/^(?:manifest\.json|repositories)$/.test(path)) await entry.skip();
    // Unpacked, a bundle is a layout like others; as an archive it is what it was written as, or it was changed.
    else if (ours.test(path) && isFolder) await entry.skip();
    else if (ours.test(path)) throw new BundleError(path, 'has to be the first entry of a bundle');
    else throw new BundleError(path, 'has no place in an OCI image layout');
  }
  await take(first);
  for await (const entry of rest) await take(entry);
  if (!isLayout) throw new BundleError('oci-layout', 'is missing, or is of a version that is not known here');
  if (!index) throw new BundleError('index.json', 'is missing');
  if (!isFolder && index.some(({ annotations: notes }) => annotations.platforms in notes)) {
    throw new BundleError('the bundle', 'lacks its first entry, which says what it holds');
  }
  return { contents: undefined, index };
}

async function takeBlob(
  parts: ReceiveParts,
  entry: TarEntry,
  digest: Digest,
  seen: Set<Digest>,
  totalBytes: number | undefined,
): Promise<void> {
  const { staging, onBytes } = parts;
  const { bytes, path } = entry;
  seen.add(digest);
  if (await staging.isRight(digest, bytes)) {
    // An import that broke off has brought it.
    await entry.skip();
    onBytes(bytes, totalBytes);
    return;
  }
  // A store that has it already need not be written to, but what is wrong is wrong.
  const isHere = (await parts.has(digest)) === bytes;
  const counted = count(entry, (length) => onBytes(length, totalBytes));
  const isRight = isHere ? await staging.check(digest, bytes, counted) : await staging.put(digest, bytes, counted);
  if (!isRight) throw new BundleError(path, 'its content is not that of its name');
}

async function* count({ content }: TarEntry, onBytes: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const piece of content()) {
    onBytes(piece.length);
    yield piece;
  }
}

/** A bundle that counts on an earlier one says so before anything of it is read. */
async function checkNeeds({ has }: ReceiveParts, { needs, since }: Contents): Promise<void> {
  const missing: Listed[] = [];
  for (const need of needs) if ((await has(need.digest)) !== need.bytes) missing.push(need);
  if (missing.length === 0) return;
  const bytes = missing.reduce((total, one) => total + one.bytes, 0);
  throw new BundleError(
    'needs',
    `it goes on from an earlier bundle, of which ${missing.length} blobs (${bytes} bytes) are not here, such as ${missing[0]!.digest}; import that one first (its first entry is ${since.map(contentsPath).join(' or ')})`,
  );
}

/**
 * Room for what comes: what is here takes no more, what is staged none on the disk.
 *
 * @returns takes room for more. @throws BundleError where there is none
 */
function createRoom({ has, staging, keptBytes, makeRoom }: ReceiveParts, what: string) {
  const mayStayBytes = keptBytes();
  let newBytes = 0;
  let unstagedBytes = 0;
  let madeBytes = 0;
  return async (blobs: readonly Listed[]): Promise<void> => {
    for (const { digest, bytes } of blobs) {
      if ((await has(digest)) === bytes) continue;
      newBytes += bytes;
      if ((await staging.has(digest)) !== bytes) unstagedBytes += bytes;
    }
    if (newBytes > mayStayBytes) {
      const room = Math.max(0, mayStayBytes);
      const advice = 'raise cache.disk.maxSize, or drop a set';
      throw new BundleError(
        what,
        `brings ${newBytes} bytes, and there is room for ${room} beside what is pinned: ${advice}`,
      );
    }
    // Some at a time: of a layout that others wrote nobody knows beforehand how much it is.
    if (unstagedBytes <= madeBytes) return;
    const freeBytes = await makeRoom(Math.max(unstagedBytes - madeBytes, stepBytes));
    madeBytes += freeBytes;
    if (unstagedBytes > madeBytes) {
      throw new BundleError(what, `brings ${unstagedBytes} bytes, and the disk has room for ${madeBytes}`);
    }
  };
}

const stepBytes = 64 * 1024 * 1024;

async function readWhole({ path, bytes, content }: TarEntry, maxBytes: number): Promise<Buffer> {
  if (bytes > maxBytes) throw new BundleError(path, `is larger than the ${maxBytes} bytes that it may be`);
  const pieces: Buffer[] = [];
  for await (const piece of content()) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

function checkDigest(bytes: Buffer, { digest, path }: Listed & { readonly path: string }): void {
  if (!matches(bytes, digest)) throw new BundleError(path, 'was changed after it was written');
}

function isLayoutFile(bytes: Buffer): boolean {
  try {
    return asObject(parseJson(bytes))?.['imageLayoutVersion'] === '1.0.0';
  } catch {
    return false;
  }
}
