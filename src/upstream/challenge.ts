/** One challenge of a WWW-Authenticate header: its scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const quoted = /"((?:[^"\\]|\\.)*)"/y;
const space = /[ \t]*/y;

/**
 * Reads the challenges of RFC 9110, 11.6.1. A comma stands between challenges, between parameters, and inside quoted
 * values (`scope="repository:a:pull,push"`), so splitting at commas does not do. Stops at what it cannot read.
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = 0;

  function take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = at;
    const match = pattern.exec(header) ?? undefined;
    if (match) at = pattern.lastIndex;
    return match;
  }

  while (at < header.length) {
    take(space);
    if (header[at] === ',') {
      at++;
      continue;
    }
    const word = take(token)?.[0].toLowerCase();
    if (word === undefined) break;
    take(space);
    if (header[at] !== '=') {
      challenges.push({ scheme: word, parameters: new Map() });
      continue;
    }
    at++;
    take(space);
    const value = take(quoted)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? take(token)?.[0];
    if (value === undefined) break;
    challenges.at(-1)?.parameters.set(word, value);
  }
  return challenges;
}
