import * as fc from 'fast-check';
import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { parseChallenges } from '../../src/upstream/challenge.ts';
import { createRegistry } from '../../src/upstream/registry.ts';
import type { Registry, RegistryOptions } from '../../src/upstream/registry.ts';
import { nearly, pieces, tryMany } from '../fixtures/fuzz.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { json, password, serve, testLimits } from '../fixtures/servers.ts';
import type { Answerer, TestServer } from '../fixtures/servers.ts';

const tokens = fc.oneof(
  fc.constantFrom('realm', 'service', 'scope', 'error', 'Bearer', 'Basic', '__proto__', 'constructor'),
  fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,6}$/),
);
const values = fc.oneof(
  fc.constantFrom('repository:a/b:pull,push', 'https://r.example/token?a=b,c', 'a "b" \\c', '', 'Bearer realm="x"'),
  fc.string({ maxLength: 12 }),
);
const challenges = fc.array(
  fc.record({
    scheme: tokens,
    parameters: fc.uniqueArray(fc.tuple(tokens, values), { selector: ([name]) => name.toLowerCase(), maxLength: 4 }),
  }),
  { maxLength: 4 },
);
const styles = fc.record({ space: fc.constantFrom('', ' ', '\t '), isBare: fc.boolean(), isEscaped: fc.boolean() });
type Written = typeof challenges extends fc.Arbitrary<infer T> ? T : never;

/** RFC 9110, 11.2: in quotes, or as a token where it is one; any character in quotes may be escaped. */
function format(
  all: Written,
  { space, isBare, isEscaped }: { space: string; isBare: boolean; isEscaped: boolean },
): string {
  const valueOf = (value: string) => {
    if (isBare && /^[\w.~-]+$/.test(value)) return value;
    return `"${value.replaceAll(isEscaped ? /[^a-z]/g : /["\\]/g, String.raw`\$&`)}"`;
  };
  return all
    .map(({ scheme, parameters }) => {
      const said = parameters.map(([name, value]) => `${name}${space}=${space}${valueOf(value)}`);
      return [scheme, said.join(`${space},${space}`)].filter(Boolean).join(' ');
    })
    .join(`${space},${space}`);
}

void t.test('challenges: what is written by the letter of RFC 9110 is read as it was meant', (t) => {
  const property = fc.property(challenges, styles, (all, style) => {
    const read = parseChallenges(format(all, style)).map(({ scheme, parameters }) => [scheme, [...parameters]]);
    const meant = all.map(({ scheme, parameters }) => [
      scheme.toLowerCase(),
      parameters.map(([name, value]) => [name.toLowerCase(), value]),
    ]);
    return JSON.stringify(read) === JSON.stringify(meant);
  });
  tryMany(t, property);
  t.end();
});

void t.test('challenges: any header is read, and no more comes of it than was in it', (t) => {
  const headers = fc.tuple(challenges, styles).map(([all, style]) => format(all, style));
  let read = 0;
  const property = fc.property(nearly(headers), (header) => {
    const all = parseChallenges(header);
    read += all.length;
    const texts = all.flatMap(({ scheme, parameters }) => [scheme, ...[...parameters].flat()]);
    const isLower = all.every(({ scheme, parameters }) =>
      [scheme, ...parameters.keys()].every((one) => one === one.toLowerCase()),
    );
    return isLower && texts.reduce((sum, { length }) => sum + length, 0) <= header.length;
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} challenges`);
  t.end();
});

void t.test('72. challenges: a header that goes on and on is read to its end', (t) => {
  const parts = fc.array(fc.oneof(pieces, fc.constantFrom('a="b",', 'a=', '\\"', 'Bearer ', '",', '"\\')), {
    minLength: 1,
    maxLength: 3,
  });
  const property = fc.property(parts, parts, (start, again) => {
    const repeated = again.join('') || ' ';
    const header = start.join('') + repeated.repeat(100_000 / repeated.length);
    return parseChallenges(header).length <= header.length;
  });
  tryMany(t, property, 50);
  t.end();
});

const name = parseRepositoryName('team/app');

function open(t: Teardown, server: TestServer, over: Partial<RegistryOptions> = {}): Registry {
  const registry = createRegistry({
    name: 'registry.example',
    url: new URL(server.url),
    credentials: password('robot', 'secret'),
    trustedHosts: [],
    limits: testLimits,
    maxManifestBytes: 1024,
    now: Date.now,
    ...over,
  });
  t.teardown(() => registry.close());
  return registry;
}

/** A server that answers as it is told to for one question, and another that nobody should say anything to. */
async function prepare(t: Teardown, answer: Answerer) {
  const stranger = await serve(t, (_, response) => json(response, {}));
  const server = await serve(t, answer);
  return { server, stranger, registry: open(t, server), seen: () => server.seen.splice(0) };
}

const isHeaderText = (text: string) => /^[\t\x20-\x7e\x80-\xff]*$/.test(text);
const queries = fc.array(fc.tuple(fc.constantFrom('n', 'last', 'ns', 'x'), fc.string({ maxLength: 6 })), {
  minLength: 1,
  maxLength: 3,
});
const relations = fc.constantFrom(
  'rel="next"',
  'rel=next',
  'REL="Next"',
  ' rel="next" ',
  'title=x; rel="next"',
  'rel="next"; title=y',
);

void t.test('Link: the next page is its query, whatever host and path stand before it', async (t) => {
  let link = '';
  const { registry, seen, stranger } = await prepare(t, (_, response) => json(response, { tags: [] }, 200, { link }));
  const hosts = fc.constantFrom(
    '',
    '/v2/team/app/tags/list',
    stranger.url,
    `//127.0.0.1:${stranger.port}/x`,
    'http://u:p@169.254.169.254/',
    '../..',
    'file:///etc/passwd',
  );
  const before = fc.constantFrom('', '</x?prev=1>; rel="prev", ', '<>, ', '</y?z=1>,');
  const property = fc.asyncProperty(hosts, queries, relations, before, async (host, pairs, relation, others) => {
    const query = new URLSearchParams(pairs);
    link = `${others}<${host}?${query.toString()}>;${relation}`;
    const first = await registry.list(name, 'tags/list', new URLSearchParams());
    if (first?.next?.toString() !== query.toString()) return false;
    link = '';
    await registry.list(name, 'tags/list', first.next);
    const asked = seen().map(({ target }) => target);
    const isRight = asked.join(' ') === `/v2/team/app/tags/list /v2/team/app/tags/list?${query.toString()}`;
    return isRight && stranger.seen.length === 0;
  });
  await tryMany(t, property, 20);
});

