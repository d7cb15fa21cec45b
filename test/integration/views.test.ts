import t from 'tap';
import { buildImage } from '../fixtures/images.ts';
import { startRegistry } from '../fixtures/registry.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'], attestations: true });

void t.test('a tag becomes the image of the platform in the path', async (t) => {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } });
  const arm = image.children[1]!;
  const head = await mirror.head('/p/linux-arm64/v2/library/hello/manifests/1?ns=docker.io', { accept });
  t.match(head, {
    status: 200,
    headers: {
      'docker-content-digest': arm.manifest.digest,
      'narrows-view': 'image',
      'narrows-index': image.index.digest,
      'narrows-cache': 'miss',
      'narrows-platform': 'linux/arm64; via=path',
      'oci-namespace': 'docker.io',
    },
  });
  const got = await mirror.get(`/p/linux-arm64/v2/library/hello/manifests/${arm.manifest.digest}?ns=docker.io`, {
    accept,
  });
  t.same(got.body, arm.manifest.bytes);
  for (const blob of [arm.config, ...arm.layers]) {
    const answer = await mirror.get(`/p/linux-arm64/v2/library/hello/blobs/${blob.digest}`);
    t.same(answer.body, blob.bytes);
  }
  const asked = upstream.seen.map(({ method, path }) => `${method} ${path.split('/').slice(-2).join('/')}`);
  t.same(asked, [
    'HEAD manifests/1',
    `GET manifests/${image.index.digest}`,
    `GET manifests/${arm.manifest.digest}`,
    `GET blobs/${arm.config.digest}`,
    `GET blobs/${arm.layers[0]!.digest}`,
  ]);
});
