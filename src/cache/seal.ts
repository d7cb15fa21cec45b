import { createHmac, timingSafeEqual } from 'node:crypto';
import { NarrowsError } from '../errors.ts';
import type { Change, Ledger } from './ledger.ts';
import type { StrictSpace } from './record-space.ts';

/** Tells what this mirror wrote from what someone else did who can write to the same store. */
export interface Seal {
  /** @param place where it stands: what is copied to another place is not sealed there */
  make(place: string, text: string): string;
  isGood(place: string, text: string, seal: string): boolean;
}

/** @param keys secrets that all replicas share, of at least 32 bytes; the first seals, all are good */
export function createSeal(keys: readonly Uint8Array[]): Seal {
  return {
    make: (place, text) => sealWith(keys[0]!, place, text).toString('base64url'),
    isGood(place, text, seal) {
      const said = Buffer.from(seal, 'base64url');
      return keys.some((key) => {
        const made = sealWith(key, place, text);
        return made.length === said.length && timingSafeEqual(made, said);
      });
    },
  };
}

function sealWith(key: Uint8Array, place: string, text: string): Buffer {
  return createHmac('sha256', key)
    .update(`${Buffer.byteLength(place)}:${place}`)
    .update(text)
    .digest();
}

/** A record with its seal. */
export interface Sealed<T> {
  readonly value: T;
  readonly seal: string;
}

/** Does a value have the shape of a sealed record? */
export function isSealed(value: Readonly<Record<string, unknown>>): boolean {
  return typeof value['seal'] === 'string' && typeof value['value'] === 'object' && value['value'] !== null;
}

/** Records under a seal. One whose seal is not good is none: it is learnt again, and replaced. */
export function sealedSpace<T>(
  space: StrictSpace<Sealed<T>>,
  namespace: string,
  seal: Seal,
  onForged: (error: Error) => void,
): StrictSpace<T> {
  const placeOf = (key: string) => `${namespace}:${key}`;
  const sealed = (key: string, value: T) => ({ value, seal: seal.make(placeOf(key), JSON.stringify(value)) });
  return {
    async get(key) {
      const found = await space.get(key);
      if (!found) return undefined;
      if (seal.isGood(placeOf(key), JSON.stringify(found.value), found.seal)) return found.value;
      onForged(new Error(`the record ${placeOf(key)} was not written by this mirror`));
      return undefined;
    },
    set: (key, value, ttlMs) => space.set(key, sealed(key, value), ttlMs),
    setMany: (entries, ttlMs) =>
      space.setMany(
        entries.map(({ key, value }) => ({ key, value: sealed(key, value) })),
        ttlMs,
      ),
    delete: (key) => space.delete(key),
    keys: () => space.keys(),
  };
}

function placeInLedger(repository: string, key: string): string {
  return `hosted:${repository}\n${key}`;
}

/**
 * A ledger under a seal. It is the only one that knows what was pushed: an entry whose seal is not good is trouble,
 * not nothing, and stays for someone to look at.
 */
export function sealedLedger(ledger: Ledger, seal: Seal): Ledger {
  function opened(repository: string, key: string, text: string): string {
    const dot = text.indexOf('.');
    const value = text.slice(dot + 1);
    if (dot > 0 && seal.isGood(placeInLedger(repository, key), value, text.slice(0, dot))) return value;
    throw new NarrowsError('storeUnavailable', `An entry of ${repository} was not written by this mirror.`);
  }

  function sealed(repository: string, { key, before, after }: Change, held: string | undefined): Change {
    const close = (value: string) => `${seal.make(placeInLedger(repository, key), value)}.${value}`;
    const isHeld = typeof before === 'string' && held !== undefined && opened(repository, key, held) === before;
    return {
      key,
      ...(before !== undefined && { before: before === null ? null : isHeld ? held : close(before) }),
      ...(after !== undefined && { after: after === null ? null : close(after) }),
    };
  }

  return {
    async get(repository, keys) {
      const values = await ledger.get(repository, keys);
      return values.map((value, at) => (value === undefined ? undefined : opened(repository, keys[at]!, value)));
    },
    async list(repository, prefix, after, count) {
      const found = await ledger.list(repository, prefix, after, count);
      return found.map(({ key, value }) => ({ key, value: opened(repository, key, value) }));
    },
    async commit(repository, changes) {
      // Compared is what is there to the letter, and that may have the seal of the key before.
      const keys = changes.flatMap(({ key, before }) => (typeof before === 'string' ? [key] : []));
      const values = await ledger.get(repository, keys);
      const held = new Map(keys.map((key, at) => [key, values[at]]));
      return ledger.commit(
        repository,
        changes.map((change) => sealed(repository, change, held.get(change.key))),
      );
    },
    repositories: () => ledger.repositories(),
  };
}
