import { readFileSync } from 'node:fs';
import t from 'tap';
import { parse } from 'yaml';
import { jsonSchema } from '../src/config-schema.ts';

type Tree = { [key: string]: unknown };
type Schema = { [key: string]: unknown; properties?: Record<string, Schema>; description?: string };

const text = readFileSync(new URL('../config/default.yaml', import.meta.url), 'utf8');
const schema = jsonSchema(text) as Schema;
const defaults = parse(text) as Tree;

/** Where a value breaks a schema: as much of JSON Schema as an editor needs for the one that is made here. */
function breaks(rule: Schema, value: unknown, path = ''): string[] {
  const any = rule['anyOf'] as Schema[] | undefined;
  if (any) return any.some((one) => breaks(one, value, path).length === 0) ? [] : [path];
  const types = [rule['type'] ?? typeOf(value)].flat();
  const isType = types.includes(typeOf(value)) || (types.includes('number') && typeOf(value) === 'integer');
  const isListed = !Array.isArray(rule['enum']) || rule['enum'].includes(value);
  const isConstant = !('const' in rule) || rule['const'] === value;
  const isLong = typeof value !== 'string' || value.length >= Number(rule['minLength'] ?? 0);
  const isBig = typeof value !== 'number' || value >= Number(rule['minimum'] ?? -Infinity);
  if (!isType || !isListed || !isConstant || !isLong || !isBig) return [path];
  if (Array.isArray(value)) return breaksOfList(rule, value, path);
  return typeOf(value) === 'object' ? breaksOfMap(rule, value as Tree, path) : [];
}

function breaksOfList(rule: Schema, value: readonly unknown[], path: string): string[] {
  if (value.length < Number(rule['minItems'] ?? 0)) return [path];
  const items = (rule['items'] ?? {}) as Schema;
  return value.flatMap((one, at) => breaks(items, one, `${path}/${at}`));
}

