import { NarrowsError, isUpstreamTrouble } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { readAll } from '../cache/bytes.ts';
import type { Blob, CacheState } from '../cache/tier.ts';
import { contentKey } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import { fitted } from './fitting.ts';
import { Flight } from './flight.ts';
import type { FlightProgress } from './flight-options.ts';
import { createOnce } from './once.ts';
import type { Keeping } from './keeping.ts';
import type { PullParts } from './parts.ts';
import { createSources } from './sources.ts';
import type { Sources } from './sources.ts';

export interface BlobSize {
  readonly size: number;
  readonly state: CacheState;
}

export interface Blobs {
  /** @throws NarrowsError blobUnknown, overloaded, or the upstream's trouble. The caller closes what it gets. */
  open(source: Source, digest: Digest): Promise<Blob>;
  /** The size alone, without downloading. */
  head(source: Source, digest: Digest): Promise<BlobSize>;
  /** The whole of a blob that is small; undefined for one of more than `maxBytes`. */
  readSmall(source: Source, digest: Digest, maxBytes: number): Promise<Buffer | undefined>;
  /** Resolves when no download of it is under way here any more, and what it kept has its name. */
  landed(source: Source, digest: Digest): Promise<void>;
  /** What runs now, and what came since the last look is told of. */
  downloads(): Download[];
  /** Ends every download; for the end of the program. */
  close(): Promise<void>;
}

/** Enough for a pull upstream not to stumble over each write, however many downloads share the memory. */
const minWindowBytes = 512 * 1024;

interface Running {
  readonly flight: Flight;
  readonly sourceKey: string;
  readonly digest: Digest;
  readonly startedAtMs: number;
  /** Of its bytes, those that were told of. */
  toldBytes: number;
}

/** A download that runs, for those who look on. */
export interface Download extends FlightProgress {
  readonly digest: Digest;
  readonly repository: string;
  readonly platforms: readonly string[];
  readonly startedAtMs: number;
}

/**
 * Blobs by digest: from this machine, else by one download that all who want it share.
 *
 * Bytes are shared by digest, but that a repository holds them is each repository's own fact: where it is not known,
 * its upstream is asked, so that nobody reads through one repository what only another may show.
 */
