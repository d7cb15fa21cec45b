import * as fc from 'fast-check';
import t from 'tap';
import { covers, formatScope, parseScopes } from '../../src/access/scopes.ts';
import { NarrowsError } from '../../src/errors.ts';
import { parsePushRoute } from '../../src/http/push-route.ts';
import { parseRange } from '../../src/http/range.ts';
import { parseRoute, parseTarget } from '../../src/http/route.ts';
import { referenceText } from '../../src/oci/reference.ts';
import type { Route } from '../../src/pull/request.ts';
import type { PushRoute } from '../../src/push/request.ts';
import { bent, digestTexts, nearly, readOr, repositoryNames, tagTexts, tryMany } from '../fixtures/fuzz.ts';

const isKnown = (error: unknown) => error instanceof NarrowsError;

const isNumber = (text: string) => Array.from(text).every((digit) => '0123456789'.includes(digit));

/** RFC 9110, 14.1.2 and 14.2, byte by byte: the places that one range takes, or why there are none. */
function placesByHand(header: string, size: number): number[] | 'unsatisfiable' | undefined {
  const equals = header.indexOf('=');
  if (header.slice(0, Math.max(equals, 0)).toLowerCase() !== 'bytes' || size === 0) return undefined;
  const [first = '', last = '', ...more] = header
    .slice(equals + 1)
    .replaceAll(/^[ \t]+|[ \t]+$/g, '')
    .split('-');
  if (more.length > 0 || !header.includes('-') || !isNumber(first) || !isNumber(last) || first + last === '') {
    return undefined;
  }
  const all = Array.from({ length: size }, (_, at) => at);
  if (first !== '' && last !== '' && BigInt(last) < BigInt(first)) return undefined;
  const from = first === '' ? BigInt(size) - BigInt(last) : BigInt(first);
  const to = first === '' || last === '' ? BigInt(size) : BigInt(last);
  const taken = all.filter((at) => BigInt(at) >= from && BigInt(at) <= to);
  return taken.length > 0 ? taken : 'unsatisfiable';
}

const small = fc.nat(60).map(String);
const huge = fc.stringMatching(/^[0-9]{14,30}$/);
const numbers = fc.oneof({ weight: 6, arbitrary: small }, { weight: 1, arbitrary: huge }, fc.constantFrom('', '007'));
const rangeHeaders = fc
  .tuple(
    fc.constantFrom('bytes', 'bytes', 'bytes', 'BYTES', 'items'),
    fc.constantFrom('', '', '', ' ', '\t '),
    fc.oneof(numbers, fc.constant('')),
    numbers,
    fc.constantFrom('', '', '', ' ', ',1-2'),
  )
  .map(([unit, space, first, last, tail]) => `${unit}=${space}${first}-${last}${tail}`);

void t.test('41. a range takes the very bytes that RFC 9110 says', (t) => {
  const counts = { some: 0, none: 0, all: 0 };
  const property = fc.property(nearly(rangeHeaders), fc.nat(50), (header, size) => {
    const [range, expected] = [parseRange(header, size), placesByHand(header, size)];
    counts[expected === undefined ? 'all' : expected === 'unsatisfiable' ? 'none' : 'some']++;
    if (typeof range !== 'object') return range === expected;
    const { start, end } = range;
    const places = Array.from({ length: size }, (_, at) => at).filter((at) => at >= start && at <= end);
    const isWithin = start >= 0 && end < size && start <= end;
    return isWithin && JSON.stringify(places) === JSON.stringify(expected);
  });
  tryMany(t, property);
  t.ok(Math.min(...Object.values(counts)) > 0, JSON.stringify(counts));
  t.end();
});

const scopeTexts = fc
  .tuple(
    fc.constantFrom('repository', 'repository(plugin)', 'registry', 'Repository', ''),
    fc.oneof(
      repositoryNames,
      fc.constantFrom('catalog', 'localhost:5000/a', 'a:b:c', 'x'.repeat(320), 'x'.repeat(321)),
    ),
    fc.array(fc.constantFrom('pull', 'push', 'delete', '*', '', 'PULL'), { maxLength: 4 }),
  )
  .map(([type, name, actions]) => `${type}:${name}:${actions.join(',')}`);

