/** A JSON value as it came from outside: looked into, never trusted. */
export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json | undefined;
}

const maxDepth = 64;
/** More than any manifest or config has; what reading costs goes by it, not by bytes. */
const maxValues = 100_000;

/**
 * Parses JSON that decides something. Stricter than JSON.parse, because a document that two readers understand
 * differently is an attack (CVE-2021-41190): no byte order mark, no invalid UTF-8, no key twice in one object, no
 * deep nesting. Numbers that a double cannot hold keep their text, so that writing the value again changes nothing.
 *
 * @throws SyntaxError with the reason
 */
export function parseJson(bytes: Uint8Array): Json {
  const text = decode(bytes);
  const escaped = checkShape(text);
  return escaped.length > 0 ? parsePlaced(text, escaped) : (JSON.parse(text, keepNumberText) as Json);
}

/** Before the number of a key that was taken out; a key that begins so by itself is taken out as well. */
const mark = '\ue000';

interface EscapedKey {
  readonly start: number;
  readonly end: number;
  readonly key: string;
}

/** V8 takes an escaped key for another one that stood in its place before: each is parsed as a mark, and put back. */
function parsePlaced(text: string, escaped: readonly EscapedKey[]): Json {
  let [plain, from] = ['', 0];
  for (const [at, { start, end }] of escaped.entries()) {
    plain += `${text.slice(from, start)}"${mark}${at}"`;
    from = end + 1;
  }
  const putBack = (key: string) => (key.startsWith(mark) ? escaped[Number(key.slice(mark.length))]!.key : key);
  return JSON.parse(plain + text.slice(from), (key, value: unknown, context?: { source?: string }) => {
    const object = asObject(value as Json);
    if (!object) return keepNumberText(key, value, context);
    return Object.fromEntries(Object.entries(object).map(([name, entry]) => [putBack(name), entry]));
  }) as Json;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new SyntaxError('it is not UTF-8', { cause });
  }
}

/** The value as an object, or undefined where it is anything else. */
export function asObject(value: Json | undefined): JsonObject | undefined {
  // A number that kept its text is an object to `typeof`.
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isRawJson(value) ? value : undefined;
}

function keepNumberText(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  return String(value) === context.source ? value : rawJson(context.source);
}

// In the language since ES2026, in V8 since Node 22, not yet in TypeScript's library.
const { rawJSON: rawJson, isRawJSON: isRawJson } = JSON as unknown as {
  rawJSON(text: string): unknown;
  isRawJSON(value: unknown): boolean;
};

/** One pass over the text for depth and repeated keys; everything else is JSON.parse's to judge. */
function checkShape(text: string): EscapedKey[] {
  const escaped: EscapedKey[] = [];
  const open: (Set<string> | undefined)[] = [];
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === ',' || character === '{' || character === '[') values++;
    if (values > maxValues) throw new SyntaxError(`it has more than ${maxValues} values`);
    if (character === '{' || character === '[') {
      if (open.length === maxDepth) throw new SyntaxError(`nested deeper than ${maxDepth} levels`);
      open.push(character === '{' ? new Set() : undefined);
    } else if (character === '}' || character === ']') {
      open.pop();
    } else if (character === '"') {
      const end = endOfString(text, at);
      const keys = open.at(-1);
      if (keys && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end + 1)) as string;
        if (keys.has(key)) throw new SyntaxError(`key ${JSON.stringify(key.slice(0, 80))} stands twice in one object`);
        keys.add(key);
        if (key.startsWith(mark) || text.slice(at, end).includes('\\')) escaped.push({ start: at, end, key });
      }
      at = end;
    }
  }
  return escaped;
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '"') return at;
  }
  throw new SyntaxError('a string has no end');
}

function isKey(text: string, endOfText: number): boolean {
  for (let at = endOfText + 1; at < text.length; at++) {
    const character = text[at];
    if (character === ':') return true;
    if (character !== ' ' && character !== '\n' && character !== '\r' && character !== '\t') return false;
  }
  return false;
}
