import { NarrowsError } from '../errors.ts';
import { anonymous } from './identity.ts';
import type { Challenge, Identity } from './identity.ts';

/** What a request says about who makes it. */
export interface Asker {
  /** Its header. */
  readonly authorization?: string | undefined;
  /** Where it comes from. */
  readonly address?: string | undefined;
  /** The mirror as it calls it, with the scheme: `https://mirror.example:5000`. */
  readonly origin?: string | undefined;
  /** Whom an authority vouches for; `untrusted` for a certificate that none does, undefined where none was shown. */
  readonly certificate?: { readonly user: string } | 'untrusted' | undefined;
}

/** Finds out who asks. */
export interface Access {
  /**
   * @throws NarrowsError unauthorized for credentials that are wrong or not understood, rateLimited, overloaded,
   *   issuerUnavailable
   */
  identify(asker: Asker): Promise<Identity>;
}

/** Nobody is asked who they are; credentials meant for someone else are not looked at. */
export const openAccess: Access = { identify: () => Promise.resolve(anonymous) };

/** Whose credential it is; undefined where it is wrong. @throws NarrowsError overloaded, rateLimited */
export type Check = (credential: Credential, address: string | undefined) => Promise<Identity | undefined>;

export type Credential =
  | { readonly kind: 'password'; readonly user: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string };

export const basicChallenge: Challenge = () => 'Basic realm="narrows", charset="UTF-8"';

/** Users and passwords of an upstream are taken as they are: what they are good for is the upstream's to say. */
export const callersAccess: Access = headerAccess(
  (credential, address) =>
    Promise.resolve(
      credential.kind === 'password'
        ? { ...anonymous, login: { username: credential.user, password: credential.password, address } }
        : undefined,
    ),
  () => basicChallenge,
);

/** Credentials with each request: user and password (RFC 7617), or a token (RFC 6750). */
export function headerAccess(check: Check, challengeFor: (asker: Asker) => Challenge): Access {
  return {
    async identify(asker) {
      const { authorization, address } = asker;
      const challenge = challengeFor(asker);
      if (authorization === undefined) return { ...anonymous, challenge };
      const credential = readCredential(authorization);
      if (credential === 'none') return { ...anonymous, challenge };
      const identity = credential && (await check(credential, address));
      // Wrong credentials are never taken for none: whoever sent them means to be someone.
      if (!identity) {
        const what = credential?.kind === 'bearer' ? 'The token' : 'The user or the password';
        throw new NarrowsError('unauthorized', `${what} is wrong.`, { headers: { 'www-authenticate': challenge() } });
      }
      return { ...identity, challenge };
    },
  };
}

/**
 * Who shows a certificate need not log in. Who logs in all the same means to be that user.
 *
 * @param takesLogins are there other ways to say who one is?
 * @param isUser may someone be called so? A name that stands for many is nobody's own
 */
export function certificateAccess(
  other: Access,
  takesLogins: boolean,
  groupsOf: (user: string) => readonly string[],
  isUser: (name: string) => boolean,
): Access {
  return {
    identify(asker) {
      const { authorization, certificate } = asker;
      if ((authorization !== undefined && takesLogins) || certificate === undefined) return other.identify(asker);
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

/** `none` is how containers/image says that it has none: neither user nor password. */
function readCredential(authorization: string): Credential | 'none' | undefined {
  const token = /^bearer +([\w.~+/-]+=*) *$/i.exec(authorization)?.[1];
  if (token !== undefined) return { kind: 'bearer', token };
  const encoded = /^basic +([A-Za-z0-9+/]+=*) *$/i.exec(authorization)?.[1];
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  if (colon < 0) return undefined;
  if (text === ':') return 'none';
  return { kind: 'password', user: text.slice(0, colon), password: text.slice(colon + 1) };
}
