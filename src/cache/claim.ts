import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/** A folder of unfinished files that belongs to one living process. */
export interface Claim {
  readonly folder: string;
  release(): Promise<void>;
}

/**
 * Claims a new folder under `root` and sweeps away those whose process is gone.
 *
 * Several processes share a store, in containers with the same process ids and on clocks that differ, so neither a
 * pid nor an age says who is alive. A lock that the kernel drops with its process does; SQLite is how Node takes one.
 *
 * @param salvage is given each file of a process that is gone, before the folder goes
 */
export async function claimFolder(
  root: string,
  salvage: (path: string) => Promise<void> = () => Promise.resolve(),
): Promise<Claim> {
  await mkdir(root, { recursive: true });
  await sweep(root, salvage);
  for (let tries = 0; tries < maxTries; tries++) {
    const folder = join(root, randomUUID());
    const lock = tryLock(lockOf(folder));
    // A sweep beside us may have seen the file before it was locked, and removed it: then it locks nothing.
    if (!lock || !(await exists(lockOf(folder)))) continue;
    await mkdir(folder);
    return {
      folder,
      async release() {
        await rm(folder, { recursive: true, force: true });
        await rm(lockOf(folder), { force: true });
        lock.close();
      },
    };
  }
  throw new Error(`${root} is swept by others faster than a folder in it can be claimed`);
}

const maxTries = 100;

function lockOf(folder: string): string {
  return `${folder}.lock`;
}

async function sweep(root: string, salvage: (path: string) => Promise<void>): Promise<void> {
  const names = new Set(await readdir(root));
  for (const name of names) {
    const folder = join(root, name.replace(/\.lock$/, ''));
    // A lock is older than its folder, but the list may have been read between the two.
    const lock = (await exists(lockOf(folder))) ? tryToSweep(lockOf(folder)) : undefined;
    if (!lock && (await exists(lockOf(folder)))) continue;
    for (const file of await readdir(folder).catch(() => [])) await salvage(join(folder, file));
    await rm(folder, { recursive: true, force: true });
    await rm(lockOf(folder), { force: true });
    lock?.close();
  }
}

/** What cannot be locked is let be: a sweep is a kindness, no duty. */
function tryToSweep(path: string): DatabaseSync | undefined {
  try {
    return tryLock(path);
  } catch {
    return undefined;
  }
}

/** A file that one process at a time can hold; closed, or its process gone, it is free. Undefined where another holds it. @throws for what no waiting mends: a folder that cannot be written to */
export function tryLock(path: string): DatabaseSync | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    // Nothing is written, so nothing needs a journal, which would be a file that no sweep knows.
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return database;
  } catch (error) {
    database?.close();
    if (/database is locked/.test((error as Error).message)) return undefined;
    throw error;
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
