import t from 'tap';
import type { Partial } from '../../src/cache/tier.ts';
import type { Flight } from '../../src/pull/flight.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { download, filesOf, until } from '../fixtures/downloads.ts';
import { flightOf } from '../fixtures/flights.ts';
import { content, descriptor } from '../fixtures/images.ts';
import { blobOf, pour } from '../fixtures/registry.ts';
import { blob, bytes, path, stage } from '../fixtures/stage.ts';

void t.test('11. many clients of one cold blob: one request upstream, right bytes for all', async (t) => {
  const { upstream, url } = await stage(t);
  const heads = Array.from({ length: 60 }, () => Promise.withResolvers<void>());
  upstream.script = async (seen, response) => {
    if (seen.method !== 'GET') return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.flushHeaders();
    await Promise.all(heads.map(({ promise }) => promise));
    await pour(bytes, response, Infinity);
    response.end();
    return true;
  };
  const all = await Promise.all(heads.map(({ resolve }) => download(url, { onHead: resolve })));
  t.ok(all.every(({ isComplete, body }) => isComplete && body.equals(bytes)));
  t.equal(upstream.count('GET blobs'), 1);
  t.equal(all.filter(({ headers }) => headers['narrows-cache'] === 'miss').length, 1);
  t.equal(all.filter(({ headers }) => headers['narrows-cache'] === 'joined').length, 59);
});

void t.test('11. joining late and in any place: every range is right, and one request upstream', async (t) => {
  const { upstream, url } = await stage(t);
  upstream.blobBytesPerSecond = 6 * 1024 * 1024;
  const first = download(url);
  await until(() => upstream.count('GET blobs') === 1, 'the download');
  const ranges = [
    [0, 0],
    [0, 99],
    [5, 70_000],
    [1_000_000, 1_500_000],
    [bytes.length - 1, bytes.length - 1],
    [2_000_000, bytes.length - 1],
  ] as const;
  const parts = await Promise.all(
    ranges.map(([start, end]) => download(url, { headers: { range: `bytes=${start}-${end}` } })),
  );
  for (const [index, [start, end]] of ranges.entries()) {
    t.equal(parts[index]!.status, 206, `${start}-${end}`);
    t.equal(parts[index]!.headers['content-range'], `bytes ${start}-${end}/${bytes.length}`);
    t.ok(parts[index]!.body.equals(bytes.subarray(start, end + 1)), `${start}-${end}`);
  }
  t.ok((await first).body.equals(bytes));
  t.equal(upstream.count('GET blobs'), 1);
});

void t.test('12. the head goes out before the body is here', async (t) => {
  const { upstream, url } = await stage(t);
  const gate = Promise.withResolvers<void>();
  upstream.script = async (seen, response) => {
    if (seen.method !== 'GET') return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.flushHeaders();
    await gate.promise;
    await pour(bytes, response, Infinity);
    response.end();
    return true;
  };
  const heads = Promise.withResolvers<void>();
  const whole = download(url, { onHead: heads.resolve });
  await heads.promise;
  gate.resolve();
  t.ok((await whole).body.equals(bytes));
});

void t.test('13. all clients leave: the download goes on and is kept', async (t) => {
  const { upstream, url, mirror } = await stage(t);
  upstream.blobBytesPerSecond = 10 * 1024 * 1024;
  const left = await Promise.all([1, 2, 3].map(() => download(url, { leaveAfter: 100_000 })));
  t.ok(left.every(({ isComplete }) => !isComplete));
  await until(async () => (await filesOf(mirror.store)).blobs.length === 1, 'the blob');
  await until(async () => (await mirror.head(path)).headers['narrows-cache'] === 'hit-disk', 'the landing');
  t.equal(upstream.count('GET blobs'), 1);
});

void t.test('13. all clients leave and too much is missing: the download is given up and leaves nothing', async (t) => {
  const { upstream, url, mirror } = await stage(t, { limits: { unreadDownload: '64KiB' } });
  upstream.blobBytesPerSecond = 2 * 1024 * 1024;
  await download(url, { leaveAfter: 50_000 });
  await until(async () => (await filesOf(mirror.store)).unfinished.length === 0, 'the sweep');
  t.same(await filesOf(mirror.store), { blobs: [], unfinished: [] });
});

