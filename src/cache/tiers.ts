import { isEmptyDigest, matches } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { TierAway } from './breaker.ts';
import { bytesBlob, readAll } from './bytes.ts';
import { createSpreader } from './spreader.ts';
import type { Blob, CacheState, GrowingTier, Store, Tier, TierName } from './tier.ts';

export interface FarTier {
  readonly tier: Tier;
  /** A manifest's answer waits for its copy here, so that the next replica finds it. */
  readonly isAwaited: boolean;
}

export interface TiersOptions {
  readonly memory: Tier;
  readonly disk: GrowingTier;
  /** The nearest first. */
  readonly far?: readonly FarTier[];
  /** Blobs up to this size are brought up into memory when they are read. */
  readonly maxMemoryBlobBytes: number;
  onTrouble(tier: TierName, error: unknown): void;
  /** A tier was passed by, because it is being left alone. */
  onSkip?(tier: TierName): void;
  /** How long it took a tier to open something, or to say that it has it not. */
  onAnswered?(tier: TierName, ms: number): void;
}

export interface TieredStore extends Store {
  /** Resolves when nothing is being copied any more. */
  close(): Promise<void>;
}

/** Memory, disk, and what is farther away. What is small comes up when it is asked for. */
export function createStore(options: TiersOptions): TieredStore {
  const { memory, disk, far = [], maxMemoryBlobBytes, onTrouble, onSkip = () => undefined, onAnswered } = options;
  const spreader = createSpreader({ disk, tiers: far.map(({ tier }) => tier), attempt });

  async function attempt<T>(tier: Tier, action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      // Whoever left it alone has told why.
      if (error instanceof TierAway) onSkip(tier.name);
      else onTrouble(tier.name, error);
      return undefined;
    }
  }

  /** Memory answers at once: it is not worth measuring. */
  async function timed<T>({ name }: Tier, action: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await action();
    onAnswered?.(name, performance.now() - started);
    return result;
  }

  /** A small blob is verified whole before it is answered, so a rotten copy is a miss that no client sees. */
  async function bringUp(digest: Digest, blob: Blob): Promise<Blob> {
    const bytes = await readAll(blob);
    await attempt(memory, () => memory.put(digest, bytesBlob(bytes, blob.state)));
    return bytesBlob(bytes, blob.state);
  }

  async function open(digest: Digest): Promise<Blob | undefined> {
    if (isEmptyDigest(digest)) return bytesBlob(Buffer.alloc(0), 'hit-memory');
    const near = await attempt(memory, () => memory.open(digest));
    if (near) return near;
    return attempt(disk, async () => {
      const blob = await timed(disk, () => disk.open(digest));
      return blob && blob.size <= maxMemoryBlobBytes ? bringUp(digest, blob) : blob;
    });
  }

  async function openFar(digest: Digest, except?: ReadonlySet<CacheState>): Promise<Blob | undefined> {
    for (const { tier } of far) {
      if (except?.has(`hit-${tier.name}`)) continue;
      const blob = await attempt(tier, () => timed(tier, () => tier.open(digest)));
      if (blob) return blob;
    }
    return undefined;
  }

  async function keepNear(digest: Digest, bytes: Buffer): Promise<void> {
    for (const tier of [memory, disk]) await attempt(tier, () => tier.put(digest, bytesBlob(bytes, 'miss')));
  }

  return {
    open,

    async locate(digest) {
      for (const tier of [memory, disk, ...far.map((one) => one.tier)]) {
        const bytes = await attempt(tier, () => tier.has(digest));
        if (bytes !== undefined) return { tier: tier.name, bytes };
      }
      return undefined;
    },

    async read(digest, maxBytes) {
      const near = await open(digest);
      if (near && near.size > maxBytes) return near.close().then(() => undefined);
      // A copy that has rotted is no copy: there are others.
      const bytes = near && (await readAll(near).catch(() => undefined));
      if (bytes) return { bytes, state: near.state };
      for (const { tier } of far) {
        const found = await attempt(tier, () => timed(tier, () => readFar(tier, digest, maxBytes)));
        if (!found) continue;
        await keepNear(digest, found);
        return { bytes: found, state: `hit-${tier.name}` };
      }
      return undefined;
    },

    async put(digest, bytes) {
      await keepNear(digest, bytes);
      for (const { tier, isAwaited } of far) {
        if (isAwaited) await attempt(tier, () => tier.put(digest, bytesBlob(bytes, 'miss')));
      }
      if (far.some(({ isAwaited }) => !isAwaited)) spreader.spread(digest);
    },

    begin: (digest) => attempt(disk, () => disk.begin(digest)),

    takeUp: (digest) => attempt(disk, () => disk.takeUp(digest)),

    far: openFar,

    spread: (digest) => spreader.spread(digest),

    async distrust(digest) {
      for (const { tier } of far) await attempt(tier, () => tier.delete(digest));
    },

    close: () => spreader.close(),
  };
}

/** The whole of what is small, which is verified before anyone gets it; other content than it should be goes. */
async function readFar(tier: Tier, digest: Digest, maxBytes: number): Promise<Buffer | undefined> {
  const blob = await tier.open(digest);
  if (!blob) return undefined;
  if (blob.size > maxBytes) return blob.close().then(() => undefined);
  const bytes = await readAll({
    size: blob.size,
    read: blob.read,
    close: blob.close,
    state: blob.state,
    verified: undefined,
  });
  if (matches(bytes, digest)) return bytes;
  await tier.delete(digest);
  throw new Error(`${tier.name} holds other content than that of ${digest}`);
}
