/** A registry in a process of its own, so that its work is not counted as the mirror's. Told what to do by messages. */
import { buildImage, noise } from '../fixtures/images.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import { putSynthetic, syntheticImages } from '../fixtures/synthetic.ts';

export interface UpstreamOrder {
  readonly bytes: number;
  readonly blobs: number;
  /** 0 for as fast as it can. */
  readonly bytesPerSecond: number;
}

/** Eight official images for one platform, instead of blobs of one size. */
export interface ImagesOrder {
  readonly architecture: string;
  /** Their layers are so many times smaller than the real ones. */
  readonly scale: number;
}

export interface ImagesReady {
  readonly url: string;
  /** `docker.io/library/nginx:1.27`, … */
  readonly references: readonly string[];
  /** Of the manifests and blobs of that platform, each once. */
  readonly closureBytes: number;
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

/** As those of the internet keep their connections. */
const keepAliveMs = 60_000;
const registry = await startRegistry(0, { keepAliveMs });

process.on('message', (message: UpstreamOrder | ImagesOrder | 'count') => {
  if (message === 'count') {
    process.send!({ gets: registry.count('GET blobs'), heads: registry.count('HEAD blobs') } satisfies UpstreamCount);
    registry.forget();
    return;
  }
  if ('architecture' in message) {
    process.send!(offerImages(message));
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

function offerImages({ architecture, scale }: ImagesOrder): ImagesReady {
  const images = syntheticImages(architecture, scale);
  putSynthetic(registry, images);
  const contents = images.flatMap(({ index, manifests, blobs }) => [index, ...manifests, ...blobs]);
  const sizes = new Map(contents.map(({ digest, bytes }) => [digest, bytes.length]));
  return {
    url: registry.url,
    references: images.map(({ repository, tag }) => `docker.io/${repository}:${tag}`),
    closureBytes: [...sizes.values()].reduce((total, bytes) => total + bytes, 0),
  };
}

const pieceBytes = 64 * 2 ** 20;

/** Noise takes long to make: what is large is the same again. */
function bytesOf(seed: string, length: number): Buffer {
  const piece = noise(seed, Math.min(length, pieceBytes));
  return length <= pieceBytes ? piece : Buffer.alloc(length, piece);
}
