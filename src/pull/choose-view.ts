import { accepts, isIndexType, mediaTypes, namedIn } from '../oci/media-types.ts';
import { attestedDigest, isPlatform } from '../oci/manifest.ts';
import type { Descriptor, Document, Index } from '../oci/manifest.ts';
import { fit, fitsButForVersion, formatPlatform } from '../oci/platform.ts';
import type { Platform, PlatformSet } from '../oci/platform.ts';
import type { EndpointView } from './request.ts';

/** Everything that decides how a tag is answered. */
export interface ViewRequest {
  readonly document: Document;
  /** Undefined where no platform is known. */
  readonly set: PlatformSet | undefined;
  readonly accept: string | undefined;
  /** What the listener answers with: `index` asks for an index even for one platform. */
  readonly endpointView: EndpointView;
  readonly onMissing: 'error' | 'verbatim';
  /** What a client gets that takes no index and whose platform nobody knows. */
  readonly primary: Platform;
  /** The tag names another digest (`sha256-….sig`): what hangs on it is not an image to choose from. */
  readonly isCompanionTag: boolean;
}

export type ViewChoice =
  | { readonly view: 'verbatim' }
  | { readonly view: 'image'; readonly child: Descriptor; readonly platform: Platform }
  | { readonly view: 'index'; readonly keep: readonly Descriptor[] }
  | { readonly view: Form; readonly keep: readonly Descriptor[] }
  | { readonly view: 'missing'; readonly message: string };

/** The documents of 2015. */
export type Form = 'combined' | 'alternates';

const verbatim: ViewChoice = { view: 'verbatim' };

/** How is a tag answered for a caller? This is the place where a tag becomes a platform. */
export function chooseView(request: ViewRequest): ViewChoice {
  const { document, set } = request;
  if (document.kind !== 'index' || request.isCompanionTag || !isImageIndex(document)) return verbatim;
  const form = formOf(request);
  if (form) return asForm(form, document, request);
  if (!accepts(request.accept, document.mediaType)) return forOldClient(document, request);
  if (set === undefined || set === 'any') return verbatim;
  const only = set.length === 1 && request.endpointView !== 'index' ? set[0] : undefined;
  return only ? chooseImage(document, only, request.onMissing) : chooseIndex(document, set, request.onMissing);
}

/** Who names a form gets it; so does who comes to a listener for it, and does not say that it is not understood. */
function formOf({ accept, endpointView }: ViewRequest): Form | undefined {
  const named = namedIn(accept, [mediaTypes.combined, mediaTypes.alternates]);
  if (named) return named === mediaTypes.combined ? 'combined' : 'alternates';
  if (endpointView !== 'combined' && endpointView !== 'alternates') return undefined;
  return accepts(accept, mediaTypes[endpointView]) ? endpointView : undefined;
}

function asForm(view: Form, index: Index, { set, onMissing }: ViewRequest): ViewChoice {
  if (set === undefined || set === 'any') return { view, keep: index.manifests };
  const choice = chooseIndex(index, set, onMissing);
  if (choice.view === 'missing') return choice;
  return { view, keep: choice.view === 'index' ? choice.keep : index.manifests };
}

/** An index whose children are images for platforms: no artifact, nothing nested, and it says what runs where. */
export function isImageIndex(index: Index): boolean {
  if (index.artifactType !== undefined) return false;
  if (index.manifests.some((child) => isIndexType(child.mediaType))) return false;
  return offeredPlatforms(index).length > 0;
}

function offeredPlatforms(index: Index): Platform[] {
  return index.manifests.map((child) => child.platform).filter(isPlatform);
}

/**
 * A client that takes no index gets an image, as registries have always done: the caller's own platform, else the
 * primary one (distribution `registry/handlers/manifests.go`).
 */
function forOldClient(index: Index, { set, primary }: ViewRequest): ViewChoice {
  const platforms = set === undefined || set === 'any' ? [primary] : set;
  const preferred = platforms.find((platform) => fit(platform, primary) !== undefined) ?? platforms[0] ?? primary;
  // It cannot weigh twins: the first in the index is what it gets (image-spec, image-index.md "manifests").
  const [child] = bestFits(index, preferred);
  return child ? { view: 'image', child, platform: preferred } : missing(index, [preferred], 'error');
}

function chooseImage(index: Index, platform: Platform, onMissing: 'error' | 'verbatim'): ViewChoice {
  const [child, ...twins] = bestFits(index, platform);
  // Twins (zstd beside gzip, several Windows versions) differ in what only the client can weigh.
  if (child) return twins.length > 0 ? verbatim : { view: 'image', child, platform };
  return isTrulyMissing(index, [platform]) ? missing(index, [platform], onMissing) : verbatim;
}

/** The children that fit a platform best, in the order of the index: one, but for twins. */
export function bestFits(index: Index, platform: Platform): Descriptor[] {
  const ranked = index.manifests
    .filter((child) => isPlatform(child.platform))
    .map((child) => ({ child, step: fit(platform, child.platform!) ?? Infinity }));
  const best = Math.min(...ranked.map(({ step }) => step));
  return best === Infinity ? [] : ranked.filter(({ step }) => step === best).map(({ child }) => child);
}

function chooseIndex(index: Index, set: readonly Platform[], onMissing: 'error' | 'verbatim'): ViewChoice {
  const fitting = new Set<Descriptor>(
    index.manifests.filter((child) => {
      const offered = child.platform;
      return isPlatform(offered) && set.some((platform) => fit(platform, offered) !== undefined);
    }),
  );
  if (fitting.size === 0) {
    return isTrulyMissing(index, set) ? missing(index, set, onMissing) : verbatim;
  }
  const digests = new Set<string>([...fitting].map((child) => child.digest));
  const keep = index.manifests.filter((child) => {
    const subject = attestedDigest(child);
    if (subject !== undefined) return digests.has(subject);
    // Without a platform it fits everywhere (containerd `images.FilterPlatforms`).
    return fitting.has(child) || !isPlatform(child.platform);
  });
  return keep.length === index.manifests.length ? verbatim : { view: 'index', keep };
}

/** Not so where a version or feature alone stands between, or where a child without a platform may be meant. */
function isTrulyMissing(index: Index, set: readonly Platform[]): boolean {
  return !index.manifests.some((child) => {
    if (attestedDigest(child) !== undefined) return false;
    const offered = child.platform;
    return !isPlatform(offered) || set.some((platform) => fitsButForVersion(platform, offered));
  });
}

function missing(index: Index, set: readonly Platform[], onMissing: 'error' | 'verbatim'): ViewChoice {
  if (onMissing === 'verbatim') return verbatim;
  const offered = offeredPlatforms(index);
  const wanted = set.map(formatPlatform).join(', ');
  const shared = set.map(({ os }) => os).find((os) => offered.some((platform) => platform.os === os));
  const what = shared
    ? `supports the operating system ${shared}, but not the architecture of ${wanted}`
    : `does not support the operating system of ${wanted}`;
  const all = [...new Set(offered.map(formatPlatform))].join(', ');
  return { view: 'missing', message: `This image ${what}; there is: ${all}.` };
}
