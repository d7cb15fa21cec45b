import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import { attestedDigest, isPlatform } from '../oci/manifest.ts';
import type { Descriptor, Index } from '../oci/manifest.ts';
import { mediaTypes } from '../oci/media-types.ts';
import { formatPlatform } from '../oci/platform.ts';
import type { Platform } from '../oci/platform.ts';

/** What a tag has for one platform: its image, and what is said about it. */
export interface Entry {
  /** The platform's name; `other` for what is of none. */
  readonly name: string;
  readonly platform?: Platform;
  readonly children: readonly Descriptor[];
}

export const other = 'other';

/**
 * Two images with one name are the same entry. Of a Windows version the build counts: an image for a newer patch of
 * it takes the place of the one before.
 */
export function entryName(platform: Platform): string {
  const build = buildOf(platform);
  return formatPlatform({ ...platform, ...(build !== undefined && { osVersion: build }) });
}

/** Of `10.0.20348.2402`, what says which kernel it is. */
export function buildOf({ osVersion }: Platform): string | undefined {
  return osVersion?.split('.').slice(0, 3).join('.');
}

/** An index by platforms. What is said about an image goes with the image. */
export function entriesOf(index: Pick<Index, 'manifests'>): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  for (const child of index.manifests) {
    const platform = platformOf(index.manifests, child);
    const name = platform ? entryName(platform) : other;
    const children = [...(entries.get(name)?.children ?? []), child];
    entries.set(name, { name, ...(platform && { platform }), children });
  }
  return entries;
}

function platformOf(children: readonly Descriptor[], child: Descriptor): Platform | undefined {
  const about = attestedDigest(child);
  const subject = about === undefined ? child : children.find(({ digest }) => digest === about);
  return isPlatform(subject?.platform) ? subject.platform : undefined;
}

/** Those that are not the same before and after. */
export function changedEntries(before: ReadonlyMap<string, Entry>, after: ReadonlyMap<string, Entry>): Entry[] {
  const all = new Map([...before, ...after]);
  return [...all.values()].filter(({ name }) => textOf(before.get(name)) !== textOf(after.get(name)));
}

function textOf(entry: Entry | undefined): string {
  return JSON.stringify(entry?.children.map(({ source }) => source) ?? []);
}

/** Do two indexes say the same beside their entries, which they have in the same order? A new one says nothing. */
export function hasSameFrame(before: Index | undefined, after: Index): boolean {
  if (frameOf(after) !== (before ? frameOf(before) : '{}')) return false;
  if (!before) return after.manifests.length > 0;
  return orderOf(before, after) === orderOf(after, before);
}

function frameOf({ source }: Index): string {
  const { schemaVersion: _version, mediaType: _type, manifests: _manifests, ...rest } = source;
  return JSON.stringify(rest);
}

/** The order of those that both have. */
function orderOf({ manifests }: Index, another: Index): string {
  const common = new Set(another.manifests.map(({ digest }) => digest));
  const order = manifests.map(({ digest }) => digest).filter((digest) => common.has(digest));
  return order.join();
}

export interface MadeIndex {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly mediaType: string;
}

/** The index with these entries in the place of those of the same names; the others stay as they are, where they are. */
export function mergeEntries(base: Index | undefined, entries: ReadonlyMap<string, Entry>): MadeIndex {
  const manifests: JsonObject[] = [];
  const placed = new Set<string>();
  const place = (entry: Entry) => {
    if (!placed.has(entry.name)) manifests.push(...entry.children.map(({ source }) => source));
    placed.add(entry.name);
  };
  for (const child of base?.manifests ?? []) {
    const platform = platformOf(base!.manifests, child);
    const replacement = entries.get(platform ? entryName(platform) : other);
    if (replacement) place(replacement);
    else manifests.push(child.source);
  }
  for (const entry of entries.values()) place(entry);
  const mediaType = base?.mediaType ?? mediaTypes.ociIndex;
  const source = base?.source ?? { schemaVersion: 2, mediaType, manifests: [] };
  const bytes = Buffer.from(JSON.stringify({ ...source, manifests }));
  return { bytes, digest: digestOf(bytes), mediaType };
}