export function createBlobs(parts: PullParts, keeping: Keeping): Blobs {
  const { store, records, fleets, graph, rules, observer, now } = parts;
  /** Those that can be joined. Each upstream has its own: a slow one must not hold up those who asked another. */
  const flights = new Map<string, Running>();
  /** All that have not landed, also those that nobody can join any more. */
  const airborne = new Set<Running>();
  const confirming = createOnce<void>();
  let landings = 0;

  async function confirm(source: Source, digest: Digest): Promise<void> {
    const known = await records.blobs.get(contentKey(source, digest));
    // What was pushed here is on this disk whoever asks: there, a manifest that lists it proves nothing.
    if (known && !source.isHosted && (known.isAnswered || !graph.isHosted(digest))) return;
    if (source.isHosted) return confirmHosted(source, digest, known !== undefined);
    await confirming.run(contentKey(source, digest), async () => void (await askHead(source, digest)));
  }

  /** What is hosted here can be taken away here: its books are asked each time, while they can be. */
  async function confirmHosted(source: Source, digest: Digest, wasThere: boolean): Promise<void> {
    try {
      await askHead(source, digest);
    } catch (error) {
      if (!wasThere || !isUpstreamTrouble(error)) throw error;
    }
  }

  async function askHead(source: Source, digest: Digest): Promise<number | undefined> {
    const head = await source.upstream.blobHead(source.repository, digest);
    if (!head) throw unknown(source, digest);
    // What a manifest says goes before what a HEAD says: some registries answer it with a length of 0.
    const size = (await sizeOf(source, digest)) ?? head.size;
    await records.blobs.set(contentKey(source, digest), { ...(size !== undefined && { size }), isAnswered: true });
    return size;
  }

  async function sizeOf(source: Source, digest: Digest): Promise<number | undefined> {
    return (await records.blobs.get(contentKey(source, digest)))?.size;
  }

  async function openStored(source: Source, digest: Digest): Promise<Blob | undefined> {
    const blob = await store.open(digest);
    if (!blob) return undefined;
    try {
      await confirm(source, digest);
      const known = await sizeOf(source, digest);
      if (known === undefined || known === blob.size) return blob;
    } catch (error) {
      await blob.close();
      throw error;
    }
    // A copy of another size is a torn one; the next download takes its place.
    await blob.close();
    return undefined;
  }

  async function open(source: Source, digest: Digest): Promise<Blob> {
    keeping.check(digest);
    for (let isConfirmed = false; ;) {
      const running = joinable(source, digest);
      if (running) {
        // What is hosted here may have been deleted since: its books are asked, as for a copy that is stored.
        if ((running.sourceKey === source.key && !source.isHosted) || isConfirmed) {
          const blob = await board(running, 'joined', source, digest);
          if (blob) observer.flightJoined();
          if (blob) return blob;
        } else {
          await confirm(source, digest);
          isConfirmed = true;
        }
        continue;
      }
      const before = landings;
      const stored = await openStored(source, digest);
      if (stored) return stored;
      // What landed, or took off, while the store was being asked, the store may not have seen.
      if (landings !== before || joinable(source, digest)) continue;
      return (await board(start(source, digest), 'first', source, digest))!;
    }
  }

  function joinable(source: Source, digest: Digest): Running | undefined {
    const running = flights.get(flightKey(source, digest));
    return running?.flight.isJoinable ? running : undefined;
  }

  /** Undefined where another repository's flight failed: its rights and its upstream say nothing about this one. */
  async function board(
    running: Running,
    as: 'first' | 'joined',
    source: Source,
    digest: Digest,
  ): Promise<Blob | undefined> {
    try {
      return await running.flight.open(as);
    } catch (error) {
      if (running.sourceKey === source.key) throw told(error, source, digest);
      if (flights.get(flightKey(source, digest)) === running) flights.delete(flightKey(source, digest));
      return undefined;
    }
  }

  function start(source: Source, digest: Digest): Running {
    const isKept = keeping.mayKeep(digest);
    if (airborne.size >= rules.maxFlights) {
      throw new NarrowsError('overloaded', `This mirror downloads ${rules.maxFlights} blobs already.`, {
        retryAfterS: 5,
      });
    }
    const sources = createSources({
      store,
      // What may not be kept may not be left with others either; what is hosted here, all replicas have.
      fleets: isKept && !source.isHosted ? fleets : [],
      source,
      digest,
      confirm: () => confirm(source, digest),
      expectedSize: () => sizeOf(source, digest),
      passOn: () => flight.open('passing-on'),
    });
    const windowBytes = () => Math.max(minWindowBytes, rules.maxWindowBytes / airborne.size);
    const flight: Flight = new Flight({
      digest,
      limits: rules.flight,
      windowBytes,
      expectedSize: () => sizeOf(source, digest),
      fetch: async (from) => fitted(await sources.fetch(from), () => windowBytes() / flight.progress.readers),
      begin: () => (isKept ? store.begin(digest) : Promise.resolve(undefined)),
      async takeUp() {
        if (!isKept) return undefined;
        const partial = await store.takeUp(digest);
        try {
          // What is whole already asks nobody: that the repository has it must be known.
          if (partial) await confirm(source, digest);
          return partial;
        } catch (error) {
          await partial?.close({ isForLater: true });
          throw error;
        }
      },
      // Whoever asks next goes by what the upstream says then: the digest decides anyway.
      onOtherSize: () => void records.blobs.delete(contentKey(source, digest)),
      async onMismatch() {
        observer.flightMismatched(digest);
        await sources.onMismatch();
      },
      onResume: () => observer.flightResumed(),
      onTrouble: (error) => observer.trouble(`keeping ${digest}`, error),
    });
    const running = { flight, sourceKey: source.key, digest, startedAtMs: now(), toldBytes: 0 };
    flights.set(flightKey(source, digest), running);
    airborne.add(running);
    observer.flightStarted(digest);
    void land(running, sources, source, digest);
    return running;
  }

  async function land(running: Running, sources: Sources, source: Source, digest: Digest): Promise<void> {
    const landing = await running.flight.landed;
    if (landing.outcome === 'done') await noteLanding(source, digest);
    landings++;
    tell(running);
    airborne.delete(running);
    if (flights.get(flightKey(source, digest)) === running) flights.delete(flightKey(source, digest));
    observer.flightLanded(digest, landing);
    await sources.landed(landing);
  }

  /** Counted while it comes: a large blob takes long. */
  function tell(running: Running): void {
    const { freshBytes, origin } = running.flight.progress;
    if (origin !== 'miss' || freshBytes <= running.toldBytes) return;
    observer.flightReceived(graph.served(running.digest).platforms, freshBytes - running.toldBytes);
    running.toldBytes = freshBytes;
  }

  async function noteLanding(source: Source, digest: Digest): Promise<void> {
    if (source.isHosted) graph.markHosted(digest);
    if (!(await records.blobs.get(contentKey(source, digest)))) await records.blobs.set(contentKey(source, digest), {});
  }

  return {
    open,

    async head(source, digest) {
      keeping.check(digest);
      if (!joinable(source, digest)) {
        const stored = await openStored(source, digest);
        await stored?.close();
        if (stored) return { size: stored.size, state: stored.state };
        const far = await store.locate(digest);
        if (far) await confirm(source, digest);
        if (far) return { size: (await sizeOf(source, digest)) ?? far.bytes, state: `hit-${far.tier}` };
        const size = await askHead(source, digest);
        if (size !== undefined) return { size, state: 'miss' };
      }
      // Nobody tells the size, or it is on its way already: the one download does.
      const blob = await open(source, digest);
      await blob.close();
      return { size: blob.size, state: blob.state };
    },

    async readSmall(source, digest, maxBytes) {
      const blob = await open(source, digest);
      if (blob.size <= maxBytes) return readAll(blob);
      await blob.close();
      return undefined;
    },

    downloads() {
      return [...airborne].map((running) => {
        tell(running);
        const { flight, digest, sourceKey: repository, startedAtMs } = running;
        return { ...flight.progress, digest, repository, platforms: graph.served(digest).platforms, startedAtMs };
      });
    },

    async landed(source, digest) {
      await flights.get(flightKey(source, digest))?.flight.landed;
    },

    async close() {
      const all = [...airborne];
      for (const { flight } of all) flight.abandon();
      await Promise.all(all.map(({ flight }) => flight.landed));
    },
  };
}

function flightKey({ upstream }: Source, digest: Digest): string {
  return `${upstream.name} ${digest}`;
}

function unknown(source: Source, digest: Digest): NarrowsError {
  return new NarrowsError('blobUnknown', `${source.upstream.name} has no blob ${digest} in ${source.repository}.`);
}

function told(error: unknown, source: Source, digest: Digest): unknown {
  return error instanceof NarrowsError && error.kind === 'blobUnknown' ? unknown(source, digest) : error;
}
