import { NarrowsError, isKind } from '../errors.ts';
import { isDigest, matches } from '../oci/digest.ts';
import { acceptManifests } from '../oci/media-types.ts';
import { referenceText } from '../oci/reference.ts';
import { drain, firstOf, readLimited, retryAfterOf } from './answers.ts';
import type { Answer, ReadLimits } from './answers.ts';
import { createBackoff } from './backoff.ts';
import { budgetOf } from './budget.ts';
import { compact } from './receiving.ts';
import { createRequester } from './requests.ts';
import type { UpstreamOptions } from './requests.ts';
import { toTrouble } from './trouble.ts';
import type { BlobAnswer, Budget, CallersUpstream, ManifestHead, Upstream } from './upstream.ts';

export interface RegistryOptions extends UpstreamOptions {
  readonly maxManifestBytes: number;
  /** It is a narrows too, and is told what a client would tell it. */
  readonly hub?: Hub | undefined;
}

export interface Hub {
  /** What this mirror keeps, as in `linux/arm64,linux/arm/v7`; undefined for everything. */
  readonly platforms: string | undefined;
}

export interface Registry extends Upstream, CallersUpstream {}

/** A registry of the OCI distribution specification, read from. */
export function createRegistry(options: RegistryOptions): Registry {
  const { name, now, hub } = options;
  const requester = createRequester(options);
  const reading: ReadLimits = {
    maxBytes: options.maxManifestBytes,
    deadlineMs: options.limits.headersTimeoutMs + options.limits.stallTimeoutMs,
  };
  /** Manifests count against a pull quota, the rest only against the patience of a registry. */
  const [manifests, others] = [createBackoff({ who: name, now }), createBackoff({ who: name, now })];
  let budget: Budget | undefined;

  /** @returns undefined where the registry says 404; anything but success is thrown */
  async function ask(
    method: 'GET' | 'HEAD',
    repository: string,
    rest: string,
    headers: Record<string, string>,
  ): Promise<Answer | undefined> {
    const isBody = method === 'GET' && rest.startsWith('blobs/');
    const backoff = rest.startsWith('manifests/') ? manifests : others;
    const leave = backoff.enter();
    const path = `/v2/${repository}/${rest}`;
    const question = { method, headers, repository, isBody, ...asHub(path, headers) };
    const answer = await requester.send(question).finally(leave);
    if (!answer.redirected) budget = budgetOf(answer.headers, now()) ?? budget;
    // Storage behind a redirect has limits of its own.
    if (!answer.redirected && answer.status === 429) {
      const limit = backoff.limited(retryAfterOf(answer.headers, now()));
      await drain(answer.body);
      throw limit;
    }
    // Who sends us on to storage has answered.
    backoff.answered();
    // A part is an answer to those alone who asked for one.
    const isPart = answer.status === 206 && 'range' in headers;
    if (answer.status === 200 || isPart) return checkEncoding(answer, name);
    await drain(answer.body);
    if (answer.status === 404) return undefined;
    throw refusal(answer, repository);
  }

  /** An index of what is kept here, and not an image of its own: clients of other platforms learn that there is none. */
  function asHub(path: string, headers: Record<string, string>) {
    if (!hub) return { path };
    const own = hub.platforms === undefined ? {} : { 'narrows-platform': hub.platforms, 'narrows-view': 'index' };
    return { path: `${path}${path.includes('?') ? '&' : '?'}ns=${name}`, headers: { ...headers, ...own } };
  }

  function askManifest(method: 'GET' | 'HEAD', repository: string, reference: string) {
    return ask(method, repository, `manifests/${reference}`, { accept: acceptManifests });
  }

  function refusal(answer: Answer, repository: string): NarrowsError {
    const { status } = answer;
    if (status === 429) {
      return rateLimited(name, retryAfterOf(answer.headers, now()) ?? 10);
    }
    if ((status === 401 || status === 403) && !answer.redirected) {
      return new NarrowsError(
        'denied',
        `${name} does not let this mirror read ${repository}: it does not exist, or upstreams."${name}".credentials are missing or not enough.`,
      );
    }
    if (status === 504 || status === 408) return new NarrowsError('upstreamTimeout', `${name} answers ${status}.`);
    if (status === 508) return new NarrowsError('loopDetected', `${name} leads back to this mirror, or is in a loop.`);
    if (status >= 500 && status !== 501) {
      const retryAfterS = retryAfterOf(answer.headers, now());
      return new NarrowsError('upstreamUnavailable', `${name} answers ${status}.`, {
        ...(retryAfterS !== undefined && { retryAfterS }),
      });
    }
    return new NarrowsError('upstreamRefused', `${name} answers ${status}, which is no answer of a registry.`, {
      detail: { status },
    });
  }

  function counted(answer: BlobAnswer): BlobAnswer {
    async function* body() {
      for await (const chunk of answer.body) {
        options.onBytes?.(name, chunk.length);
        yield compact(chunk);
      }
    }
    const { receiveBuffers } = options;
    return { ...answer, body: body(), ...(receiveBuffers && { recycle: (piece) => receiveBuffers.recycle(piece) }) };
  }

  async function readBody(answer: Answer, what: string): Promise<Buffer> {
    try {
      const bytes = await readLimited(answer.body, reading, `${name} for ${what}`);
      options.onBytes?.(name, bytes.length);
      return bytes;
    } catch (error) {
      throw toTrouble(error, name);
    }
  }

  return {
    name,

    async head(repository, reference) {
      try {
        const answer = await askManifest('HEAD', repository, referenceText(reference));
        if (!answer) return undefined;
        await drain(answer.body);
        return readManifestHead(answer);
      } catch (error) {
        // A registry without HEAD is no registry without the manifest: its GET will tell.
        if (hasNoHead(error)) return { contentType: '' };
        throw error;
      }
    },

    async manifest(repository, reference) {
      const text = referenceText(reference);
      const answer = await askManifest('GET', repository, text);
      if (!answer) return undefined;
      const bytes = await readBody(answer, `${repository} ${text}`);
      if (reference.kind === 'digest' && !matches(bytes, reference.digest)) {
        throw new NarrowsError('upstreamUnusable', `${name} answers with other bytes than those of ${text}.`);
      }
      return { bytes, contentType: firstOf(answer.headers['content-type']) ?? '' };
    },

    async blobHead(repository, digest) {
      const path = `blobs/${digest}`;
      const answer = await ask('HEAD', repository, path, {}).catch((error: unknown) => {
        if (hasNoHead(error)) return ask('GET', repository, path, {});
        throw error;
      });
      if (!answer) return undefined;
      // Of a GET the head is enough.
      answer.body.destroy();
      return sizeOf(answer.headers['content-length']);
    },

    async blob(repository, digest, from) {
      const answer = await ask('GET', repository, `blobs/${digest}`, from > 0 ? { range: `bytes=${from}-` } : {});
      return answer && counted(readBlobAnswer(answer, name));
    },

    async list(repository, path, query) {
      const suffix = query.size > 0 ? `?${query.toString()}` : '';
      const answer = await ask('GET', repository, path + suffix, { accept: 'application/json, */*' });
      if (!answer) return undefined;
      const bytes = await readBody(answer, `${repository} ${path}`);
      const next = nextQuery([answer.headers['link'] ?? ''].flat().join(', '));
      return { bytes, ...(next && { next }) };
    },

    budget: () => budget,

    backoffMs: () => Math.max(manifests.waitMs(), others.waitMs(), requester.backoffMs()),

    async enter() {
      const answer = await requester.send({ method: 'GET', path: '/v2/', headers: {} });
      await drain(answer.body);
      if (answer.status !== 200) throw refusal(answer, 'anything');
    },

    close: () => requester.close(),
  };
}

