import type { DatabaseSync } from 'node:sqlite';
import type { Digest } from '../oci/digest.ts';

/** An image of a set: what was asked for, and what it last meant. */
export interface SetEntry {
  /** As its repository's key, with tag or digest: `docker.io/library/alpine:3.20`. */
  readonly image: string;
  readonly digest: Digest;
  /** As `linux/arm64`; `any` alone for everything. */
  readonly platforms: readonly string[];
  /** Signatures, SBOMs and attestations belong to it. */
  readonly referrers: boolean;
  /** All of it was here when it was last looked at. */
  readonly isComplete: boolean;
  readonly warmedAtMs: number;
}

export interface SetSummary {
  readonly name: string;
  readonly images: number;
  readonly incomplete: number;
  /** What is here of it, each digest once. */
  readonly bytes: number;
  readonly warmedAtMs: number;
}

/**
 * Named sets of images that stay on this disk until they are dropped. Each image of a set has pins of its own, so that
 * it can be replaced alone. Every method throws what is wrong with the database.
 */
export interface Sets {
  all(): SetSummary[];
  entries(set: string): SetEntry[];
  /** Who holds images of a repository. */
  holding(repositoryKey: string): (SetEntry & { readonly set: string })[];
  /**
   * What is on its way to a set must not go meanwhile; it stays beside what the image has already. An image that is not
   * in the set yet is from now on: what is pinned can be seen, and dropped.
   */
  reserve(set: string, entry: SetEntry, digests: readonly Digest[]): void;
  /**
   * The image is this now: its pins are these, all at once.
   *
   * @param keepsOthers those that it had before stay as well: what it is now is not all here
   */
  put(set: string, entry: SetEntry, digests: readonly Digest[], options?: { readonly keepsOthers: boolean }): void;
  /** @returns was it in there? */
  remove(set: string, image: string): boolean;
  /** @returns was there such a set? */
  drop(set: string): boolean;
}

export const setsSchema = `
  CREATE TABLE IF NOT EXISTS sets (
    name TEXT, image TEXT, digest TEXT NOT NULL, platforms TEXT NOT NULL, referrers INTEGER NOT NULL,
    complete INTEGER NOT NULL, warmed INTEGER NOT NULL, PRIMARY KEY (name, image)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS sets_by_image ON sets (image);
`;

/** @param transaction runs all of it or nothing */
export function createSets(database: DatabaseSync, transaction: (action: () => void) => void): Sets {
  const sql = (text: string) => database.prepare(text);
  const summary = sql(`
    SELECT name, COUNT(*) AS images, SUM(1 - complete) AS incomplete, MAX(warmed) AS warmed,
      (SELECT SUM(bytes) FROM content WHERE digest IN (
        SELECT digest FROM pins WHERE pins.name > 'set:' || sets.name || ' ' AND pins.name < 'set:' || sets.name || '!'
      )) AS bytes
    FROM sets GROUP BY name ORDER BY name
  `);
  const entries = sql('SELECT * FROM sets WHERE name = ? ORDER BY image');
  const holding = sql('SELECT * FROM sets WHERE image > ?1 AND image < ?2 ORDER BY name, image');
  const put = sql('INSERT OR REPLACE INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)');
  const begin = sql('INSERT OR IGNORE INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)');
  const remove = sql('DELETE FROM sets WHERE name = ?1 AND (?2 IS NULL OR image = ?2)');
  const pin = sql('INSERT OR REPLACE INTO pins VALUES (?, ?, 0)');
  const unpin = sql('DELETE FROM pins WHERE name = ?');
  // ' ' is before '!' in the order of text: the range holds the pins of every image of the set, and of no other set.
  const unpinAll = sql("DELETE FROM pins WHERE name > 'set:' || ?1 || ' ' AND name < 'set:' || ?1 || '!'");
  const hasPins = sql("SELECT 1 FROM pins WHERE name > 'set:' || ?1 || ' ' AND name < 'set:' || ?1 || '!' LIMIT 1");

  return {
    all: () =>
      summary.all().map(({ name, images, incomplete, bytes, warmed }) => ({
        name: String(name),
        images: Number(images),
        incomplete: Number(incomplete),
        bytes: Number(bytes ?? 0),
        warmedAtMs: Number(warmed),
      })),
    entries: (set) => entries.all(set).map(entryOf),
    holding(key) {
      // ':' and '@' follow a repository's key where an image begins; '/' would be another repository below it.
      const ranges = [
        [`${key}:`, `${key};`],
        [`${key}@`, `${key}A`],
      ] as const;
      return ranges.flatMap(([from, to]) =>
        holding.all(from, to).map((row) => ({ ...entryOf(row), set: String(row['name']) })),
      );
    },
    reserve(set, entry, digests) {
      transaction(() => {
        for (const digest of digests) pin.run(pinName(set, entry.image), digest);
        begin.run(...rowOf(set, entry));
      });
    },
    put(set, entry, digests, { keepsOthers } = { keepsOthers: false }) {
      const { image } = entry;
      transaction(() => {
        if (!keepsOthers) unpin.run(pinName(set, image));
        for (const one of digests) pin.run(pinName(set, image), one);
        put.run(...rowOf(set, entry));
      });
    },
    remove(set, image) {
      let isThere = false;
      transaction(() => {
        isThere = remove.run(set, image).changes > 0;
        unpin.run(pinName(set, image));
      });
      return isThere;
    },
    drop(set) {
      let isThere = false;
      transaction(() => {
        const hadPins = hasPins.get(set) !== undefined;
        isThere = remove.run(set, null).changes > 0 || hadPins;
        unpinAll.run(set);
      });
      return isThere;
    },
  };
}

function pinName(set: string, image: string): string {
  return `set:${set} ${image}`;
}

function rowOf(set: string, entry: SetEntry): [string, string, string, string, number, number, number] {
  const { image, digest, platforms, referrers, isComplete, warmedAtMs } = entry;
  return [set, image, digest, platforms.join(','), Number(referrers), Number(isComplete), warmedAtMs];
}

function entryOf(row: Record<string, unknown>): SetEntry {
  return {
    image: String(row['image']),
    digest: String(row['digest']) as Digest,
    platforms: String(row['platforms']).split(','),
    referrers: row['referrers'] === 1,
    isComplete: row['complete'] === 1,
    warmedAtMs: Number(row['warmed']),
  };
}
