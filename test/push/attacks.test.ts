import { hashSync } from 'bcryptjs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import type { Pusher } from '../fixtures/push.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/s390x'], seed: 'owned' });
const evil = buildImage({ platforms: ['linux/amd64', 'linux/s390x'], seed: 'evil' });
const [amd64, s390x] = image.children as [BuiltChild, BuiltChild];
const s390xPlatform = { os: 'linux', architecture: 's390x' };

interface Staged {
  readonly mirror: TestMirror;
  /** Owns amd64. */
  readonly amd: Pusher;
  /** May push, and owns nothing. */
  readonly out: Pusher;
  tag(): Promise<{ digest: string | undefined; manifests: object[]; bytes: Buffer }>;
}

/** A tag of two owners; everyone's password is their name. */
async function stage(t: Test, compose: boolean): Promise<Staged> {
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, ['amd', 'z', 'boss', 'out'].map((user) => `${user}:${hashSync(user, 4)}\n`).join(''));
  const owners = { 'linux/amd64': ['amd'], 'linux/s390x': ['z'], '*': ['boss'] };
  const mirror = await startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: {
      access: { mode: 'basic', htpasswd, pull: ['anonymous'] },
      repositories: [{ name: 'team/app', hosted: true, compose, push: ['out'], owners }],
    },
  });
  const as = (user: string) => createPusher(mirror, 'team/app', `${user}:${user}`);
  await as('boss').image(image, '1');
  await as('boss').image(evil, 'evil');
  return {
    mirror,
    amd: as('amd'),
    out: as('out'),
    async tag() {
      const { headers, body } = await mirror.get('/v2/team/app/manifests/1');
      const { manifests } = JSON.parse(body.toString()) as { manifests: object[] };
      return { digest: headers['docker-content-digest'], manifests, bytes: body };
    },
  };
}

/** What is pushed is refused, and the tag is what it was. */
async function refused(t: Test, { tag }: Staged, pusher: Pusher, document: Content, what: string): Promise<void> {
  const before = await tag();
  const answer = await pusher.manifest(document, '1');
  t.ok(answer.status === 403 || answer.status === 400, `${what}: ${answer.status}`);
  t.equal((await tag()).digest, before.digest, what);
}

for (const compose of [true, false]) {
  const where = compose ? 'composed' : 'plain';

  void t.test(`${where}: an image that calls itself an attestation of another is an image all the same`, async (t) => {
    const staged = await stage(t, compose);
    const { manifests } = await staged.tag();
    const disguised = {
      ...descriptor(evil.children[1]!.manifest),
      platform: s390xPlatform,
      annotations: { 'vnd.docker.reference.digest': amd64.manifest.digest },
    };
    for (const type of [mediaTypes.ociIndex, mediaTypes.dockerList]) {
      const index = content({ schemaVersion: 2, mediaType: type, manifests: [disguised, ...manifests] }, type);
      await refused(t, staged, staged.amd, index, type);
    }
  });

  void t.test(`${where}: keys that readers in Go take for others are refused at every depth`, async (t) => {
    const staged = await stage(t, compose);
    const { manifests } = await staged.tag();
    const base = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests };
    const theirs = descriptor(evil.children[1]!.manifest);
    const [mine] = manifests as [object];
    const disguises = {
      'manife\u017fts': { ...base, 'manife\u017fts': [{ ...theirs, platform: s390xPlatform }] },
      Manifests: { ...base, Manifests: [] },
      'nested Architecture': {
        ...base,
        manifests: [{ ...mine, platform: { os: 'linux', architecture: 'amd64', Architecture: 's390x' } }, manifests[1]],
      },
      'nested Digest': { ...base, manifests: [{ ...mine, Digest: theirs.digest }, manifests[1]] },
    };
    for (const [what, document] of Object.entries(disguises)) {
      await refused(t, staged, staged.amd, content(document, mediaTypes.ociIndex), what);
      await refused(t, staged, staged.out, content(document, mediaTypes.ociIndex), what);
    }
  });

  void t.test(`${where}: what an index says to everyone is nobody's alone`, async (t) => {
    const staged = await stage(t, compose);
    const { manifests } = await staged.tag();
    const base = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests };
    const changes = {
      artifactType: { ...base, artifactType: 'application/x' },
      annotations: { ...base, annotations: { a: 'b' } },
      order: { ...base, manifests: manifests.toReversed() },
      nothing: { ...base, manifests: [] },
    };
    for (const [what, document] of Object.entries(changes)) {
      await refused(t, staged, staged.out, content(document, mediaTypes.ociIndex), what);
    }
  });

  void t.test(`${where}: a document of 2015 that is an index as well is neither`, async (t) => {
    const staged = await stage(t, compose);
    const { body } = await staged.mirror.get('/v2/team/app/manifests/1', { accept: mediaTypes.combined });
    const { mediaType: _, ...document } = JSON.parse(body.toString()) as Record<string, unknown>;
    const both = { ...document, manifests: [{ ...descriptor(evil.children[1]!.manifest), platform: s390xPlatform }] };
    await staged.out.manifest(content(both, mediaTypes.ociIndex));
    await refused(t, staged, staged.out, content(both, mediaTypes.combined), 'both');
    if (!compose)
      await refused(t, staged, staged.out, content(body, mediaTypes.combined), 'what clients do not understand');
  });
}

