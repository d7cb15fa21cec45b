import { isEmptyDigest, matches } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { bytesBlob, readAll } from './bytes.ts';
import type { Catalog } from './catalog.ts';
import type { DiskTier } from './disk.ts';
import type { Blob, Tier } from './tier.ts';

/** Content that nobody else has: what was pushed here. Every method throws what is wrong with the place it is kept. */
export interface HostedContent {
  /** Resolves when the file's content is where it stays; the file is gone then. */
  adopt(path: string, bytes: number, digest: Digest): Promise<void>;
  put(digest: Digest, bytes: Buffer): Promise<void>;
  has(digest: Digest): Promise<boolean>;
  open(digest: Digest): Promise<Blob | undefined>;
  /** The whole of what is small, verified. */
  read(digest: Digest, maxBytes: number): Promise<Buffer | undefined>;
  /** The largest blob that all replicas can have. */
  readonly maxBlobBytes: number;
  /** Sees to it that content which is here stays, and is where replicas share it. */
  secure(digest: Digest): Promise<void>;
  /** What this machine keeps, page by page in the order of digests. */
  kept(after: string): Digest[];
  /** No repository has it any more. */
  release(digest: Digest): Promise<void>;
}

export interface SharedPlace {
  readonly tier: Tier;
  /** What it takes. */
  readonly minBytes: number;
  readonly maxBytes: number;
}

export interface HostedContentOptions {
  readonly disk: Pick<DiskTier, 'adopt' | 'put' | 'open' | 'has'>;
  readonly catalog: Pick<Catalog, 'pin' | 'unpin' | 'pinnedAs' | 'markHosted'>;
  /** Where replicas share; none for one machine, whose disk is the place then. */
  readonly shared: readonly SharedPlace[];
}

const pinName = 'hosted';

/**
 * The disk of this machine, where it is pinned, and what replicas share. It is in both before anyone is told that it
 * is here: a replica that serves it may be another than the one that took it.
 */
export function createHostedContent({ disk, catalog, shared }: HostedContentOptions): HostedContent {
  const maxBlobBytes = shared.length === 0 ? Infinity : Math.max(...shared.map(({ maxBytes }) => maxBytes));

  const tiers = [...new Set(shared.map(({ tier }) => tier))];

  /** Before it is there: what evicts must never find it without. */
  function hold(digest: Digest): void {
    catalog.markHosted(digest);
    catalog.pin(pinName, [{ digest, deep: false }]);
  }

  async function share(digest: Digest, bytes: number, blob: () => Promise<Blob>): Promise<void> {
    if (shared.length === 0) return;
    const place = shared.find(({ minBytes, maxBytes }) => bytes >= minBytes && bytes <= maxBytes);
    if (!place) throw new Error(`no shared place takes ${bytes} bytes`);
    if ((await place.tier.has(digest)) === bytes) return;
    await place.tier.put(digest, await blob());
  }

  async function openHere(digest: Digest): Promise<Blob> {
    const blob = await disk.open(digest);
    if (!blob) throw new Error(`${digest} has gone from the disk`);
    return blob;
  }

  async function openShared(digest: Digest): Promise<Blob | undefined> {
    for (const tier of tiers) {
      const blob = await tier.open(digest);
      if (blob) return blob;
    }
    return undefined;
  }

  return {
    maxBlobBytes,

    async adopt(path, bytes, digest) {
      if (isEmptyDigest(digest)) return;
      hold(digest);
      await disk.adopt(path, digest);
      await share(digest, bytes, () => openHere(digest));
    },

    async put(digest, bytes) {
      if (isEmptyDigest(digest)) return;
      hold(digest);
      await disk.put(digest, bytesBlob(bytes, 'miss'));
      await share(digest, bytes.length, () => Promise.resolve(bytesBlob(bytes, 'miss')));
    },

    async has(digest) {
      if (isEmptyDigest(digest)) return true;
      // Where replicas share, that is what counts: the disk is this one's alone.
      const places = tiers.length > 0 ? tiers : [disk];
      for (const place of places) if ((await place.has(digest)) !== undefined) return true;
      return false;
    },

    async open(digest) {
      if (isEmptyDigest(digest)) return bytesBlob(Buffer.alloc(0), 'hit-memory');
      return (await disk.open(digest)) ?? (await openShared(digest));
    },

    async read(digest, maxBytes) {
      if (isEmptyDigest(digest)) return Buffer.alloc(0);
      // A copy that has rotted is none: there may be another.
      for (const open of [disk.open, openShared]) {
        const blob = await open(digest);
        if (!blob) continue;
        if (blob.size > maxBytes) return blob.close().then(() => undefined);
        const bytes = await readAll(blob).catch(() => undefined);
        if (bytes && matches(bytes, digest)) return bytes;
      }
      return undefined;
    },

    async secure(digest) {
      if (isEmptyDigest(digest)) return;
      hold(digest);
      const bytes = await disk.has(digest);
      if (bytes !== undefined) await share(digest, bytes, () => openHere(digest));
    },

    kept: (after) => catalog.pinnedAs(pinName, after, 1000),

    async release(digest) {
      for (const tier of tiers) await tier.delete(digest);
      // The disk evicts it in its turn.
      catalog.unpin(pinName, digest);
    },
  };
}
