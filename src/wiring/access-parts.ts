import { randomBytes } from 'node:crypto';
import { basicChallenge, callersAccess, certificateAccess, headerAccess, openAccess } from '../access/access.ts';
import type { Access, Asker, Check } from '../access/access.ts';
import { createBcrypt } from '../access/bcrypt.ts';
import { createGuesses } from '../access/guesses.ts';
import { createHtpasswd } from '../access/htpasswd.ts';
import { reservedNames } from '../access/identity.ts';
import type { Challenge } from '../access/identity.ts';
import { createVerifier } from '../access/issuers.ts';
import type { VerifyToken } from '../access/issuers.ts';
import { formatScope } from '../access/scopes.ts';
import { createTokenService } from '../access/token-service.ts';
import type { TokenService, TokenServiceOptions } from '../access/token-service.ts';
import { createTokens, isOwn } from '../access/tokens.ts';
import type { Tokens } from '../access/tokens.ts';
import type { Context } from './context.ts';
import { openIssuers } from './issuers.ts';
import { minKeyBytes, readKeys } from './key-files.ts';
import { createUsersReader } from './users-file.ts';

export interface AccessParts {
  readonly access: Access;
  /** Where the mirror hands out tokens. */
  readonly tokens?: TokenService;
}

type GroupsOf = (user: string) => readonly string[];

/** How a mirror finds out who asks. @throws Error what is wrong with a file of users or keys, in one sentence */
export async function openAccessParts(context: Context, keyOf: TokenServiceOptions['keyOf']): Promise<AccessParts> {
  const { mode, groups, issuers } = context.config.access;
  if (mode === 'none') return { access: openAccess };
  if (mode === 'upstream') return { access: callersAccess };
  const members = Object.entries(groups);
  const groupsOf = (user: string) => members.filter(([, users]) => users.includes(user)).map(([group]) => group);
  const isUser = (name: string) => !reservedNames.includes(name) && !Object.hasOwn(groups, name);
  // What has an issuer's prefix is that issuer's to say.
  const isOwnUser = (name: string) => isUser(name) && !issuers.some(({ prefix }) => name.startsWith(prefix));
  const withCertificates = (other: Access) => certificateAccess(other, mode !== 'certificate', groupsOf, isOwnUser);
  if (mode === 'certificate') return { access: withCertificates(openAccess) };

  const verify = createVerifier(await openIssuers(context), context.now);
  const login = loginCheck(await openPasswords(context, groupsOf), verify, issuers.length > 0, isUser);
  const logins = withCertificates(headerAccess(login, () => basicChallenge));
  if (mode === 'basic') return { access: logins };
  const tokens = await openTokens(context);
  const both: Check = async (credential, address) =>
    credential.kind === 'bearer' && isOwn(credential.token)
      ? tokens.read(credential.token)
      : login(credential, address);
  return {
    access: withCertificates(headerAccess(both, bearerChallenge(context))),
    tokens: createTokenService({ logins, tokens, keyOf }),
  };
}

/** The user of a Basic header whose password is the token of an issuer, where there is one: some clients know no other way. */
const tokenUser = 'jwt';

function loginCheck(
  passwords: Check,
  verify: VerifyToken,
  hasIssuers: boolean,
  isUser: (name: string) => boolean,
): Check {
  return async (credential, address) => {
    const isPassword = credential.kind === 'password' && (credential.user !== tokenUser || !hasIssuers);
    if (isPassword) return passwords(credential, address);
    const identity = await verify(credential.kind === 'bearer' ? credential.token : credential.password);
    return identity?.user !== undefined && isUser(identity.user) ? identity : undefined;
  };
}

async function openPasswords({ config, log, now, closers }: Context, groupsOf: GroupsOf): Promise<Check> {
  const { htpasswd: path, groups } = config.access;
  if (path === null) return () => Promise.resolve(undefined);
  const { passwordChecks, rememberedPasswords, wrongPasswords, wrongAddresses } = config.limits;
  const read = createUsersReader(path, groups, (error) =>
    log.error({ err: error, path }, 'the users cannot be read; going by the last'),
  );
  await read();
  const bcrypt = createBcrypt(passwordChecks);
  closers.push(() => bcrypt.close());
  const guesses = createGuesses({ maxWrong: wrongPasswords, maxAddresses: wrongAddresses, now });
  const htpasswd = createHtpasswd({ read, compare: bcrypt.compare, guesses, maxRemembered: rememberedPasswords });
  return async (credential, address) => {
    if (credential.kind !== 'password') return undefined;
    const { user, password } = credential;
    return (await htpasswd.check(user, password, address)) ? { user, groups: groupsOf(user) } : undefined;
  };
}

async function openTokens({ config, now, log }: Context): Promise<Tokens> {
  const { keys: paths, service, lifetime } = config.access.token;
  const keys = await readKeys(paths);
  if (keys.length === 0)
    log.info('tokens are good until this process ends; give access.token.keys where there are more');
  return createTokens({
    keys: keys.length > 0 ? keys : [randomBytes(minKeyBytes)],
    service,
    lifetimeMs: lifetime,
    now,
  });
}

function bearerChallenge({ config }: Context): (asker: Asker) => Challenge {
  const { realm, service } = config.access.token;
  return ({ origin }) => {
    const at = realm === null ? origin && `${origin}/token` : new URL(realm).href;
    if (at === undefined) return basicChallenge;
    return (missing) => `Bearer realm="${at}",service="${service}"${missing ? `,scope="${formatScope(missing)}"` : ''}`;
  };
}
