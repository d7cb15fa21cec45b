import { Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { NarrowsError } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { explainNotHeld } from '../../src/pull/offline.ts';
import type { Holding } from '../../src/pull/offline.ts';
import type { Route } from '../../src/pull/request.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltChild } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown, TestMirror } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';

const key = 'docker.io/library/app';
const name = parseRepositoryName('library/app');
const digest = digestOf(Buffer.from('not here'));
const arm64 = [parsePlatform('linux/arm64')!];
const notHeld = new NarrowsError('manifestNotHeld', 'Not here.');
const manifestOf = (text: string): Route => ({ kind: 'manifest', path: '', name, reference: parseReference(text) });
const blob: Route = { kind: 'blob', path: '', name, digest };
const holding = (set: string, tag: string, ...platforms: string[]): Holding => ({
  set,
  image: `${key}${tag}`,
  platforms,
});

function sentence(route: Route, wanted: typeof arm64 | 'any' | undefined, served: string[], all: Holding[]): string {
  return explainNotHeld(notHeld, key, route, wanted, served, all).message;
}

void t.test('a tag: which platform of it, and what a set has of it instead', (t) => {
  const edge = holding('edge', ':1', 'linux/amd64', 'linux/arm/v7');
  t.equal(
    sentence(manifestOf('1'), arm64, [], [edge]),
    `This mirror is offline and does not hold linux/arm64 of ${key}:1; the set edge holds it for linux/amd64, linux/arm/v7.`,
  );
  t.equal(
    sentence(manifestOf('1'), arm64, [], [edge, holding('all', ':1', 'any')]),
    `This mirror is offline and does not hold linux/arm64 of ${key}:1; the set edge holds it for linux/amd64, linux/arm/v7, the set all holds it for all platforms.`,
  );
  t.end();
});

void t.test('a tag: other tags of the repository that are held, or that nothing of it is', (t) => {
  const others = ['2', '3', '4', '5'].map((tag) => holding('edge', `:${tag}`, 'linux/arm64'));
  t.equal(
    sentence(manifestOf('1'), undefined, [], others),
    `This mirror is offline and does not hold ${key}:1; of this repository it holds ${key}:2 (set edge), ${key}:3 (set edge), ${key}:4 (set edge).`,
  );
  for (const wanted of [undefined, 'any'] as const) {
    t.equal(
      sentence(manifestOf('1'), wanted, [], []),
      `This mirror is offline and does not hold ${key}:1; no set here holds anything of this repository.`,
    );
  }
  t.end();
});

void t.test('a digest or blob: what it is for, as far as that is known, and what sets hold of the repository', (t) => {
  const held = [holding('edge', ':1', 'linux/arm64')];
  for (const route of [manifestOf(digest), blob]) {
    t.equal(
      sentence(route, undefined, ['linux/amd64', 'linux/386'], held),
      `This mirror is offline and does not hold ${digest} for linux/amd64, linux/386 of ${key}; the set edge holds ${key}:1 for linux/arm64.`,
    );
    t.equal(
      sentence(route, arm64, [], []),
      `This mirror is offline and does not hold ${digest} of ${key}; no set here holds anything of this repository.`,
    );
  }
  t.end();
});

void t.test('the kind of the refusal and where it came from stay; lists are not explained', (t) => {
  const error = explainNotHeld(new NarrowsError('blobNotHeld', 'x'), key, blob, undefined, [], []);
  t.match(error, { kind: 'blobNotHeld', status: 404, cause: { message: 'x' } });
  t.equal(explainNotHeld(notHeld, key, { kind: 'tags', path: '', name, page: {} }, undefined, [], []), notHeld);
  t.end();
});

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], payloadBytes: 100_000, seed: 'offline' });
const [amd, arm] = image.children as [BuiltChild, BuiltChild];
const base = `/v2/${key}`;
const empty = descriptor(content({}, 'application/vnd.oci.empty.v1+json'));
const signature = content(
  {
    mediaType: mediaTypes.ociManifest,
    config: empty,
    layers: [],
    artifactType: 'a/b',
    subject: descriptor(image.index),
  },
  mediaTypes.ociManifest,
);

/** A mirror that is offline, over the store that one filled for arm64 years before. */
async function stage(t: Teardown): Promise<{ mirror: TestMirror; asked(): number }> {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  for (const tag of ['1', '2']) upstream.putImage('library/app', tag, image);
  upstream.put('library/app', signature);
  const store = await temporaryFolder(t);
  const upstreams = { 'docker.io': upstream.url };
  const online = await startTestMirror(t, { upstreams, store, now: () => Date.parse('2026-01-01') });
  for (const tag of ['1', '2']) await online.get(`/p/linux-arm64${base}/manifests/${tag}`, { accept });
  for (const { digest: one } of [arm.config, ...arm.layers]) await online.get(`${base}/blobs/${one}`);
  await online.get(`${base}/referrers/${image.index.digest}`);
  await online.stop();
  const catalog = openCatalog(join(store, 'catalog.sqlite'), Date.now);
  catalog.sets.put(
    'edge',
    {
      image: `${key}:1`,
      digest: image.index.digest,
      platforms: ['linux/arm64'],
      referrers: true,
      isComplete: true,
      warmedAtMs: 1,
    },
    [],
  );
  catalog.close();
  upstream.forget();
  const mirror = await startTestMirror(t, {
    upstreams,
    store,
    config: { offline: true },
    now: () => Date.parse('2036-01-01'),
  });
  return { mirror, asked: () => upstream.seen.length };
}

