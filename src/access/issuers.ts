import { createLocalJWKSet, createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose';
import type { JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from 'jose';
import { NarrowsError } from '../errors.ts';
import type { Identity } from './identity.ts';
import { issuerOf } from './tokens.ts';

/** Someone else who vouches for callers: the cluster for its pods, the CI system for its jobs (OpenID Connect). */
export interface Issuer {
  /** As it stands in `iss`, to the letter. */
  readonly url: string;
  readonly audience: string;
  /** Before its users and groups, so that they are nobody else's. */
  readonly prefix: string;
  /** The claims that say user and groups. */
  readonly userClaim: string;
  readonly groupsClaim: string;
  readonly keys: JWTVerifyGetKey;
}

/** Undefined for a token that is none of theirs, or not good (any more). @throws NarrowsError issuerUnavailable */
export type VerifyToken = (token: string) => Promise<Identity | undefined>;

/** What signs with a secret that the verifier has as well is nobody's proof. */
const algorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const clockToleranceS = 30;
const maxTokenLength = 16 * 1024;

export function createVerifier(issuers: readonly Issuer[], now: () => number): VerifyToken {
  return async (token) => {
    if (token.length > maxTokenLength) return undefined;
    const said = issuerOf(token);
    const issuer = issuers.find(({ url }) => url === said);
    if (!issuer) return undefined;
    try {
      const { payload } = await jwtVerify(token, issuer.keys, {
        algorithms,
        issuer: issuer.url,
        audience: issuer.audience,
        requiredClaims: ['exp', issuer.userClaim],
        clockTolerance: clockToleranceS,
        currentDate: new Date(now()),
      });
      return identityOf(payload, issuer);
    } catch (error) {
      if (error instanceof NarrowsError) throw error;
      if (error instanceof errors.JOSEError) return undefined;
      throw error;
    }
  };
}

function identityOf(claims: JWTPayload, { prefix, userClaim, groupsClaim }: Issuer): Identity | undefined {
  const user = claims[userClaim];
  if (typeof user !== 'string' || user === '') return undefined;
  const said: unknown[] = [claims[groupsClaim] ?? []].flat();
  const groups = said.filter((group) => typeof group === 'string').filter((group) => group !== '');
  return { user: `${prefix}${user}`, groups: groups.map((group) => `${prefix}${group}`) };
}

/** The keys of a JSON Web Key Set. @throws Error for what is none */
export function fixedKeys(text: string): JWTVerifyGetKey {
  return createLocalJWKSet(JSON.parse(text) as JSONWebKeySet);
}

export interface RemoteKeys {
  /** The text at a URL. @throws what fetching fails with */
  fetch(url: URL): Promise<string>;
  /** Where the keys are; undefined for what the issuer's own description says (OpenID Connect Discovery, 4). */
  readonly jwks: URL | undefined;
  readonly issuer: string;
  now(): number;
}

/** Someone who makes up tokens with new key ids must not have us knock at the issuer for each. */
const refetchMs = 60_000;
const keepMs = 10 * 60_000;
/** How long an issuer is left alone that could not be asked. */
const retryMs = 5000;

/** The keys of an issuer that is asked for them; those it had are kept while it cannot be asked. */
export function remoteKeys({ fetch, jwks, issuer, now }: RemoteKeys): JWTVerifyGetKey {
  let failed: { error: unknown; atMs: number } | undefined;
  let last: string | undefined;
  let found: URL | undefined = jwks;

  async function load(): Promise<string> {
    if (failed && Math.abs(now() - failed.atMs) < retryMs) throw failed.error;
    try {
      found ??= keysIn(await fetch(discoveryOf(issuer)), issuer);
      return (last = await fetch(found));
    } catch (error) {
      failed = { error, atMs: now() };
      throw error;
    }
  }

  const set = createRemoteJWKSet(jwks ?? discoveryOf(issuer), {
    cooldownDuration: refetchMs,
    cacheMaxAge: keepMs,
    [customFetch]: async () => {
      const text = await load().catch((cause: unknown) => {
        if (last !== undefined) return last;
        throw new NarrowsError('issuerUnavailable', `The keys of ${issuer} cannot be had; the log says why.`, {
          cause,
          retryAfterS: retryMs / 1000,
        });
      });
      return new Response(text, { headers: { 'content-type': 'application/json' } });
    },
  });
  return (header, token) => set(header, token);
}

function discoveryOf(issuer: string): URL {
  return new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`);
}

function keysIn(text: string, issuer: string): URL {
  const { issuer: said, jwks_uri: uri } = JSON.parse(text) as { issuer?: unknown; jwks_uri?: unknown };
  if (said !== issuer) throw new Error(`${issuer} describes itself as another issuer`);
  if (typeof uri === 'string' && URL.canParse(uri)) return new URL(uri);
  throw new Error(`${issuer} does not say where its keys are`);
}
