import { isKind, NarrowsError } from '../errors.ts';
import type { HostedContent } from '../cache/hosted-content.ts';
import type { Ledger } from '../cache/ledger.ts';
import { pieces } from '../cache/bytes.ts';
import type { Blob } from '../cache/tier.ts';
import type { Digest } from '../oci/digest.ts';
import type { JsonObject } from '../oci/json.ts';
import { mediaTypes } from '../oci/media-types.ts';
import type { Reference, RepositoryName } from '../oci/reference.ts';
import type { ListAnswer, ManifestAnswer, ManifestHead, Upstream } from '../upstream/upstream.ts';
import { find, keys } from './books.ts';
import { list } from './draft.ts';
import type { BlobEntry, ManifestEntry, TagEntry } from './books.ts';
import { createShelf } from './shelf.ts';

const maxPage = 1000;
/** What stands in the list of one is up to 16 KiB and more. */
const maxReferrers = 100;

/**
 * What is hosted here, to those who pull: an upstream as any other, so that tags, platforms, views and downloads are
 * the same for both.
 */
export function createHostedRegistry(ledger: Ledger, content: HostedContent, maxManifestBytes: number): Upstream {
  const shelf = createShelf(content, maxManifestBytes);

  async function meant(repository: RepositoryName, reference: Reference): Promise<ManifestHead | undefined> {
    if (reference.kind === 'tag') {
      const tag = await find<TagEntry>(ledger, repository, keys.tag(reference.tag));
      return tag && { digest: tag.digest, contentType: tag.mediaType };
    }
    const { digest } = reference;
    const entry = await find<ManifestEntry>(ledger, repository, keys.manifest(digest));
    return entry && { digest, contentType: entry.mediaType };
  }

  async function manifest(repository: RepositoryName, reference: Reference): Promise<ManifestAnswer | undefined> {
    const head = await meant(repository, reference);
    return head && { bytes: await shelf.bytes(head.digest!), contentType: head.contentType };
  }

  async function blob(repository: RepositoryName, digest: Digest, from: number) {
    if (!(await find<BlobEntry>(ledger, repository, keys.blob(digest)))) return undefined;
    const held = await content.open(digest);
    if (!held) throw lost(digest);
    const close = () => void held.close();
    return { size: held.size, offset: from, body: ownPieces(held, from), cancel: close };
  }

  async function tags(repository: string, query: URLSearchParams): Promise<ListAnswer | undefined> {
    const count = pageSize(query);
    const last = query.get('last') ?? '';
    const found = await list<TagEntry>(ledger, repository, keys.tag(''), last, count + 1);
    if (found.length === 0 && (await list(ledger, repository, '', '', 1)).length === 0) return undefined;
    const page = found.slice(0, count).map(({ name }) => name);
    return answer(
      { name: repository, tags: page },
      found.length > count ? nextOf(query, count, page.at(-1)) : undefined,
    );
  }

  async function referrers(repository: string, subject: Digest, query: URLSearchParams): Promise<ListAnswer> {
    const count = Math.min(pageSize(query), maxReferrers);
    const prefix = keys.referrer(subject, '' as Digest);
    const found = await list<JsonObject>(ledger, repository, prefix, query.get('last') ?? '', count + 1);
    const page = found.slice(0, count);
    const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: page.map(({ value }) => value) };
    return answer(index, found.length > count ? nextOf(query, count, page.at(-1)?.name) : undefined);
  }

  return {
    name: 'This registry',
    head: (repository, reference) => troubled(() => meant(repository, reference)),
    manifest: (repository, reference) => troubled(() => manifest(repository, reference)),
    blobHead: (repository, digest) =>
      troubled(async () => {
        const entry = await find<BlobEntry>(ledger, repository, keys.blob(digest));
        return entry && { size: entry.bytes };
      }),
    blob: (repository, digest, from) => troubled(() => blob(repository, digest, from)),
    list: (repository, path, query) =>
      troubled(() =>
        path === 'tags/list'
          ? tags(repository, query)
          : referrers(repository, path.slice('referrers/'.length) as Digest, query),
      ),
  };
}

/** Trouble with the books is to a pull what trouble with an upstream is: what it knows may be given meanwhile. */
async function troubled<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (!isKind(cause, 'storeUnavailable')) throw cause;
    throw new NarrowsError('upstreamUnavailable', cause.message, { cause });
  }
}

/** A download keeps its pieces for a while; those of a file are read over. */
async function* ownPieces(blob: Blob, from: number): AsyncGenerator<Buffer> {
  try {
    for await (const piece of pieces(blob, from)) yield blob.state === 'hit-disk' ? Buffer.from(piece) : piece;
  } finally {
    await blob.close();
  }
}

function lost(digest: Digest): NarrowsError {
  return new NarrowsError('storeUnavailable', `${digest} should be here, and cannot be read now.`);
}

function pageSize(query: URLSearchParams): number {
  return Math.min(Number(query.get('n') ?? maxPage), maxPage);
}

function nextOf(query: URLSearchParams, count: number, last: string | undefined): URLSearchParams | undefined {
  if (last === undefined) return undefined;
  const next = new URLSearchParams(query);
  next.set('n', String(count));
  next.set('last', last);
  return next;
}

function answer(document: object, next: URLSearchParams | undefined): ListAnswer {
  return { bytes: Buffer.from(JSON.stringify(document)), ...(next && { next }) };
}
