import type { Digest } from '../oci/digest.ts';
import type { Catalog, Entry, Served } from './catalog.ts';

/** Something that would go, and why. */
export interface Collectable extends Entry {
  readonly reason: 'platform' | 'bound';
  /** Whom it serves; empty where that is not known. */
  readonly platforms: readonly string[];
}

export interface CollectOptions {
  readonly catalog: Pick<Catalog, 'entries' | 'served' | 'pinned' | 'totalBytes' | 'byUse'>;
  readonly maxBytes: number;
  /** What serves others alone goes. */
  isWanted(served: Served): boolean;
}

const page = 1000;

/**
 * What garbage collection takes away, without doing it: first what serves no wanted platform, then the least recently
 * used, until the rest is within the bound. What is pinned stays.
 */
export function* collectable({ catalog, maxBytes, isWanted }: CollectOptions): Generator<Collectable> {
  const pinned = catalog.pinned();
  const unwanted = new Set<Digest>();
  let left = catalog.totalBytes();
  for (let after = ''; ;) {
    const entries = catalog.entries(after, page);
    for (const entry of entries) {
      const served = catalog.served(entry.digest);
      if (pinned.has(entry.digest) || isWanted(served)) continue;
      unwanted.add(entry.digest);
      left -= entry.bytes;
      yield { ...entry, reason: 'platform', platforms: served.platforms };
    }
    const last = entries.at(-1);
    if (!last) break;
    after = last.digest;
  }
  for (const entry of catalog.byUse()) {
    if (left <= maxBytes) return;
    if (pinned.has(entry.digest) || unwanted.has(entry.digest)) continue;
    left -= entry.bytes;
    yield { ...entry, reason: 'bound', platforms: catalog.served(entry.digest).platforms };
  }
}
