import { NarrowsError } from '../errors.ts';
import { parseDigest } from '../oci/digest.ts';
import { parseReference, parseRepositoryName } from '../oci/reference.ts';
import type { Page, Place, Route } from '../pull/request.ts';

const maxTargetLength = 4096;

/** A request target of the distribution API, taken apart as far as it is the same for reading and writing. */
export interface Target {
  readonly place: Place;
  /** What follows `/v2`. */
  readonly rest: string;
  readonly query: URLSearchParams;
}

/**
 * Takes a request target apart. The platform set stands before `/v2` (`/p/linux-arm64/v2/…`, for clients that can set
 * a base address) or behind it (`/v2/p/linux-arm64/…`, for those that can set a name only).
 *
 * What is not in canonical form is refused, not repaired: whoever decides about a name must have seen the name that
 * is fetched.
 *
 * @throws NarrowsError routeUnknown, nameInvalid
 */
export function parseTarget(target: string): Target {
  if (target.length > maxTargetLength) throw new NarrowsError('nameInvalid', 'The address is too long.');
  const question = target.indexOf('?');
  const path = question < 0 ? target : target.slice(0, question);
  const query = new URLSearchParams(question < 0 ? '' : target.slice(question + 1));
  const { rest, pathSet } = parsePrefix(decodeColons(path));
  const namespace = parseNamespace(query);
  const place: Place = {
    path,
    ...(pathSet !== undefined && { pathSet }),
    ...(namespace !== undefined && { namespace }),
  };
  return { place, rest, query };
}

/** What is read. @throws NarrowsError routeUnknown, nameInvalid, digestInvalid, manifestUnknown, queryInvalid */
export function parseRoute({ place, rest, query }: Target): Route {
  if (rest === '' || rest === '/') return { ...place, kind: 'ping' };
  if (rest === '/_catalog') return { ...place, kind: 'catalog', page: parsePage(query) };
  return parseResource(rest.slice(1), place, query);
}

const telling = ['ns', 'n', 'last', 'digest', 'mount', 'from', 'artifactType', 'tag', 'service', 'scope'];

/** A request target as it may be written down: what the API has no name for may be a secret (RFC 6750, 5.3). */
export function loggable(target: string): string {
  const question = target.indexOf('?');
  if (question < 0) return target;
  const names = target.slice(question + 1).split('&');
  const shown = names.map((pair) => (telling.includes(pair.split('=', 1)[0] ?? '') ? pair : '…'));
  return `${target.slice(0, question)}?${shown.join('&')}`;
}

/** A digest's colon is the one character that careful clients escape. */
function decodeColons(path: string): string {
  return path.replaceAll(/%3a/gi, ':');
}

function parsePrefix(path: string): { rest: string; pathSet?: string } {
  const before = /^\/p\/([^/]+)\/v2(?!\/p\/)(\/.*)?$/.exec(path);
  if (before) return { rest: before[2] ?? '', pathSet: before[1]! };
  const behind = /^\/v2\/p\/([^/]+)(\/.*)?$/.exec(path);
  if (behind) return { rest: behind[2] ?? '', pathSet: behind[1]! };
  const plain = /^\/v2(\/.*)?$/.exec(path);
  if (plain) return { rest: plain[1] ?? '' };
  throw unknownRoute();
}

function parseResource(rest: string, place: Place, query: URLSearchParams): Route {
  if (rest.endsWith('/tags/list')) {
    const name = parseRepositoryName(rest.slice(0, -'/tags/list'.length));
    return { ...place, kind: 'tags', name, page: parsePage(query) };
  }
  // From the right: a repository name may itself contain `manifests` or `blobs`.
  const slash = rest.lastIndexOf('/');
  const kindSlash = rest.lastIndexOf('/', slash - 1);
  const kind = rest.slice(kindSlash + 1, slash);
  const last = rest.slice(slash + 1);
  if (kindSlash <= 0 || last === '' || !['manifests', 'blobs', 'referrers'].includes(kind)) throw unknownRoute();
  const name = parseRepositoryName(rest.slice(0, kindSlash));
  if (kind === 'manifests') return { ...place, kind: 'manifest', name, reference: parseReference(last) };
  if (kind === 'blobs') return { ...place, kind: 'blob', name, digest: parseDigest(last) };
  const artifactType = query.get('artifactType');
  return {
    ...place,
    kind: 'referrers',
    name,
    digest: parseDigest(last),
    ...(artifactType !== null && { artifactType }),
    page: parsePage(query),
  };
}

function parseNamespace(query: URLSearchParams): string | undefined {
  const all = query.getAll('ns');
  if (all.length > 1) throw new NarrowsError('nameInvalid', 'The address has more than one ns parameter.');
  return all[0];
}

function parsePage(query: URLSearchParams): Page {
  const n = query.get('n');
  const last = query.get('last');
  if (n !== null && !/^[0-9]{1,9}$/.test(n)) {
    throw new NarrowsError('queryInvalid', `n=${JSON.stringify(n.slice(0, 40))} is not a number of entries.`);
  }
  if (last !== null && last.length > 256) throw new NarrowsError('queryInvalid', 'The last parameter is too long.');
  return { ...(n !== null && { n: Number(n) }), ...(last !== null && { last }) };
}

function unknownRoute(): NarrowsError {
  return new NarrowsError(
    'routeUnknown',
    'This is no address of the registry API: /v2/<name>/manifests/<reference>, blobs/<digest>, tags/list or referrers/<digest>.',
  );
}
