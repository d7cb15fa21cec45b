import { NarrowsError } from '../errors.ts';
import { anonymous } from './identity.ts';
import type { Identity } from './identity.ts';

/** Finds out who asks. */
export interface Access {
  /**
   * @param authorization the header of the request
   * @throws NarrowsError unauthorized for credentials that are wrong or not understood, overloaded
   */
  identify(authorization: string | undefined): Promise<Identity>;
  /** What to do about someone who may not, and has not said who they are; undefined where nobody can say so. */
  readonly challenge: string | undefined;
}

/** Nobody is asked who they are; credentials meant for someone else are not looked at. */
export const openAccess: Access = { identify: () => Promise.resolve(anonymous), challenge: undefined };

export interface BasicOptions {
  /** Is this the user's password? @throws NarrowsError overloaded */
  check(user: string, password: string): Promise<boolean>;
  groupsOf(user: string): readonly string[];
}

const challenge = 'Basic realm="narrows", charset="UTF-8"';

/** User and password with each request (RFC 7617). */
export function basicAccess({ check, groupsOf }: BasicOptions): Access {
  return {
    challenge,
    async identify(authorization) {
      if (authorization === undefined) return anonymous;
      const [user, password] = readBasic(authorization) ?? [];
      // How containers/image says that it has none.
      if (user === '' && password === '') return anonymous;
      // Wrong credentials are never taken for none: whoever sent them means to be someone.
      if (user === undefined || password === undefined || !(await check(user, password))) {
        throw new NarrowsError('unauthorized', 'The user or the password is wrong.', {
          headers: { 'www-authenticate': challenge },
        });
      }
      return { user, groups: groupsOf(user) };
    },
  };
}

function readBasic(authorization: string): [user: string, password: string] | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]+=*) *$/i.exec(authorization)?.[1];
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  return colon >= 0 ? [text.slice(0, colon), text.slice(colon + 1)] : undefined;
}
