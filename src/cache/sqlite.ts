import { EventEmitter } from 'node:events';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { KeyvStoreAdapter, StoredData } from 'keyv';
import { LRUCache } from 'lru-cache';
import { openOrReplace } from './sqlite-file.ts';

/** One database, and the adapters that keyv wants one of for each namespace. */
export interface SqliteRecords {
  adapter(): KeyvStoreAdapter;
  /** Expired rows are not read again by anyone; this is where they go. */
  purge(now: number): void;
  close(): void;
}

/** Waiting for another process's write stops this one whole. Records can be learnt again, so it does not wait long. */
const maxWaitMs = 200;

const schema = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT, expires REAL) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS by_expiry ON records (expires) WHERE expires IS NOT NULL;
`;

/**
 * The embedded store behind keyv: one SQLite file with a write-ahead log, so that several processes on one machine
 * read and write it at once and a kill leaves the last whole write.
 *
 * @param maxRecentBytes for rows that are kept in memory as they were last read; 0 for none
 */
export function openSqliteRecords(path: string, maxRecentBytes: number): SqliteRecords {
  const database = openOrReplace(path, schema, maxWaitMs);
  const recent = createRecentRows(database, maxRecentBytes);
  const purge = database.prepare(
    'DELETE FROM records WHERE key IN (SELECT key FROM records WHERE expires IS NOT NULL AND expires < ? LIMIT 1000)',
  );
  return {
    adapter: () => new SqliteAdapter(database, recent),
    purge: (now) => void purge.run(now),
    close: () => {
      if (database.isOpen) database.close();
    },
  };
}

/** Rows as they were last read; undefined is a row that was not there. */
interface RecentRows {
  get(key: string, read: () => string | undefined): string | undefined;
  /** It is being written, here. */
  drop(key: string): void;
  clear(): void;
}

const entryOverheadBytes = 256;

function createRecentRows(database: DatabaseSync, maxBytes: number): RecentRows {
  const rows =
    maxBytes > 0
      ? new LRUCache<string, { readonly row: string | undefined }>({
          maxSize: maxBytes,
          // A text with one letter beyond Latin-1 takes two bytes for each.
          sizeCalculation: ({ row = '' }, key) => 2 * (row.length + key.length) + entryOverheadBytes,
        })
      : undefined;
  // Another number each time that any other connection has written. https://sqlite.org/pragma.html#pragma_data_version
  const version = database.prepare('PRAGMA data_version');
  let seen: unknown;
  return {
    get(key, read) {
      if (!rows) return read();
      const now = version.get()?.['data_version'];
      if (now !== seen) rows.clear();
      seen = now;
      const known = rows.get(key);
      if (known) return known.row;
      const row = read();
      rows.set(key, { row });
      return row;
    },
    drop: (key) => void rows?.delete(key),
    clear: () => rows?.clear(),
  };
}

/** Keys come with their namespace before them. */
class SqliteAdapter extends EventEmitter implements KeyvStoreAdapter {
  /** Keyv lists the keys only of dialects that it knows. */
  readonly opts = { dialect: 'sqlite' };
  namespace?: string;
  readonly #database: DatabaseSync;
  readonly #select: StatementSync;
  readonly #upsert: StatementSync;
  readonly #remove: StatementSync;
  readonly #list: StatementSync;
  readonly #recent: RecentRows;

  constructor(database: DatabaseSync, recent: RecentRows) {
    super();
    this.#database = database;
    this.#recent = recent;
    this.#select = database.prepare('SELECT value FROM records WHERE key = ?');
    this.#upsert = database.prepare(
      'INSERT INTO records (key, value, expires) VALUES (?, ?, ?) ' +
        'ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires',
    );
    this.#remove = database.prepare('DELETE FROM records WHERE key = ?');
    this.#list = database.prepare('SELECT key, value FROM records WHERE key >= ? AND key < ? ORDER BY key LIMIT 500');
  }

  get<Value>(key: string): Promise<StoredData<Value> | undefined> {
    return attempt(() => {
      const row = this.#recent.get(key, () => {
        const value = this.#select.get(key)?.['value'];
        return isRecord(value) ? value : undefined;
      });
      return row as StoredData<Value> | undefined;
    });
  }

  set(key: string, value: string, ttl?: number): Promise<void> {
    return attempt(() => this.#write(key, value, ttl));
  }

  setMany(entries: { key: string; value: string; ttl?: number }[]): Promise<void> {
    return attempt(() => {
      this.#database.exec('BEGIN IMMEDIATE');
      try {
        for (const { key, value, ttl } of entries) this.#write(key, value, ttl);
        this.#database.exec('COMMIT');
      } catch (error) {
        this.#database.exec('ROLLBACK');
        throw error;
      }
    });
  }

  delete(key: string): Promise<boolean> {
    return attempt(() => {
      this.#recent.drop(key);
      return this.#remove.run(key).changes > 0;
    });
  }

  clear(): Promise<void> {
    const [from, to] = rangeOf(this.namespace);
    return attempt(() => {
      this.#recent.clear();
      this.#database.prepare('DELETE FROM records WHERE key >= ? AND key < ?').run(from, to);
    });
  }

  async *iterator<Value>(namespace = ''): AsyncGenerator<(string | Awaited<Value> | undefined)[], void> {
    // Page by page: a statement that is still open would not outlive a write between two of its rows.
    let [from, to] = rangeOf(namespace);
    for (let rows; (rows = this.#list.all(from, to)).length > 0;) {
      for (const row of rows) {
        const key = row['key'] as string;
        // The next key after this one, in the order of text.
        from = `${key}\0`;
        if (isRecord(row['value'])) yield [key, row['value']];
      }
    }
  }

  #write(key: string, value: string, ttl?: number): void {
    this.#recent.drop(key);
    this.#upsert.run(key, value, ttl ? Date.now() + ttl : null);
  }
}

/** A row that something else wrote, or that was torn, is none: keyv would take it apart without looking. */
function isRecord(value: unknown): value is string {
  if (typeof value !== 'string') return false;
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === 'object' && parsed !== null && 'value' in parsed;
  } catch {
    return false;
  }
}

// ';' follows ':' in the alphabet: the range holds every key of the namespace and no other.
function rangeOf(namespace = ''): [from: string, to: string] {
  return [`${namespace}:`, `${namespace};`];
}

// A rejection, never a throw at the call: keyv listens to the promise.
function attempt<T>(action: () => T): Promise<T> {
  return new Promise((resolve) => resolve(action()));
}
