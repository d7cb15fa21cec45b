import { pieces } from '../cache/bytes.ts';
import type { Blob, CacheState, Store } from '../cache/tier.ts';
import { FleetStalled } from '../fleet/fleet.ts';
import type { Fleet, FleetKey, Follower, Leader } from '../fleet/fleet.ts';
import type { Digest } from '../oci/digest.ts';
import type { Source } from '../upstream/registries.ts';
import type { FlightAnswer, Landing } from './flight-options.ts';

export interface SourcesOptions {
  readonly store: Pick<Store, 'far' | 'open' | 'spread' | 'distrust'>;
  /** The nearest first: workers of this machine, then other replicas. */
  readonly fleets: readonly Fleet[];
  readonly source: Source;
  readonly digest: Digest;
  /** Is this blob part of the repository? @throws NarrowsError when it is not, or cannot be known */
  confirm(): Promise<void>;
  /** Bytes, where the repository says. */
  expectedSize(): Promise<number | undefined>;
  /** The download as it grows, for those who follow it. @throws what it fails with before there is anything to read */
  passOn(): Promise<Blob>;
}

/** Where one download's bytes come from. */
export interface Sources {
  fetch(from: number): Promise<FlightAnswer | undefined>;
  /** Resolves when whoever asks again is not given the same. */
  onMismatch(): Promise<void>;
  landed(landing: Landing): Promise<void>;
}

/** How often a leader may be found to have just left, before we go on alone. */
const maxJoins = 5;

/**
 * The order in which a download looks for its bytes, each time that it starts or was cut: a whole copy in a tier that
 * is farther away, someone in the fleet who downloads it already, the upstream, and then others may follow.
 */
export function createSources(options: SourcesOptions): Sources {
  const { store, fleets, source, digest, confirm, expectedSize, passOn } = options;
  const key: FleetKey = { upstream: source.upstream.name, digest, repository: source.key };
  const seats = new Map<Fleet, Leader>();
  const stalled = new Set<Fleet>();
  const sharing: Promise<void>[] = [];
  /** The tiers that have been read from already. */
  const tried = new Set<CacheState>();
  let isFromUpstream = false;
  let isFromOthers = false;
  let isDoubtful = false;

  async function openFar(from: number): Promise<FlightAnswer | undefined> {
    const blob = await store.far(digest, tried);
    if (!blob) return undefined;
    // Asked again, it would break off again: one hanging store must not cost a wait for each stretch of a blob.
    tried.add(blob.state);
    return confirmed(blob, () => answerOf(blob, from));
  }

  /** Someone else's copy is read only where the repository is known to have the blob. */
  async function confirmed<T>(blob: Blob, then: () => T): Promise<T> {
    try {
      await confirm();
      return then();
    } catch (error) {
      await blob.close();
      throw error;
    }
  }

  async function follow(fleet: Fleet, follower: Follower, from: number): Promise<FlightAnswer | undefined> {
    const followed = await follower.follow(from, async (repository) => {
      if (repository !== source.key) await confirm();
    });
    if (!followed) return undefined;
    const body = watched(followed.body, fleet);
    return { ...followed, body, offset: from, origin: 'joined', isKeptElsewhere: fleet.sharesStore };
  }

  async function* watched(body: AsyncIterable<Buffer>, fleet: Fleet): AsyncGenerator<Buffer> {
    try {
      yield* body;
    } catch (error) {
      if (error instanceof FleetStalled) stalled.add(fleet);
      throw error;
    }
  }

  /** A leader that brings nothing is waited for once. */
  function without(fleet: Fleet): (error: unknown) => undefined {
    return (error) => {
      if (!(error instanceof FleetStalled)) throw error;
      stalled.add(fleet);
      return undefined;
    };
  }

  /** The leader of each fleet starts to pass on what comes; nobody waits for it. */
  function lead(fleet: Fleet, leader: Leader): void {
    seats.set(fleet, leader);
    sharing.push(
      passOn().then(
        (blob) => leader.share(blob, passOn),
        () => leader.leave(),
      ),
    );
  }

  async function fromFleets(from: number): Promise<FlightAnswer | undefined> {
    for (const fleet of fleets) {
      const seat = seats.get(fleet);
      if (seat && !seat.isLost) continue;
      for (let tries = 0; tries < maxJoins && !stalled.has(fleet); tries++) {
        const joined = await fleet.join(key);
        if (joined?.role === 'leader') {
          // Between our look at the store and this, the one before us may have landed.
          const landed = fleet.sharesStore ? await landedHere(from).catch(leaving(joined)) : undefined;
          if (landed) return joined.leave().then(() => landed);
          lead(fleet, joined);
        }
        if (joined?.role !== 'follower') break;
        const answer = (await follow(fleet, joined, from).catch(without(fleet))) ?? (await landedMeanwhile(from));
        if (answer) return answer;
      }
    }
    return undefined;
  }

  /** A leader that is gone may have left the whole of it: in the store of its workers, or far away. */
  async function landedMeanwhile(from: number): Promise<FlightAnswer | undefined> {
    return (await landedHere(from)) ?? openFar(from);
  }

  async function landedHere(from: number): Promise<FlightAnswer | undefined> {
    const blob = await store.open(digest);
    return blob && confirmed(blob, () => answerOf(blob, from, { isKeptElsewhere: true }));
  }

  /** What others have in another size than the repository says is left to them; the upstream tells who is right. */
  async function isCredible(answer: FlightAnswer): Promise<boolean> {
    const expected = await expectedSize();
    if (expected === undefined || expected === answer.size) return true;
    answer.cancel();
    isDoubtful = true;
    return false;
  }

  return {
    async fetch(from) {
      const others = (await openFar(from)) ?? (await fromFleets(from));
      if (others && (await isCredible(others))) {
        isFromOthers = true;
        return others;
      }
      isFromUpstream = true;
      return source.upstream.blob(source.repository, digest, from);
    },

    async onMismatch() {
      // Whose bytes were wrong is not known: copies can be made again.
      if (isFromOthers) await store.distrust(digest);
    },

    async landed({ outcome }) {
      if (outcome !== 'done') await Promise.all([...seats.values()].map((leader) => leader.leave()));
      if (outcome !== 'done' || !isFromUpstream) return;
      // What was passed on need not be copied once more.
      await Promise.all(sharing);
      if (isDoubtful) await store.distrust(digest);
      // What is hosted here, all replicas have where they share it.
      if (!source.isHosted) store.spread(digest);
    },
  };
}

/** Whoever may not read the blob does not lead its download either. */
function leaving(leader: Leader): (error: unknown) => Promise<never> {
  return async (error) => {
    await leader.leave();
    throw error;
  };
}

function answerOf(blob: Blob, from: number, how: { isKeptElsewhere?: boolean } = {}): FlightAnswer {
  return {
    size: blob.size,
    offset: from,
    body: ownPieces(blob, from),
    cancel: () => void blob.close(),
    origin: blob.state,
    ...how,
  };
}

/** A download keeps its pieces for a while; those of a file are read over. */
async function* ownPieces(blob: Blob, from: number): AsyncGenerator<Buffer> {
  const isLent = blob.state === 'hit-disk';
  for await (const piece of pieces(blob, from)) yield isLent ? Buffer.from(piece) : piece;
  if (isLent) await blob.verified;
}
