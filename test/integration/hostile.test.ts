import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { basename, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { download, until } from '../fixtures/downloads.ts';
import { buildImage, content, descriptor, noise } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions, Teardown } from '../fixtures/mirror.ts';
import { blobOf, pour, startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'] });

async function stage(t: Teardown, config: MirrorOptions['config'] = {}, store?: string) {
  const good = await startRegistry();
  const evil = await startRegistry();
  t.teardown(good.close);
  t.teardown(evil.close);
  good.putImage('library/hello', '1', image);
  const upstreams = { 'docker.io': good.url, 'evil.example': evil.url };
  const mirror = await startTestMirror(t, { upstreams, config, ...(store !== undefined && { store }) });
  return { good, evil, mirror };
}

void t.test(
  '10. rubbish behind a request whose answer is on its way: nothing is written into the answer',
  async (t) => {
    const { good, mirror } = await stage(t);
    const large = blobOf(noise('large', 30 * 1024 * 1024));
    good.put('library/x', large);
    await mirror.get(`/v2/docker.io/library/x/blobs/${large.digest}`);
    const got = await new Promise<Buffer>((resolve) => {
      const chunks: Buffer[] = [];
      const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1', () => {
        socket.write(`GET /v2/docker.io/library/x/blobs/${large.digest} HTTP/1.1\r\nhost: x\r\n\r\n`);
      });
      socket.once('readable', () => {
        socket.write('\0\r\n\r\n');
        socket.on('data', (chunk) => chunks.push(Buffer.from(chunk)));
      });
      socket.on('error', () => undefined);
      socket.on('close', () => resolve(Buffer.concat(chunks)));
    });
    const body = got.subarray(got.indexOf('\r\n\r\n') + 4);
    t.ok(body.equals(large.bytes.subarray(0, body.length)), 'what came is a part of the blob and nothing else');
  },
);

void t.test('an upstream that never ends, and tells no size: the download ends with its limit', async (t) => {
  const { evil, mirror } = await stage(t, { limits: { unreadDownload: '1MiB' } });
  let sent = 0;
  evil.script = async (_seen, response) => {
    for (; !response.destroyed && sent < 1000; sent++) await pour(noise(`${sent}`, 65_536), response, Infinity);
    return true;
  };
  const answer = await mirror.get(`/v2/evil.example/x/y/blobs/${blobOf(Buffer.from('x')).digest}`);
  t.equal(answer.status, 502);
  t.ok(sent < 1000);
});

void t.test('12. an upstream that drips: a manifest has a deadline, and the old answer is given', async (t) => {
  const { good, mirror } = await stage(t, {
    tags: { fresh: 0 },
    limits: { upstreamHeaders: '200ms', upstreamStall: '300ms' },
  });
  const path = '/v2/docker.io/library/hello/manifests/1';
  t.equal((await mirror.get(path, { accept })).status, 200);
  const newer = buildImage({ platforms: ['linux/amd64'], seed: 'newer' });
  good.putImage('library/hello', '1', newer);
  good.script = async (seen, response) => {
    if (seen.method !== 'GET') return false;
    await pour(newer.index.bytes, response, 50);
    response.end();
    return true;
  };
  t.match((await mirror.get(path, { accept })).headers, {
    'narrows-cache': 'stale',
    'docker-content-digest': image.index.digest,
  });
});

void t.test('a download from one upstream holds up nobody who asks another', async (t) => {
  const { good, evil, mirror } = await stage(t);
  const blob = blobOf(noise('shared', 200_000));
  good.put('library/x', blob);
  evil.script = (seen, response) => {
    if (seen.method !== 'GET') return false;
    response.writeHead(200, { 'content-length': 100_000_000 });
    response.flushHeaders();
    return true;
  };
  const slow = fetch(`${mirror.url}/v2/evil.example/x/y/blobs/${blob.digest}`);
  await until(() => evil.count('GET blobs') === 1, 'the slow download');
  const answer = await mirror.get(`/v2/docker.io/library/x/blobs/${blob.digest}`);
  t.match(answer, { status: 200, headers: { 'narrows-cache': 'miss' } });
  t.same(answer.body, blob.bytes);
  await (await slow).body?.cancel();
});