void t.test(
  '8. a flipped byte: no client sees a whole body, nothing is kept, the good copy comes next time',
  async (t) => {
    for (const place of [0, 1_500_000, bytes.length - 1]) {
      for (const clients of [1, 20]) {
        const { upstream, url, mirror } = await stage(t);
        const wrong = Buffer.from(bytes);
        wrong[place]! ^= 1;
        upstream.script = async (seen, response) => {
          if (seen.method !== 'GET') return false;
          response.writeHead(200, { 'content-length': wrong.length });
          await pour(wrong, response, Infinity);
          response.end();
          return true;
        };
        const ranges = ['bytes=0-0', 'bytes=1-100', `bytes=${bytes.length - 5}-`];
        const all = await Promise.all([
          ...Array.from({ length: clients }, () => download(url)),
          ...ranges.map((range) => download(url, { headers: { range } })),
        ]);
        t.ok(
          all.every(({ isComplete }) => !isComplete),
          `byte ${place}, ${clients} clients: all are broken off`,
        );
        t.ok(all.slice(0, clients).every(({ body }) => body.length < bytes.length));
        await until(async () => (await filesOf(mirror.store)).unfinished.length === 0, 'the sweep');
        t.same(await filesOf(mirror.store), { blobs: [], unfinished: [] });
        upstream.script = undefined;
        t.ok((await download(url)).body.equals(bytes));
        await mirror.stop();
      }
    }
  },
);

void t.test('9. a cut at any byte: the client notices nothing when the upstream comes back', async (t) => {
  const small = blobOf(bytes.subarray(0, 200_000));
  const places = [0, 1, 2, 1000, 65_535, 65_536, 65_537, 131_072, 199_998, 199_999];
  for (const place of places) {
    const { upstream, mirror } = await stage(t);
    upstream.put('library/x', small);
    let cuts = 0;
    upstream.script = async (seen, response) => {
      if (seen.method !== 'GET' || cuts++ > 0) return false;
      response.writeHead(200, { 'content-length': small.bytes.length });
      response.flushHeaders();
      await pour(small.bytes.subarray(0, place), response, Infinity);
      setImmediate(() => response.destroy());
      return true;
    };
    const got = await download(`${mirror.url}/v2/docker.io/library/x/blobs/${small.digest}`);
    t.ok(got.isComplete && got.body.equals(small.bytes), `cut at ${place}`);
    t.equal(upstream.count('GET blobs'), 2);
    await mirror.stop();
  }
});

void t.test(
  '9. a cut at every stretch, taken up by an upstream that knows Range and by one that does not',
  async (t) => {
    for (const knowsRange of [true, false]) {
      const { upstream, url } = await stage(t);
      let sent = 0;
      upstream.script = async (seen, response) => {
        if (seen.method !== 'GET') return false;
        const asked = Number(/^bytes=(\d+)-$/.exec(seen.headers.range ?? '')?.[1] ?? 0);
        const from = knowsRange ? asked : 0;
        response.writeHead(from > 0 ? 206 : 200, {
          'content-length': bytes.length - from,
          ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
        });
        const end = Math.max(asked + 700_000, from);
        await pour(bytes.subarray(from, end), response, Infinity);
        sent++;
        if (end >= bytes.length) response.end();
        else setImmediate(() => response.destroy());
        return true;
      };
      const got = await download(url);
      t.ok(got.isComplete && got.body.equals(bytes), knowsRange ? 'with Range' : 'without');
      t.ok(sent >= 5);
    }
  },
);

void t.test('9. a cut and no way back: a broken body that is a prefix of the truth, and nothing kept', async (t) => {
  const { upstream, url, mirror } = await stage(t, { limits: { downloadResumes: 2 } });
  let isCut = false;
  upstream.script = async (seen, response) => {
    if (seen.method !== 'GET') return false;
    if (isCut) {
      response.destroy();
      return true;
    }
    isCut = true;
    response.writeHead(200, { 'content-length': bytes.length });
    await pour(bytes.subarray(0, 1_000_000), response, Infinity);
    setImmediate(() => response.destroy());
    return true;
  };
  const got = await download(url);
  t.equal(got.status, 200);
  t.notOk(got.isComplete);
  t.ok(got.body.length <= 1_000_000 && got.body.equals(bytes.subarray(0, got.body.length)));
  await until(async () => (await filesOf(mirror.store)).unfinished.length === 0, 'the sweep');
  t.same((await filesOf(mirror.store)).blobs, []);
});

