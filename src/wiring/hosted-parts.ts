import { join } from 'node:path';
import { createHostedContent } from '../cache/hosted-content.ts';
import type { HostedContent, SharedPlace } from '../cache/hosted-content.ts';
import type { Ledger } from '../cache/ledger.ts';
import { openSqliteLedger } from '../cache/sqlite-ledger.ts';
import { openUploads } from '../cache/uploads.ts';
import type { Uploads } from '../cache/uploads.ts';
import type { Context } from './context.ts';
import type { DiskParts } from './disk-parts.ts';
import type { RedisParts } from './redis-parts.ts';
import type { S3Parts } from './s3-parts.ts';

/** What is pushed here, and the books of it: on this machine, or in what replicas share. */
export interface HostedParts {
  readonly ledger: Ledger;
  readonly content: HostedContent;
  readonly uploads: Uploads;
}

export async function openHostedParts(
  { config, now, closers }: Context,
  { disk, catalog, evictor }: DiskParts,
  redis: RedisParts | undefined,
  s3: S3Parts | undefined,
): Promise<HostedParts> {
  const { path } = config.cache.disk;
  const { uploads, uploadSize, uploadIdle } = config.hosting;
  return {
    ledger: redis?.ledger ?? openLedger(path, closers),
    content: createHostedContent({ disk, catalog, shared: redis ? placesOf(config, redis, s3) : [] }),
    uploads: await openUploads({
      folder: join(path, 'uploads'),
      maxUploads: uploads,
      maxBytes: uploadSize,
      idleMs: uploadIdle,
      now,
      onFull: () => evictor.relieve(),
    }),
  };
}

function openLedger(path: string, closers: (() => unknown)[]): Ledger {
  const ledger = openSqliteLedger(join(path, 'hosted.sqlite'));
  closers.push(() => ledger.close());
  return ledger;
}

/** The first that takes a blob of a size is where it goes: what is large is better off in S3. */
function placesOf({ cache }: Context['config'], redis: RedisParts, s3: S3Parts | undefined): SharedPlace[] {
  const inRedis = { tier: redis.hosted, minBytes: 0, maxBytes: cache.redis.maxBlobSize };
  if (!s3) return [inRedis];
  return [
    { tier: s3.hosted, minBytes: cache.s3.minBlobSize, maxBytes: Infinity },
    inRedis,
    { tier: s3.hosted, minBytes: 0, maxBytes: Infinity },
  ];
}
