import { nameOf } from '../access/identity.ts';
import type { Identity } from '../access/identity.ts';
import { maxEntries } from '../oci/manifest.ts';
import { isComposedType } from '../oci/media-types.ts';
import type { Digest } from '../oci/digest.ts';
import { parseCompanionTag } from '../oci/reference.ts';
import type { Tag } from '../oci/reference.ts';
import { keys, moveTag, writeManifest } from './books.ts';
import type { BlobEntry, ManifestEntry, TagEntry } from './books.ts';
import { checkTruth, composition, entriesOfTag } from './compose.ts';
import type { TagDocument, TagEntries } from './compose.ts';
import type { Made } from './described.ts';
import type { Draft } from './draft.ts';
import { changedEntries, hasSameFrame, mergeEntries, other } from './entries.ts';
import type { Entry, MadeIndex } from './entries.ts';
import { checkOwners } from './owners.ts';
import type { HostedRules } from './parts.ts';
import { asInvalid, invalid } from './pushed.ts';
import type { Pushed } from './pushed.ts';
import type { Shelf } from './shelf.ts';

/** Who does what where. */
export interface Place {
  readonly repository: string;
  readonly rules: HostedRules;
  readonly by: Identity;
}

export interface TaggingOptions {
  readonly shelf: Shelf;
  /** @throws NarrowsError storeUnavailable */
  keep(digest: Digest, bytes: Buffer): Promise<void>;
  now(): number;
  readonly maxManifestBytes: number;
}

type Entries = ReadonlyMap<string, Entry>;

/** What a tag is to mean: the document, and its platforms where those are more than what was pushed. */
interface Plan {
  readonly changed: readonly Entry[];
  readonly after: Entries;
  readonly composed?: { readonly index: MadeIndex; readonly made: readonly Made[] };
}

export interface Tagging {
  /**
   * Puts what was pushed under a tag: as it is, or as a part of the index that the tag means.
   *
   * @returns what the tag means then
   * @throws NarrowsError denied, manifestInvalid, storeUnavailable
   */
  put(draft: Draft, place: Place, tag: Tag, pushed: Pushed, digest: Digest): Promise<Digest>;
  /** May someone take away what a tag means, or meant? @throws NarrowsError denied */
  checkRemoval(place: Place, entry: TagDocument): Promise<void>;
}

export function createTagging({ shelf, keep, now, maxManifestBytes }: TaggingOptions): Tagging {
  async function entriesNow(entry: TagDocument | undefined): Promise<TagEntries> {
    return entry ? entriesOfTag(entry, shelf) : { entries: new Map() };
  }

  async function plan(
    before: TagDocument | undefined,
    pushed: Pushed,
    digest: Digest,
    composes: boolean,
  ): Promise<Plan> {
    const said = await composition(pushed, digest, shelf);
    const { entries, index } = await entriesNow(before);
    if (!composes && isComposedType(pushed.mediaType)) {
      throw invalid('a combined or alternates document is taken under a tag only where the repository is composed');
    }
    if (!composes || !said.isPart) {
      const changed = changedEntries(entries, said.entries);
      const whole = pushed.document.kind === 'index' ? pushed.document : undefined;
      const isReframed = whole !== undefined && !hasSameFrame(index, whole);
      // What an index says beside its entries, and their order, is said to everyone.
      if (isReframed && !changed.some(({ name }) => name === other)) changed.push({ name: other, children: [] });
      return { after: said.entries, changed };
    }
    // An image that was there before composing began is the first entry; an artifact is no part of an image.
    const base = index ? entries : new Map([...entries].filter(([name]) => name !== other));
    const after = new Map([...base, ...said.entries]);
    const merged = mergeEntries(index, index ? said.entries : after);
    if (merged.bytes.length > maxManifestBytes) {
      throw invalid(`the index of the tag would have more than ${maxManifestBytes} bytes`);
    }
    if ([...after.values()].reduce((sum, { children }) => sum + children.length, 0) > maxEntries) {
      throw invalid(`the index of the tag would have more than ${maxEntries} entries`);
    }
    return { after, changed: changedEntries(entries, after), composed: { index: merged, made: said.made } };
  }

  async function writeMade(draft: Draft, { kind, bytes, digest, mediaType, uses }: Made): Promise<void> {
    await keep(digest, bytes);
    const entry = { bytes: bytes.length, atMs: now() };
    if (kind === 'blob') draft.set(keys.blob(digest), entry satisfies BlobEntry);
    else if (!(await draft.get(keys.manifest(digest))))
      writeManifest(draft, { digest, entry: { ...entry, mediaType, uses } });
  }

  async function put(draft: Draft, { rules, by }: Place, tag: Tag, pushed: Pushed, digest: Digest): Promise<Digest> {
    const before = await draft.get<TagEntry>(keys.tag(tag));
    const subject = await subjectOf(draft, tag);
    const { changed, after, composed } = await plan(before, pushed, digest, rules.isComposed && !subject);
    checkOwners(rules.owners, by, subject ? [...(await entriesNow(subject)).entries.values()] : changed);
    // Before they are looked into: images that a document of 2015 describes are read as any others.
    for (const made of composed?.made ?? []) await writeMade(draft, made);
    // Where platforms are put together or owned, a name that says another platform than the image would be a way around.
    const said = changed.flatMap(({ name }) => after.get(name) ?? []);
    if (rules.isComposed || rules.owners)
      await checkTruth(said, shelf, async (one) => (await draft.get(keys.manifest(one))) !== undefined);
    const target = composed ? composed.index : { digest, mediaType: pushed.mediaType };
    if (before?.digest === target.digest) return target.digest;
    if (composed) await writeMade(draft, asMade(composed.index, after));
    const step = { digest: target.digest, mediaType: target.mediaType, atMs: now(), by: nameOf(by) };
    await moveTag(draft, tag, { ...step, changed: changed.map(({ name }) => name) }, rules.maxSteps);
    return target.digest;
  }

  return {
    put: (draft, place, tag, pushed, digest) => asInvalid(() => put(draft, place, tag, pushed, digest)),

    async checkRemoval({ rules, by }, entry) {
      if (rules.owners) checkOwners(rules.owners, by, [...(await entriesNow(entry)).entries.values()]);
    },
  };
}

function asMade({ bytes, digest, mediaType }: MadeIndex, entries: Entries): Made {
  const uses = [...entries.values()].flatMap(({ children }) => children.map((child) => child.digest));
  return { kind: 'manifest', bytes, digest, mediaType, uses: [...new Set(uses)] };
}

/** What a tag such as `sha256-….sig` speaks of belongs to those whose image it is. */
async function subjectOf(draft: Draft, tag: Tag): Promise<TagDocument | undefined> {
  const digest = parseCompanionTag(tag)?.subject;
  const entry = digest && (await draft.get<ManifestEntry>(keys.manifest(digest)));
  return entry && { digest, mediaType: entry.mediaType };
}
