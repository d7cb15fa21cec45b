import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Something in a folder that is no folder. */
export interface Below {
  readonly path: string;
  /** A link, a pipe and the like are none. */
  readonly isFile: boolean;
}

/**
 * All that lies in a folder and the folders below it, in the order of the paths. Links are not followed: node's own
 * recursion does, and does not end where two of them lead back.
 */
export async function filesBelow(folder: string): Promise<Below[]> {
  const found: Below[] = [];
  const folders = [folder];
  for (let next; (next = folders.pop()) !== undefined;) {
    for (const entry of await readdir(next, { withFileTypes: true })) {
      const path = join(next, entry.name);
      if (entry.isDirectory()) folders.push(path);
      else found.push({ path, isFile: entry.isFile() });
    }
  }
  return found.toSorted((one, other) => (one.path < other.path ? -1 : 1));
}
