import { Keyv } from 'keyv';
import type { KeyvStoreAdapter } from 'keyv';
import { isDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { isMediaType } from '../oci/media-types.ts';

/** What an upstream last said that a tag means; `digest` is absent where it said that there is no such tag. */
export interface TagRecord {
  readonly digest?: Digest;
  readonly checkedAtMs: number;
  /** When a question since then found the upstream in trouble: the record is what it said before. */
  readonly troubledAtMs?: number;
}

/** A repository is known to hold a manifest: its upstream gave it. */
export interface ManifestRecord {
  /** The Content-Type that it came with. */
  readonly mediaType: string;
}

/** A repository is known to hold a blob: a manifest of it lists it, or its upstream answered for it. */
export interface BlobRecord {
  /** Bytes; absent where nobody said. */
  readonly size?: number;
}

/** An index that was made here: enough to make it again from the original. */
export interface NarrowedRecord {
  readonly index: Digest;
  /** The places of the kept children in it. One digest may stand there for several platforms. */
  readonly kept: readonly number[];
}

/** Does the config of a child say the platform that the index says? */
export interface PlatformCheck {
  readonly truthful: boolean;
}

/** One kind of record. A broken store reads as empty and answers a write with false: records can be learnt again. */
export interface RecordSpace<T> {
  get(key: string): Promise<T | undefined>;
  /** The same, where "not there" must be told from "cannot be read". @throws what is wrong with the store */
  mustGet(key: string): Promise<T | undefined>;
  set(key: string, value: T, ttlMs?: number): Promise<boolean>;
  setMany(entries: readonly { key: string; value: T }[]): Promise<void>;
  delete(key: string): Promise<void>;
  keys(): AsyncIterable<string>;
}

/** The mutable half of the cache, apart from the blobs: what names mean, never what bytes are. */
export interface Records {
  readonly tags: RecordSpace<TagRecord>;
  readonly manifests: RecordSpace<ManifestRecord>;
  readonly blobs: RecordSpace<BlobRecord>;
  readonly narrowed: RecordSpace<NarrowedRecord>;
  readonly platformChecks: RecordSpace<PlatformCheck>;
  readonly repositories: RecordSpace<true>;
}

export function createRecords(adapter: () => KeyvStoreAdapter, onTrouble: (error: unknown) => void): Records {
  const space = <T>(namespace: string, isRecord: (value: Shape) => boolean) =>
    createSpace<T>(adapter(), namespace, onTrouble, isRecord);
  return {
    tags: space('tags', (value) => isDigestOrAbsent(value['digest']) && isCount(value['checkedAtMs'])),
    manifests: space('manifests', ({ mediaType }) => typeof mediaType === 'string' && isMediaType(mediaType)),
    blobs: space('blobs', ({ size }) => size === undefined || isCount(size)),
    narrowed: space(
      'narrowed',
      ({ index, kept }) => typeof index === 'string' && isDigest(index) && Array.isArray(kept) && kept.every(isCount),
    ),
    platformChecks: space('platform-checks', ({ truthful }) => typeof truthful === 'boolean'),
    repositories: space('repositories', () => true),
  };
}

type Shape = Readonly<Record<string, unknown>>;

function isDigestOrAbsent(value: unknown): boolean {
  return value === undefined || (typeof value === 'string' && isDigest(value));
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function createSpace<T>(
  store: KeyvStoreAdapter,
  namespace: string,
  onTrouble: (error: unknown) => void,
  isRecord: (value: Shape) => boolean,
): RecordSpace<T> {
  // Keyv swallows a failing read unless it throws them all; its events tell the same again.
  const keyv = new Keyv<T>({ store, namespace, throwOnErrors: true });
  keyv.on('error', () => undefined);

  /** What others can write to is looked at before it is believed: a digest of it becomes a file's name. */
  async function read(key: string): Promise<T | undefined> {
    const value = await keyv.get(key);
    if (value === true) return value;
    return typeof value === 'object' && value !== null && isRecord(value as Shape) ? value : undefined;
  }

  async function attempt<R>(action: () => Promise<R>, fallback: R): Promise<R> {
    try {
      return await action();
    } catch (error) {
      onTrouble(error);
      return fallback;
    }
  }

  return {
    get: (key) => attempt(() => read(key), undefined),
    mustGet: read,
    set: (key, value, ttlMs) => attempt(() => keyv.set(key, value, ttlMs), false),
    async setMany(entries) {
      if (entries.length === 0) return;
      await attempt<unknown>(() => keyv.setMany(entries.map(({ key, value }) => ({ key, value }))), undefined);
    },
    async delete(key) {
      await attempt(() => keyv.delete(key), false);
    },
    async *keys() {
      try {
        for await (const [key] of keyv.iterator?.({}) ?? []) yield key as string;
      } catch (error) {
        onTrouble(error);
      }
    },
  };
}

/** The key of what a repository holds: records of one repository never speak for another. */
export function contentKey(repository: { readonly key: string }, digest: Digest): string {
  return `${repository.key}@${digest}`;
}
