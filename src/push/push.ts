import { may, requireAmong } from '../access/identity.ts';
import type { Identity } from '../access/identity.ts';
import { repositoryScope } from '../access/scopes.ts';
import { NarrowsError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Reply } from '../pull/request.ts';
import { createBlobPushes, rangeOf } from './blobs.ts';
import { createManifestPushes } from './manifests.ts';
import type { PushParts } from './parts.ts';
import type { PushRequest, PushRoute } from './request.ts';
import type { Place } from './tagging.ts';

export interface Push {
  (request: PushRequest): Promise<Reply>;
}

/**
 * The story of a push: is the repository hosted here, may this one push to it, and what: a piece of a blob, or a
 * manifest that names blobs which are here, under its digest or a tag.
 */
export function createPush(parts: PushParts): Push {
  const { rules } = parts;
  const blobs = createBlobPushes(parts);
  const manifests = createManifestPushes(parts);

  /** @throws NarrowsError methodNotAllowed, unauthorized, denied */
  function placeOf({ name, namespace, kind }: PushRoute, by: Identity): Place {
    const hosted = namespace === undefined ? rules.hosted(name) : undefined;
    if (!hosted) throw notHosted(name);
    const allowed = [...hosted.push, ...(hosted.owners ?? []).flatMap(({ owners }) => owners)];
    // A token for pushing is none for deleting (GHSA-qg67-7m6v-qg25).
    const actions = kind === 'delete-manifest' || kind === 'delete-blob' ? ['delete'] : ['pull', 'push'];
    requireAmong(by, allowed, `You may not push to ${name}.`, repositoryScope(name, ...actions));
    return { repository: name, rules: hosted, by };
  }

  async function startUpload(
    request: PushRequest,
    route: PushRoute & { kind: 'start-upload' },
    { repository, by }: Place,
  ): Promise<Reply> {
    const { digest, mount, from } = route;
    if (mount && from && rules.hosted(from) && may(by, rules.pullersOf(from), repositoryScope(from, 'pull'))) {
      if (await blobs.mount(repository, mount, from)) return created(route, mount);
    }
    const id = await blobs.begin(repository);
    if (!digest) return accepted(`${uploadsOf(route)}${id}`, id, await blobs.status(repository, id));
    try {
      await blobs.append(repository, id, { from: 0, body: request.body });
      await blobs.finish(repository, id, digest);
    } catch (error) {
      // Nobody was told of this upload: nobody can go on with it.
      await blobs.cancel(repository, id).catch(() => undefined);
      throw error;
    }
    return created(route, digest);
  }

  async function upload(
    request: PushRequest,
    route: Extract<PushRoute, { id: string }>,
    { repository }: Place,
  ): Promise<Reply> {
    const { id, path } = route;
    switch (route.kind) {
      case 'upload-status':
        return uploading(204, path, id, await blobs.status(repository, id));
      case 'append-upload': {
        const stretch = { from: startOf(request), body: request.body };
        return accepted(path, id, await blobs.append(repository, id, stretch));
      }
      case 'finish-upload':
        if (request.bytes !== 0) {
          await blobs.append(repository, id, { from: startOf(request), body: request.body });
        }
        await blobs.finish(repository, id, route.digest);
        return created(route, route.digest);
      case 'cancel-upload':
        await blobs.cancel(repository, id);
        return { status: 204, headers: {}, body: { kind: 'none' } };
      default:
        return route satisfies never;
    }
  }

  async function putManifest(
    { body, bytes, contentType }: PushRequest,
    { reference, tags, path }: PushRoute & { kind: 'put-manifest' },
    place: Place,
  ): Promise<Reply> {
    const document = await readWhole(body, bytes, rules.maxManifestBytes);
    const wanted = reference.kind === 'digest' ? reference.digest : undefined;
    const all = reference.kind === 'tag' ? [reference.tag] : tags;
    const put = await manifests.put(place, document, contentType, wanted, all);
    await parts.onPushed(place.repository);
    const headers = {
      location: `${path.slice(0, path.lastIndexOf('/'))}/${put.digest}`,
      'docker-content-digest': put.digest,
      ...(put.subject && { 'oci-subject': put.subject }),
      ...(put.index && { 'narrows-index': put.index }),
      ...(tags.length > 0 && { 'oci-tag': tags.join(', ') }),
    };
    return { status: 201, headers, body: { kind: 'size', size: 0 } };
  }

  return async (request) => {
    const { route, by } = request;
    const place = placeOf(route, by);
    switch (route.kind) {
      case 'start-upload':
        return startUpload(request, route, place);
      case 'upload-status':
      case 'append-upload':
      case 'finish-upload':
      case 'cancel-upload':
        return upload(request, route, place);
      case 'put-manifest':
        return putManifest(request, route, place);
      case 'delete-manifest':
        if (route.reference.kind === 'tag') await manifests.deleteTag(place, route.reference.tag);
        else await manifests.delete(place, route.reference.digest);
        return { status: 202, headers: {}, body: { kind: 'size', size: 0 } };
      case 'delete-blob':
        await blobs.delete(place.repository, route.digest);
        return { status: 202, headers: {}, body: { kind: 'size', size: 0 } };
      default:
        return route satisfies never;
    }
  };
}

