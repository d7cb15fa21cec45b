import { connect } from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { MirrorOptions, TestMirror } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const accept = 'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json';
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'again' });
const moved = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'again, moved' });
const small = blobOf(noise('a small blob', 3000));
const middle = blobOf(noise('one that is no text', 40_000));
const large = blobOf(noise('a larger one', 100_000));
const raw = (target: string) => `GET ${target} HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\n\r\n`;
const tagPath = '/v2/up/team/x/manifests/1';

async function start(t: Test, config: MirrorOptions['config'] = {}) {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/x', '1', image);
  for (const blob of [small, middle, large]) registry.put('team/x', blob);
  const clock = { nowMs: 1_800_000_000_000 };
  const mirror = await startTestMirror(t, { upstreams: { up: registry.url }, config, now: () => clock.nowMs });
  return { registry, mirror, clock };
}

/** How many answers to tags were looked into. */
async function looks(mirror: TestMirror): Promise<number> {
  const { body } = await mirror.get(`${mirror.adminUrl}/metrics`);
  return Number(/^narrows_tag_age_seconds_count (\d+)$/m.exec(body.toString())?.[1] ?? 0);
}

/** Of the access log, but for what differs each time. */
function lines({ log }: TestMirror): Record<string, unknown>[] {
  return log.flatMap((line) => {
    const { time: _, ms: __, id: ___, ...rest } = JSON.parse(line) as Record<string, unknown>;
    return rest['msg'] === 'request' ? [rest] : [];
  });
}

