import { readFileSync } from 'node:fs';
import t from 'tap';
import { isMap, isScalar, parse, parseDocument } from 'yaml';
import type { YAMLMap } from 'yaml';
import { ConfigError, parseConfig, resolveSet } from '../src/config.ts';
import { parseAddress } from '../src/config-values.ts';
import type { Mistake } from '../src/config.ts';
import { formatPlatformSet, parsePlatform } from '../src/oci/platform.ts';
import type { PlatformSet } from '../src/oci/platform.ts';

type Tree = { [key: string]: unknown };

const text = readFileSync(new URL('../config/default.yaml', import.meta.url), 'utf8');

/** The defaults with some values replaced, each by its path: `{ 'tags.fresh': '5s' }`; undefined takes a key away. */
function withValues(values: Tree): Tree {
  const config = parse(text) as Tree;
  for (const [path, value] of Object.entries(values)) {
    const keys = path.split('/');
    const last = keys.pop()!;
    const parent = keys.reduce((tree, key) => tree[key] as Tree, config);
    if (value === undefined) delete parent[last];
    else Object.defineProperty(parent, last, { value, enumerable: true, configurable: true, writable: true });
  }
  return config;
}

function mistakesIn(config: unknown): readonly Mistake[] {
  try {
    parseConfig(config);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.mistakes;
  }
}

/** Where the mistakes of a configuration are; empty for one that is right. */
const mistakesOf = (config: unknown) => mistakesIn(config).map(({ path }) => path);

/** The paths of all single values and lists of the defaults. */
function leavesOf(tree: Tree, above = ''): string[] {
  return Object.entries(tree).flatMap(([key, value]) => {
    const path = above + key;
    const isOpen = ['upstreams', 'platforms/sets', 'platforms/hosts', 'platforms/addresses'].includes(path);
    return typeof value === 'object' && value !== null && !Array.isArray(value) && !isOpen
      ? leavesOf(value as Tree, `${path}/`)
      : [path];
  });
}

const leaves = leavesOf(parse(text) as Tree);

void t.test('the defaults are right, and read as milliseconds and bytes', (t) => {
  t.match(parseConfig(parse(text)), {
    listen: [{ address: '127.0.0.1:5000' }],
    admin: { address: '127.0.0.1:5001' },
    upstreams: { 'docker.io': { url: 'https://registry-1.docker.io' } },
    defaultUpstream: 'docker.io',
    platforms: { trustUserAgent: false, onMissing: 'error', primary: 'linux/amd64' },
    cache: {
      memory: {
        maxSize: 256 * 1024 ** 2,
        maxBlobSize: 1024 ** 2,
        maxAnswers: 16 * 1024 ** 2,
        maxRecords: 16 * 1024 ** 2,
        maxDocuments: 16 * 1024 ** 2,
      },
    },
    tags: { fresh: 60_000, missing: 10_000, stale: 5000, rules: [] },
    limits: { keepAlive: 75_000, downloadResumeDelay: 200, manifestSize: 4 * 1024 ** 2, unreadDownload: 4 * 1024 ** 3 },
    log: { level: 'info' },
  });
  t.end();
});

void t.test('the defaults hold every key: without any of them they are a mistake there', (t) => {
  t.ok(leaves.length > 30, `${leaves.length} keys`);
  for (const path of leaves) {
    const expected = [path.replaceAll('/', '.'), ...(path === 'upstreams' ? ['defaultUpstream'] : [])];
    t.same(mistakesOf(withValues({ [path]: undefined })), expected, path);
  }
  t.end();
});