void t.test('9. an upstream that announces another length than it sends: never a whole body', async (t) => {
  for (const announced of [bytes.length - 1000, bytes.length + 1000]) {
    const { upstream, url, mirror } = await stage(t, { limits: { downloadResumes: 1 } });
    upstream.script = (seen, response) => {
      if (seen.method !== 'GET') return false;
      // Written by hand: node would not let a server lie about its length.
      response.socket?.end(
        Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${announced}\r\n\r\n`), bytes]),
      );
      return true;
    };
    const got = await download(url);
    t.notOk(got.isComplete, `${announced}`);
    t.same((await filesOf(mirror.store)).blobs, []);
    await mirror.stop();
  }
});

void t.test('an upstream that tells no length: whole all the same, told when it is known', async (t) => {
  const { upstream, url } = await stage(t);
  upstream.script = async (seen, response) => {
    if (seen.method !== 'GET') return false;
    await pour(bytes, response, Infinity);
    response.end();
    return true;
  };
  const got = await download(url);
  t.match(got, { status: 200, isComplete: true, headers: { 'content-length': String(bytes.length) } });
  t.ok(got.body.equals(bytes));
});

void t.test(
  'without a tier to keep it: readers share the window, and the upstream waits for the slowest',
  async (t) => {
    const flight = smallFlight();
    const [first, second] = await Promise.all([flight.open('first'), flight.open('joined')]);
    const readTo = async (reader: typeof first, from: number, to: number) => {
      const parts: Buffer[] = [];
      for (let at = from; at < to;) {
        const part = await reader.read(at, to - at);
        parts.push(Buffer.from(part));
        at += part.length;
      }
      return Buffer.concat(parts);
    };
    const head = await readTo(first, 0, 50_000);
    t.ok(head.equals(bytes.subarray(0, 50_000)));
    const [restOfFirst, allOfSecond] = await Promise.all([
      readTo(first, 50_000, bytes.length),
      readTo(second, 0, bytes.length),
    ]);
    t.ok(restOfFirst.equals(bytes.subarray(50_000)));
    t.ok(allOfSecond.equals(bytes));
    await first.verified;
    t.notOk(flight.isJoinable, 'a late reader needs another flight');
    await Promise.all([first.close(), second.close()]);
    t.same(await flight.landed, { outcome: 'done' });
  },
);

void t.test('13. a client that leaves before the head: the download goes on, and the next one joins it', async (t) => {
  const { upstream, url } = await stage(t);
  const gate = Promise.withResolvers<void>();
  upstream.script = async (seen) => {
    if (seen.method === 'GET') await gate.promise;
    return false;
  };
  const leaving = new AbortController();
  const gone = fetch(url, { signal: leaving.signal }).catch(() => 'gone');
  await until(() => upstream.count('GET blobs') === 1, 'the download');
  leaving.abort();
  t.equal(await gone, 'gone');
  gate.resolve();
  t.ok((await download(url)).body.equals(bytes));
  t.equal(upstream.count('GET blobs'), 1);
});

void t.test('88. an empty body for a digest that is not empty: never a whole answer', async (t) => {
  const { upstream, url, mirror } = await stage(t);
  upstream.script = (seen, response) => {
    if (seen.method !== 'GET') return false;
    response.writeHead(200, { 'content-length': 0 });
    response.end();
    return true;
  };
  const got = await download(url);
  t.ok(got.status >= 500 || !got.isComplete);
  t.same((await filesOf(mirror.store)).blobs, []);
});

void t.test('14. without a tier: a reader of a part does not stop the others', async (t) => {
  const flight = smallFlight();
  const [part, whole] = await Promise.all([flight.open('first'), flight.open('joined')]);
  t.ok((await part.read(0, 100)).equals(bytes.subarray(0, 100)));
  part.doneReading!();
  let got = 0;
  while (got < bytes.length) got += (await whole.read(got, bytes.length)).length;
  await part.verified;
  await Promise.all([part.close(), whole.close()]);
});

void t.test(
  'a manifest tells a size: an upstream that tells another is refused before anything is promised',
  async (t) => {
    const { upstream, mirror, url } = await stage(t);
    const config = blobOf(Buffer.from('{}'));
    const manifest = content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: { ...descriptor(config), mediaType: mediaTypes.ociConfig },
        layers: [descriptor(blob)],
      },
      mediaTypes.ociManifest,
    );
    upstream.put('library/x', manifest, '1');
    t.equal((await mirror.get('/v2/docker.io/library/x/manifests/1')).status, 200);
    upstream.script = (seen, response) => {
      if (!seen.path.includes(blob.digest)) return false;
      response.writeHead(200, { 'content-length': seen.method === 'HEAD' ? 0 : 10 });
      response.end(seen.method === 'HEAD' ? undefined : '0123456789');
      return true;
    };
    t.equal((await mirror.head(path)).headers['content-length'], String(bytes.length));
    t.equal((await download(url)).status, 502);
  },
);

void t.test('12. bytes are read before the tier has made a place for them', async (t) => {
  const gate = Promise.withResolvers<undefined>();
  const flight = smallFlight(() => gate.promise);
  const reader = await flight.open('first');
  t.ok((await reader.read(0, 100)).equals(bytes.subarray(0, 100)));
  gate.resolve(undefined);
  let got = 100;
  while (got < bytes.length) got += (await reader.read(got, bytes.length)).length;
  reader.doneReading!();
  await reader.verified;
  await reader.close();
});

void t.test('whoever passes it on hears of its end when it is written, a client when it is verified', async (t) => {
  const gate = Promise.withResolvers<void>();
  const written: Buffer[] = [];
  const partial: Partial = {
    startBytes: 0,
    async append(chunks) {
      await gate.promise;
      written.push(...chunks);
    },
    reader: () => ({ read: () => Promise.reject(new Error('it is in memory')), close: () => undefined }),
    commit: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  const flight = smallFlight(() => Promise.resolve(partial), bytes.length);
  const [client, other] = [await flight.open('first'), await flight.open('passing-on')];
  let isTold = false;
  void other.verified!.then(() => (isTold = true));
  await client.verified;
  for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve));
  t.notOk(isTold, 'others would look for a copy that is not there');
  gate.resolve();
  await other.verified;
  t.same(Buffer.concat(written), bytes);
  t.same(await flight.landed, { outcome: 'done' });
  await Promise.all([client.close(), other.close()]);
});

void t.test('13. nobody reads it and nothing can take it: given up as soon as that is known', async (t) => {
  const place = Promise.withResolvers<undefined>();
  const body = Promise.withResolvers<never>();
  body.promise.catch(() => undefined);
  async function* silent() {
    yield await body.promise;
  }
  // It could be taken up again, but is not; and that it is long is not why.
  const limits = { maxResumes: 3, resumeDelayMs: 1, maxUnreadBytes: bytes.length };
  const flight = flightOf(
    silent(),
    { digest: blob.digest, limits, windowBytes: () => 100_000, begin: () => place.promise },
    { size: bytes.length, cancel: () => body.reject(new Error('cancelled')) },
  );
  const reader = await flight.open('first');
  await reader.close();
  t.ok(flight.isJoinable, 'it would be kept');
  place.resolve(undefined);
  t.same(await flight.landed, { outcome: 'abandoned' });
});

/**
 * A flight from an upstream that sends small pieces.
 *
 * @param begin what takes it; by itself nothing does
 */
function smallFlight(
  begin: () => Promise<Partial | undefined> = () => Promise.resolve(undefined),
  windowBytes = 100_000,
): Flight {
  const limits = { maxResumes: 0, resumeDelayMs: 1, maxUnreadBytes: 0 };
  return flightOf(
    smallPieces(),
    { digest: blob.digest, windowBytes: () => windowBytes, limits, begin },
    { size: bytes.length },
  );
}

async function* smallPieces() {
  for (let at = 0; at < bytes.length; at += 10_000) yield await Promise.resolve(bytes.subarray(at, at + 10_000));
}
