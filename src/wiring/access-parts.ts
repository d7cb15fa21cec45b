import { readFile, stat } from 'node:fs/promises';
import { basicAccess, certificateAccess, openAccess } from '../access/access.ts';
import type { Access } from '../access/access.ts';
import { createBcrypt } from '../access/bcrypt.ts';
import { createGuesses } from '../access/guesses.ts';
import { createHtpasswd, parseHtpasswd } from '../access/htpasswd.ts';
import { reservedNames } from '../access/identity.ts';
import type { Context } from './context.ts';

/** How a mirror finds out who asks. @throws Error what is wrong with the file of users, in one sentence */
export async function openAccessParts(context: Context): Promise<Access> {
  const { mode, groups } = context.config.access;
  if (mode === 'none') return openAccess;
  const members = Object.entries(groups);
  const groupsOf = (user: string) => members.filter(([, users]) => users.includes(user)).map(([group]) => group);
  const passwords = mode === 'basic' ? await openPasswords(context, groupsOf) : openAccess;
  const isUser = (name: string) => !reservedNames.includes(name) && !Object.hasOwn(groups, name);
  return certificateAccess(passwords, groupsOf, isUser);
}

async function openPasswords(
  { config, log, now, closers }: Context,
  groupsOf: (user: string) => readonly string[],
): Promise<Access> {
  const { htpasswd: path, groups } = config.access;
  if (path === null) throw new Error('access.mode is basic, and access.htpasswd names no file of users');
  const { passwordChecks, rememberedPasswords, wrongPasswords, wrongAddresses } = config.limits;
  const read = createReader(path, groups, (error) =>
    log.error({ err: error, path }, 'the users cannot be read; going by the last'),
  );
  await read();
  const bcrypt = createBcrypt(passwordChecks);
  closers.push(() => bcrypt.close());
  const guesses = createGuesses({ maxWrong: wrongPasswords, maxAddresses: wrongAddresses, now });
  const htpasswd = createHtpasswd({ read, compare: bcrypt.compare, guesses, maxRemembered: rememberedPasswords });
  return basicAccess({ check: htpasswd.check, groupsOf });
}

/** The users as the file has them; while it has a mistake, as it had them before. */
function createReader(
  path: string,
  groups: object,
  onTrouble: (error: unknown) => void,
): () => Promise<ReadonlyMap<string, string>> {
  let users: ReadonlyMap<string, string> | undefined;
  let seen = '';
  return async () => {
    try {
      const { mtimeMs, size, ino } = await stat(path);
      const version = `${mtimeMs} ${size} ${ino}`;
      if (users && version === seen) return users;
      const text = await readFile(path, 'utf8');
      // Also where it is wrong: that is said once.
      seen = version;
      users = check(parseHtpasswd(text), groups);
    } catch (cause) {
      if (!users) throw new Error(`${path} is no file of users: ${(cause as Error).message}`, { cause });
      onTrouble(cause);
    }
    return users;
  };
}

function check(users: ReadonlyMap<string, string>, groups: object): ReadonlyMap<string, string> {
  const reserved = reservedNames.find((name) => users.has(name));
  if (reserved !== undefined) throw new Error(`no user can be called ${reserved}`);
  // A right that is given to the one would be the other's as well.
  const shared = Object.keys(groups).find((name) => users.has(name));
  if (shared !== undefined) throw new Error(`${shared} is a user and a group`);
  return users;
}
