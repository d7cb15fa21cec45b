import type { HostedContent } from '../cache/hosted-content.ts';
import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { readConfigPlatform, readDocument } from '../oci/manifest.ts';
import type { Descriptor, Document, Manifest } from '../oci/manifest.ts';
import { isImageConfigType } from '../oci/media-types.ts';
import type { Platform } from '../oci/platform.ts';

/** Reads what is hosted here and small. Every method throws NarrowsError storeUnavailable for what should be here. */
export interface Shelf {
  bytes(digest: Digest): Promise<Buffer>;
  document(digest: Digest, mediaType: string): Promise<Document>;
  /** What an image's config says that it is for; undefined for what is no image, or is for nothing. */
  platformOf(manifest: Manifest): Promise<Platform | undefined>;
  /** The same by a descriptor of the image; undefined for what is no image. */
  platformOfChild(child: Descriptor): Promise<Platform | undefined>;
}

/** Trouble with the place where content is kept, as a push is told of it. @throws NarrowsError storeUnavailable */
export async function kept<T>(digest: Digest, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw new NarrowsError('storeUnavailable', `${digest} cannot be kept now.`, { cause, retryAfterS: 2 });
  }
}

export function createShelf(content: Pick<HostedContent, 'read'>, maxBytes: number): Shelf {
  async function bytes(digest: Digest): Promise<Buffer> {
    const found = await read(digest);
    if (found) return found;
    throw new NarrowsError('storeUnavailable', `${digest} should be here, and cannot be read now.`, { retryAfterS: 2 });
  }

  async function read(digest: Digest): Promise<Buffer | undefined> {
    try {
      return await content.read(digest, maxBytes);
    } catch (cause) {
      throw new NarrowsError('storeUnavailable', `${digest} cannot be read now.`, { cause, retryAfterS: 2 });
    }
  }

  async function platformOf({ config }: Manifest): Promise<Platform | undefined> {
    if (!isImageConfigType(config.mediaType) || config.size > maxBytes) return undefined;
    const platform = readConfigPlatform(await bytes(config.digest));
    return platform?.os === 'unknown' || platform?.architecture === 'unknown' ? undefined : platform;
  }

  return {
    bytes,
    document: async (digest, mediaType) => readDocument(await bytes(digest), mediaType),
    platformOf,
    async platformOfChild({ digest, mediaType }) {
      const document = readDocument(await bytes(digest), mediaType);
      return document.kind === 'manifest' ? platformOf(document) : undefined;
    },
  };
}
