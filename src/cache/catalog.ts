import { isDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { createSets, setsSchema } from './sets.ts';
import type { Sets } from './sets.ts';
import { openOrReplace } from './sqlite-file.ts';

/** What a document lists: a child of an index with its platform, or a blob of an image without one. */
export interface Link {
  readonly child: Digest;
  /** `os/arch[/variant]`; absent for a blob. `unknown` for a child that an index says no platform of. */
  readonly platform?: string;
}

/** What a digest is there for, as far as anyone has learnt. */
export interface Served {
  /** Of all images that it is part of. */
  readonly platforms: readonly string[];
  /** It is part of something whose platform nobody knows. */
  readonly isOpen: boolean;
}

/** A digest that stays. With `deep`, so does everything that it lists. */
export interface Pin {
  readonly digest: Digest;
  readonly deep: boolean;
}

export interface Entry {
  readonly digest: Digest;
  readonly bytes: number;
}

/**
 * What the disk of this machine holds, how it hangs together, and what must stay. One file, that all processes on the
 * store read and write. Every method throws what is wrong with the database.
 */
export interface Catalog {
  /** Before the content gets its name: what is there is in the books, whenever the process is killed. */
  add(digest: Digest, bytes: number): void;
  /** Cheap: noted now, written with others. */
  used(digest: Digest): void;
  remove(digest: Digest): void;
  has(digest: Digest): boolean;
  totalBytes(): number;
  /** Of what is here and pinned. */
  pinnedBytes(): number;
  /** The least recently used that is not pinned, in that order. */
  oldest(count: number): Entry[];
  /** Everything, the least recently used first. */
  byUse(): Iterable<Entry>;
  /** What is pinned, and what hangs on it. */
  pinned(): Set<Digest>;
  /** What is here of a document and of all that it lists, and of nothing else that is here, pinned or hosted. */
  alone(digest: Digest): Digest[];
  /** All of it, page by page in the order of digests. */
  entries(after: string, count: number): Entry[];
  /** It was pushed here: that it is on this disk gives nobody a right to it. */
  markHosted(digest: Digest): void;
  isHosted(digest: Digest): boolean;
  learn(parent: Digest, links: readonly Link[]): void;
  /** An image says its own platform, in its config. */
  learnPlatform(image: Digest, platform: string): void;
  served(digest: Digest): Served;
  pin(name: string, pins: readonly Pin[]): void;
  /** All that has the name, or one digest of it. */
  unpin(name: string, digest?: Digest): void;
  /** What has the name, page by page in the order of digests. */
  pinnedAs(name: string, after: string, count: number): Digest[];
  /** Images that were asked to stay. */
  readonly sets: Sets;
  flush(): void;
  close(): void;
}

/** Marks are lost with the process, which costs a little of the order of eviction. */
const flushMs = 2000;
const maxMarks = 2000;
/** What was learnt of content that is not here goes first when there is more. */
const maxLinks = 2_000_000;

/** A wait stops this process whole. */
const maxWaitMs = 200;

const schema = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS content (digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS content_by_use ON content (used);
  CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL);
  INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
  CREATE TRIGGER IF NOT EXISTS content_added AFTER INSERT ON content BEGIN UPDATE total SET bytes = bytes + NEW.bytes; END;
  CREATE TRIGGER IF NOT EXISTS content_removed AFTER DELETE ON content BEGIN UPDATE total SET bytes = bytes - OLD.bytes; END;
  CREATE TRIGGER IF NOT EXISTS content_changed AFTER UPDATE OF bytes ON content
    BEGIN UPDATE total SET bytes = bytes + NEW.bytes - OLD.bytes; END;
  CREATE TABLE IF NOT EXISTS links (
    id INTEGER PRIMARY KEY, parent TEXT NOT NULL, child TEXT NOT NULL, platform TEXT NOT NULL, UNIQUE (parent, child, platform)
  );
  CREATE INDEX IF NOT EXISTS links_by_child ON links (child);
  CREATE TABLE IF NOT EXISTS images (digest TEXT PRIMARY KEY, platform TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS hosted (digest TEXT PRIMARY KEY) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS pins (name TEXT, digest TEXT, deep INTEGER NOT NULL, PRIMARY KEY (name, digest)) WITHOUT ROWID;
  ${setsSchema}
`;

const keptDigests = `
  WITH RECURSIVE kept (digest, deep) AS (
    SELECT digest, deep FROM pins
    UNION SELECT links.child, 1 FROM links JOIN kept ON links.parent = kept.digest WHERE kept.deep = 1
  )
`;

const above = `WITH RECURSIVE above (digest) AS (SELECT ?1 UNION SELECT parent FROM links JOIN above ON child = above.digest)`;

export function openCatalog(path: string, now: () => number): Catalog {
  const database = openOrReplace(path, schema, maxWaitMs);
  const sql = (text: string) => database.prepare(text);
  const add = sql(`
    INSERT INTO content VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO UPDATE SET bytes = excluded.bytes, used = excluded.used
  `);
  const mark = sql('UPDATE content SET used = ?2 WHERE digest = ?1');
  const remove = sql('DELETE FROM content WHERE digest = ?1');
  const has = sql('SELECT 1 FROM content WHERE digest = ?1');
  const forget = sql('DELETE FROM links WHERE parent = ?1');
  const unplace = sql('DELETE FROM images WHERE digest = ?1');
  const total = sql('SELECT bytes FROM total');
  const oldest = sql(`
    ${keptDigests} SELECT digest, bytes FROM content WHERE digest NOT IN (SELECT digest FROM kept) ORDER BY used LIMIT ?1
  `);
  const nextUsed = sql(
    'SELECT digest, bytes, used FROM content WHERE (used, digest) > (?1, ?2) ORDER BY used, digest LIMIT 1000',
  );
  const kept = sql(`${keptDigests} SELECT digest FROM kept`);
  const keptBytes = sql(
    `${keptDigests} SELECT SUM(bytes) AS bytes FROM content WHERE digest IN (SELECT digest FROM kept)`,
  );
  const page = sql('SELECT digest, bytes FROM content WHERE digest > ?1 ORDER BY digest LIMIT ?2');
  const link = sql('INSERT OR IGNORE INTO links (parent, child, platform) VALUES (?1, ?2, ?3)');
  const prune = sql(`
    DELETE FROM links WHERE id <= (SELECT MAX(id) FROM links) - ${maxLinks} AND parent NOT IN (SELECT digest FROM content)
  `);
  const isKnown = sql('SELECT 1 FROM links WHERE parent = ?1 LIMIT 1');
  const image = sql('INSERT OR REPLACE INTO images VALUES (?1, ?2)');
  const platforms = sql(`
    ${above} SELECT platform FROM links JOIN above ON links.child = above.digest WHERE platform <> ''
    UNION SELECT platform FROM images JOIN above USING (digest)
  `);
  // A document that nothing lists, is no index and does not say its platform: what it is for nobody knows.
  const open = sql(`
    ${above} SELECT 1 FROM above WHERE digest <> ?1
      AND NOT EXISTS (SELECT 1 FROM links WHERE child = above.digest)
      AND NOT EXISTS (SELECT 1 FROM links WHERE parent = above.digest AND platform <> '')
      AND NOT EXISTS (SELECT 1 FROM images WHERE images.digest = above.digest) LIMIT 1
  `);
  const pin = sql('INSERT OR REPLACE INTO pins VALUES (?1, ?2, ?3)');
  const unpin = sql('DELETE FROM pins WHERE name = ?1 AND (?2 IS NULL OR digest = ?2)');
  const alone = sql(`
    ${keptDigests}, below (digest) AS (
      SELECT ?1 UNION SELECT links.child FROM links JOIN below ON links.parent = below.digest
    ), spared (digest) AS (
      SELECT links.child FROM links JOIN below ON links.child = below.digest
        WHERE links.parent IN (SELECT digest FROM content) AND links.parent NOT IN (SELECT digest FROM below)
      UNION SELECT links.child FROM links JOIN spared ON links.parent = spared.digest
    )
    SELECT digest FROM content WHERE digest IN (SELECT digest FROM below)
      AND digest NOT IN (SELECT digest FROM spared UNION SELECT digest FROM kept UNION SELECT digest FROM hosted)
  `);
  const pins = sql('SELECT digest FROM pins WHERE name = ?1 AND digest > ?2 ORDER BY digest LIMIT ?3');
  const markHosted = sql('INSERT OR IGNORE INTO hosted VALUES (?1)');
  const isHosted = sql('SELECT 1 FROM hosted WHERE digest = ?1');
  const unmark = sql('DELETE FROM hosted WHERE digest = ?1');
  const marks = new Map<Digest, number>();
  const flushing = setInterval(() => {
    try {
      flush();
    } catch {
      // The marks are tried again with the next ones.
    }
  }, flushMs).unref();

  function transaction(action: () => void): void {
    database.exec('BEGIN IMMEDIATE');
    try {
      action();
      database.exec('COMMIT');
    } catch (error) {
      database.exec('ROLLBACK');
      throw error;
    }
  }

  function flush(): void {
    if (marks.size === 0) return;
    transaction(() => {
      for (const [digest, at] of marks) mark.run(digest, at);
    });
    marks.clear();
  }

  return {
    add: (digest, bytes) => void add.run(digest, bytes, now()),
    used(digest) {
      if (marks.size < maxMarks) marks.set(digest, now());
    },
    remove(digest) {
      marks.delete(digest);
      transaction(() => {
        remove.run(digest);
        forget.run(digest);
        unplace.run(digest);
        unmark.run(digest);
      });
    },
    has: (digest) => has.get(digest) !== undefined,
    totalBytes: () => Number(total.get()?.['bytes'] ?? 0),
    pinnedBytes: () => Number(keptBytes.get()?.['bytes'] ?? 0),
    oldest(count) {
      try {
        flush();
      } catch {
        // Where nothing can be written, as on a full disk, what may go has to be known all the same.
      }
      return entriesOf(oldest.all(count));
    },
    *byUse() {
      flush();
      // In pages: what goes meanwhile must not be in the way of a statement that is still open.
      let [used, digest] = [-1, ''];
      for (let rows; (rows = nextUsed.all(used, digest)).length > 0;) {
        for (const row of rows) [used, digest] = [Number(row['used']), String(row['digest'])];
        yield* entriesOf(rows);
      }
    },
    pinned: () => new Set(kept.all().map(({ digest }) => digest as Digest)),
    alone: (digest) => alone.all(digest).map((row) => row['digest'] as Digest),
    entries: (after, count) => entriesOf(page.all(after, count)),
    learn(parent, links) {
      if (links.length === 0 || isKnown.get(parent)) return;
      transaction(() => {
        for (const { child, platform } of links) link.run(parent, child, platform ?? '');
        prune.run();
      });
    },
    markHosted: (digest) => void markHosted.run(digest),
    isHosted: (digest) => isHosted.get(digest) !== undefined,
    learnPlatform: (digest, platform) => void image.run(digest, platform),
    served(digest) {
      const all = platforms.all(digest).map(({ platform }) => String(platform));
      const known = all.filter((platform) => platform !== 'unknown');
      return { platforms: known, isOpen: known.length < all.length || open.get(digest) !== undefined };
    },
    pin(name, all) {
      transaction(() => {
        for (const { digest, deep } of all) pin.run(name, digest, deep ? 1 : 0);
      });
    },
    unpin: (name, digest) => void unpin.run(name, digest ?? null),
    pinnedAs: (name, after, count) => pins.all(name, after, count).map(({ digest }) => digest as Digest),
    sets: createSets(database, transaction),
    flush,
    close() {
      clearInterval(flushing);
      try {
        flush();
      } finally {
        database.close();
      }
    },
  };
}

/** What something else wrote is none. */
function entriesOf(rows: readonly Record<string, unknown>[]): Entry[] {
  return rows.flatMap(({ digest, bytes }) =>
    isDigest(String(digest)) ? [{ digest: digest as Digest, bytes: Number(bytes) }] : [],
  );
}
