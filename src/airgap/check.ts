import type { Digest } from '../oci/digest.ts';
import { NarrowsError, isNotHeld } from '../errors.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import type { Part } from './gathering.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree, Wanted } from './image-tree.ts';
import { eachOnce, sum, suppliersOf } from './parts.ts';

/** How much of an image is here, for each platform that was asked for. */
export interface CheckedImage {
  readonly image: string;
  /** What it means here; absent where that is not known. */
  readonly digest?: Digest;
  readonly status: Status;
  readonly platforms: readonly CheckedPlatform[];
  /** Why nothing more can be said. */
  readonly problem?: string;
}

/** `absent`: not even its manifest is here. `not offered`: the image is not published for it. */
export type Status = 'complete' | 'partial' | 'absent' | 'not offered' | 'supplied';

export interface CheckedPlatform {
  /** Empty for what belongs to all of them: the index, and what is said about it. */
  readonly platform: string;
  readonly status: Status;
  /** Of what is known to belong to it. */
  readonly bytes: number;
  readonly missing: readonly MissingPart[];
}

export interface MissingPart {
  readonly digest: Digest;
  readonly bytes: number;
  readonly kind: Part['kind'];
}

/**
 * Is an image here, whole? Asks the store alone.
 *
 * @param reader over registries that are offline
 */
export async function check(reader: Reader, wanted: Wanted): Promise<CheckedImage[]> {
  const image = imageName(wanted);
  try {
    const tree = await readImageTree(reader, wanted, Infinity);
    const checked = await checkTree(reader, tree);
    const others = suppliersOf(reader, tree).map((supplier) => check(reader, supplier));
    return [checked, ...(await Promise.all(others)).flat()];
  } catch (error) {
    if (!(error instanceof NarrowsError)) throw error;
    const isAbsent: boolean = isNotHeld(error);
    return [{ image, status: 'absent', platforms: [], problem: isAbsent ? 'nothing of it is here' : error.message }];
  }
}

async function checkTree(reader: Reader, tree: ImageTree): Promise<CheckedImage> {
  const { image, root, branches, parts } = tree;
  const missing = await missingParts(reader, tree);
  const ofPlatform = (platform: string, status: 'offered' | 'not offered' | 'supplied'): CheckedPlatform => {
    const own = eachOnce(parts.filter((part) => part.platform === platform));
    const gone = own.filter(({ digest }) => missing.has(digest));
    return {
      platform,
      status: status === 'offered' ? statusOf(own, gone) : status,
      bytes: sum(own),
      missing: gone.map(({ digest, bytes, kind }) => ({ digest, bytes, kind })),
    };
  };
  const platforms = [
    ...branches.map(({ platform, status }) => ofPlatform(platform, status)),
    ofPlatform('', 'offered'),
  ];
  return { image, digest: root.digest, status: worst(platforms), platforms };
}

async function missingParts(reader: Reader, { parts, source }: ImageTree): Promise<Set<Digest>> {
  const missing = new Set<Digest>();
  await Promise.all(
    eachOnce(parts).map(async ({ digest, bytes, kind }) => {
      if (isEmptyDigest(digest)) return;
      const isDocument = kind === 'index' || kind === 'manifest';
      const held = isDocument ? await sizeOfDocument(reader, source, digest) : await reader.held(source, digest);
      if (held !== bytes) missing.add(digest);
    }),
  );
  return missing;
}

/** As a client would be given it: it takes the bytes, and that the repository is known to have them. */
async function sizeOfDocument(reader: Reader, source: Source, digest: Digest): Promise<number | undefined> {
  try {
    return (await reader.manifest(source, digest))?.bytes.length;
  } catch (error) {
    if (isNotHeld(error)) return undefined;
    throw error;
  }
}

function statusOf(parts: readonly Part[], missing: readonly Part[]): Status {
  if (missing.length === 0) return 'complete';
  const runs = parts.find(({ kind, isAbout }) => !isAbout && (kind === 'manifest' || kind === 'index'));
  return runs && missing.includes(runs) ? 'absent' : 'partial';
}

/** Of all platforms that were asked for, and of what belongs to all of them. */
function worst(platforms: readonly CheckedPlatform[]): Status {
  const all = platforms.map(({ status }) => status);
  const asked = platforms.filter(({ platform }) => platform !== '').map(({ status }) => status);
  if (asked.length > 0 && asked.every((status) => status === 'not offered')) return 'not offered';
  if (asked.length > 0 && asked.every((status) => status === 'absent' || status === 'not offered')) return 'absent';
  return all.every((status) => status === 'complete' || status === 'supplied') ? 'complete' : 'partial';
}

/** Does all hold that was asked for? */
export function isComplete({ status }: CheckedImage): boolean {
  return status === 'complete';
}
