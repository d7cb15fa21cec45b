import type { SetEntry, Sets } from '../cache/sets.ts';
import { NarrowsError, isKind } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { formatPlatform } from '../oci/platform.ts';
import type { Reader } from '../pull/reader.ts';
import { createFetcher } from './fetcher.ts';
import type { Fetcher, Shelf } from './fetcher.ts';
import { imageName, readImageTree } from './image-tree.ts';
import type { ImageTree, Wanted } from './image-tree.ts';
import { eachOnce, platformNames, sum, suppliersOf } from './parts.ts';
import { createTurns } from './turns.ts';

export interface WarmParts {
  readonly reader: Reader;
  readonly shelf: Shelf;
  readonly sets: Pick<Sets, 'reserve' | 'put'>;
  /** Downloads at once, and images looked at at once. */
  readonly atOnce: number;
  /** How long a list of what is said about a digest is believed. */
  readonly referrersFreshMs: number;
  readonly signal: AbortSignal;
  readonly observer: WarmObserver;
  now(): number;
}

/** Told of what happens, for people to watch; it must not throw. */
export interface WarmObserver {
  /** What belongs to an image is known now. */
  planned(image: string, bytes: number, missingBytes: number): void;
  received(image: string, bytes: number): void;
  finished(report: WarmedImage): void;
}

export interface WarmedImage {
  readonly image: string;
  readonly digest?: Digest;
  /** `failed`: not even what belongs to it is known. */
  readonly status: 'complete' | 'incomplete' | 'failed';
  readonly platforms: readonly WarmedPlatform[];
  /** Of all that belongs to it, each digest once, and how much of that had to be fetched. */
  readonly bytes: number;
  readonly fetchedBytes: number;
  /** Why it is not complete, a sentence each. */
  readonly problems: readonly string[];
}

export interface WarmedPlatform {
  readonly platform: string;
  readonly status: 'complete' | 'incomplete' | 'not offered' | 'supplied';
}

/**
 * Fetches images for some platforms, whole, and pins them under a set. One that fails does not stop the others; what
 * is here already costs nothing, so that doing it again goes on where it stopped.
 */
export async function warm(parts: WarmParts, set: string, images: readonly Wanted[]): Promise<WarmedImage[]> {
  const turns = createTurns(parts.atOnce);
  const fetcher = createFetcher(parts);
  const asked = new Map<string, Wanted>();
  const reports = new Map<string, WarmedImage>();
  // What others supply is known when an image has been gone through: it is the next round.
  for (let round = images; round.length > 0;) {
    const due = round.flatMap((wanted) => join(asked, wanted) ?? []);
    const trees = await Promise.all(
      due.map((wanted) => turns.run(() => warmOne(parts, fetcher, set, wanted, reports))),
    );
    round = trees.flatMap((tree) => (tree ? suppliersOf(parts.reader, tree) : []));
  }
  return [...asked.keys()].flatMap((image) => reports.get(image) ?? []);
}

/** An image that is asked for in several ways is asked for once, for all of their platforms; undefined where it was. */
function join(asked: Map<string, Wanted>, wanted: Wanted): Wanted | undefined {
  const image = imageName(wanted);
  const before = asked.get(image);
  const platforms = before && union(before.platforms, wanted.platforms);
  if (before && platformNames(platforms!).join() === platformNames(before.platforms).join()) return undefined;
  const joined = before
    ? {
        ...wanted,
        platforms: platforms!,
        asked: union(before.asked ?? before.platforms, wanted.asked ?? wanted.platforms),
      }
    : wanted;
  asked.set(image, joined);
  return joined;
}

export function union(one: Wanted['platforms'], other: Wanted['platforms']): Wanted['platforms'] {
  if (one === 'any' || other === 'any') return 'any';
  return [...new Map([...one, ...other].map((platform) => [formatPlatform(platform), platform])).values()];
}

/** @returns what belongs to it, where that could be found out */
async function warmOne(
  parts: WarmParts,
  fetcher: Fetcher,
  set: string,
  wanted: Wanted,
  reports: Map<string, WarmedImage>,
): Promise<ImageTree | undefined> {
  const image = imageName(wanted);
  const outcome = await attempt(parts, fetcher, set, wanted);
  const { tree } = outcome;
  const report = tree ? reportOf(tree, outcome) : failure(image, outcome.problems);
  if (tree) keep(parts, set, tree, report);
  reports.set(image, report);
  parts.observer.finished(report);
  return tree;
}

interface Outcome {
  readonly tree: ImageTree | undefined;
  readonly failed: ReadonlySet<Digest>;
  readonly fetchedBytes: number;
  readonly problems: readonly string[];
}