void t.test('scopes: any text asks for so many things at most, and is good for what it is read as', (t) => {
  let read = 0;
  const texts = fc.array(nearly(scopeTexts), { maxLength: 5 });
  const property = fc.property(texts, fc.nat(4), (parameters, maxScopes) => {
    const scopes = parseScopes(parameters, maxScopes);
    read += scopes.length;
    const words = parameters.join(' ').split(' ');
    return (
      scopes.length <= maxScopes &&
      scopes.every((scope) => {
        const isInIt = words.some((word) => word.startsWith(scope.type) && word.includes(`:${scope.name}:`));
        const isOnce = new Set(scope.actions).size === scope.actions.length && !scope.actions.includes('');
        const again = parseScopes([formatScope(scope)], 1);
        const isSame = scope.actions.length === 0 || JSON.stringify(again) === JSON.stringify([scope]);
        return isInIt && isOnce && isSame && /^[a-z0-9]+$/.test(scope.type) && covers(scopes, scope);
      })
    );
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} scopes`);
  t.end();
});

void t.test('scopes: what is good for less is not good for more', (t) => {
  const actions = fc.uniqueArray(fc.constantFrom('pull', 'push', 'delete'), { minLength: 1 });
  const names = fc.constantFrom('a', 'a/b', 'b', 'A');
  const lists = fc.array(fc.tuple(names, actions), { maxLength: 4 });
  const property = fc.property(lists, names, actions, (held, name, wanted) => {
    const scopes = parseScopes(
      held.map(([one, all]) => `repository:${one}:${all.join(',')}`),
      10,
    );
    const isHeld = (action: string) => held.some(([one, all]) => one === name && all.some((each) => each === action));
    return covers(scopes, { type: 'repository', name, actions: wanted }) === wanted.every(isHeld);
  });
  tryMany(t, property);
  t.end();
});

/** Where the parts of a route stand in a path. The name here is the one that the rules of access are asked about. */
function pathOf(route: Route): string {
  if (route.kind === 'ping') return '/';
  if (route.kind === 'catalog') return '/_catalog';
  const { name } = route;
  if (route.kind === 'manifest') return `/${name}/manifests/${referenceText(route.reference)}`;
  if (route.kind === 'tags') return `/${name}/tags/list`;
  return `/${name}/${route.kind === 'blob' ? 'blobs' : 'referrers'}/${route.digest}`;
}

function pushPathOf(route: PushRoute): string {
  const { name } = route;
  if (route.kind === 'put-manifest' || route.kind === 'delete-manifest') {
    return `/${name}/manifests/${referenceText(route.reference)}`;
  }
  if (route.kind === 'delete-blob') return `/${name}/blobs/${route.digest}`;
  return `/${name}/blobs/uploads/${route.kind === 'start-upload' ? '' : route.id}`;
}

const escaped = (text: fc.Arbitrary<string>) =>
  fc.tuple(text, fc.constantFrom(':', ':', '%3a', '%3A')).map(([one, colon]) => one.replaceAll(':', colon));
const lasts = fc.oneof(
  escaped(fc.oneof(digestTexts, tagTexts)).map((text) => `manifests/${text}`),
  escaped(digestTexts).map((text) => `blobs/${text}`),
  escaped(digestTexts).map((text) => `referrers/${text}`),
  fc.constantFrom('tags/list', 'blobs/uploads/', 'blobs/uploads', 'blobs/uploads/0123-id', '_catalog'),
);
const queries = fc.constantFrom(
  '',
  '',
  '?ns=docker.io',
  '?n=5&last=a',
  '?ns=',
  '?n=x',
  '?tag=a&tag=b',
  '?digest=x',
  '?',
);
const paths = fc
  .tuple(
    fc.constantFrom('/v2', '/v2', '/v2', '/v2/p/linux-arm64', '/p/edge/v2', '/p/linux%2Farm64/v2'),
    repositoryNames,
    lasts,
  )
  .map(([prefix, name, last]) => `${prefix}/${last === '_catalog' ? last : `${name}/${last}`}`);
const targets = fc.tuple(nearly(paths), queries).map(([path, query]) => path + query);

/** A digest's colon is the only character that may be written in two ways. */
function isWrittenAs(target: string, { pathSet }: { pathSet?: string }, rest: string): boolean {
  const path = target.split('?', 1)[0]!.replaceAll(/%3a/gi, ':');
  const prefixes = pathSet === undefined ? ['/v2'] : [`/v2/p/${pathSet}`, `/p/${pathSet}/v2`];
  return prefixes.some((prefix) => path === prefix + rest || (rest === '/' && path === prefix));
}

const isPlainName = (name: string) =>
  name.split('/').every((part) => /^[a-z0-9][a-z0-9._-]*$/.test(part) && !part.includes('..'));

void t.test('24. a path that is understood is the one that its parts are written to: nothing was repaired', (t) => {
  const kinds = new Map<string, number>();
  const property = fc.property(targets, (target) => {
    const route = readOr(() => parseRoute(parseTarget(target)), isKnown);
    if (!route) return true;
    kinds.set(route.kind, (kinds.get(route.kind) ?? 0) + 1);
    const isPlain = !('name' in route) || isPlainName(route.name);
    return isPlain && route.path === target.split('?', 1)[0] && isWrittenAs(target, route, pathOf(route));
  });
  tryMany(t, property);
  t.ok(kinds.size >= 5, JSON.stringify([...kinds]));
  t.end();
});

void t.test('24. a path that is written to is the one that its parts are written to, whatever the method', (t) => {
  const methods = fc.constantFrom('GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'put', 'TRACE');
  const kinds = new Map<string, number>();
  const property = fc.property(methods, targets, (method, target) => {
    const parsed = readOr(() => parseTarget(target), isKnown);
    const route = parsed && readOr(() => parsePushRoute(method, parsed), isKnown);
    if (!route) return true;
    kinds.set(route.kind, (kinds.get(route.kind) ?? 0) + 1);
    const rest = pushPathOf(route);
    const isThere =
      isWrittenAs(target, parsed.place, rest) ||
      (route.kind === 'start-upload' && isWrittenAs(target, parsed.place, rest.slice(0, -1)));
    return isThere && isPlainName(route.name) && !('id' in route && route.id.includes('/'));
  });
  tryMany(t, property);
  t.ok(kinds.size >= 6, JSON.stringify([...kinds]));
  t.end();
});

void t.test('24. who reads and who writes understand the same name in the same path', (t) => {
  let both = 0;
  const property = fc.property(fc.constantFrom('PUT', 'DELETE'), targets, (method, target) => {
    const parsed = readOr(() => parseTarget(target), isKnown);
    const read = parsed && readOr(() => parseRoute(parsed), isKnown);
    const written = parsed && readOr(() => parsePushRoute(method, parsed), isKnown);
    if (!read || !written) return true;
    both++;
    return 'name' in read && pathOf(read) === pushPathOf(written) && read.name === written.name;
  });
  tryMany(t, property);
  t.ok(both > 0, `${both} were understood by both`);
  t.end();
});

/** A path with one place of its name, or what follows it, written in other ways; the id of an upload is any text. */
const respelled = fc
  .tuple(
    paths.filter((path) => /^\/v2\/(?!p\/)/.test(path) && !path.includes('/uploads/')),
    fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  )
  .map(([path, place]): [path: string, at: number] => [path, 4 + Math.floor(place * (path.length - 4))])
  // A slash behind a first `p` makes what follows the place of a platform, which is another meaning by right.
  .filter(([path, at]) => path.slice(0, at) !== '/v2/p')
  .map(([path, at]) => {
    const [before, one, after] = [path.slice(0, at), path[at] ?? '', path.slice(at + 1)];
    const code = one.charCodeAt(0).toString(16);
    return {
      path,
      escaped: [`${before}%${code}${after}`, `${before}%${code.toUpperCase()}${after}`],
      others: [`${before}/${one}${after}`, before + one.toUpperCase() + after],
      refused: ['/./', '/../', '/x/../', ';a=b', '\0', '\\', '\u2028', '\uff0f', '%252e', '%00', one.repeat(4096)].map(
        (added) => before + added + one + after,
      ),
    };
  });

/** What a path says when it is read, and when it is written to: undefined where it is refused. */
function meaningsOf(target: string): (string | undefined)[] {
  const parsed = readOr(() => parseTarget(target), isKnown);
  const read = parsed && readOr(() => parseRoute(parsed), isKnown);
  const written = ['PUT', 'DELETE', 'POST'].map((method) => {
    const route = parsed && readOr(() => parsePushRoute(method, parsed), isKnown);
    return route && pushPathOf(route);
  });
  return [read && pathOf(read), ...written];
}

void t.test('24. another spelling of a path is refused, or means the same', (t) => {
  const property = fc.property(respelled, ({ path, escaped, others, refused }) => {
    const canonical = meaningsOf(path);
    const isSame = (target: string) =>
      meaningsOf(target).every((meaning, at) => meaning === undefined || meaning === canonical[at]);
    const isSeen = (target: string) =>
      meaningsOf(target).every(
        (meaning) =>
          meaning === undefined ||
          isWrittenAs(target, parseTarget(target).place, meaning) ||
          isWrittenAs(`${target}/`, parseTarget(target).place, meaning),
      );
    const isRefused = (target: string) => meaningsOf(target).every((meaning) => meaning === undefined);
    return others.every(isSeen) && escaped.every(isSame) && refused.every(isRefused);
  });
  tryMany(t, property, 8);
  t.end();
});

void t.test('62. the registry that is asked for is told once, as it was written, or refused', (t) => {
  const names = fc.oneof(fc.constantFrom('docker.io', 'ghcr.io', '169.254.169.254', '__proto__', ''), fc.string());
  const property = fc.property(bent(paths), fc.array(names, { maxLength: 3 }), (path, namespaces) => {
    const query = new URLSearchParams(namespaces.map((name) => ['ns', name]));
    const route = readOr(() => parseRoute(parseTarget(`${path.replaceAll('?', '')}?${query.toString()}`)), isKnown);
    return !route || (namespaces.length <= 1 && route.namespace === namespaces.at(0)?.toWellFormed());
  });
  tryMany(t, property);
  t.end();
});
