import { NarrowsError } from '../errors.ts';
import { parseDigest } from '../oci/digest.ts';
import { parseReference, parseRepositoryName, parseTag } from '../oci/reference.ts';
import type { PushRoute } from '../push/request.ts';
import type { Target } from './route.ts';

/** More tags than anyone gives one manifest at once. */
const maxTags = 50;

/**
 * What is written, or asked of an upload; undefined for what is read.
 *
 * @throws NarrowsError methodNotAllowed, nameInvalid, digestInvalid, manifestUnknown, queryInvalid
 */
export function parsePushRoute(method: string, target: Target): PushRoute | undefined {
  const upload = /^\/(.+)\/blobs\/uploads(?:\/([^/]*))?$/.exec(target.rest);
  if (upload) return parseUpload(method, target, upload[1]!, upload[2] ?? '');
  if (method === 'GET' || method === 'HEAD') return undefined;
  const [, name, kind, last = ''] = /^\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(target.rest) ?? [];
  if (name === undefined) throw notAllowed(method, 'GET, HEAD');
  const place = placeOf(target, name);
  if (kind === 'blobs') {
    if (method !== 'DELETE') throw notAllowed(method, 'GET, HEAD, DELETE');
    return { ...place, kind: 'delete-blob', digest: parseDigest(last) };
  }
  const reference = parseReference(last);
  if (method === 'DELETE') {
    if (reference.kind === 'tag' && (target.place.pathSet ?? 'any') !== 'any') throw wholeTag();
    return { ...place, kind: 'delete-manifest', reference };
  }
  if (method !== 'PUT') throw notAllowed(method, 'GET, HEAD, PUT, DELETE');
  const tags = target.query.getAll('tag');
  if (tags.length > maxTags) throw new NarrowsError('queryInvalid', `A manifest may be given ${maxTags} tags at once.`);
  // A tag in the path is the one that is meant.
  return { ...place, kind: 'put-manifest', reference, tags: reference.kind === 'digest' ? tags.map(parseTag) : [] };
}

function parseUpload(method: string, target: Target, name: string, id: string): PushRoute {
  const place = placeOf(target, name);
  const digest = target.query.get('digest');
  if (id === '') {
    if (method !== 'POST') throw notAllowed(method, 'POST');
    const mount = target.query.get('mount');
    const from = target.query.get('from');
    return {
      ...place,
      kind: 'start-upload',
      ...(digest !== null && { digest: parseDigest(digest) }),
      ...(mount !== null && { mount: parseDigest(mount) }),
      ...(from !== null && { from: parseRepositoryName(from) }),
    };
  }
  switch (method) {
    case 'GET':
    case 'HEAD':
      return { ...place, kind: 'upload-status', id };
    case 'PATCH':
      return { ...place, kind: 'append-upload', id };
    case 'PUT':
      return { ...place, kind: 'finish-upload', id, digest: parseDigest(digest ?? '') };
    case 'DELETE':
      return { ...place, kind: 'cancel-upload', id };
    default:
      throw notAllowed(method, 'GET, HEAD, PATCH, PUT, DELETE');
  }
}

function placeOf({ place }: Target, name: string) {
  const { path, namespace } = place;
  return { path, ...(namespace !== undefined && { namespace }), name: parseRepositoryName(name) };
}

/** Whoever sees one platform of a tag may take it for all that there is. */
function wholeTag(): NarrowsError {
  const message = 'A tag is deleted with all its platforms: leave the platform out of the address if that is meant.';
  return new NarrowsError('methodNotAllowed', message, { headers: { allow: 'GET, HEAD, PUT' } });
}

function notAllowed(method: string, allow: string): NarrowsError {
  return new NarrowsError('methodNotAllowed', `${method.slice(0, 20)} is not possible here.`, { headers: { allow } });
}
