import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown, TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import type { Pusher } from '../fixtures/push.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'] });
const newer = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'newer' });
const [amd64, arm64, armv7] = image.children as [BuiltChild, BuiltChild, BuiltChild];
const digestsOf = (...children: BuiltChild[]) => children.map(({ manifest }) => manifest.digest);
const emptyJson = content({}, 'application/vnd.oci.empty.v1+json');

async function prepare(t: Teardown): Promise<{ mirror: TestMirror; plain: Pusher; composed: Pusher }> {
  const common = { hosted: true, push: ['anonymous'] };
  const mirror = await startTestMirror(t, {
    upstreams: { lab: 'http://127.0.0.1:1' },
    config: {
      repositories: [
        { name: 'team/*', ...common },
        { name: 'composed/*', compose: true, ...common },
      ],
    },
  });
  return { mirror, plain: createPusher(mirror, 'team/x'), composed: createPusher(mirror, 'composed/x') };
}

interface IndexJson {
  readonly manifests: readonly { digest: string; platform?: Record<string, string> }[];
}

/** What a tag means, to those who run everything. */
async function whole(mirror: TestMirror, tag = 'v1', name = 'composed/x') {
  const accept = `${mediaTypes.ociIndex}, ${mediaTypes.ociManifest}`;
  const answer = await mirror.get(`/v2/${name}/manifests/${tag}`, { accept, 'narrows-platform': 'any' });
  const digests =
    answer.status === 200 ? (answer.json<Partial<IndexJson>>().manifests ?? []).map(({ digest }) => digest) : [];
  return { status: answer.status, digest: answer.headers['docker-content-digest'], digests };
}

void t.test('without composing, a tag means what was pushed last', async (t) => {
  const { mirror, plain } = await prepare(t);
  await plain.child(amd64, 'v1');
  const put = await plain.child(arm64, 'v1');
  t.equal(put.headers['narrows-index'], undefined);
  t.match(await whole(mirror, 'v1', 'team/x'), { digest: arm64.manifest.digest, digests: [] });
});

void t.test('composing: each image adds its platform, or takes the place of its own', async (t) => {
  const { mirror, composed } = await prepare(t);
  const digestsAfter = async (child: BuiltChild) => {
    const put = await composed.child(child, 'v1');
    t.match(put, { status: 201, headers: { 'docker-content-digest': child.manifest.digest } });
    const { digest, digests } = await whole(mirror);
    t.equal(put.headers['narrows-index'], digest);
    return digests;
  };
  t.same(await digestsAfter(amd64), digestsOf(amd64));
  t.same(await digestsAfter(arm64), digestsOf(amd64, arm64));
  t.same(await digestsAfter(armv7), digestsOf(amd64, arm64, armv7));
  t.same(await digestsAfter(newer.children[0]!), digestsOf(newer.children[0]!, arm64, armv7), 'in the same place');
  t.same(await digestsAfter(arm64), digestsOf(newer.children[0]!, arm64, armv7), 'the same again changes nothing');
  const narrowed = await mirror.get('/v2/composed/x/manifests/v1', { 'narrows-platform': 'linux/arm64' });
  t.match(narrowed, { status: 200, headers: { 'narrows-platform': /^linux\/arm64/ } });
});

void t.test('composing: many platforms pushed at once all stay', async (t) => {
  const { mirror, composed } = await prepare(t);
  for (let round = 0; round < 5; round++) {
    const tag = `v${round}`;
    const answers = await Promise.all(image.children.map((child) => composed.child(child, tag)));
    t.ok(answers.every(({ status }) => status === 201));
    const { digests } = await whole(mirror, tag);
    t.same(digests.toSorted(), image.children.map(({ manifest }) => manifest.digest).toSorted());
  }
});

void t.test('composing: a whole index is the whole, and an image after it goes into it', async (t) => {
  const { mirror, composed } = await prepare(t);
  await composed.child(armv7, 'v1');
  await composed.image(newer, 'v1');
  const children = newer.children.map(({ manifest }) => manifest.digest);
  t.match(await whole(mirror), { digest: newer.index.digest });
  t.same((await whole(mirror)).digests, children);
  await composed.child(armv7, 'v1');
  t.same((await whole(mirror)).digests, [...children, armv7.manifest.digest]);
});

void t.test('composing: an artifact takes the place of what was there, and an image that of an artifact', async (t) => {
  const { mirror, composed } = await prepare(t);
  const artifact = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: descriptor(emptyJson),
      layers: [descriptor(emptyJson)],
    },
    mediaTypes.ociManifest,
  );
  await composed.blob(emptyJson);
  t.equal((await composed.manifest(artifact, 'v1')).status, 201);
  t.equal((await whole(mirror)).digest, artifact.digest);
  t.equal((await composed.child(amd64, 'v1')).status, 201);
  t.same((await whole(mirror)).digests, [amd64.manifest.digest]);
});

void t.test('composing: a part of what a tag means stays as long as the tag', async (t) => {
  const { mirror, composed } = await prepare(t);
  await composed.child(amd64, 'v1');
  const put = await composed.child(arm64, 'v1');
  const remove = ({ digest }: Pick<Content, 'digest'>) => mirror.send('DELETE', `/v2/composed/x/manifests/${digest}`);
  t.equal((await remove(amd64.manifest)).status, 403);
  t.equal((await mirror.send('DELETE', '/v2/composed/x/manifests/v1')).status, 202);
  t.equal((await whole(mirror)).status, 404);
  t.equal((await mirror.get(`/v2/composed/x/manifests/${put.headers['narrows-index']}`)).status, 200);
});

void t.test('composing: an index that says another platform than its image is refused', async (t) => {
  const { mirror, composed } = await prepare(t);
  const docker = buildImage({ platforms: ['linux/arm64'], docker: true, lies: { 'linux/arm64': 'linux/s390x' } });
  await composed.child(amd64, 'v1');
  const put = await composed.image(docker, 'v1');
  t.equal(put.status, 400);
  t.match(put.json(), { errors: [{ code: 'MANIFEST_INVALID' }] });
  t.same((await whole(mirror)).digests, [amd64.manifest.digest]);
});
