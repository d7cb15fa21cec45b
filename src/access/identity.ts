import { NarrowsError } from '../errors.ts';
import { covers } from './scopes.ts';
import type { Scope } from './scopes.ts';

/** Who asks. Without a user nobody has said. */
export interface Identity {
  readonly user?: string;
  readonly groups: readonly string[];
  /** What the token is good for that was shown; undefined for everything that its user may. */
  readonly scopes?: readonly Scope[];
  /** What the caller has shown for the upstream to look at; nobody here knows whether it is right. */
  readonly login?: Login;
  /** How to say who one is; undefined where nobody can. */
  readonly challenge?: Challenge;
}

export interface Login {
  readonly username: string;
  readonly password: string;
  /** Where it came from. */
  readonly address: string | undefined;
}

/** A `WWW-Authenticate`. @param missing what a token would have to be good for */
export type Challenge = (missing?: Scope) => string;

export const anonymous: Identity = { groups: [] };

/** Who puts back a step of a history on the command line. */
export const operator: Identity = { user: 'operator', groups: [] };

/** `anonymous` is everyone, `authenticated` everyone who has said who they are; nobody can be called so. */
export const reservedNames: readonly string[] = ['anonymous', 'authenticated', 'operator'];

/** Is someone among these users and groups? `*` in a name is any text: `k8s:system:serviceaccount:ci:*`. */
export function isAmong({ user, groups }: Identity, names: readonly string[]): boolean {
  return names.some((name) => {
    if (name === 'anonymous') return true;
    if (user === undefined) return false;
    if (name.includes('*')) return [user, ...groups].some((one) => fits(one, name));
    return name === 'authenticated' || name === user || groups.includes(name);
  });
}

function fits(name: string, pattern: string): boolean {
  const [start = '', ...rest] = pattern.split('*');
  if (!name.startsWith(start)) return false;
  let at = start.length;
  const end = rest.pop() ?? '';
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - end.length >= at && name.endsWith(end);
}

/** Is someone among them, and is the token that was shown good for it? */
export function may(by: Identity, names: readonly string[], scope: Scope): boolean {
  return isAmong(by, names) && (by.scopes === undefined || covers(by.scopes, scope));
}

export function nameOf({ user }: Identity): string {
  return user ?? 'anonymous';
}

/**
 * @param scope what a token has to be good for
 * @throws NarrowsError unauthorized for those who could say who they are, or show another token; denied for those who
 *   may not, whatever they show
 */
export function requireAmong(by: Identity, names: readonly string[], message: string, scope?: Scope): void {
  const isAllowed = isAmong(by, names);
  if (isAllowed && (!scope || may(by, names, scope))) return;
  if (!isAllowed && (by.user !== undefined || !by.challenge)) throw new NarrowsError('denied', message);
  const advice = isAllowed ? 'The token that was shown is not good for this.' : 'Log in first.';
  throw new NarrowsError('unauthorized', `${message} ${advice}`, {
    ...(by.challenge && { headers: { 'www-authenticate': by.challenge(scope) } }),
  });
}
