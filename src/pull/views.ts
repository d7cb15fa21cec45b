import { NarrowsError } from '../errors.ts';
import { parseDocument, readConfigPlatform } from '../oci/manifest.ts';
import type { Descriptor, Index } from '../oci/manifest.ts';
import { isImageConfigType } from '../oci/media-types.ts';
import { companionTag, parseCompanionTag } from '../oci/reference.ts';
import type { Tag } from '../oci/reference.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { contentKey } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { Blobs } from './blobs.ts';
import { chooseView } from './choose-view.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import { narrowIndex } from './narrow.ts';
import type { PullParts } from './parts.ts';
import { worstState } from './parts.ts';
import type { PullRequest } from './request.ts';
import type { Tags } from './tags.ts';

export type ViewName = 'verbatim' | 'image' | 'index';

/** A tag's answer: what goes out, and as what. */
export interface Viewed {
  readonly view: ViewName;
  readonly manifest: HeldManifest;
  /** The original index where something else than it goes out. */
  readonly index?: HeldManifest;
}

export interface Views {
  /** @throws NarrowsError manifestUnknown for a platform that the image does not have, and all that tags throw */
  ofTag(source: Source, tag: Tag, set: PlatformSet | undefined, request: PullRequest): Promise<Viewed>;
}

/** Tags in the form that a caller needs: as they are, as its platform's image, or as a smaller index. */
export function createViews(parts: PullParts, tags: Tags, manifests: Manifests, blobs: Blobs): Views {
  const { records, rules, observer } = parts;

  async function asImage(source: Source, original: HeldManifest, child: Descriptor): Promise<Viewed> {
    const manifest = await manifests.byDigest(source, child.digest);
    if (!manifest) {
      throw new NarrowsError(
        'manifestUnknown',
        `${source.upstream.name} lists ${child.digest} for ${source.key} and does not hold it.`,
      );
    }
    if (!(await isTruthful(source, child, manifest))) {
      observer.platformLie(source.key, child.digest);
      return { view: 'verbatim', manifest: original };
    }
    const state = worstState(original.state, manifest.state);
    return { view: 'image', manifest: { ...manifest, state }, index: original };
  }

  /** An index can say what it likes of a child; the child's config is what will run. Asked once for each child. */
  async function isTruthful(source: Source, child: Descriptor, manifest: HeldManifest): Promise<boolean> {
    const key = `${contentKey(source, child.digest)} ${child.platform?.os}/${child.platform?.architecture}`;
    const known = await records.platformChecks.get(key);
    if (known) return known.truthful;
    const truthful = await compareConfig(source, child, manifest);
    // Only what a config said is worth remembering.
    if (truthful !== undefined) await records.platformChecks.set(key, { truthful });
    return truthful ?? false;
  }

  async function compareConfig(
    source: Source,
    child: Descriptor,
    manifest: HeldManifest,
  ): Promise<boolean | undefined> {
    const document = parseDocument(manifest.bytes, manifest.mediaType);
    if (document.kind !== 'manifest') return undefined;
    // What is no image has no platform of its own that could contradict.
    if (!isImageConfigType(document.config.mediaType)) return true;
    const bytes = await blobs.readSmall(source, document.config.digest, rules.maxManifestBytes);
    const says = bytes && readConfigPlatform(bytes);
    return says && says.os === child.platform?.os && says.architecture === child.platform?.architecture;
  }

  async function asIndex(
    source: Source,
    original: HeldManifest,
    index: Index,
    keep: readonly Descriptor[],
  ): Promise<Viewed> {
    const narrowed = narrowIndex(index, keep);
    const recipe = { index: original.digest, kept: keep.map((child) => index.manifests.indexOf(child)) };
    // The client comes back for this digest, to any replica: without the record it would be lost between two requests.
    const isRecorded = await records.narrowed.set(contentKey(source, narrowed.digest), recipe);
    if (!isRecorded) return { view: 'verbatim', manifest: original };
    return { view: 'index', manifest: { ...narrowed, state: original.state }, index: original };
  }

  /** What hangs on the original index by its name (`sha256-….sig`) is found under the narrowed one's name too. */
  async function companionOf(source: Source, tag: Tag): Promise<Tag | undefined> {
    const companion = parseCompanionTag(tag);
    if (!companion?.subject) return companion && tag;
    const recipe = await records.narrowed.get(contentKey(source, companion.subject));
    return recipe ? companionTag(recipe.index, companion.suffix) : tag;
  }

  return {
    async ofTag(source, tag, set, request) {
      const companion = await companionOf(source, tag);
      const original = await tags.resolve(source, companion ?? tag);
      const document = parseDocument(original.bytes, original.mediaType);
      const choice = chooseView({
        document,
        set,
        accept: request.accept,
        endpointView: request.endpointView,
        onMissing: rules.onMissing,
        primary: rules.primaryOf(source.key),
        isCompanionTag: companion !== undefined,
      });
      switch (choice.view) {
        case 'verbatim':
          return { view: 'verbatim', manifest: original };
        case 'image':
          return asImage(source, original, choice.child);
        case 'index':
          return asIndex(source, original, document as Index, choice.keep);
        case 'missing':
          throw new NarrowsError('manifestUnknown', choice.message);
        default:
          return choice satisfies never;
      }
    },
  };
}
