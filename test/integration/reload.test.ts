import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { Agent } from 'undici';
import { download, hashDownload, until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { fetchAnswer, temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import { hasKernelFiles, startWorkers } from '../fixtures/workers.ts';

t.setTimeout(120_000);

const inForce = 'the configuration was read again, and is in force';
const refused = 'the configuration was refused; the last one stays in force';
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'reload' });

/** How often something was printed. */
const count = (serve: ServeProcess, text: string) => serve.output().split(text).length - 1;

async function start(t: Test, settings: Record<string, unknown> = {}) {
  const [one, two] = [await startRegistry(), await startRegistry()];
  for (const registry of [one, two]) t.teardown(() => registry.close());
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  const cache = { disk: { path: await temporaryFolder(t) } };
  const write = (more: Record<string, unknown>) =>
    writeFile(file, JSON.stringify({ cache, upstreams: { one: { url: one.url } }, defaultUpstream: 'one', ...more }));
  await write(settings);
  const serve = await startServe(t, { args: ['--config', file] });
  const agent = new Agent({ connections: 100 });
  t.teardown(() => agent.destroy());
  const ask = (path: string, method: 'GET' | 'POST' | 'PATCH' | 'PUT' = 'GET', body?: Buffer) =>
    fetchAnswer(serve.url + path, { method, dispatcher: agent, ...(body && { body }) });
  /** Has it read again, and waits for the word about it. */
  const reload = async (text: string) => {
    const before = count(serve, text);
    serve.child.kill('SIGHUP');
    await until(() => count(serve, text) > before, text);
  };
  return { one, two, file, write, serve, ask, reload };
}

void t.test('80. a bad configuration is refused as a whole, each mistake is named, and the old one runs', async (t) => {
  const { one, two, file, write, serve, ask, reload } = await start(t);
  one.putImage('team/x', '1', image);
  two.putImage('team/x', '1', image);
  await write({
    upstreams: { one: { url: one.url }, two: { url: two.url }, three: { url: 'nonsense' } },
    tags: { fresh: 'soon' },
    nonsense: true,
    platforms: { addresses: { '10.0.0.0': 'linux/arm64' } },
  });
  await reload(refused);
  for (const path of ['upstreams.three.url', 'tags.fresh', 'nonsense', 'platforms.addresses.10.0.0.0']) {
    t.match(serve.output(), new RegExp(`"${path}: `.replaceAll('.', String.raw`\.`)), path);
  }
  t.equal((await ask('/v2/one/team/x/manifests/1')).status, 200);
  t.equal((await ask('/v2/two/team/x/manifests/1')).status, 404, 'nothing of it is in force');
  await writeFile(file, '{ not: [yaml');
  await reload(refused);
  t.equal((await ask('/v2/one/team/x/manifests/1')).status, 200);
  await write({ upstreams: { one: { url: one.url }, two: { url: two.url } } });
  await reload(inForce);
  t.equal((await ask('/v2/two/team/x/manifests/1')).status, 200);
});

void t.test('80. a configuration that turns out unusable when it is opened leaves nothing of it behind', async (t) => {
  const { one, write, serve, ask, reload } = await start(t);
  one.putImage('team/x', '1', image);
  const users = join(await temporaryFolder(t), 'users');
  await writeFile(users, 'not a line of htpasswd');
  await write({ access: { mode: 'basic', htpasswd: users } });
  await reload(refused);
  t.match(serve.output(), /line 1 is not of the form user:hash/);
  t.equal((await ask('/v2/one/team/x/manifests/1')).status, 200, 'nobody has to log in');
  const agent = new Agent();
  t.teardown(() => agent.destroy());
  const metrics = await fetchAnswer(`${serve.adminUrl}/metrics`, { method: 'GET', dispatcher: agent });
  const [, held] = /^narrows_store_bytes\{tier="disk"\} (\d+)$/m.exec(metrics.body.toString())!;
  t.ok(Number(held) > 0, `${held} bytes on the disk are those of the one that runs`);
});

void t.test('80. what only a start can change is told so, and nothing else is changed either', async (t) => {
  const { one, two, write, serve, ask, reload } = await start(t);
  two.putImage('team/x', '1', image);
  await write({
    upstreams: { one: { url: one.url }, two: { url: two.url } },
    limits: { connections: 5, keepAlive: '5s' },
    workers: 3,
  });
  await reload(refused);
  const expected = ['workers', 'limits.connections', 'limits.keepAlive'];
  for (const path of expected) {
    t.match(serve.output(), `${path}: this takes effect at a start alone: restart, or put it back`);
  }
  t.equal((await ask('/v2/two/team/x/manifests/1')).status, 404);
});

