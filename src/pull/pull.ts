import { isAmong, requireAmong } from '../access/identity.ts';
import type { Identity } from '../access/identity.ts';
import { catalogScope, repositoryScope } from '../access/scopes.ts';
import { contentKey } from '../cache/records.ts';
import { NarrowsError, isNotHeld } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { mediaTypes } from '../oci/media-types.ts';
import { formatPlatform, formatPlatformSet } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseRepositoryName } from '../oci/reference.ts';
import type { ImageName } from '../oci/reference.ts';
import type { Source } from '../upstream/registries.ts';
import { createBlobs } from './blobs.ts';
import type { Download } from './blobs.ts';
import type { ContentRoute } from './caller-rights.ts';
import { choosePlatforms } from './choose-platform.ts';
import type { CallerPlatforms } from './choose-platform.ts';
import { createInspector } from './inspect.ts';
import type { Inspection } from './inspect.ts';
import { createKeeping } from './keeping.ts';
import { createLists } from './lists.ts';
import type { ListPage } from './lists.ts';
import { createManifests } from './manifests.ts';
import type { HeldManifest } from './manifests.ts';
import { createDemand } from './demand.ts';
import { createHomes } from './homes.ts';
import { explainNotHeld } from './offline.ts';
import { createOverlays } from './overlays.ts';
import type { PullParts } from './parts.ts';
import type { Body, PullRequest, Reply, Route } from './request.ts';
import { createReader } from './reader.ts';
import type { Reader } from './reader.ts';
import { createReferrers } from './referrers.ts';
import { createSavings } from './savings.ts';
import { createTags } from './tags.ts';
import { createViews } from './views.ts';
import type { Viewed } from './views.ts';

export interface Pull {
  (request: PullRequest): Promise<Reply>;
  /** How much of an image is here. @throws NarrowsError */
  inspect(image: ImageName, wanted: PlatformSet): Promise<Inspection>;
  /** Fetches a blob or manifest that a repository is known to have, to be kept; false where that cannot be done. */
  obtain(repositoryKey: string, digest: Digest): Promise<boolean>;
  /** For those who go through whole images. */
  readonly reader: Reader;
  /** What is downloaded now. */
  downloads(): Download[];
  /** Ends what runs in the background. */
  close(): Promise<void>;
}

/**
 * The story of a pull: who asks, for which repository, and what of it. A tag becomes a platform in `views`
 * (`choose-view` decides), a digest is answered as it is, a blob is read from the nearest tier or a shared download.
 */
export function createPull(parts: PullParts): Pull {
  const { pullersOf } = parts.rules;
  const { callers } = parts;
  const mayPull = (by: Identity, key: string) =>
    callers ? callers.isRemembered(by, key) : isAmong(by, pullersOf(key));
  const keeping = createKeeping(parts.graph, parts.rules.keep);
  const blobs = createBlobs(parts, keeping);
  const homes = createHomes(parts);
  const savings = createSavings((bytes) => parts.observer.spared(bytes));
  const manifests = createManifests(parts, keeping, blobs, homes, savings);
  const tags = createTags(parts, manifests);
  const overlays = createOverlays(parts, homes, tags, blobs);
  const views = createViews(parts, tags, manifests, blobs, overlays, homes, savings);
  const demand = createDemand(parts);
  const referrers = createReferrers(parts, tags);
  const lists = createLists(parts, referrers);

  const reader = createReader(parts, tags, manifests, blobs, referrers);
  const inspector = createInspector(parts, tags, manifests);

  return Object.assign(pull, {
    inspect: async ({ name, reference }: ImageName, wanted: PlatformSet) =>
      inspector.inspect(parts.registries.find(name, undefined, undefined), reference, wanted),
    obtain,
    reader,
    downloads: () => blobs.downloads(),
    close: () => blobs.close(),
  });

  async function obtain(repositoryKey: string, digest: Digest): Promise<boolean> {
    try {
      const source = parts.registries.find(parseRepositoryName(repositoryKey), undefined, undefined);
      if (await parts.records.manifests.get(contentKey(source, digest))) {
        return (await manifests.byDigest(source, digest)) !== undefined;
      }
      await reader.fetch(source, digest, () => undefined, new AbortController().signal);
      return true;
    } catch (error) {
      parts.observer.trouble(`fetching ${digest} again`, error);
      return false;
    }
  }

  async function pull(request: PullRequest): Promise<Reply> {
    const { route } = request;
    const platforms = choosePlatforms(request.caller, parts.rules.platforms, request.by);
    if (route.kind === 'ping') {
      // Where people can log in, clients learn that from here: those that get no challenge send no credentials later.
      if (callers) await callers.requireLogin(request.by);
      else if (request.by.challenge && !request.by.scopes)
        requireAmong(request.by, ['authenticated'], 'This is a registry.');
      return told(ping(request), understood(platforms));
    }
    if (route.kind === 'catalog') {
      requireAmong(request.by, ['anonymous'], 'This is a list of all repositories.', catalogScope);
      return listReply(request, await lists.catalog(route, (key) => mayPull(request.by, key)));
    }
    const source = parts.registries.find(route.name, route.namespace, request.endpointUpstream);
    const headers = understood(platforms, source.namespace);
    try {
      await requireRight(request.by, source, route);
      const reply = await answer(request, route, source, platforms?.set);
      noteDemand(request, source, platforms?.set);
      // What is hosted here, or in part supplied by others, is there as soon as it was pushed, and no longer than that.
      const isSettled = !source.isHosted && parts.rules.overlaysOf(source.key).length === 0;
      return told({ ...reply, goodForMs: isSettled ? reply.goodForMs : 0 }, headers);
    } catch (error) {
      if (!(error instanceof NarrowsError)) throw error;
      // A refusal says too how the question was understood: most of all when that was the mistake.
      throw explained(error, route, source, platforms?.set).withHeaders(headers);
    }
  }

  async function requireRight(by: Identity, source: Source, route: ContentRoute): Promise<void> {
    if (callers) return callers.require(by, source, route);
    const scope = repositoryScope(source.key, 'pull');
    return requireAmong(by, pullersOf(source.key), `You may not pull from ${source.key}.`, scope);
  }

  /** Who says what it runs is believed; of the others, what they fetch of an index tells it. */
  function noteDemand({ route, method }: PullRequest, source: Source, set: PlatformSet | undefined): void {
    if (route.kind !== 'manifest' || set === 'any' || method !== 'GET') return;
    // A list of platforms is what someone copies; one is what a machine runs.
    if (set) return demand.note(source, set.length === 1 ? set.map(formatPlatform) : []);
    const digest = digestIn(route);
    const served = digest ? parts.graph.served(digest).platforms : [];
    if (served.length === 1) demand.note(source, served);
  }

  function explained(error: NarrowsError, route: Route, { key }: Source, set: PlatformSet | undefined): NarrowsError {
    if (!isNotHeld(error)) return error;
    const digest = digestIn(route);
    const served = digest ? parts.graph.served(digest).platforms : [];
    return explainNotHeld(error, key, route, set, served, parts.holding(key));
  }

  async function answer(
    request: PullRequest,
    route: ContentRoute,
    source: Source,
    set: PlatformSet | undefined,
  ): Promise<Reply> {
    switch (route.kind) {
      case 'manifest': {
        const { reference } = route;
        if (reference.kind === 'tag')
          return manifestReply(request, await views.ofTag(source, reference.tag, set, request));
        const manifest = await manifests.shown(source, reference.digest);
        if (manifest) return manifestReply(request, asItIs(manifest));
        throw new NarrowsError(
          'manifestUnknown',
          `${source.upstream.name} has no manifest ${reference.digest} in ${source.repository}.`,
        );
      }
      case 'blob': {
        const home = await homes.of(source, route.digest);
        if (request.method === 'HEAD') {
          const { size, state } = await blobs.head(home, route.digest);
          return blobReply(route.digest, state, { kind: 'size', size });
        }
        const blob = await blobs.open(home, route.digest);
        return blobReply(route.digest, blob.state, { kind: 'blob', blob });
      }
      case 'tags':
        return listReply(request, await lists.tags(source, route));
      case 'referrers':
        return listReply(request, await lists.referrers(source, route));
      default:
        return route satisfies never;
    }
  }
}

