import type { Access, Asker } from './access.ts';
import { parseScopes } from './scopes.ts';
import type { Scope } from './scopes.ts';
import type { Tokens } from './tokens.ts';

/** A question for a token, by GET (distribution `auth/token.md`) or by POST (`auth/oauth.md`). */
export interface TokenQuestion {
  /** Its `Authorization` is what a POST says in its body, where it says anything. */
  readonly asker: Asker;
  readonly scopes: readonly string[];
}

export interface TokenService {
  /**
   * The answer as JSON.
   *
   * @param fallback the upstream that stands for none where the question came in
   * @throws NarrowsError unauthorized, rateLimited, overloaded, issuerUnavailable
   */
  answer(question: TokenQuestion, fallback: string | undefined): Promise<string>;
}

export interface TokenServiceOptions {
  /** Takes what proves who someone is, and no token of ours: one must not lead to the next without end. */
  readonly logins: Access;
  readonly tokens: Tokens;
  /** The key of a repository by a name that clients use; undefined for what is none. */
  keyOf(name: string, fallback: string | undefined): string | undefined;
}

/** Docker asks for one scope for each repository that a push may mount from. */
const maxScopes = 64;

/**
 * Hands out tokens to whoever says who they are, and to those who are nobody. A token narrows what its user may: what
 * that is, is looked up with each request that shows it.
 */
export function createTokenService({ logins, tokens, keyOf }: TokenServiceOptions): TokenService {
  return {
    async answer({ asker, scopes: texts }, fallback) {
      const by = await logins.identify(asker);
      const scopes = parseScopes(texts, maxScopes).flatMap((scope): Scope[] => {
        if (scope.type !== 'repository') return [scope];
        const name = keyOf(scope.name, fallback);
        return name === undefined ? [] : [{ ...scope, name }];
      });
      const { token, issuedMs, lifetimeMs } = await tokens.issue(by, scopes);
      return JSON.stringify({
        token,
        // Clients differ in which of the two they read.
        access_token: token,
        expires_in: Math.floor(lifetimeMs / 1000),
        issued_at: new Date(issuedMs).toISOString(),
      });
    },
  };
}
