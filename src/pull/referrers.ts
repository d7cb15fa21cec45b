import { NarrowsError, isKind, isNotHeld, isUpstreamTrouble } from '../errors.ts';
import { asObject, parseJson } from '../oci/json.ts';
import type { JsonObject } from '../oci/json.ts';
import { companionTag } from '../oci/reference.ts';
import type { Digest } from '../oci/digest.ts';
import { contentKey } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { ListAnswer } from '../upstream/upstream.ts';
import type { PullParts } from './parts.ts';
import type { Tags } from './tags.ts';

/** What is said about a digest: signatures, SBOMs and whatever else names it as its subject. */
export interface Referrers {
  /**
   * One page, as the upstream gives it; where it has no such API, the list under the fallback tag, and while it is in
   * trouble, or nobody asks it, what it last said. Undefined for none.
   */
  page(source: Source, subject: Digest, query: URLSearchParams): Promise<ListAnswer | undefined>;
  /**
   * All of it, page by page.
   *
   * @param freshMs how long the last answer is believed
   * @throws NarrowsError the upstream's trouble
   */
  all(source: Source, subject: Digest, freshMs: number): Promise<readonly JsonObject[]>;
}

/** A list is somebody else's: so many are said about one image by nobody who means well. */
const maxReferrers = 1000;
const maxPages = 100;

export function createReferrers({ records, now }: Pick<PullParts, 'records' | 'now'>, tags: Tags): Referrers {
  /** The index under the tag `sha256-<hex>` (distribution-spec "Referrers Tag Schema"); none means no referrers. */
  async function fromTag(source: Source, subject: Digest): Promise<ListAnswer | undefined> {
    try {
      return { bytes: (await tags.resolve(source, companionTag(subject, ''))).bytes };
    } catch (error) {
      if (isKind(error, 'manifestUnknown', 'manifestNotHeld')) return undefined;
      throw error;
    }
  }

  async function askForAll(source: Source, subject: Digest): Promise<JsonObject[]> {
    const found: JsonObject[] = [];
    for (
      let query: URLSearchParams | undefined = new URLSearchParams(), pages = 0;
      query && pages < maxPages;
      pages++
    ) {
      const answer: ListAnswer | undefined =
        (await fromApi(source, subject, query)) ?? (await fromTag(source, subject));
      const entries = answer ? entriesOf(answer.bytes) : [];
      if (!entries) {
        throw new NarrowsError(
          'upstreamUnusable',
          `${source.upstream.name} answers with what is no list of manifests.`,
        );
      }
      found.push(...entries);
      query = found.length < maxReferrers ? answer?.next : undefined;
    }
    return found.slice(0, maxReferrers);
  }

  async function remembered(source: Source, subject: Digest): Promise<ListAnswer | undefined> {
    const record = await records.referrers.get(contentKey(source, subject));
    return record && { bytes: Buffer.from(JSON.stringify({ manifests: record.manifests })) };
  }

  /** That nothing is said about a digest is worth a record of what is here alone: digests can be made up without end. */
  async function remember(source: Source, subject: Digest, manifests: readonly JsonObject[]): Promise<void> {
    const key = contentKey(source, subject);
    const isKnown = async () =>
      (await records.manifests.get(key)) !== undefined || (await records.referrers.get(key)) !== undefined;
    if (manifests.length === 0 && !(await isKnown())) return;
    await records.referrers.set(contentKey(source, subject), { manifests, checkedAtMs: now() });
  }

  return {
    async page(source, subject, query) {
      try {
        const answer = await fromApi(source, subject, query);
        if (!answer) return await fromTag(source, subject);
        const entries = query.size === 0 && !answer.next ? entriesOf(answer.bytes) : undefined;
        if (entries) await remember(source, subject, entries);
        return answer;
      } catch (error) {
        if (!isNotHeld(error) && !isUpstreamTrouble(error)) throw error;
        const last = (await remembered(source, subject)) ?? (await fromTag(source, subject));
        if (last || isNotHeld(error)) return last;
        throw error;
      }
    },

    async all(source, subject, freshMs) {
      const last = await records.referrers.get(contentKey(source, subject));
      if (last && Math.abs(now() - last.checkedAtMs) < freshMs) return last.manifests;
      try {
        const all = await askForAll(source, subject);
        await remember(source, subject, all);
        return all;
      } catch (error) {
        if (!isNotHeld(error)) throw error;
        return last?.manifests ?? entriesOf((await fromTag(source, subject))?.bytes ?? Buffer.alloc(0)) ?? [];
      }
    },
  };
}

async function fromApi(source: Source, subject: Digest, query: URLSearchParams): Promise<ListAnswer | undefined> {
  try {
    return await source.upstream.list(source.repository, `referrers/${subject}`, query);
  } catch (error) {
    // Registries of before the referrers API answer its path with all sorts of refusals.
    if (isKind(error, 'upstreamRefused')) return undefined;
    throw error;
  }
}

/** Undefined for what is no list of manifests: that says nothing of what there is. */
function entriesOf(bytes: Buffer): JsonObject[] | undefined {
  try {
    const list = asObject(parseJson(bytes));
    const entries = list?.['manifests'];
    // A list of none is `null` in registries written in Go.
    if (list && entries === null) return [];
    return Array.isArray(entries) ? entries.map(asObject).filter((entry) => entry !== undefined) : undefined;
  } catch {
    return undefined;
  }
}
