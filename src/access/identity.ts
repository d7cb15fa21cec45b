import { NarrowsError } from '../errors.ts';

/** Who asks. Without a user nobody has said. */
export interface Identity {
  readonly user?: string;
  readonly groups: readonly string[];
}

export const anonymous: Identity = { groups: [] };

/** Who puts back a step of a history on the command line. */
export const operator: Identity = { user: 'operator', groups: [] };

/** `anonymous` is everyone, `authenticated` everyone who has said who they are; nobody can be called so. */
export const reservedNames: readonly string[] = ['anonymous', 'authenticated', 'operator'];

/** Is someone among these users and groups? */
export function isAmong({ user, groups }: Identity, names: readonly string[]): boolean {
  return names.some((name) => {
    if (name === 'anonymous') return true;
    if (user === undefined) return false;
    return name === 'authenticated' || name === user || groups.includes(name);
  });
}

export function nameOf({ user }: Identity): string {
  return user ?? 'anonymous';
}

/**
 * @param challenge how someone who has not said who they are can do so; undefined where nobody can
 * @throws NarrowsError unauthorized for those, denied for those who have
 */
export function requireAmong(
  by: Identity,
  names: readonly string[],
  challenge: string | undefined,
  message: string,
): void {
  if (isAmong(by, names)) return;
  if (by.user !== undefined || challenge === undefined) throw new NarrowsError('denied', message);
  throw new NarrowsError('unauthorized', `${message} Log in first.`, { headers: { 'www-authenticate': challenge } });
}
