import { createHmac, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Guesses } from './guesses.ts';

/** A file of users and what bcrypt made of their passwords, as `htpasswd -B` writes it. */
export interface Htpasswd {
  /**
   * Is this the user's password?
   *
   * @param address where it comes from
   * @throws what checking fails with
   */
  check(user: string, password: string, address?: string): Promise<boolean>;
}

export interface HtpasswdOptions {
  /** What bcrypt made of each user's password. */
  read(): Promise<ReadonlyMap<string, string>>;
  /** Does the password fit the hash? Slow, and therefore somewhere else. */
  compare(password: string, hash: string): Promise<boolean>;
  readonly guesses: Guesses;
  /** How many right passwords are remembered. */
  maxRemembered: number;
}

/** What a user who does not exist is compared with, so that asking takes as long. It is no password's hash. */
const nobody = '$2b$10$CwTycUXWue0Thq9StjUM0uJ8.M8V2b0kHk5a1u0Yl9mQ6B3kq0x9K';

/** A comparison costs what the hash says: one that took another time than those of users would tell who is none. */
function likeOthers(users: ReadonlyMap<string, string>): string {
  const [one = nobody] = users.values();
  return `${one.slice(0, costEnd)}${nobody.slice(costEnd)}`;
}

const costEnd = '$2b$10$'.length;

const grammar = /^\$2[aby]\$(\d{2})\$[./A-Za-z0-9]{53}$/;

/** A right password is compared once, and known again by a hash whose key is this process's own. */
export function createHtpasswd({ read, compare, guesses, maxRemembered }: HtpasswdOptions): Htpasswd {
  const key = randomBytes(32);
  const right = new LRUCache<string, true>({ max: maxRemembered });
  const comparing = new Map<string, Promise<boolean>>();

  /** A node that starts asks many things at once with the same password, which is one guess. */
  function once(mark: string, address: string | undefined, compareIt: () => Promise<boolean>): Promise<boolean> {
    const joined = comparing.get(mark);
    if (joined) return joined;
    const takeBack = guesses.begin(address);
    const running = settle(compareIt(), takeBack).finally(() => comparing.delete(mark));
    comparing.set(mark, running);
    return running;
  }

  return {
    async check(user, password, address) {
      const users = await read();
      const hash = users.get(user);
      const parts = [user, hash ?? '', password].map((part) => `${Buffer.byteLength(part)}:${part}`);
      const mark = createHmac('sha256', key).update(parts.join()).digest('base64');
      if (right.has(mark)) return true;
      // What is remembered was let in above: others who guess from the same address keep nobody out who was in.
      const isRight = await once(mark, address, async () => {
        return (await compare(password, hash ?? likeOthers(users))) && hash !== undefined;
      });
      if (isRight) right.set(mark, true);
      return isRight;
    },
  };
}

/** Only a wrong password is a guess: one that could not be looked at is none. */
async function settle(comparison: Promise<boolean>, takeBack: () => void): Promise<boolean> {
  const isRight = await comparison.catch((error: unknown) => {
    takeBack();
    throw error;
  });
  if (isRight) takeBack();
  return isRight;
}

/** @throws Error what is wrong, in one sentence, without what stands in the file */
export function parseHtpasswd(text: string): Map<string, string> {
  const users = new Map<string, string>();
  for (const [at, line] of text.split('\n').entries()) {
    const entry = line.trim();
    if (entry === '' || entry.startsWith('#')) continue;
    const colon = entry.indexOf(':');
    const [user, hash] = [entry.slice(0, colon), entry.slice(colon + 1)];
    if (colon < 1) throw new Error(`line ${at + 1} is not of the form user:hash`);
    if (Number(grammar.exec(hash)?.[1] ?? 99) > maxCost) {
      throw new Error(`line ${at + 1} has no bcrypt hash of cost ${maxCost} or less; htpasswd -B makes one`);
    }
    if (users.has(user)) throw new Error(`line ${at + 1} names a user again`);
    users.set(user, hash);
  }
  return users;
}

/** Each step doubles what a check costs: at 14 it is about a second. */
const maxCost = 14;
