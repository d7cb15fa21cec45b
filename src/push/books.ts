import type { Ledger } from '../cache/ledger.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import { list, parseEntry, reachable } from './draft.ts';
import type { Draft, Listed } from './draft.ts';

/** What a tag means. */
export interface TagEntry {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Of its history, the last. */
  readonly step: number;
}

export interface ManifestEntry {
  readonly mediaType: string;
  readonly bytes: number;
  readonly atMs: number;
  /** What it refers to, and what it lists: taken out of the books with it. */
  readonly subject?: Digest;
  readonly uses: readonly Digest[];
}

export interface BlobEntry {
  readonly bytes: number;
  readonly atMs: number;
}

/** One step in the history of a tag. */
export interface Step {
  readonly step: number;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly atMs: number;
  readonly by: string;
  /** The platforms that changed; `other` for what has none. */
  readonly changed: readonly string[];
  /** The step that was put back. */
  readonly restored?: number;
}

/**
 * The names in a ledger. What uses what is written beside it, so that nobody has to look through everything to know
 * whether a thing may go.
 */
export const keys = {
  tag: (tag: string) => `tag/${tag}`,
  manifest: (digest: Digest) => `manifest/${digest}`,
  blob: (digest: Digest) => `blob/${digest}`,
  referrer: (subject: Digest, digest: Digest) => `referrer/${subject}/${digest}`,
  steps: (tag: string) => `step/${tag}/`,
  step: (tag: string, step: number) => `step/${tag}/${String(step).padStart(10, '0')}`,
  use: (used: Digest, by: string) => `use/${used}/${by}`,
  /** Written with every new use; whoever goes by the lack of uses reads it before. */
  epoch: 'epoch',
};

const pageSize = 1000;

/** All of them, page by page. @throws NarrowsError storeUnavailable */
export async function* listAll<T>(ledger: Ledger, repository: string, prefix: string): AsyncGenerator<Listed<T>> {
  for (let after = '', page; (page = await list<T>(ledger, repository, prefix, after, pageSize)).length > 0;) {
    yield* page;
    after = page.at(-1)!.name;
  }
}

/** One entry, outside of any step. @throws NarrowsError storeUnavailable */
export async function find<T>(ledger: Ledger, repository: string, key: string): Promise<T | undefined> {
  const [text] = await reachable(() => ledger.get(repository, [key]));
  return text === undefined ? undefined : parseEntry<T>(text);
}

export interface NewManifest {
  readonly digest: Digest;
  readonly entry: ManifestEntry;
  /** How it is listed among the referrers of its subject, where it has one. */
  readonly descriptor?: JsonObject;
}

export function writeManifest(draft: Draft, { digest, entry, descriptor }: NewManifest): void {
  draft.set(keys.manifest(digest), entry);
  for (const used of entry.uses) draft.set(keys.use(used, digest), 1);
  if (entry.subject && descriptor) draft.set(keys.referrer(entry.subject, digest), descriptor);
  markUsed(draft);
}

export function eraseManifest(draft: Draft, digest: Digest, entry: ManifestEntry): void {
  draft.delete(keys.manifest(digest));
  for (const used of entry.uses) draft.delete(keys.use(used, digest));
  if (entry.subject) draft.delete(keys.referrer(entry.subject, digest));
}

/** Those who saw no use before this one have to look again. */
function markUsed(draft: Draft): void {
  draft.set(keys.epoch, crypto.randomUUID());
}

/** Moves a tag, as the next step of its history, and forgets the steps that are too many. */
export async function moveTag(draft: Draft, tag: string, to: Omit<Step, 'step'>, maxSteps: number): Promise<void> {
  const before = await draft.get<TagEntry>(keys.tag(tag));
  const step = (before?.step ?? 0) + 1;
  draft.set(keys.tag(tag), { digest: to.digest, mediaType: to.mediaType, step } satisfies TagEntry);
  if (before) await endUse(draft, before.digest, `tag/${tag}`, to.atMs);
  draft.set(keys.use(to.digest, `tag/${tag}`), 1);
  draft.set(keys.step(tag, step), { ...to, step } satisfies Step);
  draft.set(keys.use(to.digest, `step/${tag}/${step}`), 1);
  await forgetSteps(draft, tag, step - maxSteps, to.atMs);
  markUsed(draft);
}

/** Up to this one: there may be more than one too many, where more were kept before. */
async function forgetSteps(draft: Draft, tag: string, last: number, atMs: number): Promise<void> {
  if (last < 1) return;
  for await (const { value } of all<Step>(draft, keys.steps(tag))) {
    if (value.step > last) return;
    draft.delete(keys.step(tag, value.step));
    await endUse(draft, value.digest, `step/${tag}/${value.step}`, atMs);
  }
}

/** From here on the manifest may be without a use: how long it stays is counted from now. */
async function endUse(draft: Draft, digest: Digest, by: string, atMs: number): Promise<void> {
  draft.delete(keys.use(digest, by));
  const entry = await draft.get<ManifestEntry>(keys.manifest(digest));
  if (entry) draft.set(keys.manifest(digest), { ...entry, atMs } satisfies ManifestEntry);
}

/** All entries by prefix, page by page, as they are now. */
export async function* all<T>(draft: Draft, prefix: string): AsyncGenerator<Listed<T>> {
  for (let after = '', page; (page = await draft.list<T>(prefix, after, pageSize)).length > 0;) {
    yield* page;
    after = page.at(-1)!.name;
  }
}

/** A tag goes with its history. */
export async function eraseTag(draft: Draft, tag: string, entry: TagEntry, atMs: number): Promise<void> {
  draft.delete(keys.tag(tag));
  await endUse(draft, entry.digest, `tag/${tag}`, atMs);
  await forgetSteps(draft, tag, Infinity, atMs);
}
