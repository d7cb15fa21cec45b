import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import { NarrowsError, isKind, isUpstreamTrouble } from '../errors.ts';
import type { Tag } from '../oci/reference.ts';
import { contentKey } from '../cache/records.ts';
import type { TagRecord } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import { createOnce } from './once.ts';
import type { PullParts } from './parts.ts';

export interface Tags {
  /**
   * What a tag means: the manifest or index, as the upstream has it.
   *
   * @throws NarrowsError manifestUnknown, denied, or the upstream's trouble where nothing is known here
   */
  resolve(source: Source, tag: Tag): Promise<HeldManifest>;
  /**
   * The same for who wants no less than what the upstream says now: nothing is believed but what never moves, and its
   * trouble is not covered up.
   *
   * @throws NarrowsError manifestUnknown, or the upstream's trouble
   */
  ask(source: Source, tag: Tag): Promise<HeldManifest>;
}

const maxWritten = 10_000;

/**
 * Tags, the half of a registry that moves: believed while fresh, then asked for by HEAD, which costs no pull quota,
 * and fetched by digest only when they moved. While the upstream is in trouble, the last known answer is given.
 */
export function createTags({ records, rules, observer, now }: PullParts, manifests: Manifests): Tags {
  const asking = createOnce<HeldManifest>();
  /** Of what is hosted here: asked for each time, and not written down each time. */
  const written = new LRUCache<string, Digest>({ max: maxWritten });

  async function revalidate(source: Source, tag: Tag): Promise<HeldManifest> {
    // Read again: whoever asked before us may have just learnt it.
    const last = await records.tags.get(keyOf(source, tag));
    const known = last && !source.isHosted && (await believed(source, tag, last));
    if (known) return known;
    try {
      return await ask(source, tag, last);
    } catch (error) {
      return fallBack(source, tag, last, error);
    }
  }

  async function fallBack(
    source: Source,
    tag: Tag,
    last: TagRecord | undefined,
    error: unknown,
  ): Promise<HeldManifest> {
    if (!last?.digest) throw error;
    const { troubledAtMs: _, ...before } = last;
    const isTrouble = isUpstreamTrouble(error);
    const held = isTrouble ? await manifests.byDigest(source, last.digest).catch(() => undefined) : undefined;
    // An upstream that refuses is not in trouble: the next one to ask is told so as well.
    if (!isTrouble || !held) {
      if (!isKind(error, 'manifestUnknown')) await remember(source, tag, before);
      throw error;
    }
    observer.stale(source.key, tag, error);
    await remember(source, tag, { ...before, troubledAtMs: now() });
    return { ...held, state: 'stale' };
  }

  /** What needs no question now: a fresh answer, a fresh "no such tag", or an old one while the upstream is in trouble. */
  async function believed(source: Source, tag: Tag, last: TagRecord): Promise<HeldManifest | undefined> {
    // Another machine may have written it, with a clock of its own: from the future, it is as old as it is ahead.
    const age = Math.abs(now() - last.checkedAtMs);
    if (!last.digest) {
      if (age < rules.missingMs) throw unknown(source, tag);
      return undefined;
    }
    const freshForMs = rules.freshMs(source.key, tag) - age;
    if (freshForMs > 0) {
      const held = await manifests.byDigest(source, last.digest);
      return held && { ...held, freshForMs };
    }
    const isLeftAlone = last.troubledAtMs !== undefined && Math.abs(now() - last.troubledAtMs) < rules.staleMs;
    const held = isLeftAlone ? await manifests.byDigest(source, last.digest) : undefined;
    return held && { ...held, state: 'stale' };
  }

  async function ask(source: Source, tag: Tag, last: TagRecord | undefined): Promise<HeldManifest> {
    const head = await source.upstream.head(source.repository, { kind: 'tag', tag });
    if (!head) return forget(source, tag);
    if (head.digest && last?.digest && head.digest !== last.digest) await leaveQuota(source, head.digest);
    const held = head.digest ? await manifests.byDigest(source, head.digest) : await manifests.fetchTag(source, tag);
    if (!held) return forget(source, tag);
    // Only now: had the fetch failed, the last known answer would still be the one that can be given.
    const isNews = written.get(keyOf(source, tag)) !== held.digest || last?.troubledAtMs !== undefined;
    if (!source.isHosted || isNews) await remember(source, tag, { digest: held.digest, checkedAtMs: now() });
    if (source.isHosted) written.set(keyOf(source, tag), held.digest);
    const isSame = last?.digest === held.digest && held.state !== 'miss' && held.state !== 'joined';
    return { ...held, state: isSame ? 'revalidated' : 'miss' };
  }

  /** What is left of a pull quota is for what nobody could be given otherwise. @throws NarrowsError rateLimited */
  async function leaveQuota(source: Source, moved: Digest): Promise<void> {
    const budget = source.upstream.budget?.();
    if (!budget || budget.remaining > budget.limit * rules.spare || now() >= (budget.resetsAtMs ?? Infinity)) return;
    if (await records.manifests.get(contentKey(source, moved))) return;
    const { name } = source.upstream;
    const left = `${budget.remaining} of ${budget.limit} pulls left`;
    throw new NarrowsError('rateLimited', `${name} has ${left}, which are kept for what is not here at all.`);
  }

  async function forget(source: Source, tag: Tag): Promise<never> {
    if (rules.missingMs > 0 && !source.isHosted)
      await records.tags.set(keyOf(source, tag), { checkedAtMs: now() }, rules.missingMs);
    else await records.tags.delete(keyOf(source, tag));
    throw unknown(source, tag);
  }

  async function remember(source: Source, tag: Tag, record: TagRecord): Promise<void> {
    await records.tags.set(keyOf(source, tag), record);
  }

  return {
    async ask(source, tag) {
      const last = await records.tags.get(keyOf(source, tag));
      const neverMoves = rules.freshMs(source.key, tag) >= Number.MAX_SAFE_INTEGER;
      const known = last?.digest && neverMoves ? await believed(source, tag, last) : undefined;
      return known ?? ask(source, tag, last);
    },

    async resolve(source, tag) {
      // Nothing is believed, and nobody is given the answer to an earlier question: what was just pushed is there.
      if (source.isHosted) return revalidate(source, tag);
      const last = await records.tags.get(keyOf(source, tag));
      const known = last && (await believed(source, tag, last));
      if (known) observer.tagAnswered(Math.abs(now() - last.checkedAtMs));
      if (known) return known;
      const asked = asking.run(keyOf(source, tag), () => revalidate(source, tag));
      // It may fail before, or without, anyone waiting for it.
      asked.catch(() => undefined);
      // Once in trouble, nobody waits for the upstream to be silent again: the question goes on behind the answer.
      const held = last?.digest && last.troubledAtMs !== undefined && (await manifests.byDigest(source, last.digest));
      if (held) return { ...held, state: 'stale' };
      const { value, joined } = await asked;
      observer.tagAnswered(value.state === 'stale' && last ? Math.abs(now() - last.checkedAtMs) : 0);
      return joined && value.state === 'miss' ? { ...value, state: 'joined' } : value;
    },
  };
}

function keyOf(source: Source, tag: Tag): string {
  return `${source.key}:${tag}`;
}

function unknown(source: Source, tag: Tag): NarrowsError {
  return new NarrowsError('manifestUnknown', `${source.upstream.name} has no tag ${tag} in ${source.repository}.`);
}
