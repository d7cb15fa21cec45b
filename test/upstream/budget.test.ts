import t from 'tap';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { budgetOf } from '../../src/upstream/budget.ts';
import { createRegistry } from '../../src/upstream/registry.ts';
import type { Registry } from '../../src/upstream/registry.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { blobOf, refuse, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { credentialsOf, failureOf, testLimits } from '../fixtures/servers.ts';

const nowMs = Date.parse('2026-01-01T00:00:00Z');
const image = buildImage({ platforms: ['linux/amd64'] });
const name = parseRepositoryName('team/app');
const tag = parseReference('1');
const blob = blobOf(noise('budget', 1000));

void t.test('budget: what Docker Hub says of its quota', (t) => {
  t.same(budgetOf({ 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' }, nowMs), {
    remaining: 76,
    limit: 100,
  });
  t.end();
});

void t.test('budget: when there is more again, where that is said, counts from now', (t) => {
  const headers = { 'ratelimit-limit': '10', 'ratelimit-remaining': '0', 'ratelimit-reset': '90' };
  t.same(budgetOf(headers, nowMs), { remaining: 0, limit: 10, resetsAtMs: nowMs + 90_000 });
  t.end();
});

void t.test('budget: the older names of the headers, lists and repeated headers', (t) => {
  t.match(budgetOf({ 'x-ratelimit-limit': '60', 'x-ratelimit-remaining': '59' }, nowMs), { remaining: 59, limit: 60 });
  t.match(budgetOf({ 'ratelimit-limit': '100, 100;w=60', 'ratelimit-remaining': ' 7 ' }, nowMs), {
    remaining: 7,
    limit: 100,
  });
  t.match(budgetOf({ 'ratelimit-limit': ['5', '6'], 'ratelimit-remaining': ['4', '3'] }, nowMs), {
    remaining: 4,
    limit: 5,
  });
  t.end();
});

void t.test('budget: what says no quota says nothing', (t) => {
  for (const headers of [
    {},
    { 'ratelimit-limit': '100' },
    { 'ratelimit-remaining': '100' },
    { 'ratelimit-limit': '0', 'ratelimit-remaining': '0' },
    { 'ratelimit-limit': '', 'ratelimit-remaining': '' },
    { 'ratelimit-limit': 'many', 'ratelimit-remaining': '7' },
    { 'ratelimit-limit': '-1', 'ratelimit-remaining': '7' },
    { 'ratelimit-limit': '1e3', 'ratelimit-remaining': '7' },
    { 'ratelimit-limit': '100', 'ratelimit-remaining': '7.5' },
    { 'ratelimit-limit': '9999999999999999999', 'ratelimit-remaining': '7' },
  ]) {
    t.equal(budgetOf(headers, nowMs), undefined, JSON.stringify(headers));
  }
  t.end();
});

async function prepare(t: Teardown): Promise<{ origin: TestRegistry; upstream: Registry; say(left: string): void }> {
  const origin = await startRegistry();
  origin.putImage(name, '1', image);
  origin.put(name, blob);
  const upstream = createRegistry({
    name: 'registry.example',
    url: new URL(origin.url),
    credentials: credentialsOf(undefined),
    ca: undefined,
    proxy: undefined,
    trustedHosts: [],
    limits: testLimits,
    maxManifestBytes: 4 * 1024 * 1024,
    now: () => nowMs,
  });
  t.teardown(async () => {
    await upstream.close();
    await origin.close();
  });
  const say = (left: string) => {
    origin.script = (_, response) => {
      response.setHeader('ratelimit-limit', '100;w=21600');
      response.setHeader('ratelimit-remaining', `${left};w=21600`);
      return false;
    };
  };
  return { origin, upstream, say };
}

void t.test('registry: nothing is known of a quota before an answer says it', async (t) => {
  const { upstream } = await prepare(t);
  t.equal(upstream.budget?.(), undefined);
  await upstream.head(name, tag);
  t.equal(upstream.budget?.(), undefined);
});

void t.test('registry: each answer says what is left, that to a HEAD as well', async (t) => {
  const { upstream, say } = await prepare(t);
  say('76');
  await upstream.head(name, tag);
  t.same(upstream.budget?.(), { remaining: 76, limit: 100 });
  say('75');
  await upstream.manifest(name, tag);
  t.same(upstream.budget?.(), { remaining: 75, limit: 100 });
});

void t.test('registry: an answer that says nothing leaves what is known', async (t) => {
  const { origin, upstream, say } = await prepare(t);
  say('76');
  await upstream.head(name, tag);
  origin.script = undefined;
  t.equal((await upstream.blobHead(name, blob.digest))?.size, 1000);
  t.same(upstream.budget?.(), { remaining: 76, limit: 100 });
});

void t.test('registry: refusals say it too, most of all the one that the quota is used up', async (t) => {
  const { origin, upstream } = await prepare(t);
  const headers = {
    'ratelimit-limit': '100',
    'ratelimit-remaining': '0',
    'ratelimit-reset': '30',
    'retry-after': '30',
  };
  origin.script = (_, response) => {
    refuse(response, 429, 'TOOMANYREQUESTS', headers);
    return true;
  };
  t.match(await failureOf(upstream.manifest(name, tag)), { kind: 'rateLimited', retryAfterS: 30 });
  t.same(upstream.budget?.(), { remaining: 0, limit: 100, resetsAtMs: nowMs + 30_000 });
});

void t.test('registry: storage behind a redirect has limits of its own', async (t) => {
  const { origin, upstream, say } = await prepare(t);
  const storage = await startRegistry();
  t.teardown(storage.close);
  storage.script = (_, response) => {
    response.writeHead(200, {
      'content-length': blob.bytes.length,
      'ratelimit-limit': '9',
      'ratelimit-remaining': '1',
    });
    response.end(blob.bytes);
    return true;
  };
  say('76');
  await upstream.head(name, tag);
  origin.script = (_, response) => {
    response.writeHead(307, { location: `${storage.url}/storage` }).end();
    return true;
  };
  const answer = await upstream.blob(name, blob.digest, 0).catch(() => undefined);
  answer?.cancel();
  t.same(upstream.budget?.(), { remaining: 76, limit: 100 });
});
