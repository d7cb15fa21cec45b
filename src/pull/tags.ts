import { NarrowsError, isUpstreamTrouble } from '../errors.ts';
import type { Tag } from '../oci/reference.ts';
import type { TagRecord } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import { createOnce } from './once.ts';
import type { PullParts } from './parts.ts';
import { worstState } from './parts.ts';

export interface Tags {
  /**
   * What a tag means: the manifest or index, as the upstream has it.
   *
   * @throws NarrowsError manifestUnknown, denied, or the upstream's trouble where nothing is known here
   */
  resolve(source: Source, tag: Tag): Promise<HeldManifest>;
}

/**
 * Tags, the half of a registry that moves: believed while fresh, then asked for by HEAD, which costs no pull quota,
 * and fetched by digest only when they moved. While the upstream is in trouble, the last known answer is given.
 */
export function createTags({ records, rules, observer, now }: PullParts, manifests: Manifests): Tags {
  const asking = createOnce<HeldManifest>();

  async function revalidate(source: Source, tag: Tag, last: TagRecord | undefined): Promise<HeldManifest> {
    try {
      return await ask(source, tag, last);
    } catch (error) {
      if (!isUpstreamTrouble(error) || !last?.digest) throw error;
      const held = await manifests.byDigest(source, last.digest);
      if (!held) throw error;
      observer.stale(source.key, tag, error);
      // A while without questions: an upstream that is down or limits us is not helped by more of them.
      const checkedAtMs = now() - rules.freshMs(source.key, tag) + rules.staleMs;
      await remember(source, tag, { ...last, checkedAtMs: Math.min(checkedAtMs, now()), isStale: true });
      return { ...held, state: 'stale' };
    }
  }

  async function ask(source: Source, tag: Tag, last: TagRecord | undefined): Promise<HeldManifest> {
    const head = await source.upstream.head(source.repository, { kind: 'tag', tag });
    if (!head) return forget(source, tag);
    const held = head.digest ? await manifests.byDigest(source, head.digest) : await manifests.fetchTag(source, tag);
    if (!held) return forget(source, tag);
    // Only now: had the fetch failed, the last known answer would still be the one that can be given.
    await remember(source, tag, { digest: held.digest, checkedAtMs: now() });
    const isSame = last?.digest === held.digest && held.state !== 'miss' && held.state !== 'joined';
    return { ...held, state: isSame ? 'revalidated' : 'miss' };
  }

  async function forget(source: Source, tag: Tag): Promise<never> {
    await records.tags.set(keyOf(source, tag), { checkedAtMs: now() }, rules.missingMs);
    throw unknown(source, tag);
  }

  async function remember(source: Source, tag: Tag, record: TagRecord): Promise<void> {
    await records.tags.set(keyOf(source, tag), record);
  }

  return {
    async resolve(source, tag) {
      const last = await records.tags.get(keyOf(source, tag));
      const freshMs = last?.digest ? rules.freshMs(source.key, tag) : rules.missingMs;
      if (last && now() - last.checkedAtMs < freshMs) {
        if (!last.digest) throw unknown(source, tag);
        const held = await manifests.byDigest(source, last.digest);
        if (held) return last.isStale ? { ...held, state: 'stale' } : held;
      }
      const { value, joined } = await asking.run(keyOf(source, tag), () => revalidate(source, tag, last));
      return joined ? { ...value, state: worstState(value.state, 'joined') } : value;
    },
  };
}

function keyOf(source: Source, tag: Tag): string {
  return `${source.key}:${tag}`;
}

function unknown(source: Source, tag: Tag): NarrowsError {
  return new NarrowsError('manifestUnknown', `${source.upstream.name} has no tag ${tag} in ${source.repository}.`);
}
