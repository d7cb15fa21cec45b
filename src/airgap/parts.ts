import { formatPlatform } from '../oci/platform.ts';
import type { Platform, PlatformSet } from '../oci/platform.ts';
import { parseRepositoryName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import type { Part } from './gathering.ts';
import type { ImageTree, Wanted } from './image-tree.ts';

/** A digest may belong to several platforms, and is moved once. */
export function eachOnce(parts: readonly Part[]): Part[] {
  return [...new Map(parts.map((part) => [part.digest, part])).values()];
}

export function sum(parts: readonly { readonly bytes: number }[]): number {
  return parts.reduce((total, { bytes }) => total + bytes, 0);
}

/** What can stand in a list, on a command line and before a blank. */
export function isSetName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text);
}

/** A sentence as part of another one. */
export function clause(error: unknown): string {
  return (error as Error).message.replace(/\.$/, '');
}

export function platformNames(platforms: PlatformSet): string[] {
  return platforms === 'any' ? ['any'] : platforms.map(formatPlatform);
}

/** Platforms that other repositories supply to an image are images of those. */
export function suppliersOf(reader: Pick<Reader, 'find'>, { branches, wanted }: ImageTree): Wanted[] {
  return branches.flatMap(({ supplier }) => {
    if (!supplier) return [];
    const platforms: readonly Platform[] = [supplier.platform];
    return [
      {
        ...wanted,
        repository: parseRepositoryName(reader.find(supplier.name).key),
        reference: { kind: 'tag', tag: supplier.tag },
        platforms,
      },
    ];
  });
}
