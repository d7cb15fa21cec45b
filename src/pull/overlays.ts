import { isKind, isNotHeld, isUpstreamTrouble } from '../errors.ts';
import { attestedDigest, isPlatform, readConfigPlatform, readDescriptor } from '../oci/manifest.ts';
import type { Descriptor, Document, Index, Manifest } from '../oci/manifest.ts';
import { isImageConfigType } from '../oci/media-types.ts';
import { fit, platformJson } from '../oci/platform.ts';
import type { Platform, PlatformSet } from '../oci/platform.ts';
import type { Tag } from '../oci/reference.ts';
import type { Source } from '../upstream/registries.ts';
import type { Blobs } from './blobs.ts';
import { isImageIndex } from './choose-view.ts';
import type { Homes } from './homes.ts';
import type { HeldManifest } from './manifests.ts';
import type { Overlay, PullParts } from './parts.ts';
import { baseOf } from './recipe.ts';
import type { Tags } from './tags.ts';

/** An index with what others supply to it. */
export interface Overlaid {
  readonly index: Index;
  /** What the publisher lists. */
  readonly original: readonly Descriptor[];
  /** Those of its children that came from elsewhere. */
  readonly added: ReadonlySet<Descriptor>;
}

export interface Overlays {
  /**
   * What a tag offers with what other repositories supply; undefined where they supply nothing, or nothing that this
   * caller needs: who runs what the publisher ships waits for nobody else.
   *
   * @param document what is in the original
   * @throws NarrowsError the trouble of a supplier whose platform the caller runs
   */
  over(
    source: Source,
    tag: Tag,
    original: HeldManifest,
    document: Document,
    wanted: PlatformSet | undefined,
  ): Promise<Overlaid | undefined>;
}

type Parts = Pick<PullParts, 'reading' | 'rules' | 'observer'>;

export function createOverlays({ reading, rules, observer }: Parts, homes: Homes, tags: Tags, blobs: Blobs): Overlays {
  /** A single image as an index would list it. */
  async function asChild(source: Source, held: HeldManifest, manifest: Manifest): Promise<Descriptor | undefined> {
    if (!isImageConfigType(manifest.config.mediaType)) return undefined;
    const config = await blobs.readSmall(source, manifest.config.digest, rules.maxManifestBytes);
    const platform = config && readConfigPlatform(config);
    if (!platform || !isPlatform(platform)) return undefined;
    const { mediaType, digest, bytes } = held;
    return readDescriptor({ mediaType, digest, size: bytes.length, platform: platformJson(platform) });
  }

  async function childrenOf(source: Source, held: HeldManifest, document: Document): Promise<readonly Descriptor[]> {
    if (document.kind === 'index') return isImageIndex(document) ? document.manifests : [];
    const child = document.kind === 'manifest' ? await asChild(source, held, document) : undefined;
    return child ? [child] : [];
  }

  async function supplied(source: Source, tag: Tag, overlay: Overlay): Promise<Descriptor[]> {
    const home = homes.sourceOf(overlay);
    const from = overlay.tag ?? tag;
    const held = await tags.resolve(home, from);
    const children = await childrenOf(home, held, reading.read(held));
    const best = children.toSorted((one, other) => stepOf(overlay, one) - stepOf(overlay, other))[0];
    if (!best || stepOf(overlay, best) === Infinity) return [];
    const taken = children.filter((child) => child === best || attestedDigest(child) === best.digest);
    const isWritten = await homes.bring(
      source,
      home,
      taken.map(({ digest }) => digest),
    );
    return isWritten ? taken.map((child) => withOrigin(child, `${home.key}:${from}`)) : [];
  }

  /** Undefined where it supplies nothing now. */
  async function suppliedOrNot(source: Source, tag: Tag, overlay: Overlay, isWanted: boolean): Promise<Descriptor[]> {
    try {
      return await supplied(source, tag, overlay);
    } catch (error) {
      if (isKind(error, 'manifestUnknown', 'nameUnknown')) return [];
      // Of a supplier that nobody asked for, not having it here is none either.
      if (!isWanted && isNotHeld(error)) return [];
      // Whoever waits for this platform must not be told that there is none.
      if (isWanted || !isUpstreamTrouble(error)) throw error;
      observer.trouble(`supplying a platform to ${source.key}:${tag}`, error);
      return [];
    }
  }

  return {
    async over(source, tag, original, document, wanted) {
      const overlays = rules.overlaysOf(source.key);
      if (overlays.length === 0) return undefined;
      const base = baseOf(document);
      const own = base ? await childrenOf(source, original, document) : [];
      if (!base || own.length === 0) return undefined;
      const due = overlays.filter((overlay) => overlay.override || !offers(own, overlay.platform));
      if (due.length === 0 || !needs(wanted, own, due)) return undefined;
      const isWanted = ({ platform }: Overlay) => isIn(wanted, platform);
      const found = await Promise.all(due.map((overlay) => suppliedOrNot(source, tag, overlay, isWanted(overlay))));
      const replaced = due.filter((overlay, at) => overlay.override && found[at]!.length > 0);
      const kept = own.filter((child) => !isReplaced(child, own, replaced));
      // A single image is added to an index that has nothing yet.
      const added = new Set([...(document.kind === 'index' ? [] : kept), ...found.flat()]);
      if (found.flat().length === 0) return undefined;
      const manifests = [...(document.kind === 'index' ? kept : []), ...added];
      return { index: { ...base, manifests }, original: document.kind === 'index' ? own : [], added };
    },
  };
}

function stepOf({ platform }: Overlay, child: Descriptor): number {
  return isPlatform(child.platform) ? (fit(platform, child.platform) ?? Infinity) : Infinity;
}

function offers(children: readonly Descriptor[], platform: Platform): boolean {
  return children.some((child) => isPlatform(child.platform) && fit(platform, child.platform) === 0);
}

function isIn(wanted: PlatformSet | undefined, platform: Platform): boolean {
  return Array.isArray(wanted) && wanted.some((one: Platform) => fit(one, platform) !== undefined);
}

/** Not so where the publisher has all that is wanted, and nobody is to go before it. */
function needs(wanted: PlatformSet | undefined, own: readonly Descriptor[], due: readonly Overlay[]): boolean {
  if (wanted === undefined || wanted === 'any') return true;
  return !wanted.every(
    (platform) => offers(own, platform) && !due.some((overlay) => fit(platform, overlay.platform) !== undefined),
  );
}

function isReplaced(child: Descriptor, own: readonly Descriptor[], replaced: readonly Overlay[]): boolean {
  const about = attestedDigest(child);
  const subject = about === undefined ? child : own.find(({ digest }) => digest === about);
  return replaced.some(({ platform }) => isPlatform(subject?.platform) && fit(platform, subject.platform) === 0);
}

function withOrigin({ source, annotations }: Descriptor, origin: string): Descriptor {
  return readDescriptor({ ...source, annotations: { ...annotations, 'narrows.origin': origin } })!;
}