void t.test('80. no request is dropped while the configuration changes, and what runs ends whole', async (t) => {
  const { one, two, write, serve, ask, reload } = await start(t);
  one.putImage('team/x', '1', image);
  const large = blobOf(randomBytes(4 * 1024 * 1024));
  one.put('team/x', large);
  one.blobBytesPerSecond = 2 * 1024 * 1024;
  const running = hashDownload(`${serve.url}/v2/one/team/x/blobs/${large.digest}`);
  await until(() => one.count('GET blobs') === 1, 'the download to begin');
  const statuses: number[] = [];
  const over = new AbortController();
  const asking = Array.from({ length: 8 }, async () => {
    while (!over.signal.aborted) statuses.push((await ask('/p/linux-arm64/v2/one/team/x/manifests/1')).status);
  });
  for (let at = 0; at < 5; at++) {
    await write({ upstreams: { one: { url: one.url }, ...(at % 2 === 0 && { two: { url: two.url } }) } });
    await reload(inForce);
  }
  const { digest } = await running;
  t.equal(digest, large.digest, 'begun under the first configuration');
  over.abort();
  await Promise.all(asking);
  t.ok(statuses.length > 50, `${statuses.length} answers`);
  t.same(new Set(statuses), new Set([200]));
  t.equal(one.count('GET blobs', large.digest), 1);
  t.equal((await download(`${serve.url}/v2/one/team/x/blobs/${large.digest}`)).status, 200);
});

void t.test('80. an upload goes on after a reload', async (t) => {
  const hosted = { access: { mode: 'none' }, repositories: [{ name: 'here/*', hosted: true, push: ['anonymous'] }] };
  const { write, ask, reload } = await start(t, hosted);
  const bytes = randomBytes(100_000);
  const begun = await ask('/v2/here/a/blobs/uploads/', 'POST');
  t.equal(begun.status, 202);
  const place = begun.headers['location']!.replace(/^https?:\/\/[^/]+/, '');
  const first = await ask(place, 'PATCH', bytes.subarray(0, 40_000));
  t.equal(first.status, 202);
  await write({ ...hosted, tags: { fresh: '5s' } });
  await reload(inForce);
  const next = first.headers['location']!.replace(/^https?:\/\/[^/]+/, '');
  t.equal((await ask(next, 'PATCH', bytes.subarray(40_000))).status, 202);
  const done = await ask(`${next}?digest=${digestOf(bytes)}`, 'PUT');
  t.equal(done.status, 201, done.body.toString());
  t.same((await ask(`/v2/here/a/blobs/${digestOf(bytes)}`)).body, bytes);
});

void t.test('the level of the log is read again too', async (t) => {
  const { write, serve, ask } = await start(t, { log: { level: 'info' } });
  await ask('/v2/');
  await until(() => count(serve, '"msg":"request"') === 1, 'a line');
  await write({ log: { level: 'error' } });
  serve.child.kill('SIGHUP');
  await until(async () => {
    const before = count(serve, '"msg":"request"');
    await ask('/v2/');
    await ask('/v2/');
    return count(serve, '"msg":"request"') === before;
  }, 'silence');
});

void t.test(
  '80. workers: the next ones go by the new configuration, and no request is dropped',
  {
    skip: hasKernelFiles ? false : 'there is no /proc',
  },
  async (t) => {
    const { registry, server, workers, file } = await startWorkers(t);
    registry.putImage('library/x', '1', image);
    const agent = new Agent({ connections: 20 });
    t.teardown(() => agent.destroy());
    const ask = (path: string) => fetchAnswer(server.url + path, { method: 'GET', dispatcher: agent });
    const path = '/v2/docker.io/library/x/manifests/1';
    const before = workers();
    const statuses: number[] = [];
    const over = new AbortController();
    const asking = Array.from({ length: 4 }, async () => {
      while (!over.signal.aborted) statuses.push((await ask(path)).status);
    });
    await writeFile(file, JSON.stringify({ upstreams: { more: { url: registry.url } } }));
    server.child.kill('SIGHUP');
    await until(() => count(server, inForce) === 1, inForce);
    await until(() => !workers().some((pid) => before.includes(pid)), 'the workers before to end');
    t.equal(workers().length, 2);
    over.abort();
    await Promise.all(asking);
    t.same(new Set(statuses), new Set([200]));
    t.equal((await ask('/v2/more/library/x/manifests/1')).status, 200);
    await writeFile(file, JSON.stringify({ upstreams: { more: { url: 'nonsense' } } }));
    const now = workers();
    server.child.kill('SIGHUP');
    await until(() => count(server, refused) === 1, refused);
    t.same(workers(), now, 'refused by all');
  },
);
