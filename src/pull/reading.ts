import { LRUCache } from 'lru-cache';
import { isKind } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { parseDocument } from '../oci/manifest.ts';
import type { Document } from '../oci/manifest.ts';

/** Bytes that are those of their digest, and what they came as. */
export interface Readable {
  readonly digest: Digest;
  readonly bytes: Buffer;
  readonly mediaType: string;
}

/** Manifests as they are read. What one says never changes: it is read once, while there is room to remember it. */
export interface Reading {
  /** @throws NarrowsError upstreamManifestInvalid */
  read(manifest: Readable): Document;
  /** By digest the bytes are what was asked for, even if nothing can be made of them: undefined then. */
  readLeniently(manifest: Readable): Document | undefined;
}

/** What a document takes in memory, of what it takes as text, where its publisher wants it to be much. */
const growth = 24;
const entryOverheadBytes = 1024;

/** @param maxBytes for what is remembered; 0 for nothing */
export function createReading(maxBytes: number): Reading {
  const documents =
    maxBytes > 0
      ? new LRUCache<string, { readonly document: Document; readonly textBytes: number }>({
          maxSize: maxBytes,
          sizeCalculation: ({ textBytes }, key) => textBytes * growth + key.length + entryOverheadBytes,
        })
      : undefined;

  function read({ digest, bytes, mediaType }: Readable): Document {
    const key = `${digest} ${mediaType}`;
    const known = documents?.get(key);
    if (known) return known.document;
    const document = parseDocument(bytes, mediaType);
    documents?.set(key, { document, textBytes: bytes.length });
    return document;
  }

  return {
    read,
    readLeniently(manifest) {
      try {
        return read(manifest);
      } catch (error) {
        if (isKind(error, 'upstreamManifestInvalid')) return undefined;
        throw error;
      }
    },
  };
}
