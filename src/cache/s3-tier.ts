import type { Readable } from 'node:stream';
import { algorithmOf, finish, hexOf, isDigest, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { chunks, verify } from './bytes.ts';
import type { S3Object, S3Store } from './s3-store.ts';
import type { Blob, Content, Tier } from './tier.ts';

export interface S3TierOptions {
  readonly s3: S3Store;
  /** Before every key. */
  readonly prefix: string;
  /** Smaller blobs are declined. */
  readonly minBlobBytes: number;
  /** Larger ones are sent in parts of this size. */
  readonly partBytes: number;
  /** How long a body may stand still. */
  readonly stallMs: number;
  now(): number;
  /** So much has come. */
  onPut(bytes: number): void;
  onTrouble(error: unknown): void;
}

/** A copy that is read counts as used, but not more often than this: the store has to copy it for that. */
const touchAfterMs = 24 * 3_600_000;
/** The most that a store copies in one go (Amazon S3, CopyObject). */
const maxTouchBytes = 5 * 2 ** 30;

export function keyOf(prefix: string, digest: Digest): string {
  return `${prefix}blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

export function digestOfKey(prefix: string, key: string): Digest | undefined {
  const digest = key.startsWith(`${prefix}blobs/`) ? key.slice(`${prefix}blobs/`.length).replace('/', ':') : '';
  return isDigest(digest) ? digest : undefined;
}

/** Blobs as objects, `blobs/sha256/<hex>`; an object is there when it is whole, which is how S3 works. */
export function createS3Tier({
  s3,
  prefix,
  minBlobBytes,
  partBytes,
  stallMs,
  now,
  onPut,
  onTrouble,
}: S3TierOptions): Tier {
  function contentOf(object: S3Object): Content {
    const stream = createStream(s3, object, stallMs);
    return { size: object.bytes, read: stream.read, close: stream.close };
  }

  function blobOf(digest: Digest, object: S3Object): Blob {
    let verified: Promise<void> | undefined;
    return {
      ...contentOf(object),
      state: 'hit-s3',
      get verified() {
        return (verified ??= verifyObject(digest, object));
      },
    };
  }

  async function verifyObject(digest: Digest, object: S3Object): Promise<void> {
    const content = contentOf(object);
    try {
      if (await verify(content, digest)) return;
    } finally {
      await content.close();
    }
    await s3.delete([object.key]);
    throw new Error(`S3 holds other content than that of ${digest}`);
  }

  async function store(digest: Digest, blob: Blob): Promise<void> {
    const key = keyOf(prefix, digest);
    const running = startHash(digest);
    const check = async () => {
      await blob.verified;
      if (!finish(running, digest)) throw new Error(`content does not hash to ${digest}`);
    };
    if (blob.size <= partBytes) {
      let whole: Buffer = Buffer.alloc(0);
      for await (const chunk of chunks(blob, 0, partBytes)) whole = chunk;
      running.update(whole);
      await check();
      return s3.put(key, whole);
    }
    const parts = await s3.beginParts(key);
    try {
      for await (const chunk of chunks(blob, 0, partBytes)) {
        running.update(chunk);
        await parts.put(chunk);
      }
      await check();
      await parts.finish();
    } catch (error) {
      await parts.abort().catch(onTrouble);
      throw error;
    }
  }

  return {
    name: 's3',

    async open(digest) {
      const object = await s3.head(keyOf(prefix, digest));
      if (!object) return undefined;
      if (now() - object.changedAtMs > touchAfterMs && object.bytes <= maxTouchBytes) {
        s3.touch(object.key).catch(onTrouble);
      }
      return blobOf(digest, object);
    },

    has: async (digest) => (await s3.head(keyOf(prefix, digest)))?.bytes,

    async put(digest, blob) {
      try {
        if (blob.size < minBlobBytes) return;
        await store(digest, blob);
        onPut(blob.size);
      } finally {
        await blob.close();
      }
    },

    delete: (digest) => s3.delete([keyOf(prefix, digest)]),
  };
}

/** One request as long as the reads go on in order; another one where they jump. */
function createStream(s3: S3Store, { key, bytes }: S3Object, stallMs: number): Pick<Content, 'read' | 'close'> {
  let stream: Readable | undefined;
  let pieces: AsyncIterator<Buffer> | undefined;
  let at = 0;
  let held: Buffer = Buffer.alloc(0);
  let isClosed = false;
  let last: Promise<unknown> = Promise.resolve();

  function stop(): void {
    stream?.destroy();
    stream = undefined;
    held = Buffer.alloc(0);
  }

  /** Only while someone waits: a reader that takes its time is no trouble of the store. */
  async function next(): Promise<IteratorResult<Buffer>> {
    const timer = setTimeout(() => {
      const error = new Error(`S3 sent nothing for ${stallMs} ms`);
      s3.leaveAlone(error);
      stream?.destroy(error);
    }, stallMs);
    try {
      return await pieces!.next();
    } finally {
      clearTimeout(timer);
    }
  }

  async function read(position: number, maxBytes: number): Promise<Buffer> {
    if (isClosed) throw new Error('the reader is closed');
    // What broke while nobody waited for it is taken up again: the store cuts off those who take their time.
    if (!stream || position !== at || (stream.errored && held.length === 0)) {
      stop();
      stream = await s3.read(key, position);
      // Told by the read that fails of it.
      stream.on('error', () => undefined);
      pieces = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
      at = position;
    }
    if (held.length === 0) {
      const { done, value } = await next();
      if (done) throw new Error(`the object ends at ${at} of ${bytes} bytes`);
      held = value;
    }
    const piece = held.subarray(0, Math.min(maxBytes, bytes - at));
    held = held.subarray(piece.length);
    at += piece.length;
    return piece;
  }

  return {
    // One after the other: they share the stream.
    read(position, maxBytes) {
      const reading = last.then(() => read(position, maxBytes));
      last = reading.catch(stop);
      return reading;
    },
    close() {
      isClosed = true;
      stop();
      return Promise.resolve();
    },
  };
}
