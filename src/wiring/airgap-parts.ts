import { setMaxListeners } from 'node:events';
import { statfsSync } from 'node:fs';
import type { ImportParts } from '../airgap/import.ts';
import type { Shelf } from '../airgap/fetcher.ts';
import type { WarmObserver, WarmParts } from '../airgap/warm.ts';
import { contentKey } from '../cache/records.ts';
import type { Staging } from '../cache/staging.ts';
import type { Config } from '../config.ts';
import type { Pull } from '../pull/pull.ts';
import { createPace, createPaced } from '../upstream/paced.ts';
import { createPatient } from '../upstream/patient.ts';
import { createYielding } from '../upstream/yielding.ts';
import type { PullWork } from './pull-parts.ts';
import type { Storage } from './storage.ts';

export interface Background {
  readonly config: Config;
  readonly work: PullWork;
  /** Ends what is under way, and all waits. */
  readonly signal: AbortSignal;
  onWait(upstream: string, waitMs: number, why: string): void;
  now(): number;
}

/** Pulls for someone who has time: they wait when they are told to, and take no more than their share of the line. */
export function openBackground({ config, work, signal, onWait, now }: Background): Pull {
  const { bandwidth, spare, patience, retries, retryDelay } = config.warm;
  // Each download, and each wait, listens for the end.
  setMaxListeners(0, signal);
  const pace = bandwidth === null ? undefined : createPace(bandwidth, signal);
  return work.over((upstream) => {
    const patient = createPatient(upstream, {
      maxWaitMs: patience,
      spare: spare / 100,
      retries,
      retryDelayMs: retryDelay,
      signal,
      now,
      onWait,
    });
    const yielding = createYielding(patient, work.traffic);
    return pace ? createPaced(yielding, () => pace) : yielding;
  });
}

export function warmParts(background: Background, observer: WarmObserver): WarmParts {
  const { config, work, signal, now } = background;
  return {
    reader: openBackground(background).reader,
    shelf: shelfOf(config, work.storage),
    sets: work.storage.catalog.sets,
    atOnce: config.warm.downloads,
    referrersFreshMs: config.warm.referrersFresh,
    signal,
    observer,
    now,
  };
}

export interface ImportWiring {
  readonly config: Config;
  readonly work: PullWork;
  readonly staging: Staging;
  readonly checkSignature: ImportParts['checkSignature'];
  readonly onBytes: ImportParts['onBytes'];
  now(): number;
}

export function importParts({ config, work, staging, checkSignature, onBytes, now }: ImportWiring): ImportParts {
  const { disk, store, catalog, evictor, records, graph } = work.storage;
  const { path, maxSize } = config.cache.disk;
  const maxDocumentBytes = config.limits.manifestSize;
  return {
    find: work.pull.reader.find,
    staging,
    has: (digest) => disk.has(digest),
    install: (from, digest) => disk.install(from, digest),
    readStored: async (digest) => (await store.read(digest, maxDocumentBytes))?.bytes,
    maxDocumentBytes,
    sets: catalog.sets,
    records,
    graph,
    keptBytes: () => maxSize - catalog.pinnedBytes(),
    async makeRoom(bytes) {
      const short = bytes - freeBytes(path);
      const mayGoBytes = catalog.totalBytes() - catalog.pinnedBytes();
      // Where that would not be enough nothing has to go.
      if (short > 0 && short <= mayGoBytes) await evictor.run(catalog.totalBytes() - short);
      return freeBytes(path);
    },
    hold: (digests) =>
      catalog.pin(
        importPin,
        digests.map((digest) => ({ digest, deep: false })),
      ),
    release: () => catalog.unpin(importPin),
    isKnown: async (source, digest) =>
      (await records.blobs.get(contentKey(source, digest))) !== undefined ||
      (await records.manifests.get(contentKey(source, digest))) !== undefined,
    checkSignature,
    onBytes,
    now,
  };
}

/** What an import that was killed held, the next one lets go. */
const importPin = 'import';

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

function shelfOf({ cache }: Config, { disk, store, catalog }: Storage): Shelf {
  return {
    has: (digest) => disk.has(digest),
    async bring(digest) {
      const blob = await store.open(digest);
      if (blob) await disk.put(digest, blob);
    },
    pinnedBytes: () => catalog.pinnedBytes(),
    maxBytes: cache.disk.maxSize,
  };
}
