import { OutOfOrder, TooManyUploads, UploadGone, UploadTooLarge } from '../cache/uploads.ts';
import { NarrowsError } from '../errors.ts';
import { isEmptyDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { find, keys } from './books.ts';
import type { BlobEntry } from './books.ts';
import { reachable, transact } from './draft.ts';
import type { PushParts } from './parts.ts';
import { kept } from './shelf.ts';

/** A stretch of a body that a client sends: the place of its first byte, where it says so. */
export interface Stretch {
  readonly from: number | undefined;
  readonly body: AsyncIterable<Buffer>;
}

export interface BlobPushes {
  /** The id of a new upload. @throws NarrowsError overloaded, storeUnavailable */
  begin(repository: string): Promise<string>;
  /** How much is here. @throws NarrowsError uploadUnknown */
  status(repository: string, id: string): Promise<number>;
  /** @returns how much is here then. @throws NarrowsError uploadUnknown, uploadOutOfOrder, tooLarge, storeUnavailable */
  append(repository: string, id: string, stretch: Stretch): Promise<number>;
  /** @throws NarrowsError uploadUnknown, digestInvalid, tooLarge, storeUnavailable */
  finish(repository: string, id: string, digest: Digest): Promise<void>;
  /** @throws NarrowsError uploadUnknown */
  cancel(repository: string, id: string): Promise<void>;
  /** Makes another repository's blob this one's as well; false where it cannot be. @throws NarrowsError storeUnavailable */
  mount(repository: string, digest: Digest, from: string): Promise<boolean>;
  /** @throws NarrowsError blobUnknown, denied for a part of something that stays */
  delete(repository: string, digest: Digest): Promise<void>;
}

/** Blobs on their way in: pieces in order, and a blob only when all of it hashes to its digest. */
export function createBlobPushes({ ledger, content, uploads, now }: PushParts): BlobPushes {
  async function enter(repository: string, digest: Digest, bytes: number): Promise<void> {
    await transact(ledger, repository, async (draft) => {
      draft.set(keys.blob(digest), { bytes, atMs: now() } satisfies BlobEntry);
    });
  }

  async function take(repository: string, digest: Digest, path: string, bytes: number): Promise<void> {
    if (bytes > content.maxBlobBytes) {
      throw new NarrowsError('tooLarge', `What replicas share takes ${content.maxBlobBytes} bytes at most.`);
    }
    await kept(digest, () => content.adopt(path, bytes, digest));
    await enter(repository, digest, bytes);
    // What was on its way out right before it was written down is brought back.
    await kept(digest, () => content.secure(digest));
  }

  return {
    begin: (repository) => attempt(() => uploads.begin(repository)),

    async status(repository, id) {
      const size = await uploads.size(repository, id);
      if (size === undefined) throw unknownUpload();
      return size;
    },

    append: (repository, id, { from, body }) => attempt(() => uploads.append(repository, id, from, body)),

    finish: (repository, id, digest) =>
      attempt(async () => {
        const fits = await uploads.finish(repository, id, digest, (path, bytes) =>
          take(repository, digest, path, bytes),
        );
        if (!fits) throw new NarrowsError('digestInvalid', `What was uploaded does not hash to ${digest}.`);
      }),

    async cancel(repository, id) {
      if (!(await attempt(() => uploads.cancel(repository, id)))) throw unknownUpload();
    },

    async mount(repository, digest, from) {
      const entry = await find<BlobEntry>(ledger, from, keys.blob(digest));
      if (!entry) return false;
      await enter(repository, digest, entry.bytes);
      // It may have been on its way out: then the upload that follows brings it again.
      const isHere = isEmptyDigest(digest) || (await reachable(() => content.has(digest)));
      if (!isHere) await transact(ledger, repository, async (draft) => draft.delete(keys.blob(digest)));
      return isHere;
    },

    async delete(repository, digest) {
      await transact(ledger, repository, async (draft) => {
        await draft.get(keys.epoch);
        if (!(await draft.get<BlobEntry>(keys.blob(digest)))) {
          throw new NarrowsError('blobUnknown', `${repository} has no blob ${digest}.`);
        }
        const [use] = await draft.list(keys.use(digest, ''), '', 1);
        if (use) {
          throw new NarrowsError('denied', `${digest} is part of ${use.name}, which is here too: delete that first.`);
        }
        draft.delete(keys.blob(digest));
      });
    },
  };
}

/** What uploads fail with, in the words of the distribution specification. */
function told(error: unknown): unknown {
  if (error instanceof UploadGone) return unknownUpload();
  if (error instanceof OutOfOrder) return outOfOrder(error);
  if (error instanceof UploadTooLarge) return new NarrowsError('tooLarge', `This is too large: ${error.message}.`);
  if (error instanceof TooManyUploads) {
    return new NarrowsError('overloaded', `No upload can begin now: ${error.message}.`, { retryAfterS: 5 });
  }
  const isFull = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
  if (!isFull) return error;
  return new NarrowsError('storeUnavailable', 'There is no room for it on the disk.', {
    cause: error,
    retryAfterS: 5,
  });
}

async function attempt<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw told(error);
  }
}

function unknownUpload(): NarrowsError {
  return new NarrowsError(
    'uploadUnknown',
    'There is no such upload here: it has ended, or was never begun. Begin again.',
  );
}

function outOfOrder({ size }: OutOfOrder): NarrowsError {
  return new NarrowsError('uploadOutOfOrder', `The upload goes on at byte ${size}.`, {
    headers: { range: rangeOf(size) },
  });
}

/** What is here, as the specification writes it; `0-0` also where nothing is, as registries have always done. */
export function rangeOf(bytes: number): string {
  return `0-${Math.max(0, bytes - 1)}`;
}
