import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createMemoryTier } from '../cache/memory.ts';
import type { MemoryTier } from '../cache/memory.ts';
import { createRecords } from '../cache/records.ts';
import type { Records } from '../cache/records.ts';
import type { RedisParts } from './redis-parts.ts';
import { placeOf } from './redis-place.ts';
import { openSqliteRecords } from '../cache/sqlite.ts';
import { createStore } from '../cache/tiers.ts';
import type { FarTier, TieredStore } from '../cache/tiers.ts';
import { isNews } from '../cache/shared-records.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { createWorkerFleet } from '../fleet/worker-fleet.ts';
import type { TierName } from '../cache/tier.ts';
import type { Context } from './context.ts';
import { openHostedParts } from './hosted-parts.ts';
import type { HostedParts } from './hosted-parts.ts';
import { isHosting } from './repository-rules.ts';
import { seldom } from './seldom.ts';
import { openS3Parts } from './s3-parts.ts';
import { openDiskParts } from './disk-parts.ts';
import type { DiskParts } from './disk-parts.ts';

/** What the mirror keeps, and with whom it shares that. */
export interface Storage extends DiskParts {
  readonly store: TieredStore;
  readonly memory: MemoryTier;
  readonly records: Records;
  readonly fleets: readonly Fleet[];
  /** Undefined where nothing is. */
  readonly hosted: HostedParts | undefined;
}

/** Opens the tiers and the records as the configuration says. @throws what makes the store of this machine unusable */
export async function openStorage(context: Context): Promise<Storage> {
  const { config, log, metrics, closers } = context;
  const { cache } = config;
  await mkdir(cache.disk.path, { recursive: true });
  const local = await openDiskParts(context);
  let records: Records | undefined;
  const redis = await openRedis(context, () => {
    // It goes on with what fails now when Redis is back the next time.
    records?.catchUp().catch(() => undefined);
  });
  records = openRecords(context, redis);
  const s3 = await openS3Parts(context);
  const far: FarTier[] = [];
  if (redis) far.push({ tier: redis.tier, isAwaited: true });
  if (s3) far.push({ tier: s3.tier, isAwaited: false });
  const warnings = new Map<TierName, (error: unknown) => void>();
  const warn = (tier: TierName, error: unknown) => {
    const say =
      warnings.get(tier) ??
      seldom((what) => log.warn({ tier, err: what }, 'a storage tier failed; going on without it'));
    warnings.set(tier, say);
    say(error);
  };
  const memory = createMemoryTier({ maxBytes: cache.memory.maxSize, maxBlobBytes: cache.memory.maxBlobSize });
  const store = createStore({
    memory,
    disk: local.disk,
    far,
    maxMemoryBlobBytes: cache.memory.maxSize > 0 ? cache.memory.maxBlobSize : 0,
    onTrouble(tier, error) {
      metrics.tierTrouble(tier);
      warn(tier, error);
    },
    onSkip: metrics.tierSkipped,
    onAnswered: metrics.tierAnswered,
  });
  closers.push(() => store.close());
  const workers = await openTeam(context);
  return {
    ...local,
    store,
    memory,
    records,
    fleets: [workers, redis?.fleet].filter((fleet) => fleet !== undefined),
    hosted: isHosting(config) ? await openHostedParts(context, local, redis, s3) : undefined,
  };
}

async function openRedis(context: Context, onBack: () => void): Promise<RedisParts | undefined> {
  const place = placeOf(context.config.cache.redis);
  if (!place) return undefined;
  // Its client is a third of the program's text, which a start without Redis need not read.
  const { openRedisParts } = await import('./redis-parts.ts');
  return openRedisParts(context, place, onBack);
}

async function openTeam({ team, config, log, closers }: Context): Promise<Fleet | undefined> {
  if (!team) return undefined;
  const fleet = await createWorkerFleet({
    link: team.coordinator,
    place: team.place,
    stallMs: config.limits.upstreamStall,
    onTrouble: (error) => log.warn({ err: error }, 'the other workers could not be asked; downloading alone'),
  });
  closers.push(() => fleet.close());
  return fleet;
}

function openRecords({ config, log, metrics, now, closers }: Context, redis: RedisParts | undefined): Records {
  const database = openSqliteRecords(join(config.cache.disk.path, 'records.sqlite'), config.cache.memory.maxRecords);
  closers.push(() => database.close());
  const onTrouble = (error: unknown) => {
    if (!isNews(error)) return metrics.tierSkipped('records');
    metrics.tierTrouble('records');
    log.warn({ err: error }, 'the records could not be used; going on without them');
  };
  const purging = setInterval(() => {
    try {
      database.purge(now());
    } catch (error) {
      onTrouble(error);
    }
  }, 60_000).unref();
  closers.push(() => clearInterval(purging));
  return createRecords({ local: database.adapter, shared: redis?.records, onTrouble });
}
