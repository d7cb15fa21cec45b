import type { S3Object, S3Store } from './s3-store.ts';
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
  // What is older than this minute goes, and of it as much as is needed then.
  let minute = -Infinity;
  let older = 0;
  for (const next of [...byMinute.keys()].toSorted((one, other) => one - other)) {
    older += byMinute.get(minute) ?? 0;
    minute = next;
    if (older + byMinute.get(minute)! >= goal) break;
  }
  return takeAway(minute, goal - older);

  async function takeAway(lastMinute: number, bytesOfIt: number): Promise<number> {
    let gone = 0;
    let left = bytesOfIt;
    for await (const page of s3.list(`${prefix}blobs/`)) {
      const old: S3Object[] = [];
      for (const object of page) {
        const minuteOf = Math.floor(object.changedAtMs / bucketMs);
        const isOld = minuteOf < lastMinute || (minuteOf === lastMinute && left > 0);
        if (!isOld || old.length >= maxDeletes || !digestOfKey(prefix, object.key)) continue;
        if (minuteOf === lastMinute) left -= object.bytes;
        old.push(object);
      }
      await s3.delete(old.map(({ key }) => key));
      for (const { bytes } of old) {
        gone += bytes;
        onEvicted(bytes);
      }
    }
    return gone;
  }
}
