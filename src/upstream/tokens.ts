import { LRUCache } from 'lru-cache';
import { NarrowsError } from '../errors.ts';
import { createBackoff } from './backoff.ts';
import { parseChallenges } from './challenge.ts';
import type { Challenge } from './challenge.ts';
import type { Credential, Credentials } from './credentials.ts';

/** A request to a token service: plain, without redirects. */
export interface TokenRequest {
  readonly method: 'GET' | 'POST';
  readonly url: URL;
  readonly headers: Record<string, string>;
  readonly body?: string;
}

export interface TokenReply {
  readonly status: number;
  readonly text: string;
  readonly retryAfterS?: number;
}

export interface AuthorizationOptions {
  /** For messages: the upstream's name. */
  readonly upstream: string;
  readonly credentials: Credentials;
  readonly maxTokens: number;
  /** May a credential, or the question for an anonymous token, go to this URL? */
  isTrustedRealm(realm: URL): boolean;
  request(request: TokenRequest): Promise<TokenReply>;
  now(): number;
}

/** The `Authorization` of one upstream under one credential; nothing of it is shared with another. */
export interface Authorization {
  /** The header to send at once for a scope, once its challenge has been seen. */
  current(scope: string): Promise<string | undefined>;
  /**
   * The header that answers a 401, or undefined when there is nothing better than what was refused.
   *
   * @param refused the header that the 401 answered, so that a fresh token of another request is tried first
   */
  answer(scope: string, challenge: string | undefined, refused: string | undefined): Promise<string | undefined>;
  /** How long the token service is left alone yet. */
  backoffMs(): number;
}

interface Grant {
  readonly header: string;
  readonly untilMs: number;
}

/** What clients assume where a token service does not say (distribution `token.md`). */
const defaultLifeS = 60;
const maxLifeS = 24 * 3600;

export function createAuthorization(options: AuthorizationOptions): Authorization {
  const { credentials, now, upstream } = options;
  // Each is one of that size: by `max` room for all of them would be made at each start, for each upstream.
  const bounds = { maxSize: options.maxTokens, sizeCalculation: () => 1 };
  const grants = new LRUCache<string, Grant>(bounds);
  const challenges = new LRUCache<string, Challenge>(bounds);
  const pending = new Map<string, Promise<string | undefined>>();
  const backoff = createBackoff({ who: `The token service of ${upstream}`, now });

  /** One request to the token service for a scope, however many pulls wait for it. */
  function renew(scope: string, challenge: Challenge): Promise<string | undefined> {
    const running = pending.get(scope) ?? obtain(scope, challenge).finally(() => pending.delete(scope));
    pending.set(scope, running);
    return running;
  }

  async function obtain(scope: string, challenge: Challenge): Promise<string | undefined> {
    const credential = await credentials.get().catch((cause: unknown) => {
      throw new NarrowsError('upstreamUnusable', `The credentials for ${upstream} cannot be read; the log says why.`, {
        cause,
      });
    });
    const grant =
      challenge.scheme === 'basic' ? basicGrant(credential) : await bearerGrant(scope, challenge, credential);
    if (!grant) return undefined;
    grants.set(scope, grant);
    challenges.set(scope, challenge);
    return grant.header;
  }

  async function bearerGrant(
    scope: string,
    challenge: Challenge,
    credential: Credential | undefined,
  ): Promise<Grant | undefined> {
    const realm = trustedRealm(challenge.parameters.get('realm'));
    const request = tokenRequest(realm, scope, challenge.parameters.get('service'), credential);
    const leave = backoff.enter();
    const reply = await options.request(request).finally(leave);
    if (reply.status === 429) throw backoff.limited(reply.retryAfterS);
    backoff.answered();
    if (reply.status >= 500) {
      throw new NarrowsError('upstreamUnavailable', `The token service of ${upstream} answers ${reply.status}.`);
    }
    if (reply.status !== 200) return undefined;
    return readGrant(reply.text);
  }

  function trustedRealm(text: string | undefined): URL {
    const realm = text !== undefined && URL.canParse(text) ? new URL(text) : undefined;
    if (realm && options.isTrustedRealm(realm)) return realm;
    throw new NarrowsError(
      'upstreamUnusable',
      `${upstream} sends clients to ${realm ? realm.host : 'no usable address'} for a token; if that is right, add it to upstreams."${upstream}".trustedHosts.`,
    );
  }

  function readGrant(text: string): Grant {
    const reply = parseTokenReply(text);
    // It goes into a header: what could break out of one is no token.
    const token = [reply?.access_token, reply?.token].find(
      (one) => typeof one === 'string' && /^[\x21-\x7e]+$/.test(one),
    );
    if (token === undefined) {
      throw new NarrowsError('upstreamUnusable', `The token service of ${upstream} answers with no usable token.`);
    }
    const said = Number(reply?.expires_in ?? defaultLifeS);
    const lifeS = Math.min(said > 0 ? said : defaultLifeS, maxLifeS);
    return { header: `Bearer ${token as string}`, untilMs: now() + lifeS * 900 };
  }

  return {
    async current(scope) {
      const grant = grants.get(scope);
      if (grant && grant.untilMs > now()) return grant.header;
      const challenge = challenges.get(scope);
      return challenge && renew(scope, challenge);
    },

    async answer(scope, header, refused) {
      const grant = grants.get(scope);
      if (grant && grant.header !== refused && grant.untilMs > now()) return grant.header;
      const challenge = choose(parseChallenges(header ?? ''));
      if (!challenge) return undefined;
      grants.delete(scope);
      if (refused !== undefined) credentials.forget();
      const renewed = await renew(scope, challenge);
      return renewed === refused ? undefined : renewed;
    },

    backoffMs: () => backoff.waitMs(),
  };
}

/** Bearer before Basic, as containerd chooses (`core/remotes/docker/auth/parse.go`). */
function choose(challenges: readonly Challenge[]): Challenge | undefined {
  const of = (scheme: string) => challenges.find((challenge) => challenge.scheme === scheme);
  return of('bearer') ?? of('basic');
}

function basicGrant(credential: Credential | undefined): Grant | undefined {
  if (credential?.kind !== 'password') return undefined;
  return { header: basic(credential), untilMs: Infinity };
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** GET for everyone, POST where the credential is a refresh token (distribution `token.md` and `oauth.md`). */
function tokenRequest(
  realm: URL,
  scope: string,
  service: string | undefined,
  credential: Credential | undefined,
): TokenRequest {
  if (credential?.kind === 'identity') {
    const body = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: credential.token,
      client_id: 'narrows',
      ...(scope !== '' && { scope }),
      ...(service !== undefined && { service }),
    }).toString();
    return { method: 'POST', url: realm, headers: { 'content-type': 'application/x-www-form-urlencoded' }, body };
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  if (scope !== '') url.searchParams.append('scope', scope);
  return { method: 'GET', url, headers: credential ? { authorization: basic(credential) } : {} };
}

interface TokenDocument {
  token?: unknown;
  access_token?: unknown;
  expires_in?: unknown;
}

function parseTokenReply(text: string): TokenDocument | undefined {
  try {
    return JSON.parse(text) as TokenDocument | undefined;
  } catch {
    return undefined;
  }
}
