import { SignJWT, decodeJwt, errors, jwtVerify } from 'jose';
import { anonymous } from './identity.ts';
import type { Identity } from './identity.ts';
import type { Scope } from './scopes.ts';

/** Tokens of this mirror's own: who showed a credential, and what for. */
export interface Tokens {
  issue(by: Identity, scopes: readonly Scope[]): Promise<Issued>;
  /** Undefined for what is no token of this mirror, any more or at all. */
  read(token: string): Promise<Identity | undefined>;
}

export interface Issued {
  readonly token: string;
  readonly issuedMs: number;
  readonly lifetimeMs: number;
}

export interface TokensOptions {
  /** Secrets that all replicas share; the first signs, all are good. */
  readonly keys: readonly Uint8Array[];
  /** Whom tokens are for: those of another mirror with the same keys are not good here. */
  readonly service: string;
  readonly lifetimeMs: number;
  now(): number;
}

/** One algorithm and no other: a token does not choose how it is looked at. */
const algorithm = 'HS256';
const issuer = 'narrows';

export function createTokens({ keys, service, lifetimeMs, now }: TokensOptions): Tokens {
  async function verified(token: string, key: Uint8Array): Promise<Record<string, unknown> | undefined> {
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: [algorithm],
        issuer,
        audience: service,
        typ: 'at+jwt',
        requiredClaims: ['exp', 'iat'],
        currentDate: new Date(now()),
      });
      return payload;
    } catch (error) {
      if (error instanceof errors.JOSEError) return undefined;
      throw error;
    }
  }

  return {
    async issue({ user, groups }, scopes) {
      const issuedMs = now();
      const seconds = Math.floor(issuedMs / 1000);
      const claims = new SignJWT({ access: scopes, groups })
        .setProtectedHeader({ alg: algorithm, typ: 'at+jwt' })
        .setIssuer(issuer)
        .setAudience(service)
        .setIssuedAt(seconds)
        .setExpirationTime(seconds + Math.ceil(lifetimeMs / 1000));
      if (user !== undefined) claims.setSubject(user);
      return { token: await claims.sign(keys[0]!), issuedMs, lifetimeMs };
    },

    async read(token) {
      for (const key of keys) {
        const claims = await verified(token, key);
        if (claims) return identityOf(claims);
      }
      return undefined;
    },
  };
}

/** Is this, by what it says, a token of a mirror? Nothing is believed yet. */
export function isOwn(token: string): boolean {
  return issuerOf(token) === issuer;
}

/** What a token says of its issuer, before anything is believed. */
export function issuerOf(token: string): string | undefined {
  try {
    const said: unknown = decodeJwt(token).iss;
    return typeof said === 'string' ? said : undefined;
  } catch {
    return undefined;
  }
}

/** Its shape is known: whoever signed it has made it here. */
function identityOf({ sub, groups, access }: Record<string, unknown>): Identity {
  const scopes = access as Scope[];
  return sub === undefined ? { ...anonymous, scopes } : { user: sub as string, groups: groups as string[], scopes };
}
