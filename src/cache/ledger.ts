/**
 * The books of the repositories that are hosted here: small texts by name, changed together or not at all. Unlike
 * records they cannot be learnt again, so nothing of them is ever dropped, and trouble is never taken for "not there".
 * Every method throws what is wrong with the store.
 */
export interface Ledger {
  get(repository: string, keys: readonly string[]): Promise<(string | undefined)[]>;
  /** Those whose keys begin with `prefix` and come after `after`, in the order of their bytes. */
  list(repository: string, prefix: string, after: string, count: number): Promise<LedgerEntry[]>;
  /** All changes at once, if every key is as its change expects; false where one is not, and nothing has changed. */
  commit(repository: string, changes: readonly Change[]): Promise<boolean>;
  /** The repositories that have entries, in order. */
  repositories(): Promise<string[]>;
}

export interface LedgerEntry {
  readonly key: string;
  readonly value: string;
}

export interface Change {
  readonly key: string;
  /** What must be there: a text, or null for nothing; absent where it does not matter. */
  readonly before?: string | null;
  /** What is there afterwards: a text, or null for nothing; absent to leave it. */
  readonly after?: string | null;
}
