import { readFileSync, readdirSync } from 'node:fs';
import t from 'tap';
import { Agent } from 'undici';
import { fetchAnswer, startTestMirror } from '../fixtures/mirror.ts';
import type { TestAnswer } from '../fixtures/mirror.ts';
import type { Test } from 'tap';

const folder = new URL('../../src/admin/page/', import.meta.url);
const own = readdirSync(folder).filter((name) => /\.(?:js|css)$/.test(name));
const paths = ['/', ...[...own, 'uplot.js', 'uplot.css'].map((name) => `/page/${name}`)];
const maxBytes = 150_000;

async function start(t: Test) {
  const mirror = await startTestMirror(t, { upstreams: { up: 'http://127.0.0.1:1' } });
  const dispatcher = new Agent();
  t.teardown(() => dispatcher.destroy());
  return (path: string, headers: Record<string, string> = {}, method: 'GET' | 'HEAD' | 'POST' = 'GET') =>
    fetchAnswer(`${mirror.adminUrl}${path}`, { method, headers, dispatcher });
}

function typeOf(path: string): string {
  return path === '/' ? 'text/html' : path.endsWith('.css') ? 'text/css' : 'text/javascript';
}

void t.test('page: each file is served as what it is, and may load and ask nothing but its own server', async (t) => {
  const get = await start(t);
  for (const path of paths) {
    const { status, headers, body } = await get(path);
    t.equal(status, 200, path);
    t.equal(headers['content-type'], `${typeOf(path)}; charset=utf-8`);
    t.equal(headers['content-length'], String(body.length));
    t.match(headers, {
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'content-security-policy':
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    });
  }
  t.equal((await get('/?from=elsewhere')).status, 200);
});

void t.test('page: what a browser has already is not sent again', async (t) => {
  const get = await start(t);
  const tags = new Set<string>();
  for (const path of paths) {
    const { headers, body } = await get(path);
    const etag = headers['etag'] ?? '';
    t.match(etag, /^"[\w-]{27}"$/, `${path} has a strong tag`);
    tags.add(etag);
    t.equal(headers['cache-control'], 'no-cache', 'and is asked for each time');
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const again = await get(path, { 'if-none-match': known });
      t.match(again, { status: 304, headers: { etag }, body: Buffer.alloc(0) }, known);
    }
    t.equal((await get(path, { 'if-none-match': '"other"' })).body.length, body.length);
    const head = await get(path, {}, 'HEAD');
    t.match(head, { status: 200, headers: { etag, 'content-length': String(body.length) }, body: Buffer.alloc(0) });
  }
  t.equal(tags.size, paths.length, 'each file has a tag of its own');
});

void t.test('page: what is no file of it is not there, wherever it lies', async (t) => {
  const get = await start(t);
  const beside = ['/page/tsconfig.json', '/page/index.html', '/page/', '/page', '/page.ts', '/page/../page.ts'];
  const outside = [
    '/page/%2e%2e/server.ts',
    '/page/..%2fserver.ts',
    '/page//page.js',
    '/PAGE/page.js',
    '//page/page.js',
  ];
  for (const path of [...beside, ...outside]) t.equal((await get(path)).status, 404, path);
  t.equal((await get('/', {}, 'POST')).status, 405);
});

void t.test('page: it is small, all of it, and names no other place', async (t) => {
  const get = await start(t);
  const answers = new Map<string, TestAnswer>();
  for (const path of paths) answers.set(path, await get(path));
  const total = [...answers.values()].reduce((sum, { body }) => sum + body.length, 0);
  t.ok(total < maxBytes, `${total} bytes`);
  for (const [path, { body }] of answers) {
    // The library says in its first line where it comes from.
    const text = body.toString().replace(/^\/\*! \S+ \(v[\d.]+\) \*\/\n/, '');
    t.notMatch(text, /\b(?:https?|wss?|ftp):|["'(=]\/\//i, path);
    t.notMatch(text, /@import\s+(?:url|["'])|\burl\(/, path);
  }
});

void t.test('page: nothing in it turns text of strangers into markup or code', (t) => {
  for (const name of own) {
    const text = readFileSync(new URL(name, folder), 'utf8');
    t.notMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\b|new Function/, name);
    t.ok(text.split('\n').length <= 300, `${name} fits in the head`);
  }
  t.end();
});

void t.test('page: its first paint waits for its markup and its style alone', async (t) => {
  const get = await start(t);
  const { body } = await get('/');
  const html = body.toString();
  const scripts = [...html.matchAll(/<script\b[^>]*>/g)].map(([tag]) => tag);
  t.equal(scripts.length, 2);
  for (const tag of scripts) t.match(tag, /src="page\/[\w.]+" (?:defer|type="module")>/, tag);
  t.notMatch(html, /<style|\sstyle=|\son\w+=|javascript:/i, 'nothing that the policy would refuse');
  const links = [...html.matchAll(/<link\s+rel="(\w+)"\s+href="([^"]*)"/g)].map(([, rel, href = '']) => [rel, href]);
  t.equal(links.length, html.match(/<link/g)?.length);
  const styles = links.filter(([rel]) => rel === 'stylesheet').map(([, href]) => `/${href}`);
  t.same(styles.toSorted(), paths.filter((path) => path.endsWith('.css')).toSorted(), 'its styles');
  t.match(links.filter(([rel]) => rel !== 'stylesheet').join(' '), /^icon,data:image\/png;base64,\S+$/);
});
