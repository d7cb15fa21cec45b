/** A registry in a process of its own, so that its work is not counted as the mirror's. Told what to do by messages. */
import { buildImage, noise } from '../fixtures/images.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

export interface UpstreamOrder {
  readonly bytes: number;
  readonly bytesPerSecond: number;
}

export interface UpstreamReady {
  readonly url: string;
  readonly digest: string;
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
  const blob = blobOf(noise('bench', message.bytes));
  registry.blobBytesPerSecond = message.bytesPerSecond;
  registry.put('library/x', blob);
  registry.putImage('library/x', '1', buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'bench' }));
  process.send!({ url: registry.url, digest: blob.digest } satisfies UpstreamReady);
});
