import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import type { Test } from 'tap';
import { buildImage, content } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { MirrorOptions, TestMirror } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { blobOf, refuse, startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'one' });
const newer = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'two' });
const [child] = image.children;
const small = blobOf(Buffer.from('a small blob'));
const blob = child!.layers[0]!;
const dayMs = 24 * 3600_000;

async function stage(t: Test, config: MirrorOptions['config'] = {}, name = 'lab.example') {
  const clock = { ms: Date.parse('2026-01-01') };
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('x', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { [name]: upstream.url }, config, now: () => clock.ms });
  const digest = async (reference = '1') =>
    (await mirror.get(`/v2/${name}/x/manifests/${reference}`, { accept })).headers['docker-content-digest'];
  return { clock, upstream, mirror, digest };
}

/** Sends bytes as they are, and what came back until the mirror or, where it keeps the connection, we end it. */
async function talk({ url }: Pick<TestMirror, 'url'>, text: string, isOver = (_said: string) => false) {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  let said = '';
  let isEndedByUs = false;
  socket.on('error', () => undefined);
  socket.on('data', (chunk) => {
    said += chunk.toString('latin1');
    if (!isOver(said)) return;
    isEndedByUs = true;
    socket.destroy();
  });
  socket.write(text, 'latin1');
  await once(socket, 'close');
  return {
    said,
    statuses: [...said.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status)),
    isEndedByUs,
  };
}

// ---- What others write into headers

const ours = new Set(
  `content-type content-length content-security-policy docker-content-digest docker-distribution-api-version etag vary
  x-content-type-options x-request-id narrows-view narrows-cache narrows-platform narrows-index oci-namespace link
  accept-ranges cache-control oci-filters-applied retry-after date connection keep-alive`.split(/\s+/),
);

function areOurs(t: Test, headers: Record<string, string>, what: string): void {
  t.same(
    Object.keys(headers).filter((name) => !ours.has(name)),
    [],
    `${what}: names`,
  );
  const values = Object.values(headers);
  t.same(
    values.filter((value) => /evil/i.test(value) || !/^[\x20-\x7e]*$/.test(value)),
    [],
    `${what}: values`,
  );
}

void t.test('39. headers of an upstream: those of ours go out, and no others', async (t) => {
  const { clock, upstream, mirror } = await stage(t);
  const names = `server set-cookie x-powered-by access-control-allow-origin location content-location warning refresh
    www-authenticate content-disposition alt-svc strict-transport-security clear-site-data vary etag cache-control age
    narrows-cache narrows-view narrows-index oci-namespace oci-filters-applied docker-distribution-api-version via
    x-request-id content-security-policy retry-after accept-ranges content-language proxy-authenticate pragma expires`;
  let status: number | undefined;
  upstream.script = ({ path }, response) => {
    for (const name of names.split(/\s+/)) response.setHeader(name, 'evil \u00ff');
    response.setHeader(
      'link',
      `<http://evil.example${path}?n=1&last=e%0d%0aset-cookie:%20a&x=\u00ff>; rel="next"; evil`,
    );
    if (status !== undefined) refuse(response, status, 'EVIL');
    return status !== undefined;
  };
  const base = '/v2/lab.example/x';
  const paths = [
    'manifests/1',
    `manifests/${child!.manifest.digest}`,
    `blobs/${blob.digest}`,
    'tags/list',
    `referrers/${image.index.digest}?artifactType=a/b`,
  ];
  for (const path of paths) {
    for (const answer of [await mirror.get(`${base}/${path}`), await mirror.head(`${base}/${path}`)]) {
      t.equal(answer.status, 200, path);
      areOurs(t, answer.headers, path);
    }
  }
  for (status of [400, 401, 403, 404, 416, 429, 500, 503]) {
    for (const path of paths) {
      // What was a wait is over.
      clock.ms += 3600_000;
      const answer = await mirror.get(`${base}${status}/${path}`);
      areOurs(t, answer.headers, `${status} ${path}`);
    }
  }
});