void t.test('composed: the owner of one platform cannot make the tag too large to be read', async (t) => {
  const staged = await stage(t, true);
  const about = content(
    { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: descriptor(amd64.config), layers: [] },
    mediaTypes.ociManifest,
  );
  t.match(await staged.amd.manifest(about), { status: 201 });
  const mine = { ...descriptor(amd64.manifest), platform: { os: 'linux', architecture: 'amd64' } };
  const indexOf = (note: string) => {
    const annotations = { 'vnd.docker.reference.digest': amd64.manifest.digest, note };
    const attestation = { ...descriptor(about), platform: { os: 'unknown', architecture: 'unknown' }, annotations };
    const json = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [mine, attestation] };
    return content(json, mediaTypes.ociIndex);
  };
  // As large as a manifest may be: with what the others have, it is larger.
  const index = indexOf('x'.repeat(4 * 1024 * 1024 - indexOf('').bytes.length));
  await refused(t, staged, staged.amd, index, 'too large with the other platform');
});

void t.test('the config of another repository is not looked into', async (t) => {
  const staged = await stage(t, true);
  for (const urls of [{ urls: [] }, {}]) {
    const document = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { ...descriptor(s390x.config), digest: `sha256:${'0'.repeat(64)}`, ...urls },
      layers: [],
    };
    const answer = await staged.amd.manifest(content(document, mediaTypes.ociManifest), 'probe');
    t.match(answer, { status: 400 });
    t.match(answer.json(), { errors: [{ code: 'MANIFEST_BLOB_UNKNOWN' }] });
  }
});

void t.test('a document of very many values is refused before it costs anything', async (t) => {
  const staged = await stage(t, false);
  const zeros = Buffer.from(`{"schemaVersion":2,"manifests":[],"x":[${'0,'.repeat(1_000_000)}0]}`);
  await refused(t, staged, staged.amd, content(zeros, mediaTypes.ociIndex), 'zeros');
});

void t.test('what is hosted here in private is not read through a mirror whose manifest lists it', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  const mirror = await startTestMirror(t, {
    upstreams: { lab: upstream.url },
    config: { repositories: [{ name: 'team/secret', hosted: true, push: ['anonymous'] }] },
  });
  t.match(await createPusher(mirror, 'team/secret').child(amd64, '1'), { status: 201 });
  const listing = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: descriptor(amd64.config),
      layers: amd64.layers.map(descriptor),
    },
    mediaTypes.ociManifest,
  );
  upstream.put('evil/x', listing, '1');
  t.match(await mirror.get('/v2/lab/evil/x/manifests/1'), { status: 200 });
  for (const { digest } of [amd64.config, ...amd64.layers]) {
    t.match(await mirror.get(`/v2/lab/evil/x/blobs/${digest}`), { status: 404 });
    t.match(await mirror.head(`/v2/lab/evil/x/blobs/${digest}`), { status: 404 });
    t.match(await mirror.get(`/v2/team/secret/blobs/${digest}`), { status: 200 });
  }
  for (const part of [amd64.config, ...amd64.layers]) upstream.put('evil/x', part);
  t.match(
    await mirror.get(`/v2/lab/evil/x/blobs/${amd64.config.digest}`),
    { status: 200 },
    'whose upstream has it may',
  );
});
