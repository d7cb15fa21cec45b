import { readFile, stat } from 'node:fs/promises';
import { parseHtpasswd } from '../access/htpasswd.ts';
import { reservedNames } from '../access/identity.ts';

/** The users as the file has them; while it has a mistake, as it had them before. */
export function createUsersReader(
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
