import { LRUCache } from 'lru-cache';
import { NarrowsError } from '../errors.ts';
import { networkOf } from './guesses.ts';

/** What one address may take of a mirror. */
export interface AddressLimits {
  /** A connection begins. False where it would be one too many: then it is none. */
  open(address: string | undefined): boolean;
  close(address: string | undefined): void;
  /** Before each request. @throws NarrowsError rateLimited */
  ask(address: string | undefined): void;
}

export interface AddressLimitsOptions {
  /** Connections at once; null for as many as there are. */
  readonly maxConnections: number | null;
  /** Requests in a second, and as many again at once after a quiet one; null for as many as come. */
  readonly requestsPerS: number | null;
  /** Of how many addresses the rate is known; the one that was longest quiet is forgotten. */
  readonly maxAddresses: number;
  now(): number;
}

/** Of IPv6, a network of one site (/64) counts as an address. */
export function createAddressLimits(options: AddressLimitsOptions): AddressLimits {
  const { maxConnections, requestsPerS, maxAddresses, now } = options;
  // As many as there are connections.
  const open = new Map<string, number>();
  const asked = new LRUCache<string, { tokens: number; atMs: number }>({ max: maxAddresses });

  return {
    open(address = '') {
      if (maxConnections === null) return true;
      const key = networkOf(address);
      const count = open.get(key) ?? 0;
      if (count >= maxConnections) return false;
      open.set(key, count + 1);
      return true;
    },

    close(address = '') {
      if (maxConnections === null) return;
      const key = networkOf(address);
      const count = (open.get(key) ?? 0) - 1;
      if (count > 0) open.set(key, count);
      else open.delete(key);
    },

    ask(address = '') {
      if (requestsPerS === null) return;
      const key = networkOf(address);
      const burst = requestsPerS * 2;
      const { tokens, atMs } = asked.get(key) ?? { tokens: burst, atMs: now() };
      // A clock that was set back gives nothing, and takes nothing.
      const left = Math.min(burst, tokens + (Math.max(0, now() - atMs) / 1000) * requestsPerS);
      if (left < 1) {
        throw new NarrowsError(
          'rateLimited',
          'This address asks too often; limits.requestsPerAddress says how often.',
          {
            retryAfterS: Math.max(1, Math.ceil((1 - left) / requestsPerS)),
          },
        );
      }
      asked.set(key, { tokens: left - 1, atMs: now() });
    },
  };
}
