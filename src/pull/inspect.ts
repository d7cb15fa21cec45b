import { contentKey } from '../cache/records.ts';
import type { Records } from '../cache/records.ts';
import type { Store } from '../cache/tier.ts';
import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { isPlatform, parseDocument, readConfigPlatform } from '../oci/manifest.ts';
import type { Descriptor, Index, Manifest } from '../oci/manifest.ts';
import { fit, formatPlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import type { Reference } from '../oci/reference.ts';
import type { Source } from '../upstream/registries.ts';
import type { HeldManifest, Manifests } from './manifests.ts';
import type { PullRules } from './parts.ts';
import type { Tags } from './tags.ts';

/** How much of an image is held here, platform by platform. */
export interface Inspection {
  readonly image: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly platforms: readonly PlatformInspection[];
}

export interface PlatformInspection {
  readonly platform: string;
  /** Absent for a platform that was asked for and that the image does not have. */
  readonly digest?: Digest;
  /** `absent`: not even the manifest is here, so that what it consists of is not known. */
  readonly status: 'present' | 'partial' | 'absent' | 'not offered';
  /** Of everything that is known of it, and what of that is held. */
  readonly bytes: number;
  readonly heldBytes: number;
  readonly missing: readonly Missing[];
}

export interface Missing {
  readonly digest: Digest;
  readonly bytes: number;
  readonly kind: 'manifest' | 'config' | 'layer';
}

export interface Inspector {
  /**
   * What a tag or digest offers, as its upstream says, and what of that is here. Nothing but the document itself is
   * fetched.
   *
   * @param wanted also say of these whether they are offered; `any` for what there is
   * @throws NarrowsError manifestUnknown, or the upstream's trouble where nothing is known here
   */
  inspect(source: Source, reference: Reference, wanted: PlatformSet): Promise<Inspection>;
}

type Parts = {
  readonly store: Pick<Store, 'locate' | 'read'>;
  readonly records: Pick<Records, 'manifests'>;
  readonly rules: Pick<PullRules, 'maxManifestBytes'>;
};

export function createInspector({ store, records, rules }: Parts, tags: Tags, manifests: Manifests): Inspector {
  async function resolve(source: Source, reference: Reference): Promise<HeldManifest> {
    if (reference.kind === 'tag') return tags.resolve(source, reference.tag);
    const held = await manifests.byDigest(source, reference.digest);
    if (held) return held;
    throw new NarrowsError('manifestUnknown', `${source.key} has no manifest ${reference.digest}.`);
  }

  async function ofManifest(
    platform: string,
    self: Missing,
    manifest: Manifest | undefined,
  ): Promise<PlatformInspection> {
    const parts = [self, ...(manifest ? partsOf(manifest) : [])];
    const isHeld = await Promise.all(parts.map(async ({ digest }) => (await store.locate(digest)) !== undefined));
    const missing = parts.filter((_, at) => !isHeld[at]);
    const bytes = sum(parts);
    const status = manifest === undefined ? 'absent' : missing.length > 0 ? 'partial' : 'present';
    return { platform, digest: self.digest, status, bytes, heldBytes: bytes - sum(missing), missing };
  }

  async function ofChild(source: Source, child: Descriptor): Promise<PlatformInspection> {
    const self: Missing = { digest: child.digest, bytes: child.size, kind: 'manifest' };
    // An index may list what only another repository may show.
    const isKnown = source.isHosted
      ? await source.upstream.head(source.repository, { kind: 'digest', digest: child.digest })
      : await records.manifests.get(contentKey(source, child.digest));
    const held = isKnown && (await store.read(child.digest, rules.maxManifestBytes));
    return ofManifest(formatPlatform(child.platform!), self, held && readManifest(held.bytes, child.mediaType));
  }

  async function ofIndex(source: Source, index: Index, wanted: PlatformSet): Promise<PlatformInspection[]> {
    const children = index.manifests.filter(({ platform }) => isPlatform(platform));
    if (wanted === 'any') return Promise.all(children.map((child) => ofChild(source, child)));
    const found: PlatformInspection[] = [];
    for (const platform of wanted) {
      const fitting = children.filter((child) => fit(platform, child.platform!) !== undefined);
      if (fitting.length === 0) found.push(notOffered(formatPlatform(platform)));
      for (const child of fitting) found.push(await ofChild(source, child));
    }
    return [...new Map(found.map((one) => [`${one.platform} ${one.digest}`, one])).values()];
  }

  return {
    async inspect(source, reference, wanted) {
      const held = await resolve(source, reference);
      const document = parseDocument(held.bytes, held.mediaType);
      const separator = reference.kind === 'tag' ? ':' : '@';
      const image = `${source.key}${separator}${reference.kind === 'tag' ? reference.tag : reference.digest}`;
      const about = { image, digest: held.digest, mediaType: held.mediaType };
      if (document.kind === 'index') return { ...about, platforms: await ofIndex(source, document, wanted) };
      if (document.kind === 'opaque') return { ...about, platforms: [] };
      const config = await store.read(document.config.digest, rules.maxManifestBytes);
      const platform = config && readConfigPlatform(config.bytes);
      const self: Missing = { digest: held.digest, bytes: held.bytes.length, kind: 'manifest' };
      // What it is for is not known before its config is here.
      const lacking = platform && wanted !== 'any' ? wanted.filter((one) => fit(one, platform) === undefined) : [];
      const isAsked = wanted === 'any' || lacking.length < wanted.length;
      const own = isAsked ? [await ofManifest(platform ? formatPlatform(platform) : 'unknown', self, document)] : [];
      return { ...about, platforms: [...own, ...lacking.map((one) => notOffered(formatPlatform(one)))] };
    },
  };
}

function readManifest(bytes: Buffer, mediaType: string): Manifest | undefined {
  const document = parseDocument(bytes, mediaType);
  return document.kind === 'manifest' ? document : undefined;
}

/** Each digest once: a layer may be there twice. */
function partsOf({ config, layers }: Manifest): Missing[] {
  const all: Missing[] = [
    { digest: config.digest, bytes: config.size, kind: 'config' },
    ...layers.map(({ digest, size }): Missing => ({ digest, bytes: size, kind: 'layer' })),
  ];
  return [...new Map(all.map((part) => [part.digest, part])).values()];
}

function notOffered(platform: string): PlatformInspection {
  return { platform, status: 'not offered', bytes: 0, heldBytes: 0, missing: [] };
}

function sum(parts: readonly Missing[]): number {
  return parts.reduce((total, { bytes }) => total + bytes, 0);
}
