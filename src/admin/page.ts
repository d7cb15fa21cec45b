import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname } from 'node:path';

export interface Page {
  /** Answers a GET or HEAD of one of its files. @returns false where it has no such file, and says nothing */
  answer(request: Pick<IncomingMessage, 'method' | 'url' | 'headers'>, response: ServerResponse): boolean;
}

interface PageFile {
  readonly body: Buffer;
  readonly contentType: string;
  readonly etag: string;
}

const folder = new URL('./page/', import.meta.url);
const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
};
/** The one library that runs in the browser: as its package has it. */
const libraries: Readonly<Record<string, string>> = {
  'uplot.js': 'uplot/dist/uPlot.iife.min.js',
  'uplot.css': 'uplot/dist/uPlot.min.css',
};
/** Names of repositories come from strangers: should one of them ever become markup, it runs and asks nothing. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "form-action 'none'",
].join('; ');
const headers = {
  'content-security-policy': policy,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  // Kept by the browser, and asked for each time: a newer version shows at the next load.
  'cache-control': 'no-cache',
};

/** Reads what people are shown: `/`, and all that it needs below `/page/`. */
export async function readPage(): Promise<Page> {
  const files = new Map<string, PageFile>();
  const names = (await readdir(folder)).filter((name) => extname(name) in contentTypes);
  for (const name of names) files.set(`/page/${name}`, await read(new URL(name, folder)));
  for (const [name, path] of Object.entries(libraries)) {
    files.set(`/page/${name}`, await read(new URL(import.meta.resolve(path))));
  }
  files.set('/', files.get('/page/index.html')!);
  files.delete('/page/index.html');
  return {
    answer({ method, url = '', headers: asked }, response) {
      const file = files.get(url.split('?', 1)[0]!);
      if (!file || (method !== 'GET' && method !== 'HEAD')) return false;
      const { body, contentType, etag } = file;
      if (isKnown(asked['if-none-match'], etag)) {
        response.writeHead(304, { ...headers, etag }).end();
      } else {
        response.writeHead(200, { ...headers, etag, 'content-type': contentType, 'content-length': body.length });
        response.end(method === 'HEAD' ? undefined : body);
      }
      return true;
    },
  };
}

async function read(url: URL): Promise<PageFile> {
  const body = await readFile(url);
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
  return { body, contentType: contentTypes[extname(url.pathname)]!, etag };
}

function isKnown(asked: string | undefined, etag: string): boolean {
  const tags = (asked ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes(etag) || tags.includes('*');
}
