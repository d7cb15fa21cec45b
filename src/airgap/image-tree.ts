import { NarrowsError } from '../errors.ts';
import { attestedDigest, isPlatform, parseDocument, readConfigPlatform } from '../oci/manifest.ts';
import type { Descriptor, Index, Manifest } from '../oci/manifest.ts';
import { isImageConfigType } from '../oci/media-types.ts';
import { fit, formatPlatform } from '../oci/platform.ts';
import type { Platform, PlatformSet } from '../oci/platform.ts';
import type { Reference, RepositoryName, Tag } from '../oci/reference.ts';
import { bestFits, isImageIndex } from '../pull/choose-view.ts';
import type { HeldManifest } from '../pull/manifests.ts';
import type { Reader } from '../pull/reader.ts';
import type { Source } from '../upstream/registries.ts';
import { followAbout } from './about.ts';
import { createGathering } from './gathering.ts';
import type { Gathered, Gathering } from './gathering.ts';

/** An image as it is asked for. */
export interface Wanted {
  /** The key of its repository, the registry first: `docker.io/library/alpine`. */
  readonly repository: RepositoryName;
  readonly reference: Reference;
  readonly platforms: PlatformSet;
  /** Those of them that somebody asked for; by default all. The others were learnt from what clients pull. */
  readonly asked?: PlatformSet;
  /** Signatures, SBOMs, attestations and whatever else is said about it. */
  readonly withReferrers: boolean;
}

/** A platform of an image, as far as it was asked for. */
export interface Branch {
  readonly platform: string;
  /** `supplied`: by another repository, which is an image of its own then. */
  readonly status: 'offered' | 'not offered' | 'supplied';
  readonly supplier?: { readonly name: RepositoryName; readonly tag: Tag; readonly platform: Platform };
}

/** All that belongs to an image for some platforms. */
export interface ImageTree extends Gathered {
  /** `docker.io/library/alpine:3.20`. */
  readonly image: string;
  readonly wanted: Wanted;
  readonly source: Source;
  readonly root: HeldManifest;
  readonly branches: readonly Branch[];
}

export function imageName({ repository, reference }: Pick<Wanted, 'repository' | 'reference'>): string {
  return `${repository}${reference.kind === 'tag' ? `:${reference.tag}` : `@${reference.digest}`}`;
}

/**
 * Goes through an image: the index, the children that run on the wanted platforms, what they consist of and what is
 * said about them. Documents are read, blobs are not, but for the config of an image that no index places.
 *
 * @param referrersFreshMs how long a list of what is said about a digest is believed
 * @throws NarrowsError why there is no such image, or why its first document cannot be had
 */
export async function readImageTree(
  reader: Reader,
  wanted: Wanted,
  referrersFreshMs: number,
  signal?: AbortSignal,
): Promise<ImageTree> {
  const { reference, withReferrers } = wanted;
  const source = reader.find(wanted.repository);
  const isTag = reference.kind === 'tag';
  const root = isTag ? await reader.tag(source, reference.tag) : await reader.manifest(source, reference.digest);
  if (!root) {
    throw new NarrowsError('manifestUnknown', `${source.upstream.name} has no ${imageName(wanted)}.`);
  }
  const document = parseDocument(root.bytes, root.mediaType);
  const gathering = createGathering(reader, source, referrersFreshMs, signal);
  gathering.addDocument(root);
  gathering.add({
    digest: root.digest,
    bytes: root.bytes.length,
    mediaType: root.mediaType,
    kind: document.kind === 'index' ? 'index' : 'manifest',
    platform: '',
    isAbout: false,
  });
  let branches: Branch[] = [];
  if (document.kind === 'index') branches = await followIndex(reader, gathering, wanted, document);
  if (document.kind === 'manifest') branches = await followImage(reader, gathering, wanted, document);
  if (withReferrers) await followAbout(reader, gathering, root.digest, '');
  const distinct = new Map(branches.map((branch) => [branch.platform, branch]));
  return { image: imageName(wanted), wanted, source, root, branches: [...distinct.values()], ...gathering.gathered() };
}

