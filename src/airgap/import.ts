import type { Digest } from '../oci/digest.ts';
import type { ImageName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import type { ImageTree } from './image-tree.ts';
import { createLayoutReader, readLayout } from './layout.ts';
import { publish } from './publish.ts';
import type { PublishParts } from './publish.ts';
import { receive } from './receive.ts';
import type { ReceiveParts } from './receive.ts';
import { BundleError } from './tar.ts';
import type { TarEntry } from './tar-reader.ts';
import { checkAbout, checkNames, vouchFor } from './vouch.ts';

export interface ImportParts extends ReceiveParts, PublishParts {
  readonly find: Reader['find'];
  /** A document that the store has. */
  readStored(digest: Digest): Promise<Buffer | undefined>;
  readonly maxDocumentBytes: number;
  /** Is a repository known to have it? */
  isKnown(source: Source, digest: Digest): Promise<boolean>;
  /** What was held for an import may go again. */
  release(): void;
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
    const needs = new Set(contents?.needs.map(({ digest }) => digest));
    // What is not in the bundle is somebody else's, but for what the repository is known to have: a list of digests
    // must not open what another repository keeps to itself.
    const mayUse = async (source: Source, digest: Digest) => {
      if (seen.has(digest)) return true;
      const sources = needs.has(digest) ? [source, ...layout.images.map((image) => image.source)] : [source];
      for (const one of sources) if (await parts.isKnown(one, digest)) return true;
      return false;
    };
    const sizeOf = async (source: Source, digest: Digest) =>
      (await mayUse(source, digest)) ? ((await parts.staging.has(digest)) ?? parts.has(digest)) : undefined;
    const readDocument = async (source: Source, digest: Digest) =>
      (await mayUse(source, digest))
        ? ((await parts.staging.read(digest, parts.maxDocumentBytes)) ?? parts.readStored(digest))
        : undefined;
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
  } finally {
    parts.release();
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