function digestIn(route: Route): Digest | undefined {
  if (route.kind === 'blob') return route.digest;
  return route.kind === 'manifest' && route.reference.kind === 'digest' ? route.reference.digest : undefined;
}

function asItIs(manifest: HeldManifest): Viewed {
  return { view: manifest.narrowedFrom ? viewOf(manifest.mediaType) : 'verbatim', manifest };
}

function viewOf(mediaType: string): Viewed['view'] {
  if (mediaType === mediaTypes.combined) return 'combined';
  return mediaType === mediaTypes.alternates ? 'alternates' : 'index';
}

function manifestReply(request: PullRequest, { view, manifest, index }: Viewed): Reply {
  const narrowedFrom = index?.digest ?? manifest.narrowedFrom;
  const headers = {
    'content-type': manifest.mediaType,
    'docker-content-digest': manifest.digest,
    etag: `"${manifest.digest}"`,
    'narrows-view': view,
    'narrows-cache': manifest.state,
    ...(narrowedFrom && { 'narrows-index': narrowedFrom }),
    // One URL has an answer for each platform and Accept: a cache in front must not mix them up.
    vary: 'Accept, Narrows-Platform, Narrows-View',
  };
  const isTag = request.route.kind === 'manifest' && request.route.reference.kind === 'tag';
  const freshForMs = isTag ? ((index ?? manifest).freshForMs ?? 0) : Infinity;
  return { ...ok(headers, whole(request, manifest.bytes)), goodForMs: goodFor(manifest.state, freshForMs) };
}

/** So long, nothing is looked at again: what was taken away elsewhere is seen after that. */
const repeatMs = 1000;

/** What is in memory is given as often as it is asked for. */
function goodFor(state: string, freshForMs = Infinity): number {
  return state === 'hit-memory' ? Math.min(repeatMs, freshForMs) : 0;
}

function blobReply(digest: string, state: string, body: Body): Reply {
  const headers = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'accept-ranges': 'bytes',
    'cache-control': 'private, max-age=31536000, immutable',
    'narrows-cache': state,
  };
  return { ...ok(headers, body), goodForMs: goodFor(state) };
}

function listReply(request: PullRequest, { bytes, contentType, headers }: ListPage): Reply {
  return ok({ 'content-type': contentType, ...headers }, whole(request, bytes));
}

function ok(headers: Record<string, string>, body: Body): Reply {
  return { status: 200, headers, body };
}

function whole({ method }: PullRequest, bytes: Buffer): Body {
  return method === 'HEAD' ? { kind: 'size', size: bytes.length } : { kind: 'bytes', bytes };
}

function ping(request: PullRequest): Reply {
  return ok({ 'content-type': 'application/json' }, whole(request, Buffer.from('{}')));
}

/** Every answer says what was understood of its question. */
function understood(platforms: CallerPlatforms | undefined, namespace?: string): Record<string, string> {
  return {
    ...(platforms && { 'narrows-platform': `${formatPlatformSet(platforms.set)}; via=${platforms.via}` }),
    ...(namespace !== undefined && { 'oci-namespace': namespace }),
  };
}

function told(reply: Reply, headers: Record<string, string>): Reply {
  return { ...reply, headers: { ...reply.headers, ...headers } };
}