function hasNoHead(error: unknown): boolean {
  if (!isKind(error, 'upstreamRefused')) return false;
  const { status } = error.detail as { status: number };
  return status === 405 || status === 501;
}

/** Digests are over the bytes as they are: a coded body would be another thing, or a bomb. */
async function checkEncoding(answer: Answer, name: string): Promise<Answer> {
  const encoding = firstOf(answer.headers['content-encoding'])?.toLowerCase() ?? 'identity';
  if (encoding === 'identity') return answer;
  answer.body.destroy();
  throw new NarrowsError('upstreamUnusable', `${name} answers in ${encoding} though asked for the bytes as they are.`);
}

function rateLimited(name: string, retryAfterS: number): NarrowsError {
  return new NarrowsError('rateLimited', `${name} limits the rate of requests.`, { retryAfterS });
}

function readManifestHead({ headers }: Answer): ManifestHead {
  const digest = firstOf(headers['docker-content-digest']) ?? '';
  return { ...(isDigest(digest) && { digest }), contentType: firstOf(headers['content-type']) ?? '' };
}

function sizeOf(text: string | string[] | undefined): { size?: number } {
  const length = firstOf(text) ?? '';
  return /^\d{1,15}$/.test(length) ? { size: Number(length) } : {};
}

function readBlobAnswer({ status, headers, body }: Answer, name: string): BlobAnswer {
  const common = { body: body as AsyncIterable<Buffer>, cancel: () => void body.destroy() };
  if (status === 200) return { offset: 0, ...sizeOf(headers['content-length']), ...common };
  const range = /^bytes (\d{1,15})-\d{1,15}\/(\d{1,15}|\*)$/.exec(firstOf(headers['content-range']) ?? '');
  if (!range) {
    body.destroy();
    throw new NarrowsError('upstreamUnusable', `${name} answers with a part and does not say which.`);
  }
  return { offset: Number(range[1]), ...(range[2] !== '*' && { size: Number(range[2]) }), ...common };
}

/** The query of `Link: <…?n=…&last=…>; rel="next"`: the host and path in it are the upstream's own affair. */
function nextQuery(links: string): URLSearchParams | undefined {
  const all = [...links.matchAll(/<([^<>]*)>((?:\s*;\s*[^,;]+)*)/g)];
  const target = all.find(([, , parameters = '']) => /;\s*rel="?next"?\s*(?:;|$)/i.test(parameters))?.[1];
  const question = target?.indexOf('?') ?? -1;
  return target !== undefined && question >= 0 ? new URLSearchParams(target.slice(question + 1)) : undefined;
}
