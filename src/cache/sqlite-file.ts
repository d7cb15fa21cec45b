import { renameSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

/** Processes that start together open the same file; the first of them makes it, on a disk that may be slow. */
const openWithinMs = 10_000;
const retryMs = 20;
/** SQLITE_BUSY; the bytes above it say which kind. https://sqlite.org/rescode.html#busy */
const busy = 5;

/**
 * Opens a database file of several processes.
 *
 * @param schema is run at each opening
 * @param maxWaitMs that a statement later waits for another process's write, which stops this process whole
 * @throws Error what is wrong with the file, or that others did not let go of it for 10 s
 */
export function openDatabase(path: string, schema: string, maxWaitMs: number): DatabaseSync {
  const until = performance.now() + openWithinMs;
  for (;;) {
    try {
      return tryToOpen(path, schema, maxWaitMs);
    } catch (error) {
      if (!isBusy(error) || performance.now() > until) throw error;
      // SQLite's own waiting does not cover the change to a write-ahead log: two that make it at once are refused.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs);
    }
  }
}

/**
 * What a database holds can be learnt again, a mirror that does not start serves nobody: a file that is no database is
 * set aside.
 */
export function openOrReplace(path: string, schema: string, maxWaitMs: number): DatabaseSync {
  try {
    return openDatabase(path, schema, maxWaitMs);
  } catch (error) {
    if (!/not a database|malformed/.test((error as Error).message)) throw error;
    for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
    renameSync(path, `${path}.broken`);
    return openDatabase(path, schema, maxWaitMs);
  }
}

function tryToOpen(path: string, schema: string, maxWaitMs: number): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: maxWaitMs });
  try {
    database.exec(schema);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function isBusy(error: unknown): boolean {
  return ((error as { errcode?: number }).errcode ?? 0) % 256 === busy;
}
