import { join } from 'node:path';
import { keepUp } from '../airgap/keep-up.ts';
import type { Wanted } from '../airgap/image-tree.ts';
import { parseHours } from '../airgap/schedule.ts';
import { union, warm } from '../airgap/warm.ts';
import type { WarmedImage, WarmObserver } from '../airgap/warm.ts';
import { tryLock } from '../cache/claim.ts';
import type { SetEntry } from '../cache/sets.ts';
import { NarrowsError } from '../errors.ts';
import { parsePlatform } from '../oci/platform.ts';
import { parseImageName, parseRepositoryName } from '../oci/reference.ts';
import { platformsOf } from './admin-api.ts';
import { warmParts } from './airgap-parts.ts';
import type { Background } from './airgap-parts.ts';
import type { Context } from './context.ts';
import type { PullWork } from './pull-parts.ts';

const silent: WarmObserver = { planned: () => undefined, received: () => undefined, finished: () => undefined };

/** Keeps all sets of a store up to date beside a server, where the configuration says so. */
export function startKeeper({ config, log, now, closers }: Context, work: PullWork): void {
  const { every, hours } = config.warm;
  if (every === null || config.offline) return;
  const stopping = new AbortController();
  const onWait = (upstream: string, waitMs: number, why: string) =>
    log.info({ upstream, waitMs }, `warming waits: ${why}`);
  // A server that is restarted every night would otherwise never come to it.
  const warmed = work.storage.catalog.sets.all().map(({ warmedAtMs }) => warmedAtMs);
  const running = keepUp({
    ...(warmed.length > 0 && { lastMs: Math.min(...warmed) }),
    everyMs: every,
    hours: hours.map(parseHours),
    signal: stopping.signal,
    now,
    onWait: (untilMs) => log.info({ at: new Date(untilMs).toISOString() }, 'the sets are warmed again then'),
    async round(signal) {
      try {
        const reports = await warmSets({ config, work, signal, now, onWait });
        if (reports) logRound(log, reports);
      } catch (error) {
        log.warn({ err: error }, 'the sets could not be warmed; trying again the next time');
      }
    },
  });
  closers.push(async () => {
    stopping.abort();
    await running;
  });
}

function logRound(log: Context['log'], reports: readonly WarmedImage[]): void {
  for (const { image, problems } of reports.filter(({ status }) => status !== 'complete')) {
    log.warn({ image, problems }, 'an image of a set is not complete');
  }
  const fetchedBytes = reports.reduce((total, report) => total + report.fetchedBytes, 0);
  log.info({ images: reports.length, fetchedBytes }, 'the sets are warm');
}

/**
 * All sets of a store, one after the other.
 *
 * @param isMeant which of them
 * @returns undefined where another process on this store is at it
 */
export async function warmSets(
  background: Background,
  observer = silent,
  isMeant: (set: string) => boolean = () => true,
): Promise<WarmedImage[] | undefined> {
  const { config, work } = background;
  const lock = tryLock(join(config.cache.disk.path, 'warming.lock'));
  if (!lock) return undefined;
  try {
    const parts = warmParts(background, observer);
    const { sets } = work.storage.catalog;
    const reports: WarmedImage[] = [];
    for (const { name } of sets.all().filter((one) => isMeant(one.name))) {
      const entries = sets.entries(name);
      const wanted = await Promise.all(entries.map((entry) => wantedAgain(background, entry)));
      reports.push(
        ...(await warm(
          parts,
          name,
          wanted.filter((one) => one !== undefined),
        )),
      );
    }
    return reports;
  } finally {
    lock.close();
  }
}

/** What it was asked for, and what clients have been asking for since. Undefined for what is no longer mirrored here. */
async function wantedAgain({ config, work, now }: Background, entry: SetEntry): Promise<Wanted | undefined> {
  try {
    const { name, reference } = parseImageName(entry.image);
    const source = work.pull.reader.find(name);
    const asked = platformsOf(entry.platforms, new Map());
    const demand = config.warm.learnt === null ? undefined : await work.storage.records.demand.get(source.key);
    const sinceMs = now() - (config.warm.learnt ?? 0);
    const learnt = Object.entries(demand?.platforms ?? {}).flatMap(([platform, atMs]) =>
      atMs >= sinceMs ? (parsePlatform(platform) ?? []) : [],
    );
    return {
      repository: parseRepositoryName(source.key),
      reference,
      platforms: union(asked, learnt),
      asked,
      withReferrers: entry.referrers,
    };
  } catch (error) {
    if (error instanceof NarrowsError) return undefined;
    throw error;
  }
}
