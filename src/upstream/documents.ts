import { Agent } from 'undici';
import { drain, readLimited } from './answers.ts';
import { createDialer } from './dialer.ts';

/** Fetches small documents of someone whom the configuration names. */
export interface Documents {
  /** @throws Error for an answer that is none, NarrowsError for one that is too large */
  fetch(url: URL, headers?: Record<string, string>): Promise<string>;
  close(): Promise<void>;
}

export interface DocumentsOptions {
  /** Whose documents these are: that host may have a private address, others that it points to may not. */
  readonly host: URL;
  /** PEM certificates that are trusted beside the system's. */
  readonly ca?: string | undefined;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly maxBytes: number;
}

/** Without redirects: what is configured is where the documents are. */
export function createDocuments(options: DocumentsOptions): Documents {
  const { host, ca, connectTimeoutMs, headersTimeoutMs, maxBytes } = options;
  const agent = new Agent({
    connections: 2,
    headersTimeout: headersTimeoutMs,
    bodyTimeout: headersTimeoutMs,
    allowH2: false,
    connect: createDialer({
      ca,
      connectTimeoutMs,
      isTrusted: (name, port) => name === host.hostname.replaceAll(/[[\]]/g, '') && port === portOf(host),
    }),
  });
  return {
    async fetch(url, headers = {}) {
      if (host.protocol === 'https:' && url.protocol !== 'https:') throw new Error(`${url.origin} is not encrypted`);
      const { statusCode, body } = await agent.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: 'GET',
        headers: { 'user-agent': 'narrows', accept: 'application/json', ...(url.origin === host.origin && headers) },
      });
      body.on('error', () => undefined);
      if (statusCode === 200) {
        const deadlineMs = headersTimeoutMs;
        return (await readLimited(body, { maxBytes, deadlineMs }, url.origin)).toString();
      }
      await drain(body);
      throw new Error(`${url.origin} answers ${statusCode}`);
    },
    close: () => agent.destroy(),
  };
}

function portOf({ port, protocol }: URL): number {
  return Number(port || (protocol === 'https:' ? 443 : 80));
}