async function followIndex(reader: Reader, gathering: Gathering, wanted: Wanted, index: Index): Promise<Branch[]> {
  if (!isImageIndex(index)) {
    // Nobody can say what of it runs where: it goes whole.
    await gathering.followDocument(index, '', false);
    return [];
  }
  const branches: Branch[] = [];
  const chosen = new Map<Descriptor, string>();
  for (const platform of platformsOf(reader, gathering.source, wanted, index)) {
    const children = childrenFor(index, platform, wanted.platforms);
    const branch = branchOf(reader, gathering.source, wanted, platform, children.length > 0);
    branches.push(branch);
    if (branch.status === 'offered') for (const child of children) chosen.set(child, branch.platform);
  }
  const about = index.manifests.filter((child) => attestedDigest(child) !== undefined);
  // Without a platform they run everywhere (containerd `images.FilterPlatforms`).
  const open = index.manifests.filter((child) => !isPlatform(child.platform) && !about.includes(child));
  for (const child of open) chosen.set(child, '');
  await Promise.all(
    [...chosen].map(async ([child, platform]) => {
      await gathering.follow(child, platform, false);
      if (!wanted.withReferrers) return;
      const attestations = about.filter((one) => attestedDigest(one) === child.digest);
      await Promise.all(attestations.map((one) => gathering.follow(one, platform, true)));
      await followAbout(reader, gathering, child.digest, platform);
    }),
  );
  return branches;
}

function platformsOf(reader: Reader, source: Source, { platforms }: Wanted, index: Index): readonly Platform[] {
  if (platforms !== 'any') return platforms;
  const offered = index.manifests.map(({ platform }) => platform).filter(isPlatform);
  const all = [...offered, ...reader.overlaysOf(source).map(({ platform }) => platform)];
  return [...new Map(all.map((platform) => [formatPlatform(platform), platform])).values()];
}

/** What a client of the platform would be given, or would choose from; of everything, each platform is itself alone. */
function childrenFor(index: Index, platform: Platform, platforms: PlatformSet): Descriptor[] {
  if (platforms !== 'any') return bestFits(index, platform);
  const name = formatPlatform(platform);
  return index.manifests.filter((child) => isPlatform(child.platform) && formatPlatform(child.platform) === name);
}

function branchOf(
  reader: Reader,
  source: Source,
  { reference }: Wanted,
  platform: Platform,
  isOffered: boolean,
): Branch {
  const name = formatPlatform(platform);
  const overlay = reader
    .overlaysOf(source)
    .find((one) => fit(platform, one.platform) !== undefined && (one.override || !isOffered));
  if (overlay && reference.kind === 'tag') {
    return {
      platform: name,
      status: 'supplied',
      supplier: { name: overlay.from, tag: overlay.tag ?? reference.tag, platform },
    };
  }
  return { platform: name, status: isOffered ? 'offered' : 'not offered' };
}

/** An image that no index places says in its config what it runs on. */
async function followImage(
  reader: Reader,
  gathering: Gathering,
  wanted: Wanted,
  manifest: Manifest,
): Promise<Branch[]> {
  const { platforms } = wanted;
  const own = await platformOf(reader, gathering, manifest);
  if (platforms === 'any' || !own) {
    gathering.addContent(manifest, own ? formatPlatform(own) : '', false);
    return own ? [{ platform: formatPlatform(own), status: 'offered' }] : [];
  }
  const branches = platforms.map((one) => branchOf(reader, gathering.source, wanted, one, fit(one, own) !== undefined));
  const offered = branches.find(({ status }) => status === 'offered');
  if (offered) gathering.addContent(manifest, offered.platform, false);
  return branches;
}

async function platformOf(reader: Reader, gathering: Gathering, { config }: Manifest): Promise<Platform | undefined> {
  if (!isImageConfigType(config.mediaType)) return undefined;
  const bytes = await reader.small(gathering.source, config.digest).catch((error: unknown) => {
    gathering.note(error, '', config.digest);
    return undefined;
  });
  return bytes && readConfigPlatform(bytes);
}
