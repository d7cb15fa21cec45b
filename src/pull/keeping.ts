import type { Catalog, Link, Served } from '../cache/catalog.ts';
import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { attestedDigest, isPlatform } from '../oci/manifest.ts';
import type { Document, Index } from '../oci/manifest.ts';
import { fit, formatPlatform, formatPlatformSet, parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';

/** How content hangs together, kept as it is learnt. */
export type Graph = Pick<Catalog, 'learn' | 'learnPlatform' | 'served' | 'markHosted' | 'isHosted'>;

export interface KeepRules {
  /** What may be kept. */
  readonly platforms: PlatformSet;
  readonly onOther: 'stream' | 'deny';
}

export interface Keeping {
  /** Does it matter which platform content is for? */
  readonly isChoosy: boolean;
  /** Remembers what a document lists. */
  learn(digest: Digest, document: Document): void;
  learnPlatform(image: Digest, platform: string): void;
  /** Is it known what this is for? Of an image that no index lists, only its config tells. */
  isUnplaced(image: Digest): boolean;
  /** @throws NarrowsError denied where the rules say so */
  mayKeep(digest: Digest): boolean;
  /** The same for what is here already. @throws NarrowsError denied */
  check(digest: Digest): void;
}

/** Decides what may be kept, by what is known of it: content that nobody can place is kept. */
export function createKeeping(graph: Graph, rules: KeepRules): Keeping {
  function mayKeep(digest: Digest): boolean {
    if (rules.platforms === 'any') return true;
    const served = graph.served(digest);
    if (isWanted(served, rules.platforms)) return true;
    if (rules.onOther === 'stream') return false;
    throw new NarrowsError(
      'denied',
      `This mirror serves ${formatPlatformSet(rules.platforms)} alone; ${digest} is for ${served.platforms.join(', ')}.`,
    );
  }

  return {
    isChoosy: rules.platforms !== 'any',
    learn: (digest, document) => graph.learn(digest, linksOf(document)),
    learnPlatform: (image, platform) => graph.learnPlatform(image, platform),
    isUnplaced: (image) => graph.served(image).platforms.length === 0,
    mayKeep,
    check(digest) {
      if (rules.onOther === 'deny') mayKeep(digest);
    },
  };
}

export function isWanted({ platforms, isOpen }: Served, wanted: PlatformSet): boolean {
  if (wanted === 'any' || isOpen || platforms.length === 0) return true;
  return platforms.some((text) => {
    const offered = parsePlatform(text);
    return offered === undefined || wanted.some((platform) => fit(platform, offered) !== undefined);
  });
}

export function linksOf(document: Document): Link[] {
  if (document.kind === 'opaque') return [];
  if (document.kind === 'manifest') {
    return [document.config, ...document.layers].map(({ digest }) => ({ child: digest }));
  }
  return document.manifests.map((child) => ({ child: child.digest, platform: platformOf(document, child.digest) }));
}

/** What is said about an image goes with the image. */
function platformOf(index: Index, digest: Digest): string {
  const child = index.manifests.find((one) => one.digest === digest)!;
  const about = attestedDigest(child);
  const subject = about === undefined ? child : (index.manifests.find((one) => one.digest === about) ?? child);
  return isPlatform(subject.platform) ? formatPlatform(subject.platform) : 'unknown';
}
