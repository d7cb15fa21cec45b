import { readFile } from 'node:fs/promises';
import type { Ledger } from '../cache/ledger.ts';
import { createRedisBounds, unbounded } from '../cache/redis-bounds.ts';
import { createRedisLedger } from '../cache/redis-ledger.ts';
import { createRedisNames } from '../cache/redis-names.ts';
import { createRedisTier } from '../cache/redis-tier.ts';
import { createSeal, sealedLedger } from '../cache/seal.ts';
import { openRedis } from '../cache/redis.ts';
import type { RedisOptions, RedisPlace } from '../cache/redis.ts';
import type { SharedRecords } from '../cache/shared-records.ts';
import { isNews } from '../cache/shared-records.ts';
import type { Tier } from '../cache/tier.ts';
import type { Config } from '../config.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { createRedisFleet } from '../fleet/redis-fleet.ts';
import type { Context } from './context.ts';
import { readKeys } from './key-files.ts';
import { nameOf } from './redis-place.ts';
import { isHosting } from './repository-rules.ts';
import { seldom } from './seldom.ts';

/** Everything that goes over Redis. */
export interface RedisParts {
  readonly tier: Tier;
  readonly records: SharedRecords;
  readonly fleet: Fleet;
  /** For what is hosted here: what has no end, and what only takes away who put it there. */
  readonly ledger: Ledger;
  readonly hosted: Tier;
}

/**
 * One that cannot be reached is used as soon as it can.
 *
 * @param onBack called when it is used again
 * @throws Error why it cannot be used, one sentence, where it is required
 */
export async function openRedisParts(
  { config, log, metrics, now, closers }: Context,
  place: RedisPlace,
  onBack: () => void,
): Promise<RedisParts> {
  const settings = config.cache.redis;
  let isStarting = true;
  const { redis, ready } = openRedis({
    ...(await loginOf(settings)),
    place,
    prefix: settings.prefix,
    connectMs: settings.connect,
    stallMs: settings.timeout,
    maxQueue: settings.queue,
    onChange(error) {
      metrics.tierAvailable('redis', error === undefined);
      // Where it is required, the start ends with a sentence of its own.
      if (isStarting && settings.required) return;
      if (error !== undefined)
        return log.warn({ tier: 'redis', at: nameOf(place), err: error }, 'Redis is in trouble; going on without it');
      log.info({ tier: 'redis' }, 'Redis answers and is used again');
      onBack();
    },
  });
  closers.push(() => redis.close());
  metrics.tierAvailable('redis', true);
  await ready.catch((error: unknown) => {
    if (settings.required)
      throw new Error(`Redis at ${nameOf(place)} cannot be used: ${reasonOf(error)}`, { cause: error });
  });
  isStarting = false;
  // One that is full refuses every write: that is one thing to say, not one for each.
  const warn = seldom((error) =>
    log.warn({ tier: 'redis', err: error }, 'Redis failed at something; going on without'),
  );
  const onTrouble = (error: unknown) => {
    if (!isNews(error)) return metrics.tierSkipped('redis');
    metrics.tierTrouble('redis');
    warn(error);
  };
  if (isHosting(config)) {
    const reply = await redis.command('', 'CONFIG', 'GET', 'maxmemory-policy').catch(() => undefined);
    const policy = Array.isArray(reply) ? String(reply[1]) : '';
    if (policy.startsWith('allkeys-')) {
      log.warn({ policy }, 'this Redis may evict what is hosted here: give it the policy noeviction or volatile-lru');
    }
  }
  const bounds = createRedisBounds({ redis, maxBytes: settings.maxSize, now });
  const common = { redis, bounds, maxBlobBytes: settings.maxBlobSize, ttlMs: settings.ttl };
  const keys = await readKeys(settings.sealKeys);
  const seal = keys.length > 0 ? createSeal(keys) : undefined;
  const ledger = createRedisLedger(redis);
  const fleet = await createRedisFleet({
    ...common,
    leaseMs: settings.lease,
    stallMs: config.limits.upstreamStall,
    onTrouble,
  });
  closers.push(() => fleet.close());
  return {
    tier: createRedisTier({ ...common, maxBufferBytes: config.limits.streamBuffers }),
    records: {
      open: redis.records,
      repositories: createRedisNames(redis, 'repositories'),
      seal,
      guard: redis.guard,
      ttlMs: settings.ttl,
    },
    fleet,
    ledger: seal ? sealedLedger(ledger, seal) : ledger,
    hosted: createRedisTier({
      redis,
      bounds: unbounded,
      prefix: `${settings.prefix}hosted:`,
      maxBlobBytes: settings.maxBlobSize,
      maxBufferBytes: config.limits.streamBuffers,
    }),
  };
}

type Settings = Config['cache']['redis'];

async function loginOf({ url, username, password, passwordFile, tls, ca }: Settings): Promise<Partial<RedisOptions>> {
  const secret = passwordFile === null ? password : (await readFile(passwordFile, 'utf8')).trimEnd();
  const isSecure = tls || (url?.startsWith('rediss:') ?? false);
  return {
    ...(username !== null && { username }),
    ...(secret !== null && { password: secret }),
    ...(isSecure && { tls: ca === null ? {} : { ca: await readFile(ca, 'utf8') } }),
  };
}

/** The first line, without a full stop: it becomes part of a sentence. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split('\n', 1)[0]!.replace(/\.$/, '');
}
