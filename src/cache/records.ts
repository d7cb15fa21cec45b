import { Keyv } from 'keyv';
import type { KeyvStoreAdapter } from 'keyv';
import { isDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import { isMediaType } from '../oci/media-types.ts';
import { createStrictSpace, forgiving } from './record-space.ts';
import type { RecordSpace, Shape, StrictSpace } from './record-space.ts';
import { isSealed, sealedSpace } from './seal.ts';
import type { Sealed } from './seal.ts';
import { createSharedSpace } from './shared-records.ts';
import type { SharedRecords } from './shared-records.ts';

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
  /** Its own upstream answered for it, or sent it: more than a manifest that lists it. */
  readonly isAnswered?: true;
}

/** An index that was made here: enough to make it again from the original. */
export interface NarrowedRecord {
  readonly index: Digest;
  /** The places of the kept children in it. One digest may stand there for several platforms. */
  readonly kept: readonly number[];
  /** What comes after them, as an index lists it. */
  readonly added?: readonly JsonObject[];
  /** The document of 2015 that the index was turned into, and whose platform came first in it. */
  readonly as?: 'combined' | 'alternates';
  readonly primary?: string;
}

/** The repository that supplies content which another one shows. */
export interface OriginRecord {
  readonly from: string;
}

/** What is said about a digest (signatures, SBOMs), as its upstream last listed it. */
export interface ReferrersRecord {
  /** Descriptors, as a referrers list has them. */
  readonly manifests: readonly JsonObject[];
  readonly checkedAtMs: number;
}

/** Which platforms of a repository are asked for here, and when each last was, in milliseconds since 1970. */
export interface DemandRecord {
  readonly platforms: Readonly<Record<string, number>>;
  readonly notedAtMs: number;
}

/** Does the config of a child say the platform that the index says? */
export interface PlatformCheck {
  readonly truthful: boolean;
}

/** The mutable half of the cache, apart from the blobs: what names mean, never what bytes are. */
export interface Records {
  readonly tags: RecordSpace<TagRecord>;
  readonly manifests: RecordSpace<ManifestRecord>;
  readonly blobs: RecordSpace<BlobRecord>;
  readonly narrowed: RecordSpace<NarrowedRecord>;
  readonly origins: RecordSpace<OriginRecord>;
  readonly platformChecks: RecordSpace<PlatformCheck>;
  readonly referrers: RecordSpace<ReferrersRecord>;
  readonly demand: RecordSpace<DemandRecord>;
  readonly repositories: RecordSpace<true>;
  /** Tells the other replicas what was written while they could not be told. */
  catchUp(): Promise<void>;
}

export interface RecordsOptions {
  /** The store of this process, one adapter for each kind of record. */
  local(): KeyvStoreAdapter;
  readonly shared?: SharedRecords | undefined;
  onTrouble(error: unknown): void;
}

export function createRecords({ local, shared, onTrouble }: RecordsOptions): Records {
  const laggards: { catchUp(): Promise<void> }[] = [];

  function space<T>(
    namespace: string,
    isRecord?: (value: Shape) => boolean,
    isNewer?: (one: T, other: T) => boolean,
  ): RecordSpace<T> {
    const own = createStrictSpace<T>(new Keyv<T>({ store: local(), namespace, throwOnErrors: true }), isRecord);
    if (!shared) return forgiving(own, onTrouble);
    return share(own, openShared(shared, namespace, isRecord), isNewer);
  }

  function openShared<T>(
    { open, seal }: SharedRecords,
    namespace: string,
    isRecord?: (value: Shape) => boolean,
  ): StrictSpace<T> {
    if (!seal) return createStrictSpace<T>(open(namespace) as Keyv<T>, isRecord);
    const isWhole = (value: Shape) => isSealed(value) && (isRecord?.(value['value'] as Shape) ?? true);
    const sealed = createStrictSpace<Sealed<T>>(open(namespace) as Keyv<Sealed<T>>, isWhole);
    return sealedSpace(sealed, namespace, seal, onTrouble);
  }

  function share<T>(
    own: StrictSpace<T>,
    all: StrictSpace<T>,
    isNewer?: (one: T, other: T) => boolean,
    isListed = false,
  ): RecordSpace<T> {
    const both = createSharedSpace({ own, all, shared: shared!, isNewer, isListed, onTrouble });
    laggards.push(both);
    return forgiving(both, onTrouble);
  }

  return {
    tags: space<TagRecord>(
      'tags',
      (value) =>
        isDigestOrAbsent(value['digest']) &&
        isCount(value['checkedAtMs']) &&
        (value['troubledAtMs'] === undefined || isCount(value['troubledAtMs'])),
      (one, other) => lastWordMs(one) >= lastWordMs(other),
    ),
    manifests: space('manifests', ({ mediaType }) => typeof mediaType === 'string' && isMediaType(mediaType)),
    blobs: space(
      'blobs',
      ({ size, isAnswered }) =>
        (size === undefined || isCount(size)) && (isAnswered === undefined || isAnswered === true),
    ),
    narrowed: space(
      'narrowed',
      ({ index, kept, added = [], as, primary = '' }) =>
        typeof index === 'string' &&
        isDigest(index) &&
        Array.isArray(kept) &&
        kept.every(isCount) &&
        Array.isArray(added) &&
        added.every(isObject) &&
        (as === undefined || as === 'combined' || as === 'alternates') &&
        typeof primary === 'string',
    ),
    origins: space('origins', ({ from }) => typeof from === 'string'),
    platformChecks: space('platform-checks', ({ truthful }) => typeof truthful === 'boolean'),
    referrers: space<ReferrersRecord>(
      'referrers',
      ({ manifests, checkedAtMs }) => Array.isArray(manifests) && manifests.every(isObject) && isCount(checkedAtMs),
      (one, other) => one.checkedAtMs >= other.checkedAtMs,
    ),
    demand: space<DemandRecord>(
      'demand',
      ({ platforms, notedAtMs }) =>
        isObject(platforms) && Object.values(platforms).every(isCount) && isCount(notedAtMs),
      (one, other) => one.notedAtMs >= other.notedAtMs,
    ),
    repositories: shared
      ? share(
          createStrictSpace<true>(new Keyv({ store: local(), namespace: 'repositories', throwOnErrors: true })),
          shared.repositories,
          undefined,
          true,
        )
      : space('repositories'),
    async catchUp() {
      for (const one of laggards) await one.catchUp();
    },
  };
}

function lastWordMs({ checkedAtMs, troubledAtMs = 0 }: TagRecord): number {
  return Math.max(checkedAtMs, troubledAtMs);
}

function isDigestOrAbsent(value: unknown): boolean {
  return value === undefined || (typeof value === 'string' && isDigest(value));
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** The key of what a repository holds: records of one repository never speak for another. */
export function contentKey(repository: { readonly key: string }, digest: Digest): string {
  return `${repository.key}@${digest}`;
}
