/** A registry in a process of its own, so that its work is not counted as the mirror's. Told what to do by messages. */
import { buildImage, noise } from '../fixtures/images.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

export interface UpstreamOrder {
  readonly bytes: number;
  readonly blobs: number;
  /** 0 for as fast as it can. */
  readonly bytesPerSecond: number;
}

export interface UpstreamReady {
  readonly url: string;
  readonly digests: readonly string[];
  /** Of an index with two platforms. */
  readonly image: string;
}

export interface UpstreamCount {
  readonly gets: number;
  readonly heads: number;
}

const registry = await startRegistry();

process.on('message', (message: UpstreamOrder | 'count') => {
  if (message === 'count') {
    process.send!({ gets: registry.count('GET blobs'), heads: registry.count('HEAD blobs') } satisfies UpstreamCount);
    registry.forget();
    return;
  }
  const blobs = Array.from({ length: message.blobs }, (_, at) => blobOf(bytesOf(`bench ${at}`, message.bytes)));
  registry.blobBytesPerSecond = message.bytesPerSecond || Infinity;
  for (const blob of blobs) registry.put('library/x', blob);
  const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'bench' });
  registry.putImage('library/x', '1', image);
  const digests = blobs.map(({ digest }) => digest);
  process.send!({ url: registry.url, digests, image: image.index.digest } satisfies UpstreamReady);
});

const pieceBytes = 64 * 2 ** 20;

/** Noise takes long to make: what is large is the same again. */
function bytesOf(seed: string, length: number): Buffer {
  const piece = noise(seed, Math.min(length, pieceBytes));
  return length <= pieceBytes ? piece : Buffer.alloc(length, piece);
}
