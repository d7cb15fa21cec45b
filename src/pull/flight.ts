import type { Hash } from 'node:crypto';
import { NarrowsError } from '../errors.ts';
import { finish, startHash } from '../oci/digest.ts';
import type { Blob, CacheState } from '../cache/tier.ts';
import type { FlightAnswer, FlightOptions, FlightProgress, Landing } from './flight-options.ts';
import { createGrowingCopy } from './growing-copy.ts';
import type { GrowingCopy } from './growing-copy.ts';
import { createLead } from './lead.ts';
import { createReaders } from './readers.ts';
import type { FlightReader } from './readers.ts';
import { resuming, tooLong, unlessAborted } from './resuming.ts';
import { takeUp } from './take-up.ts';
import { createWindow, readByAll, worthKeeping } from './window.ts';

/**
 * One download that any number of readers share. They follow the growing copy, not each other: the upstream hardly
 * waits for any, a slow reader reads from the disk, a late one starts at any place. It goes on when all have left, and
 * takes a cut connection up again where it broke.
 *
 * The tier may fail while it runs. From there on the window in memory is all there is: the upstream waits for the
 * slowest reader, late readers need a flight of their own (`isJoinable`), and nothing is kept.
 */
export class Flight {
  /** Resolves when the flight is over, and its copy has its name or is gone. */
  readonly landed: Promise<Landing>;

