import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Tag } from '../oci/reference.ts';
import { all, eraseManifest, eraseTag, keys, writeManifest } from './books.ts';
import type { BlobEntry, ManifestEntry, TagEntry } from './books.ts';
import { transact } from './draft.ts';
import type { Draft } from './draft.ts';
import type { PushParts } from './parts.ts';
import { digestFor, invalid, readPushed, referrerOf } from './pushed.ts';
import type { Needed, Pushed } from './pushed.ts';
import { createShelf, kept } from './shelf.ts';
import { createTagging } from './tagging.ts';
import type { Place } from './tagging.ts';
import { createTurns } from './turns.ts';

export interface Put {
  readonly digest: Digest;
  readonly subject?: Digest;
  /** What the tag means now, where that is another document than what was pushed. */
  readonly index?: Digest;
}

export interface ManifestPushes {
  /**
   * @param wanted the digest that the client named
   * @throws NarrowsError manifestInvalid, manifestBlobUnknown, digestInvalid, denied, storeUnavailable
   */
  put(place: Place, bytes: Buffer, contentType: string, wanted: Digest | undefined, tags: readonly Tag[]): Promise<Put>;
  /** @throws NarrowsError manifestUnknown, denied */
  deleteTag(place: Place, tag: Tag): Promise<void>;
  /** With the tags that mean it. @throws NarrowsError manifestUnknown, denied for a part of something that stays */
  delete(place: Place, digest: Digest): Promise<void>;
}

const namedAtMost = 20;

/** Manifests on their way in and out: nothing is visible before all that it names is here, and then all at once. */
export function createManifestPushes({ ledger, content, rules: limits, now }: PushParts): ManifestPushes {
  const tagging = createTagging({
    shelf: createShelf(content, limits.maxManifestBytes),
    keep,
    now,
    maxManifestBytes: limits.maxManifestBytes,
  });
  const turns = createTurns();

  /** Kept before it is written down: what the books name is there. */
  function keep(digest: Digest, bytes: Buffer): Promise<void> {
    return kept(digest, () => content.put(digest, bytes));
  }

  async function write(draft: Draft, pushed: Pushed, digest: Digest): Promise<void> {
    const { subject, mediaType, bytes, blobs, manifests } = pushed;
    const before = await draft.get<ManifestEntry>(keys.manifest(digest));
    const uses = [...new Set([...blobs, ...manifests].map((one: Needed) => one.digest))];
    const entry = { mediaType, bytes: bytes.length, atMs: now(), uses, ...(subject && { subject }) };
    if (before && before.mediaType !== mediaType) {
      throw invalid(`${digest} is here as ${before.mediaType}, and nothing is two things`);
    }
    // Pushed again, it is as new as any other.
    if (before) draft.set(keys.manifest(digest), { ...before, atMs: now() } satisfies ManifestEntry);
    else writeManifest(draft, { digest, entry, descriptor: referrerOf(pushed, digest) });
  }

  async function erase(draft: Draft, place: Place, digest: Digest): Promise<void> {
    const { repository } = place;
    const entry = await draft.get<ManifestEntry>(keys.manifest(digest));
    if (!entry) throw unknown(repository, digest);
    // A step of a tag's history is as much someone's as the tag.
    await tagging.checkRemoval(place, { digest, mediaType: entry.mediaType });
    eraseManifest(draft, digest, entry);
    for await (const { name } of all(draft, keys.use(digest, 'step/'))) {
      // A step that cannot be put back any more is none.
      draft.delete(keys.use(digest, `step/${name}`));
      const slash = name.lastIndexOf('/');
      draft.delete(keys.step(name.slice(0, slash), Number(name.slice(slash + 1))));
    }
  }

  async function eraseTagOf(draft: Draft, place: Place, tag: string): Promise<void> {
    const entry = await draft.get<TagEntry>(keys.tag(tag));
    if (!entry) throw unknown(place.repository, tag);
    await tagging.checkRemoval(place, entry);
    await eraseTag(draft, tag, entry, now());
  }

  return {
    async put(place, bytes, contentType, wanted, tags) {
      const digest = digestFor(bytes, wanted);
      if (wanted && wanted !== digest) {
        throw new NarrowsError('digestInvalid', `What was sent is ${digest}, not ${wanted}.`);
      }
      const pushed = readPushed(bytes, contentType);
      let isKept = false;
      const enter = async (draft: Draft) => {
        await checkNeeded(draft, pushed);
        // Once, however often others come in between.
        if (!isKept) await keep(digest, bytes);
        isKept = true;
        await write(draft, pushed, digest);
        let meant = digest;
        for (const tag of tags) meant = await tagging.put(draft, place, tag, pushed, digest);
        return meant;
      };
      // More tags than one are seldom: without a turn of their own they meet others, and try again.
      const turn = `${place.repository}:${tags[0] ?? digest}`;
      const meant = await turns(turn, () => transact(ledger, place.repository, enter));
      // What was on its way out right before it was written down is brought back.
      for (const one of new Set([digest, meant])) await kept(one, () => content.secure(one));
      return { digest, ...(pushed.subject && { subject: pushed.subject }), ...(meant !== digest && { index: meant }) };
    },

    async deleteTag(place, tag) {
      await transact(ledger, place.repository, (draft) => eraseTagOf(draft, place, tag));
    },

    async delete(place, digest) {
      await transact(ledger, place.repository, async (draft) => {
        await draft.get(keys.epoch);
        const [parent] = await draft.list(keys.use(digest, 'sha'), '', 1);
        if (parent) {
          const message = `${digest} is part of sha${parent.name}, which is here too: delete that first.`;
          throw new NarrowsError('denied', message);
        }
        for await (const { name } of all(draft, keys.use(digest, 'tag/'))) await eraseTagOf(draft, place, name);
        await erase(draft, place, digest);
      });
    },
  };
}

/** @throws NarrowsError manifestBlobUnknown with all that is missing, manifestInvalid for another size */
async function checkNeeded(draft: Draft, { blobs, manifests }: Pushed): Promise<void> {
  const needed = [...blobs, ...manifests];
  const asBlobs = await draft.getMany<BlobEntry>(needed.map(({ digest }) => keys.blob(digest)));
  const asManifests = await draft.getMany<ManifestEntry>(needed.map(({ digest }) => keys.manifest(digest)));
  // An index may list blobs (caches of builders do), an image has no manifest for a layer.
  const held = needed.map((_, at) => {
    if (at < blobs.length) return asBlobs[at];
    return asManifests[at] ?? (needed[at]!.isImage ? undefined : asBlobs[at]);
  });
  const missing = [...new Set(needed.filter((_, at) => !held[at]).map(({ digest }) => digest))];
  if (missing.length > 0) throw missingParts(draft.repository, missing);
  const torn = needed.find(({ bytes }, at) => held[at]!.bytes !== bytes);
  if (torn) throw invalid(`it says that ${torn.digest} has ${torn.bytes} bytes, which it has not`);
}

function unknown(repository: string, what: string): NarrowsError {
  return new NarrowsError('manifestUnknown', `${repository} has no manifest ${what}.`);
}

function missingParts(repository: string, missing: readonly Digest[]): NarrowsError {
  const shown = missing.slice(0, namedAtMost).join(', ');
  const more = missing.length > namedAtMost ? ` and ${missing.length - namedAtMost} more` : '';
  return new NarrowsError('manifestBlobUnknown', `${repository} does not have ${shown}${more}: push that first.`, {
    detail: missing.map((digest) => ({ digest })),
  });
}
