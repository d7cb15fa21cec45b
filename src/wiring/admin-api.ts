import type { AdminApi } from '../admin/server.ts';
import { resolveSet } from '../config.ts';
import { NarrowsError } from '../errors.ts';
import type { Log } from '../log.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseImageName } from '../oci/reference.ts';
import type { Live } from './live.ts';
import type { PullWork } from './pull-parts.ts';

/** The admin API over what a mirror works with. @param work what that is now */
export function createAdminApi(work: () => PullWork, live: () => Promise<Live>): AdminApi {
  return {
    live,

    async inspect(image, platforms) {
      const { pull, sets } = work();
      return pull.inspect(parseImageName(image), platformsOf(platforms, sets));
    },

    async images(after = '', count) {
      const { storage } = work();
      const names: string[] = [];
      for await (const name of storage.records.tags.keys()) if (name > after) names.push(name);
      const page = names.toSorted().slice(0, count);
      const images = await Promise.all(
        page.map(async (image) => ({ image, digest: (await storage.records.tags.get(image))?.digest })),
      );
      // "No such tag" is remembered too, and is no image.
      return {
        images: images.filter(({ digest }) => digest !== undefined),
        ...(names.length > count && { next: page.at(-1) }),
      };
    },
  };
}

/**
 * Platforms as people name them: single ones, lists with commas, named sets, `any`; none is any.
 *
 * @throws NarrowsError platformInvalid
 */
export function platformsOf(values: readonly string[], sets: ReadonlyMap<string, PlatformSet>): PlatformSet {
  const names = values.flatMap((value) => value.split(',')).map((name) => name.trim());
  for (const name of names) {
    if (name === 'any' || sets.has(name) || parsePlatform(name)) continue;
    throw new NarrowsError(
      'platformInvalid',
      `${JSON.stringify(name.slice(0, 80))} is no platform such as linux/arm64, no named set, and not any.`,
    );
  }
  return names.length === 0 ? 'any' : resolveSet(names, sets);
}

export function adminTrouble(log: Log): (error: unknown) => void {
  return (error) => log.error({ err: error }, 'a question to the admin listener could not be answered');
}