void t.test('the defaults explain every key: above it, or above the lines that it stands among', (t) => {
  const document = parseDocument(text);
  const check = (map: YAMLMap, path: string, isExplained: boolean) => {
    let isBlockExplained = isExplained;
    for (const [at, { key, value }] of map.items.entries()) {
      if (!isScalar(key)) continue;
      const name = `${path}${String(key.value)}`;
      // The comment above the first key of a map is the map's own.
      const comment = key.commentBefore ?? (at === 0 ? map.commentBefore : undefined);
      if (key.spaceBefore) isBlockExplained = isExplained;
      if (comment) isBlockExplained = true;
      const isGroup = isMap(value) && leaves.some((leaf) => leaf.startsWith(`${name}/`));
      if (isGroup) check(value, `${name}/`, Boolean(comment));
      else t.ok(isBlockExplained, name);
    }
  };
  if (isMap(document.contents)) check(document.contents, '', false);
  t.end();
});

void t.test('the defaults use each setting of theirs once: no key is written twice, no alias, no tag', (t) => {
  const document = parseDocument(text, { strict: true, uniqueKeys: true });
  t.same(document.errors, []);
  t.same(document.warnings, []);
  t.notMatch(text, /^\s*[^#\s].*[&*!][A-Za-z]/m);
  t.end();
});

void t.test('durations and sizes: a number with its unit, nothing else', (t) => {
  const durations: [text: unknown, ms: number | undefined][] = [
    ['500ms', 500],
    ['60s', 60_000],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
    ['1.5s', 1500],
    ['0s', 0],
    [0, 0],
    ['60', undefined],
    [60, undefined],
    ['0', undefined],
    ['60 s', undefined],
    [' 60s', undefined],
    ['60s ', undefined],
    ['60S', undefined],
    ['-1s', undefined],
    ['1e3s', undefined],
    ['.5s', undefined],
    ['1m30s', undefined],
    ['1w', undefined],
    ['s', undefined],
    ['', undefined],
    ['Infinity', undefined],
    [null, undefined],
    [true, undefined],
    [['60s'], undefined],
    ['1MiB', undefined],
  ];
  for (const [value, expected] of durations) {
    const config = withValues({ 'tags/fresh': value });
    if (expected === undefined) t.same(mistakesOf(config), ['tags.fresh'], JSON.stringify(value));
    else t.equal(parseConfig(config).tags.fresh, expected, JSON.stringify(value));
  }
  const sizes: [text: unknown, bytes: number | undefined][] = [
    ['1B', 1],
    ['512KiB', 524_288],
    ['256MiB', 268_435_456],
    ['100GiB', 107_374_182_400],
    ['2TiB', 2_199_023_255_552],
    ['1.5KiB', 1536],
    ['0B', 0],
    [0, 0],
    ['1024', undefined],
    [1024, undefined],
    ['1KB', undefined],
    ['1kib', undefined],
    ['1 GiB', undefined],
    ['-1B', undefined],
    ['1G', undefined],
    ['60s', undefined],
  ];
  for (const [value, expected] of sizes) {
    const config = withValues({ 'cache/memory/maxSize': value });
    if (expected === undefined) t.same(mistakesOf(config), ['cache.memory.maxSize'], JSON.stringify(value));
    else t.equal(parseConfig(config).cache.memory.maxSize, expected, JSON.stringify(value));
  }
  t.end();
});

void t.test('parseConfig: tells all mistakes at once, each with its path and what was expected', (t) => {
  const config = withValues({
    listen: [
      { address: 'nowhere' },
      { address: ':5000', platforms: 'nonsense', upstream: 'gone', view: 'all', extra: 1 },
    ],
    surprise: true,
    defaultUpstream: 'missing.example',
    'upstreams/docker.io/url': 'ftp://registry.example',
    'upstreams/ghcr.io/password': 'x',
    'platforms/sets': { edge: ['linux/arm64', 'linux'], any: ['linux/arm64'], Big: ['linux/amd64'] },
    'platforms/hosts': { 'a.example': 'edgy' },
    'platforms/addresses': { '10.1.0.0': 'edge' },
    'platforms/trustUserAgent': 'yes',
    'platforms/onMissing': 'guess',
    'tags/rules': [{ pattern: '*' }, { pattern: '*', fresh: '1s', immutable: true }],
    'limits/connections': 0,
    'limits/downloads': 1.5,
    'log/level': 'loud',
  });
  t.same(
    new Set(mistakesOf(config)),
    new Set([
      'surprise',
      'defaultUpstream',
      'listen.0.address',
      'listen.1.platforms',
      'listen.1.upstream',
      'listen.1.view',
      'listen.1.extra',
      'upstreams.docker.io.url',
      'upstreams.ghcr.io.password',
      'platforms.sets.edge.1',
      'platforms.sets.any',
      'platforms.sets.Big',
      'platforms.hosts.a.example',
      'platforms.addresses.10.1.0.0',
      'platforms.trustUserAgent',
      'platforms.onMissing',
      'tags.rules.0',
      'tags.rules.1',
      'limits.connections',
      'limits.downloads',
      'log.level',
    ]),
  );
  t.throws(() => parseConfig(config), {
    name: 'ConfigError',
    message: /^limits\.connections: expected at least 1$/m,
    mistakes: [{ path: String, message: String }],
  });
  t.end();
});

void t.test('parseConfig: whatever a value is, its mistakes are told where it stands, and none twice', (t) => {
  const wrong: unknown[] = ['x', -1, null, [], {}, [null], { a: null }];
  let told = 0;
  for (const path of leaves) {
    for (const value of wrong) {
      const lines = mistakesIn(withValues({ [path]: value })).map((mistake) => `${mistake.path}: ${mistake.message}`);
      const at = path.replaceAll('/', '.');
      const strays = lines.filter((line) => !line.startsWith(at) && !line.startsWith('defaultUpstream: '));
      if (strays.length > 0) t.fail(`${at}: ${JSON.stringify(value)} gave ${strays.join()}`);
      if (new Set(lines).size < lines.length) t.fail(`${at}: ${JSON.stringify(value)} gave ${lines.join()}`);
      told += lines.length;
    }
  }
  t.ok(told > leaves.length * 4, `${told} mistakes`);
  t.end();
});

void t.test('parseConfig: what is no configuration at all is a mistake, not a failure', (t) => {
  for (const value of [undefined, null, 'x', 1, [], true]) {
    t.throws(() => parseConfig(value), { name: 'ConfigError' }, JSON.stringify(value));
  }
  const half = { 'platforms/sets': 'edge', listen: [{ address: ':1', platforms: 'edge' }] };
  t.ok(mistakesOf(withValues(half)).includes('platforms.sets'), 'sets that are no map');
  for (const key of Object.keys(parse(text) as Tree)) {
    t.ok(mistakesOf(withValues({ [key]: -5 })).includes(key), key);
  }
  t.end();
});

void t.test('parseConfig: names that every JavaScript object has are names like others', (t) => {
  for (const name of ['__proto__', 'constructor', 'toString']) {
    t.same(mistakesOf(withValues({ [name]: {} })), [name], `a key ${name}`);
    t.same(mistakesOf(withValues({ defaultUpstream: name })), ['defaultUpstream'], `an upstream ${name}`);
    const listen = [{ address: ':1', platforms: name }];
    t.same(mistakesOf(withValues({ listen })), ['listen.0.platforms'], `a set ${name}`);
    t.same(mistakesOf(withValues({ 'platforms/primary': `linux/${name}` })), [], `an architecture ${name}`);
  }
  t.end();
});

void t.test('parseConfig: takes what users write', (t) => {
  const right: Tree[] = [
    {
      listen: [{ address: ':5000' }, { address: '[::1]:5001', platforms: ['linux/arm64', 'edge'], view: 'index' }],
      'platforms/sets': { edge: ['linux/arm/v7'] },
    },
    { listen: [{ address: 'mirror.example:443', tls: { cert: 'a.pem', key: 'a.key' }, upstream: 'ghcr.io' }] },
    { 'admin/address': null },
    { upstreams: { 'r.example': { url: 'http://127.0.0.1:5000' } }, defaultUpstream: 'r.example' },
    { 'upstreams/ghcr.io/credentials': { username: 'u', passwordFile: '/run/secrets/p' } },
    {
      'upstreams/ghcr.io/credentials': { username: 'u', password: 'p' },
      'upstreams/ghcr.io/proxy': 'http://proxy.example:3128',
    },
    { 'platforms/hosts': { 'a.example': 'any', 'b.example': ['linux/arm64', 'windows(10.0.20348)/amd64'] } },
    { 'platforms/addresses': { '10.1.0.0/16': 'linux/arm64', 'fd00::/8': 'any', '0.0.0.0/0': 'linux/amd64' } },
    {
      'tags/rules': [
        { pattern: '*:latest', fresh: '5s' },
        { pattern: '*:v*', immutable: true },
      ],
    },
    { repositories: [{ name: 'docker.io/library/mysql', primary: 'linux/arm64' }] },
    { 'log/level': 'silent', dockerConfig: '/root/.docker/config.json' },
  ];
  for (const values of right) t.same(mistakesOf(withValues(values)), [], JSON.stringify(values));
  t.end();
});

void t.test('parseConfig: refuses what could not work, or would tell a secret', (t) => {
  const cases: [values: Tree, path: string][] = [
    [{ listen: [] }, 'listen'],
    [{ listen: [{}] }, 'listen.0.address'],
    [{ listen: [{ address: ':1', tls: { cert: 'a' } }] }, 'listen.0.tls.key'],
    [{ 'access/mode': 'certificate' }, 'access.mode'],
    [{ 'upstreams/ghcr.io/clientCertificate': { cert: 'a' } }, 'upstreams.ghcr.io.clientCertificate.key'],
    [
      { 'upstreams/ghcr.io': { url: 'https://x', proxy: 'http://p:1', clientCertificate: { cert: 'a', key: 'b' } } },
      'upstreams.ghcr.io.clientCertificate',
    ],
    [
      { 'upstreams/ghcr.io': { url: 'http://x', clientCertificate: { cert: 'a', key: 'b' } } },
      'upstreams.ghcr.io.clientCertificate',
    ],
    [{ listen: [{ address: ':1', tls: { cert: 'a', key: 'b', clientCa: 'c' } }] }, 'listen.0.tls.clientCa'],
    [{ listen: [{ address: ':1', platforms: [] }] }, 'listen.0.platforms'],
    [{ listen: [{ address: ':1', platforms: ['linux/arm64', 'nonsense'] }] }, 'listen.0.platforms'],
    [{ 'upstreams/ghcr.io/url': 'https://user:secret@ghcr.io' }, 'upstreams.ghcr.io.url'],
    [{ 'upstreams/ghcr.io/url': 'https://:secret@ghcr.io' }, 'upstreams.ghcr.io.url'],
    [{ 'upstreams/ghcr.io/url': 'ghcr.io' }, 'upstreams.ghcr.io.url'],
    [{ 'upstreams/ghcr.io/url': 'file:///etc/passwd' }, 'upstreams.ghcr.io.url'],
    [{ 'upstreams/ghcr.io/url': '' }, 'upstreams.ghcr.io.url'],
    [{ 'upstreams/ghcr.io/credentials': { username: 'u' } }, 'upstreams.ghcr.io.credentials'],
    [
      { 'upstreams/ghcr.io/credentials': { username: 'u', password: 'p', passwordFile: 'f' } },
      'upstreams.ghcr.io.credentials',
    ],
    [{ 'upstreams/ghcr.io/trustedHosts': 'auth.ghcr.io' }, 'upstreams.ghcr.io.trustedHosts'],
    [{ 'platforms/sets': { edge: [] } }, 'platforms.sets.edge'],
    [{ 'platforms/sets': { 'a/b': ['linux/arm64'] } }, 'platforms.sets.a/b'],
    [{ 'platforms/sets': { '..': ['linux/arm64'] } }, 'platforms.sets...'],
    [{ 'platforms/primary': 'any' }, 'platforms.primary'],
    [{ 'platforms/primary': 'linux-amd64' }, 'platforms.primary'],
    [{ 'platforms/addresses': { '10.1.0.0/33': 'any' } }, 'platforms.addresses.10.1.0.0/33'],
    [{ 'platforms/addresses': { 'fd00::/129': 'any' } }, 'platforms.addresses.fd00::/129'],
    [{ 'platforms/addresses': { '10.1.0.0/': 'any' } }, 'platforms.addresses.10.1.0.0/'],
    [{ 'platforms/addresses': { '10.1.0.0/16/8': 'any' } }, 'platforms.addresses.10.1.0.0/16/8'],
    [{ 'platforms/addresses': { '10.1/16': 'any' } }, 'platforms.addresses.10.1/16'],
    [{ 'platforms/addresses': { 'mirror.example/16': 'any' } }, 'platforms.addresses.mirror.example/16'],
    [{ 'tags/rules': [{ pattern: '*', immutable: false }] }, 'tags.rules.0.immutable'],
    [{ 'cache/disk/path': '' }, 'cache.disk.path'],
    [{ 'limits/connections': '100' }, 'limits.connections'],
    [{ 'limits/connections': Infinity }, 'limits.connections'],
  ];
  for (const [values, path] of cases) t.ok(mistakesOf(withValues(values)).includes(path), JSON.stringify(values));
  t.end();
});

void t.test('parseConfig: an upstream’s mistake names no secret', (t) => {
  const values = {
    'upstreams/ghcr.io/url': 'https://user:hunter2@ghcr.io',
    'upstreams/ghcr.io/credentials': { password: 'hunter2' },
  };
  t.throws(() => parseConfig(withValues(values)), { name: 'ConfigError', message: /^(?!.*hunter2)/s });
  t.end();
});

void t.test('parseAddress: takes host and port, brackets around IPv6', (t) => {
  const cases: [text: string, expected: { host: string; port: number } | undefined][] = [
    ['127.0.0.1:5000', { host: '127.0.0.1', port: 5000 }],
    ['localhost:0', { host: 'localhost', port: 0 }],
    ['[::1]:5000', { host: '::1', port: 5000 }],
    ['[::ffff:127.0.0.1]:65535', { host: '::ffff:127.0.0.1', port: 65_535 }],
    [':5000', { host: '::', port: 5000 }],
    ['127.0.0.1', undefined],
    ['5000', undefined],
    ['127.0.0.1:', undefined],
    ['127.0.0.1:65536', undefined],
    ['127.0.0.1:http', undefined],
    ['::1:5000', undefined],
    ['[::1]', undefined],
    ['[]:5000', undefined],
    ['http://127.0.0.1:5000', undefined],
    ['127.0.0.1:5000/v2', undefined],
    ['a b:5000', undefined],
    ['127.0.0.1:-1', undefined],
    ['127.0.0.1:5000\n', undefined],
    ['', undefined],
  ];
  for (const [address, expected] of cases) t.same(parseAddress(address), expected, JSON.stringify(address));
  t.end();
});

void t.test('resolveSet: puts named sets and platforms together, each platform once', (t) => {
  const sets = new Map<string, PlatformSet>([
    ['edge', ['linux/arm64', 'linux/arm/v7'].map((one) => parsePlatform(one)!)],
    ['all', 'any'],
  ]);
  const cases: [reference: string | string[], expected: string][] = [
    ['linux/arm64', 'linux/arm64'],
    ['edge', 'linux/arm64,linux/arm/v7'],
    [['linux/amd64', 'edge', 'linux/aarch64/v8', 'linux/x86_64'], 'linux/amd64,linux/arm64,linux/arm/v7'],
    ['any', 'any'],
    [['linux/amd64', 'any'], 'any'],
    [['linux/amd64', 'all'], 'any'],
  ];
  for (const [reference, expected] of cases) t.equal(formatPlatformSet(resolveSet(reference, sets)), expected);
  t.end();
});
