import { finish, startHash } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { Blob, CacheState, Content } from './tier.ts';

/** Bytes in memory, already verified, as a blob. */
export function bytesBlob(bytes: Buffer, state: CacheState): Blob {
  return {
    size: bytes.length,
    state,
    verified: undefined,
    read: (position, maxBytes) => Promise.resolve(bytes.subarray(position, position + maxBytes)),
    close: () => Promise.resolve(),
  };
}

const readBytes = 256 * 1024;

/** Every piece of a blob in order. A piece is good until the second one after it. */
export async function* pieces(blob: Content, from = 0): AsyncGenerator<Buffer> {
  for (let position = from; position < blob.size;) {
    const piece = await blob.read(position, readBytes);
    position += piece.length;
    yield piece;
  }
}

/** The same cut into equal lengths, but for the last; each chunk is a buffer of its own. */
export async function* chunks(blob: Content, from: number, chunkBytes: number): AsyncGenerator<Buffer> {
  let left = blob.size - from;
  let chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, left));
  let filled = 0;
  for await (const piece of pieces(blob, from)) {
    for (let at = 0; at < piece.length;) {
      const taken = piece.copy(chunk, filled, at);
      at += taken;
      filled += taken;
      if (filled < chunk.length) continue;
      left -= filled;
      yield chunk;
      chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, left));
      filled = 0;
    }
  }
}

/** The whole of a blob, verified, which is closed after; for what has been seen to be small. */
export async function readAll(blob: Blob): Promise<Buffer> {
  try {
    const bytes = Buffer.allocUnsafeSlow(blob.size);
    let position = 0;
    for await (const piece of pieces(blob)) position += piece.copy(bytes, position);
    await blob.verified;
    return bytes;
  } finally {
    await blob.close();
  }
}

/** Reads a blob to its end: does it hash to the digest? A throw is a failure to read, which says nothing of it. */
export async function verify(blob: Content, digest: Digest): Promise<boolean> {
  const running = startHash(digest);
  for await (const piece of pieces(blob)) running.update(piece);
  return finish(running, digest);
}
