import t from 'tap';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';
import type { MirrorOptions, Teardown } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64'], seed: 'one' });
const newer = buildImage({ platforms: ['linux/amd64'], seed: 'two' });
const path = '/v2/docker.io/library/hello/manifests/1';

async function stage(t: Teardown, config: MirrorOptions['config'] = {}) {
  const clock = { ms: Date.parse('2026-01-01') };
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, config, now: () => clock.ms });
  const ask = async () => (await mirror.get(path, { accept })).headers;
  return { clock, upstream, mirror, ask };
}

void t.test('a tag is believed while fresh, then asked for by HEAD, and fetched only when it moved', async (t) => {
  const { clock, upstream, ask } = await stage(t);
  t.match(await ask(), { 'narrows-cache': 'miss', 'docker-content-digest': image.index.digest });
  t.match(await ask(), { 'narrows-cache': 'hit-memory' });
  t.equal(upstream.seen.length, 2);

  clock.ms += 61_000;
  t.match(await ask(), { 'narrows-cache': 'revalidated', 'docker-content-digest': image.index.digest });
  t.equal(upstream.count('HEAD manifests'), 2);
  t.equal(upstream.count('GET manifests'), 1);

  upstream.putImage('library/hello', '1', newer);
  t.match(await ask(), { 'docker-content-digest': image.index.digest }, 'still fresh');
  clock.ms += 61_000;
  t.match(await ask(), { 'narrows-cache': 'miss', 'docker-content-digest': newer.index.digest });
  t.equal(upstream.count('GET manifests'), 2);
});

void t.test('46. many clients at once: one HEAD and one GET upstream', async (t) => {
  const { upstream, mirror } = await stage(t);
  const all = await Promise.all(Array.from({ length: 100 }, () => mirror.get(path, { accept })));
  t.ok(all.every(({ status, body }) => status === 200 && body.equals(image.index.bytes)));
  t.equal(upstream.count('HEAD manifests'), 1);
  t.equal(upstream.count('GET manifests'), 1);
});

void t.test(
  '30. an upstream in trouble: the last known answer, marked stale, and left alone for a while',
  async (t) => {
    for (const [trouble, status] of [
      ['500', 500],
      ['503', 503],
      ['429', 429],
      ['down', 0],
    ] as const) {
      const { clock, upstream, mirror, ask } = await stage(t);
      await ask();
      clock.ms += 61_000;
      upstream.forget();
      upstream.script = (_seen, response) => {
        if (status === 0) response.destroy();
        else refuse(response, status, 'TOOMANYREQUESTS', { 'retry-after': '1' });
        return true;
      };
      t.match(await ask(), { 'narrows-cache': 'stale', 'docker-content-digest': image.index.digest }, trouble);
      const asked = upstream.seen.length;
      t.match(await ask(), { 'narrows-cache': 'stale' });
      t.equal(upstream.seen.length, asked, `${trouble}: not asked again at once`);
      clock.ms += 6000;
      upstream.script = undefined;
      t.match(await ask(), { 'narrows-cache': 'stale' }, 'asked behind the answer: nobody waits for silence again');
      await until(async () => (await ask())['narrows-cache'] === 'hit-memory', `the end of the trouble: ${trouble}`);
      await mirror.stop();
    }
  },
);

void t.test(
  '30. trouble before anything is known: 5xx or 429 with Retry-After, never 404, and not remembered',
  async (t) => {
    const cases = [
      { answer: 500, told: 503 },
      { answer: 503, told: 503 },
      { answer: 504, told: 504 },
      { answer: 429, told: 429 },
      { answer: 418, told: 502 },
      { answer: 0, told: 502 },
    ];
    for (const { answer, told } of cases) {
      const { clock, upstream, mirror } = await stage(t);
      upstream.script = (_seen, response) => {
        if (answer === 0) response.destroy();
        else refuse(response, answer, 'X', { 'retry-after': '7' });
        return true;
      };
      const refused = await mirror.get(path, { accept });
      t.equal(refused.status, told, `${answer}`);
      if (answer === 429 || answer === 503) t.equal(refused.headers['retry-after'], '7');
      upstream.script = undefined;
      clock.ms += 8000;
      t.equal((await mirror.get(path, { accept })).status, 200);
      await mirror.stop();
    }
  },
);

void t.test('32. 401 and 403 of an upstream: 403 DENIED with advice, neither 404 nor stale', async (t) => {
  for (const status of [401, 403]) {
    const { clock, upstream, mirror, ask } = await stage(t);
    await ask();
    clock.ms += 61_000;
    upstream.script = (_seen, response) => {
      refuse(response, status, 'DENIED');
      return true;
    };
    const refused = await mirror.get(path, { accept });
    t.equal(refused.status, 403);
    t.match(refused.json(), { errors: [{ code: 'DENIED', message: /upstreams\."docker\.io"\.credentials/ }] });
    await mirror.stop();
  }
});

void t.test('32, 59. no such tag: 404, believed briefly, so that a push is soon seen', async (t) => {
  const { clock, upstream, mirror } = await stage(t);
  const missing = path.replace(/1$/, '2');
  t.match(await mirror.get(missing, { accept }), { status: 404 });
  t.equal((await mirror.get(missing, { accept })).status, 404);
  t.equal(upstream.count('HEAD manifests', '/2'), 1);
  upstream.putImage('library/hello', '2', newer);
  clock.ms += 11_000;
  t.equal((await mirror.get(missing, { accept })).status, 200);
});

