import { contentKey } from '../cache/records.ts';
import type { Records } from '../cache/records.ts';
import type { SetEntry, Sets } from '../cache/sets.ts';
import type { Staging } from '../cache/staging.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { linksOf } from '../pull/keeping.ts';
import type { Graph } from '../pull/keeping.ts';
import { documentOf } from './gathering.ts';
import type { ImageTree } from './image-tree.ts';
import { eachOnce, platformNames } from './parts.ts';

export interface PublishParts {
  readonly staging: Staging;
  /** Gives staged content its name in the store. */
  install(from: string, digest: Digest): Promise<void>;
  readonly sets: Sets;
  readonly records: Pick<Records, 'tags' | 'manifests' | 'blobs' | 'referrers' | 'repositories'>;
  readonly graph: Pick<Graph, 'learn'>;
  now(): number;
}

/**
 * Makes images that are all there visible: first their content, then whose it is, last what their tags mean, so that
 * whoever asks meanwhile gets what was there before, or all of what is there now. Interrupted, it can be done again.
 *
 * @param isWhole the set is these images and no others
 */
export async function publish(
  parts: PublishParts,
  set: string,
  images: readonly ImageTree[],
  isWhole: boolean,
): Promise<void> {
  const { sets, staging } = parts;
  for (const tree of images) sets.put(set, entryOf(parts, tree, false), digestsOf(tree), { keepsOthers: true });
  for (const digest of new Set(images.flatMap(digestsOf))) {
    if ((await staging.has(digest)) !== undefined) await parts.install(staging.pathOf(digest), digest);
  }
  for (const tree of images) await record(parts, tree);
  for (const tree of images) sets.put(set, entryOf(parts, tree, true), digestsOf(tree));
  if (!isWhole) return;
  const names = new Set(images.map(({ image }) => image));
  for (const { image } of sets.entries(set)) if (!names.has(image)) sets.remove(set, image);
}

function digestsOf({ parts }: ImageTree): Digest[] {
  return eachOnce(parts)
    .map(({ digest }) => digest)
    .filter((digest) => !isEmptyDigest(digest));
}

function entryOf({ now }: PublishParts, { image, root, wanted }: ImageTree, isComplete: boolean): SetEntry {
  return {
    image,
    digest: root.digest,
    platforms: platformNames(wanted.platforms),
    referrers: wanted.withReferrers,
    isComplete,
    warmedAtMs: now(),
  };
}

/** The repository of an image has what the image consists of, and nothing else. @throws where that cannot be written */
async function record({ records, graph, now }: PublishParts, tree: ImageTree): Promise<void> {
  const { source } = tree;
  const { reference } = tree.wanted;
  const checkedAtMs = now();
  const manifests = tree.documents.map(({ digest, mediaType }) => ({
    key: contentKey(source, digest),
    value: { mediaType },
  }));
  for (const document of tree.documents) graph.learn(document.digest, linksOf(documentOf(document)));
  const blobs = eachOnce(tree.parts)
    .filter(({ kind }) => kind === 'config' || kind === 'layer')
    .map(({ digest, bytes }) => ({ key: contentKey(source, digest), value: { size: bytes } }));
  const referrers = [...tree.referrerLists].map(([subject, list]) => ({
    key: contentKey(source, subject),
    value: { manifests: list, checkedAtMs },
  }));
  const tags = [
    ...tree.companions,
    ...(reference.kind === 'tag' ? [{ tag: reference.tag, digest: tree.root.digest }] : []),
  ].map(({ tag, digest }) => ({ key: `${source.key}:${tag}`, value: { digest, checkedAtMs } }));
  const isWritten =
    (await records.blobs.setMany(blobs)) &&
    (await records.manifests.setMany(manifests)) &&
    (await records.referrers.setMany(referrers)) &&
    (await records.repositories.set(source.key, true)) &&
    (await records.tags.setMany(tags));
  if (!isWritten) throw new Error(`what ${tree.image} consists of could not be written down; import it again`);
}
