import * as fc from 'fast-check';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { ConfigError, parseConfig, resolveSet } from '../../src/config.ts';
import { duration, parseAddress, size } from '../../src/config-values.ts';
import { nearly, readOr, tryMany } from '../fixtures/fuzz.ts';
import { defaults } from '../fixtures/mirror.ts';
import { withReplaced } from '../fixtures/published.ts';

/** Names that a configuration has, that every object has, and others. */
const keys = fc.constantFrom(
  ...Object.keys(defaults),
  ...Object.values(defaults).flatMap((value) =>
    typeof value === 'object' && value !== null ? Object.keys(value) : [],
  ),
  'name',
  'url',
  'address',
  'tls',
  'clientCa',
  'from',
  'tag',
  'overlays',
  'owners',
  'push',
  'pull',
  'hosted',
  'jwks',
  'prefix',
  '__proto__',
  'constructor',
  'toString',
  'valueOf',
  'length',
);
/** What turns into text only by throwing: a file can hold it. */
const contrary = fc.constantFrom<unknown>({ toString: 'x' }, { toString: null, valueOf: 1 });
const scalars = fc.oneof(
  { weight: 1, arbitrary: contrary },
  {
    weight: 8,
    arbitrary: fc.constantFrom<unknown>(
      null,
      true,
      false,
      0,
      1,
      -1,
      1.5,
      NaN,
      Infinity,
      '',
      'any',
      '*',
      'docker.io',
      'linux/arm64',
      '5m',
      '1GiB',
      'basic',
      'token',
      'upstream',
      'http://x',
      '127.0.0.1:5000',
      '01:00-05:30',
      'ci:',
      '10.0.0.0/8',
    ),
  },
  { weight: 2, arbitrary: fc.string({ maxLength: 8 }) },
  { weight: 1, arbitrary: fc.double() },
);
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    scalars,
    fc.array(tie('tree'), { maxLength: 3 }),
    fc.array(fc.tuple(keys, tie('tree')), { maxLength: 5 }).map((entries) => Object.fromEntries(entries) as object),
  ),
}));

/** The defaults with up to three places of them holding anything. */
const nearDefaults = fc
  .array(fc.tuple(fc.array(fc.nat(40), { minLength: 1, maxLength: 5 }), tree), { minLength: 1, maxLength: 3 })
  .map((changes) => changes.reduce<unknown>((whole, [way, value]) => withReplaced(whole, way, value), defaults));

/** The defaults with lists in them whose entries are almost right. */
const fields = fc.constantFrom(
  'name',
  'from',
  'url',
  'overlays',
  'jwks',
  'prefix',
  'tls',
  'upstream',
  'rate',
  'hosted',
  'pull',
);
const entries = fc.array(fc.dictionary(fields, fc.oneof(tree, fc.array(fc.dictionary(fields, tree))), { maxKeys: 5 }), {
  minLength: 1,
  maxLength: 2,
});
const nearLists = fc
  .record(
    { listen: entries, repositories: entries, bandwidth: entries, issuers: entries, upstreams: tree },
    { requiredKeys: [] },
  )
  .map(({ issuers, ...lists }) => ({
    ...defaults,
    ...lists,
    ...(issuers && { access: { ...(defaults['access'] as object), issuers } }),
  }));

const isTold = (error: unknown) =>
  error instanceof ConfigError &&
  error.mistakes.length > 0 &&
  error.mistakes.every(({ path, message }) => path !== '' && /\S/.test(message)) &&
  new Set(error.message.split('\n')).size ===
    error.mistakes.flatMap(({ path, message }) => `${path}: ${message}`.split('\n')).length;

void t.test('any tree is a configuration, or a list of mistakes, each with its place', (t) => {
  const counts = { right: 0, wrong: 0 };
  const property = fc.property(fc.oneof(nearDefaults, nearLists, tree, fc.constant(defaults)), (value) => {
    const config = readOr(() => parseConfig(value), isTold);
    counts[config ? 'right' : 'wrong']++;
    return !config || JSON.stringify(parseConfig(value)) === JSON.stringify(config);
  });
  tryMany(t, property, 8);
  t.ok(counts.right > 0 && counts.wrong > 0, JSON.stringify(counts));
  t.end();
});

const outcome = (value: unknown) => {
  try {
    return JSON.stringify(parseConfig(value));
  } catch (error) {
    return String(error);
  }
};

void t.test('a file says the same as the tree that is in it', (t) => {
  const property = fc.property(nearDefaults, (value) => outcome(parse(stringify(value))) === outcome(value));
  tryMany(t, property, 50);
  t.end();
});