void t.test('rules: by pattern, a time of its own or for ever', async (t) => {
  const { clock, upstream, ask } = await stage(t, {
    tags: { rules: [{ pattern: 'docker.io/library/*:1', immutable: true }] },
  });
  await ask();
  clock.ms += 1000 * 24 * 3600_000;
  t.match(await ask(), { 'narrows-cache': 'hit-memory' });
  t.equal(upstream.count('HEAD manifests'), 1);
});

void t.test('a moved tag whose new manifest cannot be fetched: the old one, stale', async (t) => {
  const { clock, upstream, ask } = await stage(t);
  await ask();
  clock.ms += 61_000;
  upstream.putImage('library/hello', '1', newer);
  upstream.script = (seen, response) => {
    if (seen.method !== 'GET') return false;
    refuse(response, 429, 'TOOMANYREQUESTS');
    return true;
  };
  t.match(await ask(), { 'narrows-cache': 'stale', 'docker-content-digest': image.index.digest });
});

void t.test('an upstream that tells no digest on HEAD, or knows no HEAD: one GET of the tag', async (t) => {
  for (const status of [200, 405]) {
    const { upstream, mirror, ask } = await stage(t);
    upstream.script = (seen, response) => {
      if (seen.method !== 'HEAD') return false;
      response.writeHead(status, { 'content-type': image.index.mediaType });
      response.end();
      return true;
    };
    t.match(await ask(), { 'docker-content-digest': image.index.digest, 'narrows-cache': 'miss' });
    t.same(
      upstream.seen.map(({ method }) => method),
      ['HEAD', 'GET'],
    );
    await mirror.stop();
  }
});

void t.test('27. a login page in place of a registry: 502, and nothing of it is kept', async (t) => {
  const { upstream, mirror } = await stage(t);
  upstream.script = (_seen, response) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end('<html>please log in</html>');
    return true;
  };
  const refused = await mirror.get(path, { accept });
  t.match(refused, { status: 502 });
  t.match(refused.json(), { errors: [{ code: 'MANIFEST_INVALID' }] });
  upstream.script = undefined;
  t.equal((await mirror.get(path, { accept })).status, 200);
});

void t.test('once in trouble, an upstream that is silent keeps nobody waiting, whatever the times are', async (t) => {
  const { upstream, ask } = await stage(t, { tags: { fresh: 0, stale: '1m' } });
  await ask();
  upstream.script = (_seen, response) => {
    refuse(response, 503, 'X');
    return true;
  };
  t.match(await ask(), { 'narrows-cache': 'stale' });
  const asked = upstream.seen.length;
  for (let round = 0; round < 5; round++) t.match(await ask(), { 'narrows-cache': 'stale' });
  t.equal(upstream.seen.length, asked);
});

void t.test(
  '32. an upstream that first is down and then refuses: the refusal is told, not hidden behind the old answer',
  async (t) => {
    const { clock, upstream, mirror, ask } = await stage(t);
    await ask();
    let status = 503;
    upstream.script = (_seen, response) => {
      refuse(response, status, 'X');
      return true;
    };
    clock.ms += 61_000;
    t.match(await ask(), { 'narrows-cache': 'stale' });
    clock.ms += 6000;
    status = 403;
    await until(async () => (await mirror.get(path, { accept })).status === 403, 'the refusal');
  },
);

void t.test('46. clients that ask at once for a cold tag: one misses, the others join', async (t) => {
  const { upstream, mirror } = await stage(t);
  const gate = Promise.withResolvers<void>();
  upstream.script = async () => gate.promise.then(() => false);
  const all = [1, 2, 3].map(() => mirror.get(path, { accept }));
  await until(() => upstream.seen.length > 0, 'the question');
  gate.resolve();
  const states = (await Promise.all(all)).map(({ headers }) => headers['narrows-cache']);
  t.equal(states.filter((state) => state === 'miss').length, 1, String(states));
});

/** The upstream says that so many of a hundred pulls are left. */
function limitTo(upstream: TestRegistry, now: number): { now: number } {
  const remaining = { now };
  upstream.script = (_seen, response) => {
    response.setHeader('ratelimit-limit', '100;w=21600');
    response.setHeader('ratelimit-remaining', `${remaining.now};w=21600`);
    return false;
  };
  return remaining;
}

void t.test('31. what is left of a pull quota is for what is not here: a tag that moved stays as it was', async (t) => {
  const { clock, upstream, mirror, ask } = await stage(t);
  await ask();
  upstream.putImage('library/hello', '1', newer);
  upstream.putImage('library/hello', '2', newer);
  limitTo(upstream, 5);
  clock.ms += 61_000;
  t.match(await ask(), { 'narrows-cache': 'stale', 'docker-content-digest': image.index.digest });
  t.equal(upstream.count('GET manifests'), 1, 'only the first');
  const other = await mirror.get(path.replace(/1$/, '2'), { accept });
  t.equal(other.headers['docker-content-digest'], newer.index.digest, 'what is not here at all is fetched');
  clock.ms += 61_000;
  const isNew = async () => (await ask())['docker-content-digest'] === newer.index.digest;
  await until(isNew, 'the tag to move, which costs nothing any more');
  t.equal(upstream.count('GET manifests'), 2);
});

void t.test('31. a tag that moved is fetched once the quota has grown', async (t) => {
  const { clock, upstream, ask } = await stage(t);
  await ask();
  upstream.putImage('library/hello', '1', newer);
  const remaining = limitTo(upstream, 5);
  clock.ms += 61_000;
  t.match(await ask(), { 'narrows-cache': 'stale' });
  remaining.now = 90;
  clock.ms += 61_000;
  await until(async () => (await ask())['docker-content-digest'] === newer.index.digest, 'the tag to be fetched');
});
