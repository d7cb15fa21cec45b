import { NarrowsError } from '../errors.ts';
import { referenceText } from '../oci/reference.ts';
import type { Upstream } from './upstream.ts';

/**
 * A registry that nobody asks: the mirror is offline. It has no socket to open; what is not here is not to be had, which
 * is another thing than what does not exist.
 */
export function createOfflineRegistry(name: string): Upstream {
  return {
    name,
    head: (repository, reference) => refuse(`${referenceText(reference)} of ${name}/${repository}`),
    manifest: (repository, reference) => refuse(`${referenceText(reference)} of ${name}/${repository}`),
    blobHead: (repository, digest) => refuse(`${digest} of ${name}/${repository}`, 'blobNotHeld'),
    blob: (repository, digest) => refuse(`${digest} of ${name}/${repository}`, 'blobNotHeld'),
    list: (repository, path) => refuse(`${path} of ${name}/${repository}`),
  };
}

function refuse(what: string, kind: 'manifestNotHeld' | 'blobNotHeld' = 'manifestNotHeld'): Promise<never> {
  return Promise.reject(new NarrowsError(kind, `This mirror is offline and does not hold ${what}.`));
}