void t.test('a key that nobody knows is a mistake in its place, wherever it stands', (t) => {
  const maps = Object.entries(defaults).filter(
    ([, value]) => typeof value === 'object' && !Array.isArray(value) && value !== null,
  );
  const closed = maps.map(([name]) => name).filter((name) => !['upstreams'].includes(name));
  const unknown = fc.stringMatching(/^[a-z]{1,8}X$/);
  const property = fc.property(fc.constantFrom('', ...closed), unknown, tree, (where, key, value) => {
    const changed =
      where === ''
        ? { ...defaults, [key]: value }
        : { ...defaults, [where]: { ...(defaults[where] as object), [key]: value } };
    let paths: string[] = [];
    const isSeen = (error: unknown) =>
      isTold(error) && Boolean((paths = (error as ConfigError).mistakes.map(({ path }) => path)));
    const config = readOr(() => parseConfig(changed), isSeen);
    return config === undefined && paths.includes(where === '' ? key : `${where}.${key}`);
  });
  tryMany(t, property, 20);
  t.end();
});

const units: Record<string, [measure: typeof size, factor: bigint]> = {
  ms: [duration, 1n],
  s: [duration, 1000n],
  m: [duration, 60_000n],
  h: [duration, 3_600_000n],
  d: [duration, 86_400_000n],
  B: [size, 1n],
  KiB: [size, 1024n],
  MiB: [size, 1024n ** 2n],
  GiB: [size, 1024n ** 3n],
  TiB: [size, 1024n ** 4n],
};

void t.test('a measure is its number times its unit, and nothing else is a measure', (t) => {
  const between = fc.constantFrom('', '', '', ' ', '.', '.5', '_', 'e3');
  const amounts = fc
    .tuple(fc.nat(9000), between, fc.constantFrom(...Object.keys(units)))
    .map(([amount, more, unit]) => `${amount}${more}${unit}`);
  let read = 0;
  const property = fc.property(nearly(amounts), fc.constantFrom(size, duration), (text, measure) => {
    const { data, success } = measure.safeParse(text);
    const [, whole, fraction, unit = ''] = /^([0-9]+)(\.[0-9]+)?([a-zA-Z]+)$/.exec(text) ?? [];
    const known = Object.hasOwn(units, unit) ? units[unit] : undefined;
    const isOne = whole !== undefined && whole.length <= 15 && known?.[0] === measure;
    if (!isOne || !success) return success === isOne;
    read++;
    return fraction !== undefined || data === Number(BigInt(whole) * known[1]);
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} were measures`);
  t.end();
});

void t.test('an address is a host and a port that there is', (t) => {
  const hosts = fc.constantFrom('', '127.0.0.1', 'localhost', '[::1]', '[fe80::1.2.3.4]', 'a-b.example');
  const addresses = fc.tuple(hosts, fc.nat(99_999)).map(([host, port]) => `${host}:${port}`);
  const property = fc.property(nearly(addresses), (text) => {
    const address = parseAddress(text);
    if (!address) return true;
    const { host, port } = address;
    const written = [host, `[${host}]`, ''].map(
      (one) => text.startsWith(`${one}:`) && Number(text.slice(one.length + 1)) === port,
    );
    return (
      written.includes(true) && Number.isInteger(port) && port >= 0 && port <= 65_535 && /^[0-9a-zA-Z.:-]+$/.test(host)
    );
  });
  tryMany(t, property);
  t.end();
});

void t.test('a reference to platforms is all of those that it names, each once', (t) => {
  const names = fc.constantFrom('linux/arm64', 'linux/aarch64', 'linux/amd64', 'edge');
  const sets = new Map([
    [
      'edge',
      [
        { os: 'linux', architecture: 'arm64' },
        { os: 'linux', architecture: 's390x' },
      ],
    ],
  ]);
  const property = fc.property(fc.array(names, { maxLength: 6 }), fc.boolean(), (list, isAny) => {
    const resolved = resolveSet(isAny ? [...list, 'any'] : list, sets);
    if (resolved === 'any') return isAny;
    const expected = new Set(
      list.flatMap((name) => (name === 'edge' ? ['arm64', 's390x'] : [name === 'linux/amd64' ? 'amd64' : 'arm64'])),
    );
    return (
      !isAny && resolved.length === expected.size && resolved.every(({ architecture }) => expected.has(architecture))
    );
  });
  tryMany(t, property);
  t.end();
});
