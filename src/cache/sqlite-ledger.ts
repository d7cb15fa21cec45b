import type { Change, Ledger } from './ledger.ts';
import { openDatabase } from './sqlite-file.ts';

export interface SqliteLedger extends Ledger {
  close(): void;
}

/** Waiting for another process's commit stops this one whole; a commit takes no longer than a flush of the disk. */
const maxWaitMs = 5000;

const schema = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS entries (
    repository TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (repository, key)
  ) WITHOUT ROWID;
`;

/**
 * A ledger in a file, for the processes of one machine. Each commit is on the disk before it is answered.
 *
 * @throws Error where the file is no database: unlike what can be learnt again, it is never replaced by an empty one
 */
export function openSqliteLedger(path: string): SqliteLedger {
  const database = openDatabase(path, schema, maxWaitMs);
  const select = database.prepare('SELECT value FROM entries WHERE repository = ? AND key = ?');
  // No text has such a byte as the last one: what begins with the prefix is before it.
  const page = database.prepare(
    `SELECT key, value FROM entries WHERE repository = ?1 AND key > ?2 AND key >= ?3 AND key < ?3 || CAST(x'FF' AS TEXT) ORDER BY key LIMIT ?4`,
  );
  const put = database.prepare('INSERT OR REPLACE INTO entries VALUES (?, ?, ?)');
  const remove = database.prepare('DELETE FROM entries WHERE repository = ? AND key = ?');
  const names = database.prepare('SELECT DISTINCT repository FROM entries ORDER BY repository');

  function read(repository: string, key: string): string | undefined {
    return select.get(repository, key)?.['value'] as string | undefined;
  }

  function apply(repository: string, { key, after }: Change): void {
    if (after === null) remove.run(repository, key);
    else if (after !== undefined) put.run(repository, key, after);
  }

  return {
    get: (repository, keys) => attempt(() => keys.map((key) => read(repository, key))),
    list: (repository, prefix, after, count) =>
      attempt(() =>
        page
          .all(repository, prefix + after, prefix, count)
          .map(({ key, value }) => ({ key: String(key), value: String(value) })),
      ),
    commit: (repository, changes) =>
      attempt(() => {
        database.exec('BEGIN IMMEDIATE');
        try {
          const isAsExpected = changes.every(
            ({ key, before }) => before === undefined || (read(repository, key) ?? null) === before,
          );
          if (isAsExpected) for (const change of changes) apply(repository, change);
          database.exec('COMMIT');
          return isAsExpected;
        } catch (error) {
          if (database.isTransaction) database.exec('ROLLBACK');
          throw error;
        }
      }),
    repositories: () => attempt(() => names.all().map(({ repository }) => String(repository))),
    close() {
      if (database.isOpen) database.close();
    },
  };
}

/** A rejection, never a throw at the call. */
function attempt<T>(action: () => T): Promise<T> {
  return new Promise((resolve) => resolve(action()));
}