void t.test('7. a layer that lives elsewhere opens no blob of another repository', async (t) => {
  const { good, evil, mirror } = await stage(t);
  const secret = blobOf(noise('secret', 50_000));
  good.put('private/x', secret);
  await mirror.get(`/v2/docker.io/private/x/blobs/${secret.digest}`);
  const types = [
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  ];
  for (const layer of [
    ...types.map((mediaType) => ({ ...descriptor(secret), mediaType })),
    { ...descriptor(secret), urls: ['http://x'] },
  ]) {
    const config = blobOf(Buffer.from('{}'));
    const manifest = content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: { ...descriptor(config), mediaType: mediaTypes.ociConfig },
        layers: [layer],
      },
      mediaTypes.ociManifest,
    );
    evil.put('x/y', manifest, '1');
    t.equal((await mirror.get(`/v2/evil.example/x/y/manifests/${manifest.digest}`)).status, 200);
    t.equal((await mirror.get(`/v2/evil.example/x/y/blobs/${secret.digest}`)).status, 404);
  }
});

void t.test('60. what one upstream says of a child is no verdict for another', async (t) => {
  const { good, evil, mirror } = await stage(t);
  const child = image.children[1]!;
  evil.putImage('x/y', '1', image);
  evil.put('x/y', { ...child.manifest, mediaType: 'application/x-evil' }, child.manifest.digest);
  await mirror.get('/p/linux-arm64/v2/evil.example/x/y/manifests/1', { accept });
  const answer = await mirror.get('/p/linux-arm64/v2/docker.io/library/hello/manifests/1', { accept });
  t.match(answer.headers, { 'narrows-view': 'image', 'docker-content-digest': child.manifest.digest });
  t.ok(good.count('GET manifests') >= 1);
});

void t.test(
  '25. records that someone else wrote: no file outside the store is touched, nothing hangs, nothing is a 500',
  async (t) => {
    const store = await temporaryFolder(t);
    const { mirror } = await stage(t, {}, store);
    const victim = join(await temporaryFolder(t), 'victim');
    await writeFile(victim, 'precious');
    const path = '/v2/docker.io/library/hello/manifests/';
    await mirror.get(`${path}1`, { accept });
    const digest = content({ made: 'up' }, 'x').digest;
    const database = new DatabaseSync(join(store, 'records.sqlite'));
    const insert = database.prepare('INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)');
    const put = (key: string, value: unknown) => insert.run(key, JSON.stringify({ value }));
    const outside = `sha256:../../../../../../../../${victim.slice(1)}`;
    put('tags:docker.io/library/hello:outside', { digest: outside, checkedAtMs: Date.now() });
    put(`manifests:docker.io/library/hello@${outside}`, { mediaType: mediaTypes.ociIndex });
    put(`narrowed:docker.io/library/hello@${digest}`, { index: digest, kept: [0] });
    put(`manifests:docker.io/library/hello@${image.index.digest}`, { mediaType: 'a\r\nb' });
    database.close();
    t.equal((await mirror.get(`${path}outside`, { accept })).status, 404);
    t.ok(existsSync(victim), basename(victim));
    t.equal((await mirror.get(path + digest, { accept })).status, 404);
    t.same((await mirror.get(path + image.index.digest, { accept })).body, image.index.bytes);
  },
);

void t.test('another program holds the records: the mirror lives and answers', async (t) => {
  const store = await temporaryFolder(t);
  const { mirror } = await stage(t, {}, store);
  const database = new DatabaseSync(join(store, 'records.sqlite'));
  database.exec('BEGIN IMMEDIATE');
  const answer = await mirror.get('/p/linux-arm64/v2/docker.io/library/hello/manifests/1', { accept });
  t.equal(answer.status, 200);
  database.exec('ROLLBACK');
  database.close();
});

void t.test('27. a page of a browser is none: no type makes what is served here run', async (t) => {
  const { good, mirror } = await stage(t);
  good.put('library/hello', content(Buffer.from('<script>alert(1)</script>'), 'text/html'), 'page');
  good.put(
    'library/hello',
    content(Buffer.from('<script>alert(1)</script>'), 'text/html'),
    content(Buffer.from('<script>alert(1)</script>'), 'x').digest,
  );
  const digest = content(Buffer.from('<script>alert(1)</script>'), 'x').digest;
  const answer = await mirror.get(`/v2/docker.io/library/hello/manifests/${digest}`);
  t.match(answer.headers, { 'content-type': 'application/octet-stream', 'x-content-type-options': 'nosniff' });
  t.match(answer.headers['content-security-policy'], /sandbox/);
  t.equal((await mirror.get('/v2/docker.io/library/hello/manifests/page')).status, 502);
});

void t.test('more platforms than anyone runs: refused before anything is compared', async (t) => {
  const { mirror } = await stage(t);
  const set = Array.from({ length: 17 }, (_, index) => `linux/amd64/v${index}`).join(',');
  const answer = await download(`${mirror.url}/v2/docker.io/library/hello/manifests/1`, {
    headers: { 'narrows-platform': set },
  });
  t.equal(answer.status, 400);
});
