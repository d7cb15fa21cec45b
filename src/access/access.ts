import { NarrowsError } from '../errors.ts';
import { anonymous } from './identity.ts';
import type { Identity } from './identity.ts';

/** What a request says about who makes it. */
export interface Asker {
  /** Its header. */
  readonly authorization?: string | undefined;
  /** Where it comes from. */
  readonly address?: string | undefined;
  /** Whom an authority vouches for; `untrusted` for a certificate that none does, undefined where none was shown. */
  readonly certificate?: { readonly user: string } | 'untrusted' | undefined;
}

/** Finds out who asks. */
export interface Access {
  /**
   * @throws NarrowsError unauthorized for credentials that are wrong or not understood, rateLimited, overloaded
   */
  identify(asker: Asker): Promise<Identity>;
  /** What to do about someone who may not, and has not said who they are; undefined where nobody can say so. */
  readonly challenge: string | undefined;
}

/** Nobody is asked who they are; credentials meant for someone else are not looked at. */
export const openAccess: Access = { identify: () => Promise.resolve(anonymous), challenge: undefined };

export interface BasicOptions {
  /** Is this the user's password? @throws NarrowsError overloaded, rateLimited */
  check(user: string, password: string, address?: string): Promise<boolean>;
  groupsOf(user: string): readonly string[];
}

const challenge = 'Basic realm="narrows", charset="UTF-8"';

/** User and password with each request (RFC 7617). */
export function basicAccess({ check, groupsOf }: BasicOptions): Access {
  return {
    challenge,
    async identify({ authorization, address }) {
      if (authorization === undefined) return anonymous;
      const [user, password] = readBasic(authorization) ?? [];
      // How containers/image says that it has none.
      if (user === '' && password === '') return anonymous;
      // Wrong credentials are never taken for none: whoever sent them means to be someone.
      if (user === undefined || password === undefined || !(await check(user, password, address))) {
        throw new NarrowsError('unauthorized', 'The user or the password is wrong.', {
          headers: { 'www-authenticate': challenge },
        });
      }
      return { user, groups: groupsOf(user) };
    },
  };
}

/**
 * Who shows a certificate need not log in. Who logs in all the same means to be that user.
 *
 * @param isUser may someone be called so? A name that stands for many is nobody's own
 */
export function certificateAccess(
  other: Access,
  groupsOf: (user: string) => readonly string[],
  isUser: (name: string) => boolean,
): Access {
  return {
    challenge: other.challenge,
    identify(asker) {
      const { authorization, certificate } = asker;
      const hasLoggedIn = authorization !== undefined && other.challenge !== undefined;
      if (hasLoggedIn || certificate === undefined) return other.identify(asker);
      if (certificate === 'untrusted') {
        return refuse('The client certificate has expired, or is of no authority that this mirror believes.');
      }
      if (!isUser(certificate.user)) return refuse('The client certificate names a group, or a word with a meaning.');
      return Promise.resolve({ user: certificate.user, groups: groupsOf(certificate.user) });
    },
  };
}

function refuse(message: string): Promise<never> {
  return Promise.reject(new NarrowsError('unauthorized', message));
}

function readBasic(authorization: string): [user: string, password: string] | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]+=*) *$/i.exec(authorization)?.[1];
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  return colon >= 0 ? [text.slice(0, colon), text.slice(colon + 1)] : undefined;
}