/** Where nothing is hosted. */
export const refusePushes: Push = ({ route }) => Promise.reject(notHosted(route.name));

function notHosted(name: string): NarrowsError {
  return new NarrowsError(
    'methodNotAllowed',
    `${name} is read through this mirror: push to its registry itself, or say hosted: true for it in the configuration.`,
    {
      headers: { allow: 'GET, HEAD' },
    },
  );
}

/**
 * `Content-Range: 0-1023`, without a unit (distribution-spec, "Pushing a blob in chunks"); without one, what comes
 * goes to the end.
 *
 * @throws NarrowsError uploadInvalid, sizeInvalid
 */
function startOf({ contentRange, bytes }: PushRequest): number | undefined {
  if (contentRange === undefined) return undefined;
  const [, first = '', last = ''] = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/\S*)?$/.exec(contentRange) ?? [];
  if (first === '' || Number(last) < Number(first)) {
    throw new NarrowsError('uploadInvalid', 'Content-Range is to be the first and the last byte, as in 0-1023.');
  }
  if (bytes !== undefined && bytes !== Number(last) - Number(first) + 1) {
    throw new NarrowsError('sizeInvalid', `Content-Range and Content-Length do not agree: ${contentRange}, ${bytes}.`);
  }
  return Number(first);
}

/** @throws NarrowsError tooLarge, uploadInvalid */
async function readWhole(body: AsyncIterable<Buffer>, bytes: number | undefined, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = bytes ?? 0;
  if (length <= maxBytes) {
    length = 0;
    for await (const chunk of body) {
      chunks.push(chunk);
      if ((length += chunk.length) > maxBytes) break;
    }
  }
  if (length <= maxBytes) return Buffer.concat(chunks);
  throw new NarrowsError('tooLarge', `A manifest may have ${maxBytes} bytes here.`);
}

/** The address of the uploads of a repository, as the client spells it. */
function uploadsOf({ path }: PushRoute): string {
  return `${path.slice(0, path.lastIndexOf('/blobs/uploads'))}/blobs/uploads/`;
}

function created(route: PushRoute, digest: Digest): Reply {
  const location = `${uploadsOf(route).slice(0, -'uploads/'.length)}${digest}`;
  return { status: 201, headers: { location, 'docker-content-digest': digest }, body: { kind: 'size', size: 0 } };
}

function accepted(location: string, id: string, size: number): Reply {
  return uploading(202, location, id, size);
}

function uploading(status: 202 | 204, location: string, id: string, size: number): Reply {
  const headers = { location, range: rangeOf(size), 'docker-upload-uuid': id };
  return { status, headers, body: status === 204 ? { kind: 'none' } : { kind: 'size', size: 0 } };
}
