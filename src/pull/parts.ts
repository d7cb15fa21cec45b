import type { Records } from '../cache/records.ts';
import type { CacheState, Store } from '../cache/tier.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Digest } from '../oci/digest.ts';
import type { Platform } from '../oci/platform.ts';
import type { RepositoryName, Tag } from '../oci/reference.ts';
import type { Registries } from '../upstream/registries.ts';
import type { CallerRights } from './caller-rights.ts';
import type { PlatformRules } from './choose-platform.ts';
import type { FlightLimits, Landing } from './flight-options.ts';
import type { Holding } from './offline.ts';
import type { Graph, KeepRules } from './keeping.ts';
import type { Reading } from './reading.ts';

/** What a pull is made of; `mirror` puts it together. */
export interface PullParts {
  readonly store: Store;
  readonly records: Records;
  /** Those who download together with this process, the nearest first. */
  readonly fleets: readonly Fleet[];
  readonly registries: Registries;
  readonly graph: Graph;
  readonly reading: Reading;
  readonly rules: PullRules;
  /** Where the upstream is asked what a caller may read; undefined where `rules` say it. */
  readonly callers?: CallerRights | undefined;
  readonly observer: PullObserver;
  /** The images of a repository that were asked to stay here. */
  holding(repositoryKey: string): readonly Holding[];
  now(): number;
}

export interface PullRules {
  readonly platforms: PlatformRules;
  readonly onMissing: 'error' | 'verbatim';
  /** How long a tag is believed before its upstream is asked again; Infinity for one that never moves. */
  freshMs(repositoryKey: string, tag: string): number;
  /** How long "there is no such tag" is believed. */
  readonly missingMs: number;
  /** How long a stale answer is given before an upstream in trouble is asked again. */
  readonly staleMs: number;
  /** The share of a pull quota, from 0 to 1, that is left to what is not here: tags that moved wait for more. */
  readonly spare: number;
  primaryOf(repositoryKey: string): Platform;
  overlaysOf(repositoryKey: string): readonly Overlay[];
  /** Users and groups, of a repository by its key. */
  pullersOf(repositoryKey: string): readonly string[];
  readonly maxManifestBytes: number;
  readonly maxFlights: number;
  /** For the windows of all flights together: one alone has it all, so that a herd reads from memory. */
  readonly maxWindowBytes: number;
  readonly flight: FlightLimits;
  readonly keep: KeepRules;
}

/** A platform of a repository that another one supplies. */
export interface Overlay {
  readonly platform: Platform;
  /** The repository, as a client would name it. */
  readonly from: RepositoryName;
  /** Where it is another tag than the one asked for. */
  readonly tag: Tag | undefined;
  /** Also where the publisher has the platform. */
  readonly override: boolean;
}

/** Told of what an operator wants to count and read about; it must not throw. */
export interface PullObserver {
  flightStarted(digest: Digest): void;
  flightJoined(): void;
  flightResumed(): void;
  /** Bytes from an upstream, of what serves these platforms. */
  flightReceived(platforms: readonly string[], bytes: number): void;
  /** All came, and was other content than that of the digest. */
  flightMismatched(digest: Digest): void;
  flightLanded(digest: Digest, landing: Landing): void;
  /** So much more need not be fetched than a mirror would that knows no platforms; less where it is negative. */
  spared(bytes: number): void;
  /** A tag was answered that an upstream was last asked for so long ago. */
  tagAnswered(ageMs: number): void;
  /** An index says a platform of a child whose config says another. */
  platformLie(repositoryKey: string, child: Digest): void;
  stale(repositoryKey: string, tag: string, error: unknown): void;
  trouble(what: string, error: unknown): void;
}

/** How the parts of an answer add up: the worst word wins, for an answer is as fresh as its stalest part. */
export function worstState(...states: CacheState[]): CacheState {
  const order: CacheState[] = [
    'stale',
    'miss',
    'joined',
    'revalidated',
    'hit-s3',
    'hit-redis',
    'hit-disk',
    'hit-memory',
  ];
  return order.find((state) => states.includes(state)) ?? 'miss';
}