  readonly #options: FlightOptions;
  #hash: Hash;
  #window = createWindow();
  readonly #readers = createReaders((piece) => this.#answer?.recycle?.(piece));
  readonly #lead = createLead({
    received: () => this.#received,
    used: () => Math.min(this.#readers.foremost, this.#copy.isKept ? this.#copy.flushedBytes : Infinity),
    changed: () => this.#changed.promise,
  });
  readonly #headKnown = Promise.withResolvers<void>();
  readonly #verified = Promise.withResolvers<void>();
  readonly #abort = new AbortController();
  readonly #written: Promise<void>;
  #changed = Promise.withResolvers<void>();
  #size: number | undefined;
  #received = 0;
  /** What was left from before. */
  #startBytes = 0;
  readonly #copy: GrowingCopy;
  /** Where the newest bytes are from; what is not its own it does not take back. */
  #answer: FlightAnswer | undefined;
  #failure: unknown;
  #origin: CacheState = 'miss';
  /** What came is not that of the digest: nobody should go on with it. */
  #isWrong = false;
  /** The head is in, and it is decided whether what comes is kept. */
  #isBegun = false;
  #over = false;

  constructor(options: FlightOptions) {
    this.#options = options;
    this.#hash = startHash(options.digest);
    this.#copy = createGrowingCopy({
      open: options.begin,
      from: (position) => this.#window.from(position),
      onChange: () => {
        // It may have turned out just now that nothing takes it.
        this.#giveUpIfUnwanted();
        this.#wake();
      },
      onTrouble: options.onTrouble,
    });
    // Nobody may be listening to them when they fail: readers get the failure from their reads.
    this.#written = this.#verified.promise.then(() => this.#copy.settled());
    for (const promise of [this.#headKnown.promise, this.#written]) promise.catch(() => undefined);
    this.landed = this.#fly().then((): Landing => {
      if (this.#failure === undefined) return { outcome: 'done' };
      return this.#abort.signal.aborted ? { outcome: 'abandoned' } : { outcome: 'failed', error: this.#failure };
    });
  }

  /** Can a reader start at any place? Not at the end of a flight, nor once content is gone that only the window held. */
  get isJoinable(): boolean {
    const isFlying = !this.#over && this.#failure === undefined && !this.#abort.signal.aborted;
    return isFlying && this.#window.start <= this.#copy.flushedBytes;
  }

  get progress(): FlightProgress {
    return {
      receivedBytes: this.#received,
      freshBytes: this.#received - this.#startBytes,
      ...(this.#size !== undefined && { size: this.#size }),
      readers: this.#readers.size,
      origin: this.#origin,
    };
  }

  /**
   * Resolves when the size is known and reading can begin. The flight must be joinable at the moment of the call.
   *
   * @param as what the reader is: the one that started this flight, one more, or someone who passes it on and whom
   *   alone no download goes on for
   * @throws what the client is to be told, when the upstream gives no blob
   */
  async open(as: 'first' | 'joined' | 'passing-on'): Promise<Blob> {
    const reader = this.#readers.add(as !== 'passing-on');
    try {
      await this.#headKnown.promise;
    } catch (error) {
      await this.#leave(reader);
      throw error;
    }
    return {
      size: this.#size!,
      state: as === 'first' ? this.#origin : 'joined',
      // Whoever asks those who pass it on once they have ended finds a copy, or one that only wants its name.
      verified: as === 'passing-on' ? this.#written : this.#verified.promise,
      read: (position, maxBytes) => this.#read(reader, position, maxBytes),
      doneReading: () => {
        reader.position = Infinity;
        this.#wake();
      },
      close: () => this.#leave(reader),
    };
  }

  /** Nobody is to be served any more. */
  abandon(): void {
    this.#abort.abort();
    this.#wake();
  }

  async #read(reader: FlightReader, position: number, maxBytes: number): Promise<Buffer> {
    reader.position = position;
    this.#wake();
    for (;;) {
      if (this.#failure) throw this.#failure;
      if (!reader.isOpen) throw new Error('the reader has left');
      const recent = this.#window.read(position, maxBytes);
      if (recent) return this.#readers.lend(reader, recent);
      const { flushedBytes } = this.#copy;
      const file = position < flushedBytes ? (reader.file ??= this.#copy.reader()) : undefined;
      if (file)
        return this.#readers.lend(reader, await file.read(position, Math.min(maxBytes, flushedBytes - position)));
      if (position < this.#window.start) throw new Error(`content before ${this.#window.start} is no longer held`);
      await this.#changed.promise;
    }
  }

  async #fly(): Promise<void> {
    try {
      await this.#takeUp();
      if (this.#size === undefined || this.#received < this.#size) {
        await resuming(() => this.#download(), {
          limits: this.#options.limits,
          received: () => this.#received,
          isPromised: () => this.#isBegun,
          onResume: () => this.#options.onResume?.(),
          signal: this.#abort.signal,
        });
      }
      if (!finish(this.#hash, this.#options.digest)) {
        this.#isWrong = true;
        await this.#copy.settled();
        await this.#options.onMismatch?.();
        throw new NarrowsError('upstreamUnusable', `The upstream's bytes are not those of ${this.#options.digest}.`);
      }
      // The last byte is for the readers now: the copy may take longer.
      this.#headKnown.resolve();
      this.#verified.resolve();
      await this.#written;
      await this.#copy.commit(this.#options.digest);
    } catch (error) {
      this.#failure = error;
      this.#headKnown.reject(error);
      this.#verified.reject(error);
    } finally {
      this.#wake();
      await this.#copy.settled();
      this.#over = true;
      this.#wake();
      await this.#onLeft();
    }
  }

  async #takeUp(): Promise<void> {
    const taken = await takeUp(this.#options);
    if (!taken) return;
    const { partial, hash, size } = taken;
    this.#hash = hash;
    this.#window = createWindow(partial.startBytes);
    this.#received = this.#startBytes = partial.startBytes;
    this.#copy.goOn(partial);
    // What is whole but for its name needs nobody to be asked.
    if (this.#received === size) this.#size = size;
  }

  async #download(): Promise<void> {
    const answer = await unlessAborted(this.#options.fetch(this.#received), this.#abort.signal, (late) =>
      late?.cancel(),
    );
    if (!answer) throw new NarrowsError('blobUnknown', `The upstream has no blob ${this.#options.digest}.`);
    await this.#receive(answer);
  }

  async #receive(answer: FlightAnswer): Promise<void> {
    this.#answer = answer;
    const cancel = () => answer.cancel();
    this.#abort.signal.addEventListener('abort', cancel);
    try {
      await this.#begin(answer);
      // An upstream that ignores Range starts over: what is here already is passed by.
      let skip = this.#received - answer.offset;
      for await (const chunk of answer.body) {
        const fresh = skip > 0 ? chunk.subarray(skip) : chunk;
        skip -= chunk.length - fresh.length;
        if (fresh.length > 0) await this.#take(fresh);
      }
      this.#size ??= this.#received;
      if (this.#received < this.#size) throw new Error(`cut at ${this.#received} of ${this.#size} bytes`);
    } finally {
      this.#abort.signal.removeEventListener('abort', cancel);
      answer.cancel();
    }
  }

  async #begin(answer: FlightAnswer): Promise<void> {
    if (answer.offset > this.#received) throw new Error(`asked from ${this.#received}, answered from ${answer.offset}`);
    const known = this.#size ?? (await this.#options.expectedSize());
    if (known !== undefined && answer.size !== undefined && answer.size !== known) {
      if (!this.#isBegun) this.#options.onOtherSize?.();
      throw new NarrowsError(
        'upstreamUnusable',
        `The upstream tells another size for ${this.#options.digest} than it did before.`,
      );
    }
    this.#size = known ?? answer.size;
    if (!this.#isBegun) this.#origin = answer.origin ?? 'miss';
    // The first bytes are with their readers before there is a place for the copy.
    if (this.#received === 0 && !answer.isKeptElsewhere) this.#copy.begin();
    this.#isBegun = true;
    if (this.#size !== undefined) this.#headKnown.resolve();
    this.#giveUpIfUnwanted();
  }

  async #take(chunk: Buffer): Promise<void> {
    this.#giveUpIfUnwanted();
    if (this.#received + chunk.length > (this.#size ?? this.#options.limits.maxUnreadBytes)) {
      this.#isWrong = true;
      throw tooLong(this.#size);
    }
    this.#hash.update(chunk);
    this.#window.push(chunk);
    this.#received += chunk.length;
    this.#copy.grow();
    this.#wake();
    while (!this.#trim()) await this.#changed.promise;
    await this.#lead.letCatchUp();
    if (this.#abort.signal.aborted) throw new Error('nobody reads it any more');
  }

  /** Brings the window down to its limit; false while what is in it is needed and nowhere else. */
  #trim(): boolean {
    const windowBytes = this.#options.windowBytes();
    const { isKept, flushedBytes } = this.#copy;
    const { rearmost } = this.#readers;
    const wantedBytes = isKept ? worthKeeping(rearmost, this.#received, windowBytes) : windowBytes;
    const free = isKept ? flushedBytes : Math.max(flushedBytes, readByAll(rearmost, this.#received, this.#size));
    this.#readers.drop(this.#window.trim(wantedBytes, free));
    return this.#window.bytes <= windowBytes || this.#abort.signal.aborted;
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #leave(reader: FlightReader): Promise<void> {
    if (!this.#readers.leave(reader)) return;
    this.#wake();
    await this.#onLeft();
  }

  /** Someone has left, or the flight is over. */
  async #onLeft(): Promise<void> {
    if (this.#over) {
      if (this.#readers.size > 0) return;
      this.#readers.drop(this.#window.trim(0, Infinity));
      await this.#copy.close({ isForLater: this.#failure !== undefined && !this.#isWrong });
      return;
    }
    this.#giveUpIfUnwanted();
    this.#wake();
  }

  /** With no reader left, only what will be kept is worth going on, and not at any length. Before its head, all is. */
  #giveUpIfUnwanted(): void {
    if (!this.#isBegun || this.#readers.hasClients) return;
    // Of what has no known end, all that came is as much as may still come.
    const missing = this.#size === undefined ? this.#received : this.#size - this.#received;
    if (!this.#copy.isKept || missing > this.#options.limits.maxUnreadBytes) this.abandon();
  }
}