async function attempt(parts: WarmParts, fetcher: Fetcher, set: string, wanted: Wanted): Promise<Outcome> {
  const { reader, shelf, sets, observer, signal } = parts;
  const image = imageName(wanted);
  const problems = new Set<string>();
  const failed = new Set<Digest>();
  let tree: ImageTree | undefined;
  let fetchedBytes = 0;
  try {
    signal.throwIfAborted();
    tree = await readImageTree(reader, wanted, parts.referrersFreshMs, signal);
    for (const { error } of tree.gaps) problems.add(sentenceOf(error));
    const { source } = tree;
    const documents = tree.documents.filter(({ state }) => state === 'miss');
    fetchedBytes = documents.reduce((total, { bytes }) => total + bytes.length, 0);
    const content = eachOnce(tree.parts);
    // Before anything comes: the server beside must not take away again what is on its way.
    const digests = content.map(({ digest }) => digest);
    sets.reserve(set, entryOf(parts, tree, false), digests);
    const missing = await fetcher.missing(content);
    checkRoom(shelf, sum(missing));
    observer.planned(image, sum(content), sum(missing));
    const onBytes = (bytes: number) => {
      fetchedBytes += bytes;
      observer.received(image, bytes);
    };
    await Promise.all(
      missing.map((part) =>
        fetcher.fetch(source, part, onBytes).catch((error: unknown) => {
          failed.add(part.digest);
          problems.add(sentenceOf(error));
        }),
      ),
    );
  } catch (error) {
    problems.add(sentenceOf(error));
  }
  return { tree, failed, fetchedBytes, problems: [...problems] };
}

/** Nothing good is lost: what an image was before stays pinned until what it is now is here. */
function keep(parts: WarmParts, set: string, tree: ImageTree, { status }: WarmedImage): void {
  const entry = entryOf(parts, tree, status === 'complete');
  const digests = eachOnce(tree.parts).map(({ digest }) => digest);
  parts.sets.put(set, entry, digests, { keepsOthers: !entry.isComplete });
}

function entryOf({ now }: WarmParts, { image, root, wanted }: ImageTree, isComplete: boolean): SetEntry {
  return {
    image,
    digest: root.digest,
    platforms: platformNames(wanted.asked ?? wanted.platforms),
    referrers: wanted.withReferrers,
    isComplete,
    warmedAtMs: now(),
  };
}

function failure(image: string, problems: readonly string[]): WarmedImage {
  return { image, status: 'failed', platforms: [], bytes: 0, fetchedBytes: 0, problems };
}

function reportOf(tree: ImageTree, { failed, fetchedBytes, problems }: Outcome): WarmedImage {
  const { image, root, branches, parts } = tree;
  const isHurt = (platform: string) =>
    tree.gaps.some((gap) => gap.platform === platform) ||
    parts.some((part) => part.platform === platform && failed.has(part.digest));
  const platforms = branches.map(({ platform, status }): WarmedPlatform => {
    if (status !== 'offered') return { platform, status };
    return { platform, status: isHurt(platform) || isHurt('') ? 'incomplete' : 'complete' };
  });
  // What clients of other tags run need not be in this one.
  const asked = platformNames(tree.wanted.asked ?? tree.wanted.platforms);
  const lacking = platforms
    .filter(({ platform, status }) => status === 'not offered' && asked.includes(platform))
    .map(({ platform }) => platform);
  const all = lacking.length > 0 ? [...problems, notOffered(image, lacking)] : problems;
  return {
    image,
    digest: root.digest,
    status: all.length === 0 ? 'complete' : 'incomplete',
    platforms,
    bytes: sum(eachOnce(parts)),
    fetchedBytes,
    problems: all,
  };
}

function notOffered(image: string, platforms: readonly string[]): string {
  return `It is not published for ${platforms.join(', ')}; what there is: narrows inspect ${image}`;
}

/** Better told before the download than by a store that has to give up what it was told to keep. */
function checkRoom({ pinnedBytes, maxBytes }: Shelf, missingBytes: number): void {
  const pinned = pinnedBytes();
  if (pinned + missingBytes <= maxBytes) return;
  throw new NarrowsError(
    'storeUnavailable',
    `It needs ${missingBytes} bytes beside ${pinned} that are pinned, and cache.disk.maxSize is ${maxBytes}: raise it, or drop a set with narrows sets --drop NAME.`,
  );
}

function sentenceOf(error: unknown): string {
  if (isKind(error, 'rateLimited')) return `${error.message} What is here already is not fetched again.`;
  if (error instanceof Error && error.name === 'AbortError') return 'It was interrupted; the same command goes on.';
  return error instanceof Error ? error.message : String(error);
}
