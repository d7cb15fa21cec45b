import { NarrowsError } from '../errors.ts';
import { isPlatform, readConfigPlatform } from '../oci/manifest.ts';
import type { Descriptor, Document } from '../oci/manifest.ts';
import { isImageConfigType } from '../oci/media-types.ts';
import { companionTag, parseCompanionTag } from '../oci/reference.ts';
import type { Tag } from '../oci/reference.ts';
import { formatPlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { contentKey } from '../cache/records.ts';
import type { NarrowedRecord } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { Blobs } from './blobs.ts';
import { chooseView } from './choose-view.ts';
import type { Form } from './choose-view.ts';
import type { Homes } from './homes.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import type { Overlaid, Overlays } from './overlays.ts';
import type { PullParts } from './parts.ts';
import { worstState } from './parts.ts';
import { prepare } from './recipe.ts';
import type { PullRequest } from './request.ts';
import type { Savings } from './savings.ts';
import type { Tags } from './tags.ts';

export type ViewName = 'verbatim' | 'image' | 'index' | Form;

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
export function createViews(
  parts: PullParts,
  tags: Tags,
  manifests: Manifests,
  blobs: Blobs,
  overlays: Overlays,
  homes: Homes,
  savings: Savings,
): Views {
  const { records, reading, rules, observer } = parts;

  async function asImage(source: Source, original: HeldManifest, child: Descriptor): Promise<Viewed> {
    const manifest = await manifests.shown(source, child.digest);
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
    const document = reading.read(manifest);
    if (document.kind !== 'manifest') return undefined;
    // What is no image has no platform of its own that could contradict.
    if (!isImageConfigType(document.config.mediaType)) return true;
    const home = await homes.of(source, document.config.digest);
    const bytes = await blobs.readSmall(home, document.config.digest, rules.maxManifestBytes);
    const says = bytes && readConfigPlatform(bytes);
    return says && says.os === child.platform?.os && says.architecture === child.platform?.architecture;
  }

  /** A document made here, of the original and of what others supply. */
  async function asMade(
    source: Source,
    original: HeldManifest,
    children: Children,
    keep: readonly Descriptor[],
    form?: Form,
  ): Promise<Viewed> {
    const recipe: NarrowedRecord = {
      index: original.digest,
      kept: keep.filter((child) => !children.added.has(child)).map((child) => children.original.indexOf(child)),
      ...(children.added.size > 0 && {
        added: keep.filter((child) => children.added.has(child)).map((child) => child.source),
      }),
      ...(form && { as: form, primary: formatPlatform(rules.primaryOf(source.key)) }),
    };
    const read = { ...original, document: children.document };
    const made = await prepare(read, recipe, (digest) => manifests.imageOf(source, digest));
    // The client comes back for this digest, to any replica: without the record it would be lost between two requests.
    const isRecorded = made && (await records.narrowed.set(contentKey(source, made.digest), recipe));
    if (!isRecorded) return { view: 'verbatim', manifest: original };
    return { view: form ?? 'index', manifest: { ...made, state: original.state }, index: original };
  }

  function noteNarrowed(source: Source, original: HeldManifest, children: Children): void {
    const images = children.original.filter(({ platform }) => isPlatform(platform));
    savings.narrowed(
      source.key,
      original.digest,
      images.map(({ digest }) => digest),
    );
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
      const isCompanionTag = companion !== undefined;
      const published = reading.read(original);
      const overlaid = isCompanionTag ? undefined : await overlays.over(source, tag, original, published, set);
      const document = overlaid?.index ?? published;
      const children = childrenOf(published, overlaid);
      const { accept, endpointView } = request;
      const primary = rules.primaryOf(source.key);
      const choice = chooseView({
        document,
        set,
        accept,
        endpointView,
        onMissing: rules.onMissing,
        primary,
        isCompanionTag,
      });
      switch (choice.view) {
        case 'verbatim':
          if (overlaid) return asMade(source, original, children, overlaid.index.manifests);
          return { view: 'verbatim', manifest: original };
        case 'image':
          noteNarrowed(source, original, children);
          return asImage(source, original, choice.child);
        case 'index':
          noteNarrowed(source, original, children);
          return asMade(source, original, children, choice.keep);
        case 'combined':
        case 'alternates':
          return asMade(source, original, children, choice.keep, choice.view);
        case 'missing':
          throw new NarrowsError('manifestUnknown', choice.message);
        default:
          return choice satisfies never;
      }
    },
  };
}

/** Where the children of an index come from. */
interface Children {
  /** The original, read. */
  readonly document: Document;
  readonly original: readonly Descriptor[];
  readonly added: ReadonlySet<Descriptor>;
}

function childrenOf(document: Document, overlaid: Overlaid | undefined): Children {
  const original = overlaid?.original ?? (document.kind === 'index' ? document.manifests : []);
  return { document, original, added: overlaid?.added ?? new Set() };
}