/** A registry whose answers are bytes as they are. */
async function startRaw(t: Test, answer: (method: string, path: string) => string): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (chunk) => {
      const [method = '', path = ''] = chunk.toString().split(' ');
      socket.end(answer(method, path), 'latin1');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

void t.test('39. bytes that would end a header: none goes on as one, whatever header it was in', async (t) => {
  const bodies: Record<string, Buffer> = {
    'manifests/1': child!.manifest.bytes,
    'tags/list': Buffer.from('{"name":"x","tags":[]}'),
    [`blobs/${small.digest}`]: small.bytes,
  };
  const state = { line: '', status: 200, asked: 0 };
  const url = await startRaw(t, (method, path) => {
    const body = bodies[/[^/]+\/[^/]+$/.exec(path)?.[0] ?? ''] ?? Buffer.from('{}');
    state.asked++;
    const head = `HTTP/1.1 ${state.status} x\r\n${state.line}\r\ncontent-length: ${body.length}\r\n\r\n`;
    return method === 'HEAD' ? head : head + body.toString('latin1');
  });
  const clock = { ms: Date.parse('2026-01-01') };
  const mirror = await startTestMirror(t, { upstreams: { up: url }, now: () => clock.ms });
  for (const name of ['Docker-Content-Digest', 'Link', 'Location', 'Warning', 'Content-Type', 'Retry-After']) {
    for (const [at, end] of ['', '\r\n', '\r', '\n', '\r\n ', '\0', '\u00e4\u010d\u010a'].entries()) {
      for (state.status of name === 'Location' ? [307] : [200, 429]) {
        for (const path of Object.keys(bodies)) {
          const what = `${name} ${JSON.stringify(end)} ${state.status} ${path}`;
          state.line = `${name}: </v2/a?n=1>; rel="next"; ${end}evil: yes`;
          state.asked = 0;
          clock.ms += 3600_000;
          const repository = `${name.toLowerCase()}/${at}/${state.status}`;
          const { said, statuses } = await talk(
            mirror,
            `GET /v2/up/${repository}/${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
          );
          const [head = ''] = said.split('\r\n\r\n', 1);
          t.equal(statuses.length, 1, what);
          t.ok(state.asked > 0, what);
          t.notMatch(head, /evil|[^\x20-\x7e\r\n]|[^\r]\n|\r[^\n]/i, what);
        }
      }
    }
  }
});

void t.test('39. what a document or a client names does not become a line of an answer', async (t) => {
  const { upstream, mirror } = await stage(t);
  for (const end of ['\r\n', '\n', '\u010d\u010a', '\u0000', '\u00ff', '\u2028']) {
    const document = { schemaVersion: 2, mediaType: `application/a${end}evil: yes`, config: {}, layers: [] };
    const one = content(document, 'application/vnd.oci.image.manifest.v1+json');
    upstream.put('x', one, 'evil');
    const sent = encodeURIComponent(`1${end}evil: yes`);
    const paths = [
      `x/manifests/${one.digest}`,
      'x/manifests/evil',
      `x/manifests/${sent}`,
      `x/manifests/1?ns=${sent}`,
      `x/manifests/1?ns=lab.example${sent}`,
      `x/tags/list?n=1&last=${sent}`,
      `x/referrers/${one.digest}?artifactType=${sent}`,
      `_catalog?n=1&last=${sent}`,
    ];
    for (const path of paths) areOurs(t, (await mirror.get(`/v2/${path}`)).headers, path);
    const byPlatform = await mirror.get(`/v2/p/${sent}/x/manifests/1`);
    t.ok(byPlatform.status >= 400);
    areOurs(t, byPlatform.headers, 'platform');
    upstream.delete('x', 'evil');
  }
  const { said } = await talk(
    mirror,
    'GET /v2/x/manifests/1?ns=\u00ff HTTP/1.1\r\nhost: \u00ff\r\nconnection: close\r\n\r\n',
  );
  t.match(said, /^HTTP\/1\.1 4\d\d /);
  t.notMatch(said, /[^\x20-\x7e\r\n]/);
});

// ---- What was not there yet

void t.test('59. a digest that was asked for before it was pushed is there with the push', async (t) => {
  const { upstream, mirror } = await stage(t);
  const late = newer.children[0]!;
  const paths = [`manifests/${late.manifest.digest}`, `blobs/${late.layers[0]!.digest}`].map(
    (what) => `/v2/lab.example/x/${what}`,
  );
  for (const one of [...paths, ...paths]) t.equal((await mirror.get(one)).status, 404, one);
  upstream.putImage('x', '2', newer);
  for (const one of paths) t.equal((await mirror.get(one)).status, 200, one);
});

// ---- Who says to be someone else

const disguises = (address: string): Record<string, string> => ({
  'x-forwarded-for': address,
  'x-real-ip': address,
  'x-client-ip': address,
  'true-client-ip': address,
  'cf-connecting-ip': address,
  'x-forwarded-host': 'amd.example',
  'x-forwarded-proto': 'https',
  forwarded: `for=${address};host=amd.example;proto=https`,
});

void t.test('67. the address is that of the connection, whatever headers say of another', async (t) => {
  const { mirror } = await stage(t, {
    platforms: {
      addresses: { '127.0.0.0/8': 'linux/arm64', '10.66.0.0/16': 'linux/amd64' },
      hosts: { 'amd.example': 'linux/amd64' },
    },
    limits: { requestsPerAddress: 10 },
  });
  const ask = (at: number) => mirror.get('/v2/lab.example/x/manifests/1', { accept, ...disguises(`10.66.0.${at}`) });
  const answers = await Promise.all(Array.from({ length: 50 }, (_, at) => ask(at)));
  const told = answers.filter(({ status }) => status === 200).map(({ headers }) => headers['narrows-platform']);
  t.same(told, Array(20).fill('linux/arm64; via=address'), 'one address, one limit, one platform');
  t.equal(answers.filter(({ status }) => status === 429).length, 30);
  t.notMatch(mirror.log.join(''), /10\.66\./, 'nor is it logged as who asked');
});

void t.test('67. wrong passwords count for the address of the connection', async (t) => {
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `alice:${hashSync('s3cret', 4)}\n`);
  const { mirror } = await stage(t, { access: { mode: 'basic', htpasswd } });
  const statuses: Record<number, number> = {};
  for (let at = 0; at < 40; at++) {
    const headers = { authorization: basic(`alice:${at}`), ...disguises(`10.66.0.${at}`) };
    const { status } = await mirror.get('/v2/', headers);
    statuses[status] = (statuses[status] ?? 0) + 1;
  }
  t.same(statuses, { 401: 10, 429: 30 });
});

void t.test('67. the preface of the PROXY protocol is no request, and connections count as they come', async (t) => {
  const { mirror, upstream } = await stage(t);
  const request = 'GET /v2/lab.example/x/manifests/1 HTTP/1.1\r\nhost: x\r\n\r\n';
  const binary = '\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x42\0\x01\x7f\0\0\x01\xc3\x50\0\x50';
  for (const preface of ['PROXY TCP4 10.66.0.1 127.0.0.1 50000 80\r\n', 'PROXY UNKNOWN\r\n', binary]) {
    const { statuses } = await talk(mirror, preface + request);
    t.same(statuses, [400], JSON.stringify(preface));
  }
  t.equal(upstream.seen.length, 0);
});

// ---- Odd requests

const smuggled = 'GET /v2/lab.example/x/manifests/1 HTTP/1.1\r\nhost: x\r\n\r\n';
const chunked = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
const ping = 'GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n';

void t.test('86. bodies where none belongs are never taken for a request', async (t) => {
  const { mirror, upstream } = await stage(t);
  const requestsSeen = () => mirror.log.filter((line) => line.includes('"msg":"request"')).length;
  for (const method of ['HEAD', 'GET', 'DELETE', 'OPTIONS', 'TRACE']) {
    for (const path of ['/v2/', '/v2/nothing', `/v2/x/blobs/sha256:${'0'.repeat(64)}x`]) {
      for (const body of [
        `content-length: ${smuggled.length}\r\n\r\n${smuggled}`,
        `transfer-encoding: chunked\r\n\r\n${chunked}`,
        `expect: 100-continue\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`,
      ]) {
        const before = requestsSeen();
        const what = `${method} ${path} ${body.slice(0, 25)}`;
        const { said, statuses } = await talk(mirror, `${method} ${path} HTTP/1.1\r\nhost: x\r\n${body}`);
        const final = statuses.filter((status) => status !== 100);
        t.equal(final.length, 1, what);
        t.match(said, /\r\nconnection: close\r\n/i, what);
        if (method === 'HEAD') t.match(said, /\r\n\r\n$/, 'a HEAD has no body');
        t.equal(requestsSeen(), before + 1, what);
      }
    }
  }
  t.equal(upstream.seen.length, 0);
});

const isTwice = (said: string) => said.match(/HTTP\/1\.1 200 [^]*?\r\n\r\n\{\}/g)?.length === 2;

void t.test('86. Expect: asked to go on, or told that it cannot be met, and the connection stays', async (t) => {
  const { mirror } = await stage(t);
  const expecting = ping.replace('\r\n\r\n', '\r\nexpect: 100-continue\r\n\r\n');
  const going = await talk(mirror, expecting + ping, isTwice);
  t.same(going, { ...going, statuses: [100, 200, 200], isEndedByUs: true });
  const odd = ping.replace('\r\n\r\n', `\r\nexpect: evil\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`);
  const last = ping.replace('\r\n\r\n', '\r\nconnection: close\r\n\r\n');
  t.same((await talk(mirror, odd + last)).statuses, [417, 200]);
});

void t.test(
  '86. Upgrade is not taken up, and what follows is answered, or the connection said to be over',
  async (t) => {
    const { mirror } = await stage(t, { limits: { keepAlive: '1s' } });
    const last = ping.replace('\r\n\r\n', '\r\nconnection: close\r\n\r\n');
    for (const protocol of ['websocket', 'h2c', 'TLS/1.2']) {
      const upgrade = `connection: upgrade, http2-settings\r\nupgrade: ${protocol}\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n`;
      const { said, statuses } = await talk(mirror, ping.replace('\r\n\r\n', `\r\n${upgrade}\r\n`) + last);
      t.ok(statuses.length > 0 && statuses.every((status) => status === 200), `${protocol}: ${statuses.join()}`);
      t.match(said, /\r\nconnection: close\r\n/i, `${protocol}: nobody waits for an answer that does not come`);
    }
    const wrong = ping.replace('/v2/', '/v2/%zz/manifests/1');
    const refused = await talk(mirror, wrong.replace('\r\n\r\n', '\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n'));
    t.match(refused.statuses, [/^40/], 'neither where it is refused');
    t.match(refused.said, /\r\nconnection: close\r\n/i);
    t.same((await talk(mirror, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')).statuses, [400]);
  },
);

void t.test('86. TRACE says nothing back, CONNECT leads nowhere', async (t) => {
  const { mirror, upstream } = await stage(t);
  const trace = `TRACE /v2/x/manifests/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: canary\r\n\r\n`;
  const traced = await talk(mirror, trace);
  t.same(traced.statuses, [405]);
  t.notMatch(traced.said, /canary|message\/http/);
  for (const target of [`127.0.0.1:${upstream.port}`, new URL(mirror.url).host, 'x:443', '/v2/']) {
    const { statuses } = await talk(mirror, `CONNECT ${target} HTTP/1.1\r\nhost: ${target}\r\n\r\n${smuggled}`);
    t.ok(statuses.length <= 1 && statuses.every((status) => status >= 400), `${target}: ${statuses.join()}`);
  }
  t.equal(upstream.seen.length, 0);
  t.equal((await mirror.get('/v2/')).status, 200);
});

// ---- Host names

/** Asks under a host name, and says what platform that is for. */
async function platformOf(mirror: TestMirror, host: string): Promise<string | undefined> {
  const { said } = await talk(mirror, `GET /v2/ HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
  return /\r\nnarrows-platform: (.*)\r\n/.exec(said)?.[1];
}

void t.test('87. platforms.hosts: a host is one, however it is written', async (t) => {
  const { mirror } = await stage(t, {
    platforms: {
      hosts: {
        'ARM.example.': 'linux/arm64',
        'bücher.example': 'linux/riscv64',
        '[FE80:0::1]': 'linux/s390x',
        '10.0.0.1': 'linux/386',
      },
    },
  });
  for (const [host, platform] of [
    ['arm.example', 'linux/arm64'],
    ['ARM.Example', 'linux/arm64'],
    ['arm.example:5000', 'linux/arm64'],
    ['arm.example.', 'linux/arm64'],
    ['Arm.Example.:5000', 'linux/arm64'],
    ['xn--bcher-kva.example', 'linux/riscv64'],
    ['XN--BCHER-KVA.example.:80', 'linux/riscv64'],
    ['[fe80::1]', 'linux/s390x'],
    ['[fe80:0:0:0:0:0:0:1]:5000', 'linux/s390x'],
    ['[fe80::1%25eth0]:5000', 'linux/s390x'],
    ['[fe80::1%eth0]', 'linux/s390x'],
    ['10.0.0.1:5000', 'linux/386'],
  ] as const) {
    t.equal(await platformOf(mirror, host), `${platform}; via=host`, host);
  }
});

void t.test('87. platforms.hosts: another host is another, however like one it looks', async (t) => {
  const { mirror } = await stage(t, {
    platforms: { hosts: { 'arm.example': 'linux/arm64', '10.0.0.1': 'linux/386' } },
  });
  for (const host of [
    '',
    'arm.example.evil',
    'evil.arm.example',
    'arm.example..',
    'user@arm.example',
    'arm.example/x',
    'arm.example:x',
    'arm.example:80:80',
    'xn--rm-7kc.example',
    '10.0.0.10',
    '::',
    '[',
    '[]:5000',
    '__proto__',
  ]) {
    t.equal(await platformOf(mirror, host), undefined, JSON.stringify(host));
  }
});

void t.test('87. ns and upstreams: a registry is one, however it is written, and held once', async (t) => {
  const names = {
    'lab.example': ['lab.example', 'LAB.example', 'lab.example.', 'Lab.Example.'],
    'xn--bcher-kva.example': ['xn--bcher-kva.example', 'bücher.example', 'XN--bcher-kva.example.'],
    'lab.example:5000': ['lab.example:5000', 'LAB.example:5000', 'lab.example.:5000'],
    '[fd00::1]:5000': ['[fd00::1]:5000', '[FD00:0:0:0:0:0:0:1]:5000'],
  };
  for (const [name, spellings] of Object.entries(names)) {
    const { mirror, upstream } = await stage(t, {}, name);
    for (const spelling of spellings) {
      const answer = await mirror.get(`/v2/x/manifests/1?ns=${encodeURIComponent(spelling)}`, { accept });
      t.equal(answer.status, 200, `${spelling} is ${name}`);
      t.equal(answer.headers['docker-content-digest'], image.index.digest);
      t.match(answer.headers['oci-namespace'], /^[\x21-\x7e]+$/);
    }
    t.equal(upstream.count('GET manifests'), 1, `${name}: asked once`);
    t.equal((await mirror.get('/v2/_catalog')).json<{ repositories: string[] }>().repositories.length, 1);
  }
  for (const name of ['Lab.Example', 'bücher.example', '[fd00:0::1]:5000']) {
    await t.rejects(stage(t, {}, name), /expected the one form that is compared/, `${name} is no name to configure`);
  }
});

void t.test('87. ns: what only looks like a registry of ours is none, and nobody is asked', async (t) => {
  const { mirror, upstream } = await stage(t);
  for (const ns of [
    'lab.example:5000',
    'lab.example:443',
    'lab.example..',
    '.lab.example',
    'lab.example/x',
    'https://lab.example',
    'user@lab.example',
    'lab.exаmple',
    'lab.example%25eth0',
    'lab.example\0',
    ' lab.example',
    '[::1%25lo]:5000',
  ]) {
    const { status } = await mirror.get(`/v2/x/manifests/1?ns=${encodeURIComponent(ns)}`, { accept });
    t.equal(status, 404, JSON.stringify(ns));
  }
  t.equal(upstream.seen.length, 0);
});

// ---- Clocks that jump

void t.test('81. a clock that jumps a day: a tag is asked for again, and never believed for a day', async (t) => {
  for (const jumpMs of [-dayMs, dayMs, -30 * dayMs]) {
    const { clock, upstream, digest } = await stage(t);
    t.equal(await digest(), image.index.digest);
    upstream.putImage('x', '1', newer);
    clock.ms += jumpMs;
    t.equal(await digest(), newer.index.digest, `by ${jumpMs} ms`);
    upstream.putImage('x', '1', image);
    t.equal(await digest(), newer.index.digest, 'what was learnt since is fresh by the clock of now');
    clock.ms += 61_000;
    t.equal(await digest(), image.index.digest);
  }
});

void t.test('81. a clock that is set back a little: a tag is believed for twice as long, and no longer', async (t) => {
  const { clock, upstream, digest } = await stage(t);
  await digest();
  upstream.putImage('x', '1', newer);
  clock.ms -= 59_000;
  t.equal(await digest(), image.index.digest);
  clock.ms += 59_000 + 61_000;
  t.equal(await digest(), newer.index.digest);
});

void t.test('81. a clock that jumps a day: what was not there is looked for again', async (t) => {
  for (const jumpMs of [-dayMs, dayMs]) {
    const { clock, upstream, digest } = await stage(t);
    t.equal(await digest('2'), undefined);
    upstream.putImage('x', '2', newer);
    clock.ms += jumpMs;
    t.equal(await digest('2'), newer.index.digest, `by ${jumpMs} ms`);
  }
});

void t.test('81. a clock that is set back a day: trouble and limits do not last for a day', async (t) => {
  for (const status of [429, 503]) {
    const { clock, upstream, digest } = await stage(t, { tags: { fresh: '1m', stale: '5s' } });
    await digest();
    clock.ms += 61_000;
    upstream.script = (_seen, response) => (refuse(response, status, 'X', { 'retry-after': '5' }), true);
    t.equal(await digest(), image.index.digest, 'stale');
    upstream.script = undefined;
    upstream.putImage('x', '2', newer);
    clock.ms -= dayMs;
    await digest('2');
    clock.ms += 60_000;
    t.equal(await digest('2'), newer.index.digest, `${status}: a minute later the upstream is asked`);
  }
});

void t.test('81. a clock that is set back a day: a right that was taken away is not believed for a day', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const secret = blobOf(Buffer.from('for those who may'));
  upstream.put('x', secret);
  const rights = { mirror: true, alice: true };
  const logins = { [basic('mirror:m')]: 'mirror', [basic('alice:a')]: 'alice' } as const;
  upstream.script = ({ headers }, response) => {
    const user = logins[headers.authorization ?? ''];
    if (user && rights[user]) return false;
    refuse(response, 401, 'UNAUTHORIZED', { 'www-authenticate': 'Basic realm="up"' });
    return true;
  };
  const clock = { ms: Date.parse('2026-01-02') };
  const mirror = await startTestMirror(t, {
    upstreams: { up: { url: upstream.url, credentials: { username: 'mirror', password: 'm' } } },
    config: { access: { mode: 'upstream', upstream: { registry: 'up' } } },
    now: () => clock.ms,
  });
  const ask = async () =>
    (await mirror.get(`/v2/up/x/blobs/${secret.digest}`, { authorization: basic('alice:a') })).status;
  t.equal(await ask(), 200);
  rights.alice = false;
  clock.ms -= dayMs;
  clock.ms += 61_000;
  t.not(await ask(), 200);
});
