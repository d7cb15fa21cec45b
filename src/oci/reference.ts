import { NarrowsError } from '../errors.ts';
import { isDigest, parseDigest } from './digest.ts';
import type { Digest } from './digest.ts';

/** A repository name of the distribution API, such as `library/nginx`. */
export type RepositoryName = string & { readonly __brand: 'RepositoryName' };

/** A tag, at most 128 characters. */
export type Tag = string & { readonly __brand: 'Tag' };

export type Reference = { kind: 'tag'; tag: Tag } | { kind: 'digest'; digest: Digest };

// Both grammars are those of the distribution specification ("Pulling manifests"). Components are matched one by one:
// the combined expression backtracks on long names.
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagGrammar = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const maxNameLength = 255;

export function isRepositoryName(text: string): text is RepositoryName {
  return text.length <= maxNameLength && text.split('/').every((part) => component.test(part));
}

/** @throws NarrowsError nameInvalid */
export function parseRepositoryName(text: string): RepositoryName {
  if (isRepositoryName(text)) return text;
  throw new NarrowsError(
    'nameInvalid',
    `${JSON.stringify(text.slice(0, 160))} is not a repository name: lower-case letters and digits, separated by / . _ or -, at most ${maxNameLength} characters.`,
  );
}

/**
 * Reads what stands after `/manifests/`. A text that can be no tag is unknown rather than invalid: that is what
 * registries answer, and what the conformance suite of the specification asks for.
 *
 * @throws NarrowsError digestInvalid, manifestUnknown
 */
export function parseReference(text: string): Reference {
  if (text.includes(':')) return { kind: 'digest', digest: parseDigest(text) };
  return { kind: 'tag', tag: parseTag(text) };
}

export function isTag(text: string): text is Tag {
  return tagGrammar.test(text);
}

/** @throws NarrowsError manifestUnknown */
export function parseTag(text: string): Tag {
  if (isTag(text)) return text;
  throw new NarrowsError(
    'manifestUnknown',
    `${JSON.stringify(text.slice(0, 160))} can be no tag: letters, digits and _ . -, at most 128 characters.`,
  );
}

export function referenceText(reference: Reference): string {
  return reference.kind === 'tag' ? reference.tag : reference.digest;
}

/** A tag that stands for another digest by its name: what cosign and the referrers fallback tag use. */
export interface CompanionTag {
  /** Absent where the tag holds a part of the digest only, as for sha512. */
  readonly subject?: Digest;
  /** What follows the digest, such as `.sig`; empty for the referrers tag. */
  readonly suffix: string;
}

/** `sha256-<hex>`, `sha256-<hex>.sig`, … (distribution-spec "Referrers Tag Schema", cosign's tag scheme). */
export function parseCompanionTag(tag: Tag): CompanionTag | undefined {
  const match = /^(sha256|sha512)-([0-9a-f]{64}|(?<=^sha512-)[0-9a-f]{128})((?:\.[a-z0-9._-]+)?)$/.exec(tag);
  if (!match) return undefined;
  const subject = `${match[1]}:${match[2]}`;
  return { ...(isDigest(subject) && { subject }), suffix: match[3] ?? '' };
}

/** Of a digest, the schema takes the first 64 digits. */
export function companionTag(subject: Digest, suffix: string): Tag {
  const [algorithm = '', hex = ''] = subject.split(':');
  return `${algorithm}-${hex.slice(0, 64)}${suffix}` as Tag;
}

/** An image as people write it, read into its parts: `nginx`, `ghcr.io/org/app:1`, `quay.io/org/app@sha256:…`. */
export interface ImageName {
  /** The registry first, where one is written. */
  readonly name: RepositoryName;
  readonly reference: Reference;
}

/** @throws NarrowsError nameInvalid, digestInvalid, manifestUnknown */
export function parseImageName(text: string): ImageName {
  const at = text.indexOf('@');
  const [named, digest] = at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const name = parseRepositoryName(colon < 0 ? named : named.slice(0, colon));
  // With both, the digest decides, as it does for container engines.
  if (digest !== undefined) return { name, reference: { kind: 'digest', digest: parseDigest(digest) } };
  return { name, reference: parseReference(colon < 0 ? 'latest' : named.slice(colon + 1)) };
}
