import { readFile } from 'node:fs/promises';
import { sweepS3 } from '../cache/s3-bounds.ts';
import { openS3 } from '../cache/s3-store.ts';
import type { S3Options } from '../cache/s3-store.ts';
import { createS3Tier } from '../cache/s3-tier.ts';
import { isNews } from '../cache/shared-records.ts';
import type { Tier } from '../cache/tier.ts';
import type { Config } from '../config.ts';
import type { Context } from './context.ts';
import { seldom } from './seldom.ts';

export interface S3Parts {
  readonly tier: Tier;
  /** For what is hosted here. */
  readonly hosted: Tier;
}

/** However little comes here, other replicas put into the bucket as well. */
const sweepEveryMs = 3_600_000;
/** What may come before the bucket is looked at again, as a share of its bound. */
const sweepAfterShare = 0.05;

/**
 * Undefined where no bucket is configured. One that cannot be reached is used as soon as it can.
 *
 * @throws Error why it cannot be used, one sentence, where it is required, or where the package is missing
 */
export async function openS3Parts({ config, log, metrics, now, closers }: Context): Promise<S3Parts | undefined> {
  const settings = config.cache.s3;
  const { bucket, prefix, minBlobSize, maxSize, partSize } = settings;
  if (bucket === null) return undefined;
  const s3 = await openS3({
    ...(await accessOf(settings)),
    bucket,
    onChange(error) {
      metrics.tierAvailable('s3', error === undefined);
      if (error === undefined) log.info({ tier: 's3' }, 'S3 answers and is used again');
      else log.warn({ tier: 's3', err: error }, 'S3 is in trouble; going on without it');
    },
  });
  closers.push(() => s3.close());
  metrics.tierAvailable('s3', true);
  await s3.check().catch((error: Error) => {
    if (settings.required) throw new Error(`S3 cannot be used: ${error.message}`, { cause: error });
    log.warn({ tier: 's3' }, `S3 cannot be used: ${error.message}; going on without it`);
  });
  const warn = seldom((error) => log.warn({ tier: 's3', err: error }, 'S3 failed at something; going on without'));
  const onTrouble = (error: unknown) => {
    if (!isNews(error)) return metrics.tierSkipped('s3');
    metrics.tierTrouble('s3');
    warn(error);
  };
  let putBytes = 0;
  let sweeping: Promise<unknown> | undefined;
  const sweep = () => {
    putBytes = 0;
    sweeping ??= sweepS3({ s3, prefix, maxBytes: maxSize, onEvicted: (bytes) => metrics.evicted('s3', bytes) })
      .catch(onTrouble)
      .finally(() => (sweeping = undefined));
  };
  const timer = setInterval(sweep, sweepEveryMs * (0.75 + Math.random() / 2)).unref();
  closers.push(() => clearInterval(timer));
  const common = { s3, partBytes: partSize, stallMs: settings.timeout, now, onTrouble };
  return {
    tier: createS3Tier({
      ...common,
      prefix,
      minBlobBytes: minBlobSize,
      onPut(bytes) {
        putBytes += bytes;
        if (putBytes > maxSize * sweepAfterShare) sweep();
      },
    }),
    // Outside of what the sweep looks at: nothing of it is evicted.
    hosted: createS3Tier({ ...common, prefix: `${prefix}hosted/`, minBlobBytes: 0, onPut: () => undefined }),
  };
}

async function accessOf(settings: Config['cache']['s3']): Promise<Omit<S3Options, 'bucket' | 'onChange'>> {
  const { endpoint, region, pathStyle, connections, timeout, accessKeyId, secretAccessKey, secretAccessKeyFile } =
    settings;
  const secret =
    secretAccessKeyFile === null ? secretAccessKey : (await readFile(secretAccessKeyFile, 'utf8')).trimEnd();
  return {
    endpoint: endpoint ?? undefined,
    region,
    pathStyle,
    maxSockets: connections,
    stallMs: timeout,
    credentials: accessKeyId === null || secret === null ? undefined : { accessKeyId, secretAccessKey: secret },
  };
}
