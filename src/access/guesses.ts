import { isIPv6 } from 'node:net';
import { LRUCache } from 'lru-cache';
import { NarrowsError } from '../errors.ts';

/** How often an address may be wrong. */
export interface Guesses {
  /**
   * Before a password is looked at: guesses at the same moment count as well.
   *
   * @returns takes it back, for a password that was right
   * @throws NarrowsError rateLimited
   */
  begin(address: string | undefined): () => void;
}

export interface GuessesOptions {
  /** Wrong passwords in a row; as many come back within a minute, one by one. */
  readonly maxWrong: number;
  /** The addresses that were longest quiet are forgotten. */
  readonly maxAddresses: number;
  now(): number;
}

const perMs = 60_000;

/** Locks out addresses, never users: otherwise whoever knows a name could keep its owner out. */
export function createGuesses({ maxWrong, maxAddresses, now }: GuessesOptions): Guesses {
  const made = new LRUCache<string, { count: number; atMs: number }>({ max: maxAddresses });
  const eachMs = perMs / maxWrong;

  /** What is not forgiven yet. A clock that was set back forgives nothing, and lasts no longer than a minute. */
  function countOf(key: string): number {
    const { count = 0, atMs = 0 } = made.get(key) ?? {};
    return Math.max(0, count - Math.max(0, now() - atMs) / eachMs);
  }

  return {
    begin(address) {
      const key = networkOf(address ?? '');
      const count = countOf(key);
      if (count > maxWrong - 1) {
        const message = 'Too many wrong passwords came from this address.';
        throw new NarrowsError('rateLimited', message, { retryAfterS: retryAfterS(count - maxWrong + 1, eachMs) });
      }
      made.set(key, { count: count + 1, atMs: now() });
      return () => made.set(key, { count: Math.max(0, countOf(key) - 1), atMs: now() });
    },
  };
}

function retryAfterS(missing: number, eachMs: number): number {
  return Math.max(1, Math.ceil((missing * eachMs) / 1000));
}

/** Who has one IPv6 address has the 2^64 of its network (RFC 4291 section 2.5.1). */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=[0-9.]+$)/, '').split('%', 1)[0] ?? '';
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::', 2);
  const groups = head === '' ? [] : head.split(':');
  const behind = tail ? tail.split(':') : [];
  const zeros = tail === undefined ? 0 : 8 - groups.length - behind.length;
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...behind].slice(0, 4).join(':');
}
