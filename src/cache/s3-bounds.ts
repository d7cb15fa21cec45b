import type { S3Store } from './s3-store.ts';
import { digestOfKey } from './s3-tier.ts';

export interface S3BoundsOptions {
  readonly s3: Pick<S3Store, 'list' | 'delete'>;
  readonly prefix: string;
  readonly maxBytes: number;
  onEvicted(bytes: number): void;
}

/** Down to this share of the bound. */
const lowWater = 0.9;
const bucketMs = 60_000;
const maxDeletes = 1000;

/**
 * Keeps the blobs of a bucket within their bound. An object's age is the time since it was put or last counted as used.
 *
 * Nothing is remembered between two goes, for other replicas put and delete as well: one listing sums up how much there
 * is of each minute, which says what is too old; a second one takes that away.
 *
 * @returns how many bytes went
 */
export async function sweepS3({ s3, prefix, maxBytes, onEvicted }: S3BoundsOptions): Promise<number> {
  const byMinute = new Map<number, number>();
  let total = 0;
  for await (const page of s3.list(`${prefix}blobs/`)) {
    for (const { key, bytes, changedAtMs } of page) {
      if (!digestOfKey(prefix, key)) continue;
      const minute = Math.floor(changedAtMs / bucketMs);
      byMinute.set(minute, (byMinute.get(minute) ?? 0) + bytes);
      total += bytes;
    }
  }
  if (total <= maxBytes) return 0;
  const goal = total - maxBytes * lowWater;
  let counted = 0;
  let newest = -Infinity;
  for (const minute of [...byMinute.keys()].toSorted((one, other) => one - other)) {
    if (counted >= goal) break;
    counted += byMinute.get(minute)!;
    newest = minute;
  }
  return takeAway(goal, newest);

  async function takeAway(goalBytes: number, newestMinute: number): Promise<number> {
    let gone = 0;
    for await (const page of s3.list(`${prefix}blobs/`)) {
      const keys: string[] = [];
      for (const { key, bytes, changedAtMs } of page) {
        if (gone >= goalBytes || keys.length >= maxDeletes) break;
        if (!digestOfKey(prefix, key) || Math.floor(changedAtMs / bucketMs) > newestMinute) continue;
        keys.push(key);
        gone += bytes;
        onEvicted(bytes);
      }
      await s3.delete(keys);
      if (gone >= goalBytes) break;
    }
    return gone;
  }
}
