import type { Digest } from '../oci/digest.ts';
import { eraseManifest, keys, listAll } from './books.ts';
import type { BlobEntry, ManifestEntry } from './books.ts';
import { list, reachable, transact } from './draft.ts';
import type { PushParts } from './parts.ts';

export interface SweepOptions {
  /** How long a blob stays that no manifest names: it was pushed for one that is on its way. */
  readonly unusedMs: number;
  /** How long a manifest stays that nothing leads to; Infinity for ever. */
  readonly untaggedMs: number;
}

export interface Swept {
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
}

export interface Sweeper {
  /** Takes away what nothing refers to. @throws NarrowsError storeUnavailable */
  sweep(): Promise<Swept>;
}

/** What goes by the lack of uses goes only if there has been no new use since it looked: the epoch tells. */
export function createSweeper({ ledger, content, uploads, now }: PushParts, options: SweepOptions): Sweeper {
  /** Content that no repository had at the last sweep: one that is being pushed right now is not written down yet. */
  let suspects = new Set<Digest>();

  async function sweepManifests(repository: string): Promise<number> {
    if (options.untaggedMs === Infinity) return 0;
    let gone = 0;
    for await (const { name, value } of listAll<ManifestEntry>(ledger, repository, keys.manifest('' as Digest))) {
      if (now() - value.atMs <= options.untaggedMs) continue;
      const digest = name as Digest;
      gone += await transact(ledger, repository, async (draft) => {
        await draft.get(keys.epoch);
        const entry = await draft.get<ManifestEntry>(keys.manifest(digest));
        // What says something about another stays as long as that is here.
        const subject = entry?.subject && (await draft.get<ManifestEntry>(keys.manifest(entry.subject)));
        if (!entry || subject || (await isUsed(repository, digest))) return 0;
        eraseManifest(draft, digest, entry);
        return 1;
      });
    }
    return gone;
  }

  async function sweepBlobs(repository: string): Promise<{ blobs: number; bytes: number }> {
    const gone = { blobs: 0, bytes: 0 };
    for await (const { name, value } of listAll<BlobEntry>(ledger, repository, keys.blob('' as Digest))) {
      if (now() - value.atMs <= options.unusedMs) continue;
      const digest = name as Digest;
      const isGone = await transact(ledger, repository, async (draft) => {
        await draft.get(keys.epoch);
        const entry = await draft.get<BlobEntry>(keys.blob(digest));
        if (!entry || now() - entry.atMs <= options.unusedMs || (await isUsed(repository, digest))) return false;
        draft.delete(keys.blob(digest));
        return true;
      });
      if (!isGone) continue;
      gone.blobs++;
      gone.bytes += value.bytes;
    }
    return gone;
  }

  async function isUsed(repository: string, digest: Digest): Promise<boolean> {
    return (await list(ledger, repository, keys.use(digest, ''), '', 1)).length > 0;
  }

  async function releaseContent(repositories: readonly string[]): Promise<void> {
    const unknown = new Set<Digest>();
    for (let after = '', page; (page = content.kept(after)).length > 0; after = page.at(-1)!) {
      for (const digest of page) if (!(await isKnown(repositories, digest))) unknown.add(digest);
    }
    for (const digest of unknown) {
      if (!suspects.has(digest)) continue;
      await content.release(digest);
      // Who pushed it meanwhile looks for it after writing it down; who wrote it down before this finds it here.
      const current = await reachable(() => ledger.repositories());
      if (await isKnown(current, digest)) await content.secure(digest);
    }
    suspects = unknown;
  }

  async function isKnown(repositories: readonly string[], digest: Digest): Promise<boolean> {
    for (const repository of repositories) {
      const found = await reachable(() => ledger.get(repository, [keys.blob(digest), keys.manifest(digest)]));
      if (found.some((entry) => entry !== undefined)) return true;
    }
    return false;
  }

  return {
    async sweep() {
      await uploads.sweep();
      const repositories = await reachable(() => ledger.repositories());
      const total = { manifests: 0, blobs: 0, bytes: 0 };
      for (const repository of repositories) {
        total.manifests += await sweepManifests(repository);
        const { blobs, bytes } = await sweepBlobs(repository);
        total.blobs += blobs;
        total.bytes += bytes;
      }
      await releaseContent(repositories);
      return total;
    },
  };
}
