import { createHash, hash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { NarrowsError } from '../errors.ts';

/** `algorithm:hex` in canonical form, as in `sha256:e3b0…`; made only by `parseDigest` and `digestOf`. */
export type Digest = string & { readonly __brand: 'Digest' };

export type Algorithm = 'sha256' | 'sha512';

// Exact lengths and lower case only (image-spec, descriptor.md "Digests"): a digest becomes a file name, and a lax
// grammar here is how CVE-2024-3727 wrote outside the store.
const grammar = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: string): text is Digest {
  return grammar.test(text);
}

/** @throws NarrowsError digestInvalid */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new NarrowsError(
    'digestInvalid',
    `${JSON.stringify(text.slice(0, 160))} is not a digest: sha256 with 64 or sha512 with 128 lower-case hex digits.`,
  );
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${hash(algorithm, bytes, 'hex')}` as Digest;
}

export function matches(bytes: Uint8Array, digest: Digest): boolean {
  return digestOf(bytes, algorithmOf(digest)) === digest;
}

/** A running hash for the algorithm of `digest`; compare with `finish`. */
export function startHash(digest: Digest): Hash {
  return createHash(algorithmOf(digest));
}

export function finish(running: Hash, digest: Digest): boolean {
  return running.digest('hex') === hexOf(digest);
}

const emptyDigests = new Set<string>([digestOf(Buffer.alloc(0)), digestOf(Buffer.alloc(0), 'sha512')]);

/** Is it the digest of no bytes at all? Nobody needs to hold those. */
export function isEmptyDigest(digest: Digest): boolean {
  return emptyDigests.has(digest);
}
