import t from 'tap';
import { noise } from '../fixtures/images.ts';
import { download, until } from '../fixtures/downloads.ts';
import { blobOf } from '../fixtures/registry.ts';
import { blob, bytes, path, stage } from '../fixtures/stage.ts';

void t.test('41. a range of a cold blob: the whole is fetched once and kept', async (t) => {
  const { upstream, url, mirror } = await stage(t);
  const part = await download(url, { headers: { range: 'bytes=100-199' } });
  t.match(part, { status: 206, isComplete: true });
  t.ok(part.body.equals(bytes.subarray(100, 200)));
  t.ok((await download(url)).body.equals(bytes));
  t.equal(upstream.count('GET blobs'), 1);
  t.equal(upstream.seen[0]!.headers.range, undefined);
  const after = await mirror.get(path, { range: `bytes=${bytes.length}-` });
  t.match(after, { status: 416, headers: { 'content-range': `bytes */${bytes.length}` } });
});

void t.test('HEAD of a cold blob tells its size and downloads nothing', async (t) => {
  const { upstream, mirror } = await stage(t);
  const head = await mirror.head(path);
  t.match(head, { status: 200, headers: { 'content-length': String(bytes.length), 'narrows-cache': 'miss' } });
  t.equal(head.body.length, 0);
  t.equal(upstream.count('GET blobs'), 0);
  await mirror.get(path);
  await until(async () => (await mirror.head(path)).headers['narrows-cache'] === 'hit-disk', 'the blob on the disk');
  t.match(await mirror.head(path), {
    headers: { 'content-length': String(bytes.length), 'narrows-cache': 'hit-disk' },
  });
  t.equal(upstream.count('GET blobs'), 1);
  t.equal(upstream.count('HEAD blobs'), 1);
});

void t.test('an unknown blob: 404 BLOB_UNKNOWN for everyone who waits', async (t) => {
  const { mirror } = await stage(t);
  const missing = `/v2/docker.io/library/x/blobs/${blobOf(Buffer.from('nothing')).digest}`;
  const all = await Promise.all(Array.from({ length: 10 }, () => mirror.get(missing)));
  t.ok(all.every(({ status }) => status === 404));
  t.equal(all[0]!.json<{ errors: { code: string }[] }>().errors[0]!.code, 'BLOB_UNKNOWN');
});

void t.test('60. bytes are shared, that a repository holds them is not', async (t) => {
  const { upstream, mirror } = await stage(t);
  await mirror.get(path);
  await until(async () => (await mirror.head(path)).headers['narrows-cache'] === 'hit-disk', 'the blob on the disk');
  upstream.put('library/other', blobOf(Buffer.from('something else')));
  const foreign = await mirror.get(`/v2/docker.io/library/other/blobs/${blob.digest}`);
  t.equal(foreign.status, 404);
  upstream.put('library/other', blob);
  const held = await mirror.get(`/v2/docker.io/library/other/blobs/${blob.digest}`);
  t.match(held, { status: 200, headers: { 'narrows-cache': 'hit-disk' } });
  t.equal(upstream.count('GET blobs', blob.digest), 1);
});

void t.test('too many downloads at once: 503 with Retry-After, and what runs is not disturbed', async (t) => {
  const { upstream, mirror, url } = await stage(t, { limits: { downloads: 1 } });
  const other = blobOf(noise('another', 100_000));
  upstream.put('library/x', other);
  upstream.blobBytesPerSecond = 10 * 1024 * 1024;
  const running = download(url);
  await until(() => upstream.count('GET blobs') === 1, 'the download');
  const refused = await mirror.get(`/v2/docker.io/library/x/blobs/${other.digest}`);
  t.match(refused, { status: 503, headers: { 'retry-after': '5' } });
  t.ok((await running).body.equals(bytes));
});

void t.test('a registry without HEAD is asked by GET whether it holds a blob, and may say no', async (t) => {
  const { upstream, mirror } = await stage(t);
  await mirror.get(path);
  await until(async () => (await mirror.head(path)).headers['narrows-cache'] === 'hit-disk', 'the blob on the disk');
  upstream.put('library/other', blobOf(Buffer.from('something else')));
  upstream.script = (seen, response) => {
    if (seen.method !== 'HEAD') return false;
    response.writeHead(405);
    response.end();
    return true;
  };
  const foreign = `/v2/docker.io/library/other/blobs/${blob.digest}`;
  t.equal((await mirror.get(foreign)).status, 404);
  upstream.put('library/other', blob);
  t.match(await mirror.get(foreign), { status: 200, headers: { 'narrows-cache': 'hit-disk' } });
});

void t.test('without a disk, the limit of downloads holds all the same', async (t) => {
  const { upstream, mirror } = await stage(t, { limits: { downloads: 2, downloadWindows: '512KiB' } });
  const { rm } = await import('node:fs/promises');
  await rm(`${mirror.store}/tmp`, { recursive: true });
  upstream.blobBytesPerSecond = 20 * 1024 * 1024;
  const statuses: number[] = [];
  for (let round = 0; round < 6; round++) {
    const asked = upstream.count('GET blobs') + statuses.filter((status) => status === 503).length;
    const running = download(mirror.url + path);
    void running.then(({ status }) => statuses.push(status));
    await until(
      () =>
        upstream.count('GET blobs') + statuses.filter((status) => status === 503).length > asked ||
        statuses.length > round,
      'the download, or its refusal',
    );
  }
  await until(() => statuses.length === 6, 'all answers');
  t.ok(
    statuses.every((status) => status === 200 || status === 503),
    String(statuses),
  );
});
