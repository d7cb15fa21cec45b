import { NarrowsError, isNotHeld } from '../errors.ts';
import { asObject, parseJson } from '../oci/json.ts';
import type { Json, JsonObject } from '../oci/json.ts';
import { mediaTypes } from '../oci/media-types.ts';
import type { Digest } from '../oci/digest.ts';
import { contentKey } from '../cache/records.ts';
import type { Source } from '../upstream/registries.ts';
import type { ListAnswer } from '../upstream/upstream.ts';
import type { PullParts } from './parts.ts';
import type { Referrers } from './referrers.ts';
import type { Page, Route } from './request.ts';

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

export function createLists({ records }: PullParts, referrers: Referrers): Lists {
  /** What was narrowed here has no referrers of its own upstream: those of its original are meant. */
  async function subjectOf(source: Source, digest: Digest): Promise<Digest> {
    return (await records.narrowed.get(contentKey(source, digest)))?.index ?? digest;
  }

  /** While nobody else is asked, a repository has the tags that are known here. */
  async function knownTags(source: Source, page: Page): Promise<ListAnswer | undefined> {
    const prefix = `${source.key}:`;
    const names: string[] = [];
    let isKnown = false;
    for await (const key of records.tags.keys()) {
      const name = key.slice(prefix.length);
      isKnown ||= key.startsWith(prefix);
      if (!key.startsWith(prefix) || (page.last !== undefined && name <= page.last)) continue;
      if ((await records.tags.get(key))?.digest) names.push(name);
    }
    if (!isKnown) return undefined;
    const size = Math.min(page.n ?? Infinity, names.length);
    const tags = names.toSorted().slice(0, size);
    const last = tags.at(-1);
    return {
      bytes: Buffer.from(JSON.stringify({ name: source.repository, tags })),
      ...(names.length > size && last !== undefined && { next: new URLSearchParams({ n: String(size), last }) }),
    };
  }

  return {
    async tags(source, route) {
      const asked = source.upstream.list(source.repository, 'tags/list', pageQuery(route.page));
      const answer = await asked.catch(async (error: unknown) => {
        const known = isNotHeld(error) ? await knownTags(source, route.page) : undefined;
        if (!known) throw error;
        return known;
      });
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
      const answer = await referrers.page(source, subject, query);
      const list = answer ? { ...emptyIndex, ...readList(answer.bytes, 'manifests') } : emptyIndex;
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