function breaksOfMap(rule: Schema, value: Tree, path: string): string[] {
  const properties = rule.properties ?? {};
  const more = rule['additionalProperties'] as Schema | false | undefined;
  const required = (rule['required'] ?? []) as string[];
  return [
    ...required.filter((key) => !(key in value)).map((key) => `${path}/${key}`),
    ...Object.entries(value).flatMap(([key, one]) => {
      const property = Object.hasOwn(properties, key) ? properties[key] : more;
      return property === false ? [`${path}/${key}`] : breaks(property ?? {}, one, `${path}/${key}`);
    }),
  ];
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

/** The schemas of all keys that have a name of their own, by their paths. */
function namedIn(rule: Schema, above = ''): [path: string, rule: Schema][] {
  return Object.entries(rule.properties ?? {}).flatMap(([key, one]) => [
    [`${above}${key}`, one] as [string, Schema],
    ...namedIn(one, `${above}${key}/`),
  ]);
}

const named = new Map(namedIn(schema));

void t.test('jsonSchema: is JSON of a version that editors know, with a title', (t) => {
  t.match(schema['$schema'], /^https:\/\/json-schema\.org\/draft\//);
  t.equal(schema['title'], 'narrows');
  t.same(JSON.parse(JSON.stringify(schema)), schema);
  t.end();
});

void t.test('jsonSchema: the defaults keep to it', (t) => {
  t.same(breaks(schema, defaults), []);
  t.end();
});

void t.test('jsonSchema: a file names only what it changes', (t) => {
  const files: Record<string, Tree> = {
    nothing: {},
    'one duration': { tags: { fresh: '5m' } },
    'one limit': { limits: { downloads: 4 } },
    'a listener': { listen: [{ address: ':5000', platforms: ['linux/arm64', 'edge'], view: 'index' }] },
    'no admin': { admin: { address: null } },
    'a set': { platforms: { sets: { edge: ['linux/arm64'] }, hosts: { 'a.example': 'edge' } } },
    'a tag rule': { tags: { rules: [{ pattern: '*', immutable: true }] } },
    'no memory': { cache: { memory: { maxSize: 0 } } },
    'a new upstream': { upstreams: { 'r.example': { url: 'https://r.example', ca: 'ca.pem' } } },
    'credentials of an upstream that is there already': {
      upstreams: { 'ghcr.io': { credentials: { username: 'u', passwordFile: 'p' } } },
    },
    'an upstream taken away': { upstreams: { 'ghcr.io': null } },
  };
  for (const [what, file] of Object.entries(files)) t.same(breaks(schema, file), [], what);
  t.end();
});

void t.test('jsonSchema: an editor sees what is wrong, at its place', (t) => {
  const files: [file: Tree, at: string][] = [
    [{ surprise: 1 }, '/surprise'],
    [{ limits: { surprise: 1 } }, '/limits/surprise'],
    [{ limits: { connections: 0 } }, '/limits/connections'],
    [{ limits: { connections: 1.5 } }, '/limits/connections'],
    [{ limits: { connections: '5' } }, '/limits/connections'],
    [{ tags: { fresh: 60 } }, '/tags/fresh'],
    [{ tags: { rules: [{ fresh: '1s' }] } }, '/tags/rules/0/pattern'],
    [{ listen: [] }, '/listen'],
    [{ listen: [{}] }, '/listen/0/address'],
    [{ listen: [{ address: ':1', view: 'all' }] }, '/listen/0/view'],
    [{ listen: [{ address: ':1', surprise: 1 }] }, '/listen/0/surprise'],
    [{ listen: [{ address: ':1', tls: { cert: 'a' } }] }, '/listen/0/tls/key'],
    [{ log: { level: 'loud' } }, '/log/level'],
    [{ platforms: { onMissing: 'guess' } }, '/platforms/onMissing'],
    [{ platforms: { sets: { edge: 'linux/arm64' } } }, '/platforms/sets/edge'],
    [{ upstreams: { 'ghcr.io': { surprise: 1 } } }, '/upstreams/ghcr.io/surprise'],
    [{ upstreams: { 'ghcr.io': { url: 5 } } }, '/upstreams/ghcr.io/url'],
  ];
  for (const [file, at] of files) {
    t.ok(
      breaks(schema, file).some((one) => one === at || at.startsWith(`${one}/`)),
      JSON.stringify(file),
    );
  }
  t.end();
});

void t.test('jsonSchema: every default is the one of the defaults', (t) => {
  let found = 0;
  for (const [path, rule] of named) {
    const value = path.split('/').reduce<unknown>((tree, key) => (tree as Tree)[key], defaults);
    if (value !== null && typeof value === 'object') t.notOk('default' in rule, path);
    else t.equal(rule['default'], value, path);
    found++;
  }
  t.ok(found > 30, `${found} keys`);
  t.end();
});

void t.test('jsonSchema: a key that has a comment in the defaults is described by it, and by nothing else', (t) => {
  const cases: [path: string, start: string][] = [
    ['listen', 'Where clients are served.'],
    ['admin', 'A page for people, health'],
    ['upstreams', 'The registries that are mirrored'],
    ['defaultUpstream', 'The upstream of references that name none.'],
    ['platforms/sets', 'Named sets'],
    ['platforms/hosts', 'By the host name'],
    ['cache/memory/maxSize', 'Manifests and small blobs'],
    ['cache/memory/maxBlobSize', 'The largest blob'],
    ['cache/disk/path', 'The store'],
    ['tags/fresh', 'How long a tag is believed'],
    ['tags/missing', 'How long "no such tag" is believed.'],
    ['limits/connections', 'Connections of clients'],
    ['limits/keepAlive', 'How long an idle connection is kept.'],
    ['log/level', 'trace, debug, info'],
  ];
  for (const [path, start] of cases) {
    const description = named.get(path)?.description ?? '(none)';
    t.equal(description.slice(0, start.length), start, path);
    t.notMatch(description, /^#/m, path);
  }
  t.end();
});

void t.test('jsonSchema: is made from the text that it is given', (t) => {
  const made = jsonSchema('# Words.\ntags:\n  missing: 1h\n  # More words,\n  #  indented.\n  stale: 2h\n') as Schema;
  t.match(made.properties?.['tags']?.properties?.['missing'], { default: '1h' });
  t.match(made.properties?.['tags']?.properties?.['stale'], { default: '2h', description: 'More words,\n indented.' });
  t.notOk('default' in made.properties!['defaultUpstream']!);
  t.doesNotThrow(() => jsonSchema(''));
  t.end();
});
