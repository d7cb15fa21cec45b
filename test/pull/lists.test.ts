import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'] });
const base = '/v2/docker.io/library/hello';

async function stage(t: Teardown) {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/hello', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url } });
  return { upstream, mirror };
}

const config = content({}, 'application/vnd.oci.empty.v1+json');

function referrer(artifactType: string) {
  return content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      artifactType,
      config: descriptor(config),
      layers: [descriptor(config)],
      subject: descriptor(image.index),
    },
    mediaTypes.ociManifest,
  );
}

interface Referrers {
  manifests: { digest: string; artifactType: string }[];
}

void t.test('tags: the upstream’s list, and links to the next page that stay here', async (t) => {
  const { upstream, mirror } = await stage(t);
  t.same((await mirror.get(`${base}/tags/list`)).json(), { name: 'library/hello', tags: ['1'] });
  upstream.script = (seen, response) => {
    t.equal(seen.query.get('n'), '2');
    response.writeHead(200, { link: '<https://elsewhere.example/v2/library/hello/tags/list?n=2&last=b>; rel="next"' });
    response.end(JSON.stringify({ name: 'library/hello', tags: ['a', 'b'] }));
    return true;
  };
  const page = await mirror.get(`/p/linux-arm64${base}/tags/list?n=2`);
  t.equal(page.headers['link'], `</p/linux-arm64${base}/tags/list?n=2&last=b>; rel="next"`);
});

void t.test('tags of an unknown repository: 404 NAME_UNKNOWN', async (t) => {
  const { mirror } = await stage(t);
  const answer = await mirror.get('/v2/docker.io/library/nothing/tags/list');
  t.match(answer, { status: 404 });
  t.match(answer.json(), { errors: [{ code: 'NAME_UNKNOWN' }] });
});

void t.test('74. referrers: of the original, by its digest and by the narrowed one’s', async (t) => {
  const { upstream, mirror } = await stage(t);
  const [signature, sbom] = [referrer('application/vnd.example.signature'), referrer('application/vnd.example.sbom')];
  for (const one of [signature, sbom]) upstream.put('library/hello', one);
  const narrowed = await mirror.head(`/p/linux-amd64_linux-arm64${base}/manifests/1`, { accept });
  t.equal(narrowed.headers['narrows-view'], 'index');
  for (const subject of [image.index.digest, narrowed.headers['docker-content-digest']]) {
    const all = await mirror.get(`${base}/referrers/${subject}`);
    t.match(all.headers, { 'content-type': mediaTypes.ociIndex });
    t.same(
      all
        .json<Referrers>()
        .manifests.map(({ digest }) => digest)
        .toSorted(),
      [signature.digest, sbom.digest].toSorted(),
    );
    const some = await mirror.get(`${base}/referrers/${subject}?artifactType=application/vnd.example.sbom`);
    t.equal(some.headers['oci-filters-applied'], 'artifactType');
    t.same(
      some.json<Referrers>().manifests.map(({ digest }) => digest),
      [sbom.digest],
    );
  }
});

void t.test('referrers of an upstream without the API: by the fallback tag, else none', async (t) => {
  for (const status of [404, 405, 400]) {
    const { upstream, mirror } = await stage(t);
    upstream.script = (seen, response) => {
      if (!seen.path.includes('/referrers/')) return false;
      refuse(response, status, 'X');
      return true;
    };
    t.same((await mirror.get(`${base}/referrers/${image.index.digest}`)).json<Referrers>().manifests, []);
    const signature = referrer('application/vnd.example.signature');
    const child = image.children[0]!.manifest.digest;
    const list = { ...descriptor(signature), artifactType: 'application/vnd.example.signature' };
    upstream.put(
      'library/hello',
      content({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [list] }, mediaTypes.ociIndex),
      child.replace(':', '-'),
    );
    t.same(
      (await mirror.get(`${base}/referrers/${child}`)).json<Referrers>().manifests.map(({ digest }) => digest),
      [signature.digest],
    );
    await mirror.stop();
  }
});

void t.test('referrers while the upstream is down: trouble, not an empty list', async (t) => {
  const { upstream, mirror } = await stage(t);
  upstream.script = (_seen, response) => {
    refuse(response, 503, 'X');
    return true;
  };
  t.equal((await mirror.get(`${base}/referrers/${image.index.digest}`)).status, 503);
});

void t.test(
  '75. tags that name a digest are never narrowed, and lead from the narrowed digest to the original’s',
  async (t) => {
    const { upstream, mirror } = await stage(t);
    const narrowed = await mirror.head(`/p/linux-amd64_linux-arm64${base}/manifests/1`, { accept });
    upstream.put('library/hello', image.index, tag(image.index.digest));
    for (const digest of [image.index.digest, narrowed.headers['docker-content-digest']!]) {
      const answer = await mirror.get(`/p/linux-arm64${base}/manifests/${tag(digest)}`, { accept });
      t.match(answer, { status: 200, headers: { 'narrows-view': 'verbatim' } });
      t.same(answer.body, image.index.bytes);
    }
  },
);

void t.test('the catalog: what was pulled from, in order, page by page', async (t) => {
  const { upstream, mirror } = await stage(t);
  for (const name of ['c/x', 'a/x', 'b/x']) {
    upstream.putImage(name, '1', image);
    await mirror.get(`/v2/docker.io/${name}/manifests/1`, { accept });
  }
  t.same((await mirror.get('/v2/_catalog')).json(), {
    repositories: ['docker.io/a/x', 'docker.io/b/x', 'docker.io/c/x'],
  });
  const first = await mirror.get('/v2/_catalog?n=2');
  t.same(first.json(), { repositories: ['docker.io/a/x', 'docker.io/b/x'] });
  const next = /^<(.*)>; rel="next"$/.exec(first.headers['link']!)![1]!;
  t.same((await mirror.get(next)).json(), { repositories: ['docker.io/c/x'] });
});

function tag(digest: string): string {
  return `${digest.replace(':', '-')}.sig`;
}