void t.test('offline: a tag of any age is what it last meant, whole, and nobody is asked', async (t) => {
  const { mirror, asked } = await stage(t);
  for (const tag of ['1', '2']) {
    const { status, headers, body } = await mirror.get(`/p/linux-arm64${base}/manifests/${tag}`, { accept });
    t.equal(status, 200);
    t.ok(body.equals(arm.manifest.bytes));
    t.match(headers['narrows-cache'], /^hit-/, 'neither stale nor asked for');
  }
  t.ok((await mirror.get(`${base}/manifests/1`, { accept })).body.equals(image.index.bytes), 'the index as well');
  for (const one of [arm.config, ...arm.layers]) {
    t.ok((await mirror.get(`${base}/blobs/${one.digest}`)).body.equals(one.bytes));
    t.match(await mirror.head(`${base}/blobs/${one.digest}`), { status: 200 });
  }
  t.equal(asked(), 0);
});

void t.test('offline: what is not held is a 404 that names platform and set', async (t) => {
  const { mirror, asked } = await stage(t);
  const told = async (path: string) => {
    const answer = await mirror.get(path, { accept });
    const [{ code, message } = { code: '', message: '' }] = answer.json<{ errors: Record<string, string>[] }>().errors;
    return { status: answer.status, code, message };
  };
  t.match(await told(`/p/linux-amd64${base}/manifests/1`), {
    status: 404,
    code: 'MANIFEST_UNKNOWN',
    message: `does not hold linux/amd64 of ${key}:1; the set edge holds it for linux/arm64.`,
  });
  t.match(await told(`/p/linux-arm64${base}/manifests/3`), {
    status: 404,
    message: `does not hold linux/arm64 of ${key}:3; of this repository it holds ${key}:1 (set edge).`,
  });
  t.match(await told(`${base}/manifests/${amd.manifest.digest}`), {
    status: 404,
    message: `does not hold ${amd.manifest.digest} for linux/amd64 of ${key}; the set edge holds ${key}:1 for linux/arm64.`,
  });
  t.match(await told(`${base}/blobs/${amd.layers[0]!.digest}`), {
    status: 404,
    code: 'BLOB_UNKNOWN',
    message: `does not hold ${amd.layers[0]!.digest}`,
  });
  t.match(await told(`/v2/docker.io/library/never/manifests/1`), {
    status: 404,
    message: 'no set here holds anything',
  });
  t.equal((await mirror.head(`${base}/blobs/${amd.layers[0]!.digest}`)).status, 404);
  t.equal(asked(), 0);
});

void t.test('offline: a blob that is here is not shown to a repository that is not known to have it', async (t) => {
  const { mirror, asked } = await stage(t);
  t.equal((await mirror.get(`/v2/docker.io/library/other/blobs/${arm.layers[0]!.digest}`)).status, 404);
  t.equal(asked(), 0);
});

void t.test('offline: tags and referrers are those that are known', async (t) => {
  const { mirror, asked } = await stage(t);
  t.same((await mirror.get(`${base}/tags/list`)).json(), { name: 'library/app', tags: ['1', '2'] });
  t.same((await mirror.get(`${base}/tags/list?n=1`)).json(), { name: 'library/app', tags: ['1'] });
  t.same((await mirror.get(`${base}/tags/list?last=1`)).json(), { name: 'library/app', tags: ['2'] });
  t.match((await mirror.get(`${base}/referrers/${image.index.digest}`)).json(), {
    manifests: [{ digest: signature.digest }],
  });
  t.match(await mirror.get(`${base}/referrers/${digest}`), { status: 200 });
  t.equal(asked(), 0);
});

void t.test('offline: it is ready, and says what it is', async (t) => {
  const { mirror } = await stage(t);
  const ready = await mirror.get(`${mirror.adminUrl}/readyz`);
  t.same([ready.status, ready.body.toString()], [200, 'ready, offline\n']);
});

/** Every port that anyone in this process connects to. */
function watchSockets(t: Teardown): number[] {
  const ports: number[] = [];
  const connect = Socket.prototype.connect;
  Socket.prototype.connect = function watched(this: Socket, ...args: unknown[]) {
    const [first] = args.flat() as [number | { port?: number | string }];
    ports.push(Number(typeof first === 'object' ? first.port : first));
    return Reflect.apply(connect, this, args) satisfies Socket;
  } as typeof connect;
  t.teardown(() => void (Socket.prototype.connect = connect));
  return ports;
}

void t.test('77. offline: no socket is ever opened, whatever is asked for', async (t) => {
  const ports = watchSockets(t);
  const { mirror } = await stage(t);
  t.ok(ports.length > 0, 'the mirror that filled the store opened some');
  ports.length = 0;
  const own = [mirror.url, mirror.adminUrl].map((url) => Number(new URL(url).port));
  for (const path of [
    `${base}/manifests/1`,
    `/p/linux-amd64${base}/manifests/1`,
    `${base}/manifests/nothing`,
    `${base}/manifests/${digest}`,
    `${base}/blobs/${digest}`,
    `${base}/blobs/${arm.layers[0]!.digest}`,
    `/v2/docker.io/library/other/blobs/${arm.layers[0]!.digest}`,
    `${base}/tags/list`,
    `${base}/referrers/${digest}`,
    '/v2/ghcr.io/other/app/manifests/1',
    '/v2/library/app/manifests/1?ns=docker.io',
    `${mirror.adminUrl}/api/inspect?image=${key}:1`,
  ]) {
    await mirror.get(path, { accept });
    await mirror.head(path, { accept });
  }
  await mirror.stop();
  t.ok(ports.length > 0, 'this test itself connects to the mirror');
  t.same(
    [...new Set(ports)].filter((port) => !own.includes(port)),
    [],
  );
});