void t.test('Link: any header is a next page or none', async (t) => {
  let link: string | string[] = '';
  const { registry, seen } = await prepare(t, (_, response) => void response.setHeader('link', link).end('{}'));
  const texts = fc
    .tuple(queries, relations)
    .map(([pairs, relation]) => `<?${new URLSearchParams(pairs).toString()}>; ${relation}`);
  const headers = fc.array(nearly(texts).filter(isHeaderText), { minLength: 1, maxLength: 3 });
  let found = 0;
  const property = fc.asyncProperty(headers, async (all) => {
    link = all;
    const answer = await registry.list(name, 'tags/list', new URLSearchParams());
    if (answer?.next) found++;
    return seen().length === 1 && (answer?.next === undefined || all.join(', ').includes('?'));
  });
  await tryMany(t, property, 20);
  t.ok(found > 0, `${found} had one`);
});

void t.test('5. a redirect leads to where it says, without what the registry alone may know, or nowhere', async (t) => {
  let location = '';
  const { server, stranger } = await prepare(t, ({ headers, target }, response) => {
    if (!headers.authorization) response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
    else if (target === '/v2/team/app/manifests/1') response.writeHead(307, { location }).end();
    else json(response, {});
  });
  const trusting = open(t, server, { trustedHosts: [`127.0.0.1:${stranger.port}`] });
  const foreign = `127.0.0.1:${stranger.port}`;
  const bases = fc.constantFrom(
    `http://${foreign}`,
    `//${foreign}/a/`,
    `http://u:p@${foreign}/b`,
    server.url,
    '',
    '../',
    '/v2/other/x?y=z',
    `http:${foreign}`,
    `http:\\\\${foreign}\\x`,
    'file:///etc/passwd',
    'data:,x',
    'http://127.0.0.9:1/',
    'http://[::1]:1/',
  );
  const locations = nearly(
    fc.tuple(bases, fc.constantFrom('', '/x', '?a=b', '#f', '/%2e%2e/y', '/ä')).map((parts) => parts.join('')),
  ).filter(isHeaderText);
  let followed = 0;
  const property = fc.asyncProperty(locations, async (text) => {
    location = text;
    server.seen.length = 0;
    stranger.seen.length = 0;
    try {
      await trusting.manifest(name, parseReference('1'));
    } catch (error) {
      if (!(error instanceof NarrowsError)) throw error;
    }
    followed += stranger.seen.length;
    const secrets = ['authorization', 'via', 'cookie'];
    const isSilent = stranger.seen.every(({ headers }) => secrets.every((one) => headers[one] === undefined));
    const wanted = URL.parse(text.trim(), `${server.url}/v2/team/app/manifests/1`);
    const isThere = stranger.seen.every(
      ({ target }) => wanted?.host === foreign && target === wanted.pathname + wanted.search,
    );
    return isSilent && isThere && stranger.seen.length <= 2;
  });
  await tryMany(t, property, 20);
  t.ok(followed > 0, `${followed} led elsewhere`);
});
