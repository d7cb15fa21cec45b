import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import { NarrowsError } from './errors.ts';

/**
 * The proxies that a request came through, and that what it sets off goes on with (`Via`, RFC 9110, 7.6.3). Two mirrors
 * that are each other's upstream would otherwise wait for one another: each joins its own download.
 */
const underWay = new AsyncLocalStorage<readonly string[]>();

/** More than any chain of mirrors has. */
const maxHops = 16;

/** What a mirror calls itself among the hops: another one with each start, and nothing that tells where it is. */
export function newPseudonym(): string {
  return `narrows-${randomBytes(6).toString('hex')}`;
}

/**
 * Runs what answers a request.
 *
 * @param via the request's header
 * @throws NarrowsError loopDetected where this mirror has seen the request already, or too many have
 */
export function withHops<T>(via: string | undefined, pseudonym: string, answer: () => T): T {
  if (via === undefined) return answer();
  const hops = via.split(',').flatMap((entry) => {
    const [protocol, name] = entry.trim().split(/[ \t]+/);
    // What is passed on is written anew: comments are left behind.
    return protocol && name && /^[\w./-]{1,20}$/.test(protocol) && /^[\w.:[\]-]{1,100}$/.test(name)
      ? [`${protocol} ${name}`]
      : [];
  });
  const isOwn = hops.some((hop) => hop.endsWith(` ${pseudonym}`));
  if (isOwn || hops.length > maxHops) {
    throw new NarrowsError(
      'loopDetected',
      'This mirror is its own upstream, by way of others: look at upstreams in the configuration of each.',
    );
  }
  return underWay.run(hops, answer);
}

/** The header for what is asked of an upstream now. */
export function viaOf(pseudonym: string): string {
  return [...(underWay.getStore() ?? []), `1.1 ${pseudonym}`].join(', ');
}
