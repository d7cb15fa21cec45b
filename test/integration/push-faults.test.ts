import { request } from 'node:http';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { Agent } from 'undici';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { containerdAccept, fetchAnswer, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown, TestMirror } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import { createPusher } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf } from '../fixtures/registry.ts';

const upstreams = { lab: 'http://127.0.0.1:1' };
const repositories = [{ name: 'team/*', hosted: true, compose: true, push: ['anonymous'] }];

async function serveFrom(t: Teardown, store: string) {
  const path = join(store, 'narrows.json');
  await writeFile(
    path,
    JSON.stringify({ repositories, upstreams: { lab: { url: upstreams.lab } }, defaultUpstream: 'lab' }),
  );
  const server = await startServe(t, { args: ['--config', path, '--store', store] });
  const agent = new Agent();
  t.teardown(() => agent.destroy());
  const send: TestMirror['send'] = (method, path, body, headers = {}) =>
    fetchAnswer(path.startsWith('http') ? path : server.url + path, {
      method,
      headers,
      dispatcher: agent,
      ...(body !== undefined && { body }),
    });
  return { server, send };
}

/** Sends the beginning of a body and leaves the rest unsaid. */
function begin(url: string, method: string, bytes: Buffer, part: number): Promise<void> {
  return new Promise((resolve) => {
    const sending = request(url, { method, headers: { 'content-length': bytes.length } });
    sending.on('error', () => undefined);
    sending.write(bytes.subarray(0, part), () => resolve());
  });
}

void t.test('kill -9 in the middle of an upload: it goes on where it was, in the next life', async (t) => {
  const store = await temporaryFolder(t);
  const blob = blobOf(noise('cut', 3_000_000));
  const { server, send } = await serveFrom(t, store);
  const opened = await send('POST', '/v2/team/app/blobs/uploads/');
  const place = opened.headers['location']!;
  await begin(server.url + place, 'PATCH', blob.bytes, 2_000_000);
  await until(async () => (await send('GET', place)).headers['range'] !== '0-0', 'something of it');
  server.child.kill('SIGKILL');
  await server.exit;

  const next = await serveFrom(t, store);
  const { status, headers } = await next.send('GET', place);
  t.equal(status, 204);
  const held = Number(headers['range']!.split('-')[1]) + 1;
  t.ok(held > 0 && held <= 2_000_000, `${held}`);
  t.match(await next.send('HEAD', `/v2/team/app/blobs/${blob.digest}`), { status: 404 }, 'no part of it is visible');
  const rest = blob.bytes.subarray(held);
  const finished = await next.send('PUT', `${place}?digest=${blob.digest}`, rest, {
    'content-range': `${held}-${blob.bytes.length - 1}`,
  });
  t.equal(finished.status, 201);
  const got = await next.send('GET', `/v2/team/app/blobs/${blob.digest}`);
  t.equal(digestOf(got.body), blob.digest);
});

const platforms = ['linux/amd64', 'linux/arm64', 'linux/riscv64', 'linux/s390x'];

/** Every entry that a tag shows is there, whole. */
async function checkTags(t: Test, send: TestMirror['send']): Promise<number> {
  const { body, status } = await send('GET', '/v2/team/app/tags/list');
  if (status === 404) return 0;
  const { tags } = JSON.parse(body.toString()) as { tags: string[] };
  for (const tag of tags) {
    const index = await send('GET', `/v2/team/app/manifests/${tag}`, undefined, { accept: containerdAccept });
    const { manifests } = JSON.parse(index.body.toString()) as { manifests: { digest: string }[] };
    t.ok(manifests.length > 0, tag);
    for (const { digest } of manifests) {
      const child = await send('GET', `/v2/team/app/manifests/${digest}`);
      t.ok(digestOf(child.body) === digest, `${tag}: ${digest}`);
      const { config, layers } = JSON.parse(child.body.toString()) as { config: Content; layers: Content[] };
      for (const part of [config, ...layers]) {
        const blob = await send('GET', `/v2/team/app/blobs/${part.digest}`);
        t.ok(digestOf(blob.body) === part.digest, `${tag}: ${part.digest}`);
      }
    }
  }
  return tags.length;
}

