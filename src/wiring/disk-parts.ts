import { join } from 'node:path';
import { openCatalog } from '../cache/catalog.ts';
import type { Catalog } from '../cache/catalog.ts';
import { createDiskTier } from '../cache/disk.ts';
import type { DiskTier } from '../cache/disk.ts';
import { createEvictor } from '../cache/evictor.ts';
import type { Evictor } from '../cache/evictor.ts';
import { createPlatformUses } from '../cache/platform-use.ts';
import type { PlatformUses } from '../cache/platform-use.ts';
import { reconcile } from '../cache/reconcile.ts';
import type { Graph } from '../pull/keeping.ts';
import type { Holding } from '../pull/offline.ts';
import type { Context } from './context.ts';

/** The store of this machine, its books, and what keeps it within its bound. */
export interface DiskParts {
  readonly disk: DiskTier;
  readonly catalog: Catalog;
  readonly evictor: Evictor;
  /** The part of the catalog that pulls use, where trouble is no more than not knowing. */
  readonly graph: Graph;
  /** The images of a repository that sets hold, where trouble is no more than not knowing. */
  holding(repositoryKey: string): readonly Holding[];
  readonly uses: PlatformUses;
  /** Resolves when what lay in the store and in no books is in them. */
  readonly reconciled: Promise<void>;
}

export async function openDiskParts({ config, log, metrics, now, isCommand, closers }: Context): Promise<DiskParts> {
  const { path } = config.cache.disk;
  const maxSize = isCommand ? Infinity : config.cache.disk.maxSize;
  const catalogPath = join(path, 'catalog.sqlite');
  const catalog = openCatalog(catalogPath, now);
  closers.push(() => catalog.close());
  const onTrouble = (error: unknown) => {
    metrics.tierTrouble('catalog');
    log.warn({ err: error }, 'the books of the store could not be kept; going on without');
  };
  const quietly = <T>(action: () => T, otherwise: T): T => {
    try {
      return action();
    } catch (error) {
      onTrouble(error);
      return otherwise;
    }
  };
  const disk = await createDiskTier({
    path,
    maxVerified: config.limits.verifiedDigests,
    maxBufferBytes: config.limits.streamBuffers,
    maxLeftoverBytes: config.limits.leftovers,
    books: {
      // What cannot be entered is not kept: nothing would ever take it away.
      adding: (digest, bytes) => catalog.add(digest, bytes),
      added(digest, bytes) {
        quietly(() => catalog.has(digest) || catalog.add(digest, bytes), undefined);
        evictor.check();
      },
      // What a command reads of it, it reads of everything: that is no use.
      used: (digest) => isCommand || catalog.used(digest),
      removed: (digest) => quietly(() => catalog.remove(digest), undefined),
      full: () => evictor.relieve(),
    },
  });
  closers.push(() => disk.close());
  const evictor = createEvictor({
    catalog,
    disk,
    maxBytes: maxSize,
    onEvicted: (bytes) => metrics.evicted('disk', bytes),
    onFull: (bytes) => log.warn({ bytes, maxBytes: maxSize }, 'pinned content alone is more than cache.disk.maxSize'),
    onTrouble,
  });
  const stopping = new AbortController();
  const reconciling = takeStock().catch(onTrouble);
  closers.push(async () => {
    stopping.abort();
    await reconciling;
    await evictor.settled();
  });
  async function takeStock(): Promise<void> {
    const found = await reconcile(path, catalog, stopping.signal);
    if (found > 0) log.info({ blobs: found }, 'found blobs in the store that were not in its books');
    evictor.check();
  }

  const graph: Graph = {
    learn: (parent, links) => quietly(() => catalog.learn(parent, links), undefined),
    learnPlatform: (image, platform) => quietly(() => catalog.learnPlatform(image, platform), undefined),
    markHosted: (digest) => quietly(() => catalog.markHosted(digest), undefined),
    isHosted: (digest) => quietly(() => catalog.isHosted(digest), true),
    served: (digest) => quietly(() => catalog.served(digest), { platforms: [], isOpen: true }),
  };
  const uses = createPlatformUses(catalogPath, now, onTrouble);
  const holding = (key: string) => quietly(() => catalog.sets.holding(key), []);
  return { disk, catalog, evictor, graph, holding, uses, reconciled: reconciling };
}
