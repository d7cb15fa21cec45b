import { NarrowsError } from '../errors.ts';
import type { Identity } from '../access/identity.ts';
import { nameOf } from '../access/identity.ts';
import { find, keys, listAll, moveTag } from './books.ts';
import type { ManifestEntry, Step, TagEntry } from './books.ts';
import { changesBetween } from './compose.ts';
import { transact } from './draft.ts';
import type { PushParts } from './parts.ts';
import { createShelf } from './shelf.ts';

/** What a tag has meant. */
export interface TagHistory {
  /** The newest first. */
  readonly steps: readonly Step[];
  readonly current: TagEntry;
}

export interface History {
  /** @throws NarrowsError nameUnknown, manifestUnknown */
  of(repository: string, tag: string): Promise<TagHistory>;
  /** Puts a step back, as a new step. @throws NarrowsError nameUnknown, manifestUnknown */
  restore(repository: string, tag: string, step: number, by: Identity): Promise<Step>;
}

export function createHistory({
  ledger,
  content,
  rules,
  now,
}: Pick<PushParts, 'ledger' | 'content' | 'rules' | 'now'>): History {
  const shelf = createShelf(content, rules.maxManifestBytes);
  function hostedRules(repository: string) {
    const hosted = rules.hosted(repository);
    if (hosted) return hosted;
    throw new NarrowsError('nameUnknown', `${repository} is not hosted here: only what is pushed here has a history.`);
  }

  return {
    async of(repository, tag) {
      hostedRules(repository);
      const current = await find<TagEntry>(ledger, repository, keys.tag(tag));
      if (!current) throw new NarrowsError('manifestUnknown', `${repository} has no tag ${tag}.`);
      const steps: Step[] = [];
      for await (const { value } of listAll<Step>(ledger, repository, keys.steps(tag))) steps.push(value);
      return { current, steps: steps.toReversed() };
    },

    async restore(repository, tag, wanted, by) {
      const { maxSteps } = hostedRules(repository);
      return transact(ledger, repository, async (draft) => {
        const [step, current] = await Promise.all([
          draft.get<Step>(keys.step(tag, wanted)),
          draft.get<TagEntry>(keys.tag(tag)),
        ]);
        const target = step && (await draft.get<ManifestEntry>(keys.manifest(step.digest)));
        if (!step || !target) {
          throw new NarrowsError('manifestUnknown', `${repository}:${tag} has no step ${wanted} that can be put back.`);
        }
        // It is what the tag means already.
        if (current?.digest === step.digest) return step;
        const { digest, mediaType } = step;
        const changed = (await changesBetween(current, step, shelf)).map(({ name }) => name);
        const next = { digest, mediaType, atMs: now(), by: nameOf(by), changed, restored: wanted };
        await moveTag(draft, tag, next, maxSteps);
        return { ...next, step: (current?.step ?? 0) + 1 };
      });
    },
  };
}
