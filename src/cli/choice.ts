import type { Wanted } from '../airgap/image-tree.ts';
import { isSetName } from '../airgap/parts.ts';
import type { SetEntry } from '../cache/sets.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseImageName, parseRepositoryName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import { platformsOf } from '../wiring/admin-api.ts';
import { keptPlatforms } from '../wiring/pull-rules.ts';
import { wantedOf } from './image-list.ts';
import type { ImageFlags, ImageList } from './image-list.ts';
import { CommandError } from './io.ts';
import { readPlatforms } from './workbench.ts';
import type { Workbench } from './workbench.ts';

export interface ChoiceFlags extends ImageFlags {
  readonly platform?: string[];
  readonly set?: string;
}

/**
 * The images that a command is about: those that are named, or those of a set as it was made.
 *
 * @throws CommandError 2 where nothing is named, or the set is not there
 */
export function chosenImages(bench: Workbench, list: ImageList, flags: ChoiceFlags): Wanted[] {
  if (list.images.length > 0) {
    return wantedOf(list, bench.pull.reader, platformsFor(flags.platform, bench), flags.referrers);
  }
  const given = flags.platform && readPlatforms(flags.platform, bench.sets);
  const all = bench.storage.catalog.sets.all().map(({ name }) => name);
  if (flags.set !== undefined && !all.includes(flags.set)) {
    throw new CommandError(
      2,
      `There is no set ${flags.set} in this store; ${all.length > 0 ? `there is: ${all.join(', ')}` : 'there is none'}.`,
    );
  }
  const names = flags.set === undefined ? all : [flags.set];
  const wanted = names
    .flatMap((name) => bench.storage.catalog.sets.entries(name))
    .map((entry) => wantedOfEntry(bench.pull.reader, entry, given, flags.referrers));
  if (wanted.length > 0) return wanted;
  throw new CommandError(2, 'Say which images: as arguments, with -f FILE, or with --set NAME.');
}

/** Everything by default would be what this program is there to prevent. */
export function platformsFor(given: readonly string[] | undefined, { sets, config }: Workbench): PlatformSet {
  if (given !== undefined) return readPlatforms(given, sets);
  if (config.cache.platforms !== 'all') return keptPlatforms(config, sets);
  throw new CommandError(2, 'Say for which platforms: --platform linux/arm64, or --platform any for all of them.');
}

/** @throws CommandError for what could not stand in a list or on a command line */
export function readSetName(text: string): string {
  if (isSetName(text)) return text;
  throw new CommandError(2, `${JSON.stringify(text)} is no name of a set: letters, digits and . _ -, at most 64.`);
}

/** An image of a set, as it was asked for when it was put there. */
export function wantedOfEntry(
  reader: Pick<Reader, 'find'>,
  { image, platforms, referrers }: SetEntry,
  given?: PlatformSet,
  withReferrers = true,
): Wanted {
  const { name, reference } = parseImageName(image);
  return {
    repository: parseRepositoryName(reader.find(name).key),
    reference,
    platforms: given ?? platformsOf(platforms, new Map()),
    withReferrers: referrers && withReferrers,
  };
}