void t.test('repeats: what is given again is to the letter what is given by the long way', async (t) => {
  const { mirror: again } = await start(t);
  const { mirror: anew } = await start(t, { cache: { memory: { maxAnswers: 0 } } });
  const arm = '/p/linux-arm64/v2/up/team/x';
  const paths = [
    tagPath,
    `${arm}/manifests/1`,
    `/v2/up/team/x/manifests/${image.index.digest}`,
    `${arm}/manifests/${image.children[1]!.manifest.digest}`,
    ...[small, middle, large].map(({ digest }) => `/v2/up/team/x/blobs/${digest}`),
    '/v2/up/team/x/tags/list',
    '/v2/',
    '/v2/up/team/x/manifests/none',
  ];
  const asked: Record<string, string>[] = [
    { accept },
    { accept: '*/*', 'narrows-platform': 'linux/arm64' },
    { accept, 'narrows-view': 'index', 'narrows-platform': 'linux/amd64' },
    { accept, range: 'bytes=10-19' },
    { accept, 'if-none-match': `"${small.digest}"` },
    { accept, authorization: 'Basic Ojo=' },
    { accept, traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
  ];
  const seenOf = async (mirror: TestMirror) => {
    const seen: unknown[] = [];
    // What is just being fetched is told differently from time to time.
    for (const path of paths.slice(0, 7)) {
      while ((await mirror.get(path, { accept })).headers['narrows-cache'] !== 'hit-memory');
    }
    const before = lines(mirror).length;
    for (const headers of asked) {
      for (const path of paths) {
        for (let time = 0; time < 4; time++) {
          for (const ask of [mirror.get, mirror.head]) {
            const { status, headers: said, body } = await ask(path, headers);
            const { 'x-request-id': id, date, ...rest } = said;
            t.match({ id, date }, { id: /^[0-9a-f-]{36}$/, date: /GMT$/ });
            seen.push({ path, status, said: rest, body: digestOf(body) });
          }
        }
      }
    }
    await until(() => lines(mirror).length === before + seen.length, 'the last line of the log');
    return { seen, log: lines(mirror).slice(before) };
  };
  const [first, second] = [await seenOf(again), await seenOf(anew)];
  t.same(first.seen, second.seen);
  t.same(first.log, second.log);
  t.ok((await looks(again)) < (await looks(anew)) * 0.7, 'and most of it was not looked into');
});

void t.test('repeats: for a second, and no longer than the tag is fresh', async (t) => {
  const { registry, mirror, clock } = await start(t, { tags: { fresh: '1500ms' } });
  const digestNow = async () => (await mirror.get(tagPath, { accept })).headers['docker-content-digest'];
  for (let time = 0; time < 3; time++) t.equal(await digestNow(), image.index.digest);
  const looked = await looks(mirror);
  for (let time = 0; time < 5; time++) await digestNow();
  t.equal(await looks(mirror), looked);
  clock.nowMs += 1000;
  await digestNow();
  t.equal(await looks(mirror), looked + 1, 'after a second it is looked into');
  registry.putImage('team/x', '1', moved);
  clock.nowMs += 499;
  t.equal(await digestNow(), image.index.digest);
  clock.nowMs += 1;
  t.equal(await digestNow(), moved.index.digest, 'fresh no more');
  clock.nowMs -= 3_600_000;
  t.equal(await digestNow(), moved.index.digest, 'a clock that was set back');
});

void t.test('repeats: a listener, a host and a network have answers of their own', async (t) => {
  const config = {
    listen: [{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0', platforms: 'linux/arm64' }],
    platforms: { hosts: { 'amd.example': 'linux/amd64' } },
  };
  const { mirror } = await start(t, config);
  const ask = async (url: string, headers = {}) =>
    (await mirror.get(url + tagPath, { accept, ...headers })).headers['docker-content-digest'];
  for (let time = 0; time < 4; time++) {
    t.equal(await ask(mirror.urls[0]!), image.index.digest);
    t.equal(await ask(mirror.urls[1]!), image.children[1]!.manifest.digest);
    t.equal(await ask(mirror.urls[0]!, { host: 'amd.example' }), image.children[0]!.manifest.digest);
  }
  const near = await start(t, {
    platforms: { addresses: { '127.0.0.1/32': 'linux/arm64' } },
    listen: [{ address: '[::]:0' }],
  });
  const { port } = new URL(near.mirror.url);
  for (let time = 0; time < 4; time++) {
    t.equal(await ask(`http://127.0.0.1:${port}`, { host: 'x' }), image.children[1]!.manifest.digest);
    t.equal(await ask(`http://127.0.0.2:${port}`, { host: 'x' }), image.children[1]!.manifest.digest);
    t.equal(await ask(`http://[::1]:${port}`, { host: 'x' }), image.index.digest);
  }
});

void t.test('repeats: whoever asks too often is not given what others are given', async (t) => {
  const { mirror } = await start(t, { limits: { requestsPerAddress: 5 } });
  const statuses: number[] = [];
  for (let time = 0; time < 12; time++) statuses.push((await mirror.get(tagPath, { accept })).status);
  t.same(
    statuses.slice(0, 10),
    Array.from({ length: 10 }, () => 200),
  );
  t.same(statuses.slice(10), [429, 429], 'the rate of an address counts these too');
});

void t.test('repeats: many questions at once on one connection, answered in order', async (t) => {
  const { mirror } = await start(t);
  for (let time = 0; time < 3; time++) await mirror.get(tagPath, { accept, host: 'x' });
  const { port } = new URL(mirror.url);
  const path = `/v2/up/team/x/blobs/${large.digest}`;
  const socket = connect(Number(port), '127.0.0.1', () => {
    // A long one goes first: what is ready at once has to wait for it.
    socket.write([path, ...Array.from({ length: 20 }, () => tagPath), path, tagPath].map(raw).join(''));
  });
  t.teardown(() => socket.destroy());
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await until(() => text.length > 2 * large.bytes.length && text.split('HTTP/1.1 200 OK').length === 24, 'all');
  const digests = [...text.matchAll(/docker-content-digest: (\S+)/g)].map(([, digest]) => digest);
  const expected = [large, ...Array.from({ length: 20 }, () => image.index), large, image.index];
  t.same(
    digests,
    expected.map(({ digest }) => digest),
  );
});

void t.test('repeats: one that waits behind a long answer is as patient as that', async (t) => {
  const { mirror, registry } = await start(t, { limits: { sendStall: '300ms' } });
  for (let time = 0; time < 3; time++) await mirror.head(tagPath, { accept, host: 'x' });
  const slow = blobOf(noise('a slow one', 300_000));
  registry.put('team/x', slow);
  registry.blobBytesPerSecond = 400_000;
  const socket = connect(Number(new URL(mirror.url).port), '127.0.0.1', () => {
    socket.write(raw(`/v2/up/team/x/blobs/${slow.digest}`) + raw(tagPath).replace('GET', 'HEAD') + raw('/v2/'));
  });
  t.teardown(() => socket.destroy());
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await until(() => text.split('HTTP/1.1 200 OK').length === 4, 'all three');
  t.ok(text.includes(`docker-content-digest: ${image.index.digest}`));
});

/** Asks one question after the other on one connection, each when the one before was answered. */
async function converse(t: Test, { url }: TestMirror) {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  t.teardown(() => socket.destroy());
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  return {
    async ask(question: string): Promise<string> {
      text = '';
      socket.write(question);
      const isWhole = () => {
        const headEnd = text.indexOf('\r\n\r\n') + 4;
        const [, bytes = '0'] = /content-length: (\d+)/i.exec(text) ?? [];
        return headEnd > 3 && (question.startsWith('HEAD') || text.length === headEnd + Number(bytes));
      };
      await until(isWhole, 'an answer');
      return text.replace(/^x-request-id: [0-9a-f-]{36}\r\n/m, '').replace(/^Date: .{25} GMT\r$/m, '');
    },
  };
}

void t.test('repeats: on a connection that asks again and again, every byte is as by the long way', async (t) => {
  const { mirror: again, clock } = await start(t);
  const { mirror: anew } = await start(t, { cache: { memory: { maxAnswers: 0 } } });
  const questions = [
    raw(tagPath),
    raw(tagPath).replace('GET', 'HEAD'),
    raw(`/v2/up/team/x/blobs/${small.digest}`),
    raw(`/v2/up/team/x/blobs/${middle.digest}`),
    raw('/v2/'),
    raw('/v2/up/team/x/manifests/none'),
    raw(tagPath).replace('accept', 'Connection: keep-alive\r\naccept'),
    raw(tagPath).replace('HTTP/1.1', 'HTTP/1.0').replace('accept', 'Connection: keep-alive\r\naccept'),
  ];
  for (const mirror of [again, anew]) {
    for (const path of [tagPath, ...[small, middle].map(({ digest }) => `/v2/up/team/x/blobs/${digest}`)]) {
      while ((await mirror.get(path, { accept })).headers['narrows-cache'] !== 'hit-memory');
    }
  }
  const logged = [lines(again).length, lines(anew).length];
  const [ours, theirs] = [await converse(t, again), await converse(t, anew)];
  for (const question of questions) {
    for (let time = 0; time < 5; time++) t.equal(await ours.ask(question), await theirs.ask(question), question);
  }
  const all = questions.length * 5;
  await until(() => lines(again).length === logged[0]! + all && lines(anew).length === logged[1]! + all, 'the log');
  t.same(lines(again).slice(logged[0]), lines(anew).slice(logged[1]));
  const looked = await looks(again);
  await ours.ask(questions[0]!);
  t.equal(await looks(again), looked);
  clock.nowMs += 1000;
  await ours.ask(questions[0]!);
  t.equal(await looks(again), looked + 1, 'after a second it is looked into');
});

void t.test('repeats: what is asked again where it means something else has another answer', async (t) => {
  const listen = [{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0', platforms: 'linux/arm64' }];
  const { mirror } = await start(t, { listen });
  const [one, other] = [await converse(t, mirror), await converse(t, { ...mirror, url: mirror.urls[1]! })];
  for (let time = 0; time < 5; time++) {
    t.match(await one.ask(raw(tagPath)), image.index.digest);
    t.match(await other.ask(raw(tagPath)), image.children[1]!.manifest.digest);
  }
});

void t.test('repeats: the last answer on a connection says so, and is the last', async (t) => {
  const { mirror } = await start(t);
  const leaving = raw(tagPath).replace('accept', 'connection: close\r\naccept');
  const old = raw(tagPath).replace('HTTP/1.1', 'HTTP/1.0');
  for (const question of [leaving, leaving.replace('connection', 'proxy-connection'), old]) {
    for (let time = 0; time < 4; time++) {
      const { ask } = await converse(t, mirror);
      await ask(raw('/v2/'));
      t.match(await ask(question), /^Connection: close$/m);
    }
  }
});

void t.test('repeats: who asks too often on one connection is told so', async (t) => {
  const { mirror } = await start(t, { limits: { requestsPerAddress: 5 } });
  const { ask } = await converse(t, mirror);
  const statuses: (string | undefined)[] = [];
  for (let time = 0; time < 12; time++) statuses.push((await ask(raw(tagPath))).split(' ')[1]);
  t.same(statuses, [...Array.from({ length: 10 }, () => '200'), '429', '429']);
});

/** A client that asks for what is ready, and takes no byte of it before it is resumed. */
async function readNothing(t: Test, { url, get }: TestMirror, path: string) {
  for (let time = 0; time < 3; time++) await get(path, { accept, host: 'x' });
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.pause();
  let hasEnded = false;
  socket.on('close', () => (hasEnded = true));
  socket.on('error', () => undefined);
  return { socket, isClosed: () => hasEnded };
}

void t.test('repeats: who reads nothing of what is asked one by one is let go', async (t) => {
  const { mirror } = await start(t, { limits: { sendStall: '2500ms', keepAlive: '100ms' } });
  const path = `/v2/up/team/x/blobs/${small.digest}`;
  const { socket, isClosed } = await readNothing(t, mirror, path);
  const told = () => mirror.log.filter((line) => line.includes(small.digest));
  const before = told().length;
  for (let asked = 1; !told().at(-1)!.includes('"isWhole":false'); asked++) {
    socket.write(raw(path));
    await until(() => told().length === before + asked, 'a line for each');
  }
  t.match(told().at(-1), /the client takes nothing/, 'as one that takes nothing, not as one that asks nothing');
  socket.resume();
  await until(isClosed, 'the end of the connection');
});

void t.test('repeats: who was slow to take an answer may ask on, and is let go when idle', async (t) => {
  const { mirror } = await start(t, { limits: { keepAlive: '100ms' } });
  const path = `/v2/up/team/x/blobs/${small.digest}`;
  const { socket, isClosed } = await readNothing(t, mirror, path);
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  const told = () => mirror.log.filter((line) => line.includes(small.digest)).length;
  const before = told();
  let asked = 0;
  // The mirror is in this process: what it has not answered in so many turns, it does not answer for now.
  for (let turns = 0; turns < 5000; turns++) {
    if (told() - before === asked) {
      socket.write(raw(path));
      asked++;
      turns = 0;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(told() - before, asked - 1);
  socket.resume();
  await until(() => told() - before === asked, 'the one that had to wait');
  socket.write(raw(path));
  await until(() => told() - before === asked + 1, 'one more');
  await until(isClosed, 'the end of an idle connection');
  t.notMatch(mirror.log.join(''), /"isWhole":false/);
  t.equal(text.split('HTTP/1.1 200').length - 1, asked + 1, 'and each answer came');
});

void t.test('repeats: who reads nothing of them is let go', async (t) => {
  const { mirror } = await start(t, { limits: { sendStall: '200ms' } });
  const path = `/v2/up/team/x/blobs/${middle.digest}`;
  const { socket, isClosed } = await readNothing(t, mirror, path);
  const asking = setInterval(() => socket.writable && socket.write(raw(path).repeat(8)), 5);
  t.teardown(() => clearInterval(asking));
  const broken = () => mirror.log.some((line) => line.includes('"isWhole":false'));
  await until(broken, 'one that is let go');
  clearInterval(asking);
  socket.resume();
  await until(isClosed, 'the end of the connection');
});

void t.test('repeats: another configuration answers for itself', async (t) => {
  const { mirror } = await start(t, { repositories: [{ name: 'here/*', hosted: true, push: ['anonymous'] }] });
  const { digest } = small;
  const [path, blob] = ['/v2/here/x/manifests/1', `/v2/here/x/blobs/${digest}`];
  await mirror.send('POST', `/v2/here/x/blobs/uploads/?digest=${digest}`, small.bytes);
  const { ask } = await converse(t, mirror);
  for (let time = 0; time < 4; time++) {
    t.equal((await mirror.get(blob, { accept })).status, 200);
    t.match(await ask(raw(blob)), /^HTTP\/1.1 200 /);
  }
  t.equal((await mirror.send('DELETE', blob)).status, 202);
  t.match(await ask(raw(blob)), /^HTTP\/1.1 404 /);
  t.equal((await mirror.get(blob, { accept })).status, 404, 'what is hosted here is gone when it was taken away');
  for (const one of [image, moved]) {
    const { config, layers, manifest } = one.children[0]!;
    for (const content of [config, ...layers]) {
      await mirror.send('POST', `/v2/here/x/blobs/uploads/?digest=${content.digest}`, content.bytes);
    }
    const type = { 'content-type': manifest.mediaType };
    t.equal((await mirror.send('PUT', path, manifest.bytes, type)).status, 201);
    for (let time = 0; time < 3; time++) {
      t.equal((await mirror.get(path, { accept })).headers['docker-content-digest'], manifest.digest);
    }
  }
});
