import { NarrowsError, isKind } from '../errors.ts';
import { asObject, parseJson } from '../oci/json.ts';
import type { Json, JsonObject } from '../oci/json.ts';
import { mediaTypes } from '../oci/media-types.ts';
import { companionTag } from '../oci/reference.ts';
import type { Digest } from '../oci/digest.ts';
import { contentKey } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { ListAnswer } from '../upstream/upstream.ts';
import type { PullParts } from './parts.ts';
import type { Page, Route } from './request.ts';
import type { Tags } from './tags.ts';

/** A page of a list, ready to send. */
export interface ListPage {
  readonly bytes: Buffer;
  readonly contentType: string;
  readonly headers: Record<string, string>;
}

export interface Lists {
  tags(source: Source, route: Route & { kind: 'tags' }): Promise<ListPage>;
  referrers(source: Source, route: Route & { kind: 'referrers' }): Promise<ListPage>;
  /** The repositories that something was pulled from, in order. */
  catalog(route: Route & { kind: 'catalog' }, isVisible: (repositoryKey: string) => boolean): Promise<ListPage>;
}

const maxPage = 1000;

export function createLists({ records }: PullParts, tags: Tags): Lists {
  /** What was narrowed here has no referrers of its own upstream: those of its original are meant. */
  async function subjectOf(source: Source, digest: Digest): Promise<Digest> {
    return (await records.narrowed.get(contentKey(source, digest)))?.index ?? digest;
  }

  /** The index under the tag `sha256-<hex>` (distribution-spec "Referrers Tag Schema"); none means no referrers. */
  async function fromTag(source: Source, subject: Digest): Promise<Buffer | undefined> {
    try {
      return (await tags.resolve(source, companionTag(subject, ''))).bytes;
    } catch (error) {
      if (isKind(error, 'manifestUnknown')) return undefined;
      throw error;
    }
  }

  return {
    async tags(source, route) {
      const answer = await source.upstream.list(source.repository, 'tags/list', pageQuery(route.page));
      if (!answer) {
        throw new NarrowsError('nameUnknown', `${source.upstream.name} has no repository ${source.repository}.`);
      }
      readList(answer.bytes, 'tags');
      return { bytes: answer.bytes, contentType: 'application/json', headers: nextLink(route.path, answer.next) };
    },

    async referrers(source, route) {
      const subject = await subjectOf(source, route.digest);
      const query = pageQuery(route.page);
      if (route.artifactType !== undefined) query.set('artifactType', route.artifactType);
      const answer = await fromApi(source, subject, query);
      const bytes = answer?.bytes ?? (await fromTag(source, subject));
      const list = bytes ? readList(bytes, 'manifests') : emptyIndex;
      const filtered = filter(list, route.artifactType);
      return {
        bytes: Buffer.from(JSON.stringify(filtered)),
        contentType: mediaTypes.ociIndex,
        headers: {
          ...nextLink(route.path, answer?.next),
          ...(route.artifactType !== undefined && { 'oci-filters-applied': 'artifactType' }),
        },
      };
    },

    async catalog({ page, path }, isVisible) {
      const names: string[] = [];
      for await (const name of records.repositories.keys())
        if ((page.last === undefined || name > page.last) && isVisible(name)) names.push(name);
      names.sort();
      const size = Math.min(page.n ?? maxPage, maxPage);
      const repositories = names.slice(0, size);
      const last = repositories.at(-1);
      const next =
        names.length > size && last !== undefined ? new URLSearchParams({ n: String(size), last }) : undefined;
      return {
        bytes: Buffer.from(JSON.stringify({ repositories })),
        contentType: 'application/json',
        headers: nextLink(path, next),
      };
    },
  };
}

async function fromApi(source: Source, subject: Digest, query: URLSearchParams): Promise<ListAnswer | undefined> {
  try {
    return await source.upstream.list(source.repository, `referrers/${subject}`, query);
  } catch (error) {
    // Registries of before the referrers API answer its path with all sorts of refusals.
    if (isKind(error, 'upstreamRefused')) return undefined;
    throw error;
  }
}

const emptyIndex: JsonObject = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };

function pageQuery({ n, last }: Page): URLSearchParams {
  return new URLSearchParams({
    ...(n !== undefined && { n: String(Math.min(n, maxPage)) }),
    ...(last !== undefined && { last }),
  });
}

/** The upstream's link leads to the upstream: the client is given one of ours, with its page mark. */
function nextLink(path: string, next: URLSearchParams | undefined): Record<string, string> {
  return next ? { link: `<${path}?${next.toString()}>; rel="next"` } : {};
}

function readList(bytes: Buffer, member: 'tags' | 'manifests'): JsonObject {
  let value: Json = null;
  try {
    value = parseJson(bytes);
  } catch {
    // Told below, together with what is JSON and no list.
  }
  const list = asObject(value);
  const entries = list?.[member];
  // A repository without tags has `null` there, in registries written in Go.
  if (list && (Array.isArray(entries) || entries === null)) return list;
  throw new NarrowsError('upstreamUnusable', `The upstream's answer is no list of ${member}.`);
}

/** An upstream may leave the filter to its clients; applied twice it does no harm. */
function filter(list: JsonObject, artifactType: string | undefined): JsonObject {
  const manifests = Array.isArray(list['manifests']) ? list['manifests'] : [];
  if (artifactType === undefined) return { ...list, manifests };
  return { ...list, manifests: manifests.filter((entry) => asObject(entry)?.['artifactType'] === artifactType) };
}