void t.test(
  '15. kill -9 at any moment of pushes: what a tag shows is whole, and what was answered is there',
  async (t) => {
    const store = await temporaryFolder(t);
    const answered = new Map<string, string[]>();
    for (let life = 0; life < 8; life++) {
      const { server, send } = await serveFrom(t, store);
      await checkTags(t, send);
      const image = buildImage({ platforms, seed: `life ${life}` });
      const pusher = createPusher({ send }, 'team/app');
      let pushed = 0;
      const pushing = image.children.map(async (child, at) => {
        // Each a little later than the one before, so that the kill meets them at different places.
        for (let wait = 0; wait < at; wait++) await send('GET', '/v2/');
        const answer = await pusher.child(child, `life-${life}`);
        if (answer.status !== 201) return;
        pushed++;
        answered.set(`life-${life}`, [...(answered.get(`life-${life}`) ?? []), child.manifest.digest]);
      });
      const all = Promise.allSettled(pushing);
      await until(() => pushed > life % platforms.length, 'some of them');
      server.child.kill('SIGKILL');
      await all;
      await server.exit;
    }
    const { send } = await serveFrom(t, store);
    t.equal(await checkTags(t, send), 8);
    for (const [tag, digests] of answered) {
      const { body } = await send('GET', `/v2/team/app/manifests/${tag}`, undefined, { accept: containerdAccept });
      for (const digest of digests) t.ok(body.includes(digest), `${tag} has what was answered 201`);
    }
  },
);

const pull = (mirror: TestMirror) => mirror.get('/p/linux-amd64/v2/team/app/manifests/1', { accept: containerdAccept });

void t.test('Redis stopped, killed and back: pushes wait outside, pulls go on', { skip: !hasRedis }, async (t) => {
  const folder = await temporaryFolder(t);
  const redis = await startRedis(t, '--appendonly', 'yes', '--appendfsync', 'always', '--dir', folder);
  const config = { repositories, cache: { redis: { url: redis.url, timeout: '1s' } } };
  const [one, other] = [
    await startTestMirror(t, { upstreams, config }),
    await startTestMirror(t, { upstreams, config }),
  ];
  const image = buildImage({ platforms, seed: 'away' });
  const [first, second] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
  t.match(await createPusher(one, 'team/app').child(first, '1'), { status: 201 });
  for (const mirror of [one, other]) t.same((await pull(mirror)).body, first.manifest.bytes);
  for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
    redis.signal(signal);
    const answer = await one.send('PUT', '/v2/team/app/manifests/1', second.manifest.bytes, {
      'content-type': second.manifest.mediaType,
    });
    t.match(answer, { status: 503, headers: { 'retry-after': /\d/ } }, signal);
    t.match(answer.json(), { errors: [{ code: 'UNAVAILABLE' }] });
    for (const mirror of [one, other]) {
      const stale = await pull(mirror);
      t.match(stale, { status: 200, headers: { 'narrows-cache': 'stale' } }, signal);
      t.same(stale.body, first.manifest.bytes);
    }
    if (signal === 'SIGSTOP') redis.signal('SIGCONT');
    else await redis.restart();
    const pusher = createPusher(one, 'team/app');
    await until(async () => (await pusher.blob(second.config)).status === 201, 'Redis again');
    t.match(await pusher.child(second, `after-${signal}`), { status: 201 });
  }
  const { body } = await other.get('/v2/team/app/tags/list');
  t.same(JSON.parse(body.toString()), { name: 'team/app', tags: ['1', 'after-SIGKILL', 'after-SIGSTOP'] });
});
