import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import {
  createSide,
  entry,
  file,
  hexDigest,
  joinTar,
  makeLayout,
  partsOf,
  pathOf,
  refName,
  referrerOf,
  sha512Image,
  tarHeader,
} from '../fixtures/bundles.ts';
import type { Side, TarPart } from '../fixtures/bundles.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';

/** Layouts that others have written. */
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true, seed: 'layout' });
const plain = buildImage({ platforms: ['linux/arm64', 'linux/arm/v7'], seed: 'plain' });
const [, arm64] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
const all = [...image.manifests, ...image.blobs];
const name = 'docker.io/library/app:1';

async function importTar(side: Side, parts: readonly TarPart[], ...args: string[]) {
  await writeFile(side.path('layout.tar'), joinTar(parts));
  return side.run('import', side.path('layout.tar'), ...args);
}

async function writeFolder(side: Side, parts: readonly TarPart[]): Promise<string> {
  const folder = side.path('layout');
  for (const part of parts) {
    const path = part.path ?? pathOf(part);
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), part.content);
  }
  return folder;
}

const folderPart = (path: string): TarPart => ({
  header: tarHeader({ path, bytes: 0, type: '5' }),
  content: Buffer.alloc(0),
});

const imagesOf = async (side: Side, set = 'default') =>
  (JSON.parse((await side.run('sets', set, '--json')).out) as { image: string; platforms: string[] }[]).map(
    ({ image: one, platforms }) => `${one} ${platforms.join()}`,
  );

void t.test('names in full need no more', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout(
    [entry(image.index, { [refName]: name }), entry(plain.index, { [refName]: 'ghcr.io/org/plain:2' })],
    [...all, ...plain.manifests, ...plain.blobs],
  );
  t.match(await importTar(far, parts), { code: 0, err: '' });
  t.same(await imagesOf(far), [`${name} any`, 'ghcr.io/org/plain:2 any']);
  t.match(await far.run('check'), { code: 0 });
});

void t.test('the name that containerd gives goes before a tag', async (t) => {
  const far = await createSide(t);
  const notes = { [refName]: '1', 'io.containerd.image.name': name };
  t.match(await importTar(far, makeLayout([entry(image.index, notes)], all)), { code: 0 });
  t.same(await imagesOf(far), [`${name} any`]);
});

void t.test('a tag alone needs --as, which says the repository', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index, { [refName]: '1.2' })], all);
  const before = await far.seen();
  t.strictSame(await importTar(far, parts), {
    code: 1,
    out: '',
    err: `Refused, and nothing of it was kept. index.json: ${image.index.digest} is called "1.2", which is no image of a registry; say which it is: --as docker.io/library/alpine.\n`,
  });
  t.same(await far.seen(), before);
  t.match(await importTar(far, parts, '--as', 'docker.io/library/app'), { code: 0 });
  t.same(await imagesOf(far), ['docker.io/library/app:1.2 any']);
});

void t.test('two tags of one layout, with --as', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout(
    [entry(image.index, { [refName]: 'a' }), entry(plain.index, { [refName]: 'b' })],
    [...all, ...plain.manifests, ...plain.blobs],
  );
  t.match(await importTar(far, parts, '--as', 'ghcr.io/org/app'), { code: 0 });
  t.same(await imagesOf(far), ['ghcr.io/org/app:a any', 'ghcr.io/org/app:b any']);
});

void t.test('no name at all: --as says it, with its tag, or latest', async (t) => {
  const parts = makeLayout([entry(image.index)], all);
  const far = await createSide(t);
  t.match(await importTar(far, parts), {
    code: 1,
    err: /index\.json: sha256:[0-9a-f]{64} has no name; say which it is: --as /,
  });
  t.match(await importTar(far, parts, '--as', 'ghcr.io/org/app:7'), { code: 0 });
  t.match(await importTar(far, parts, '--as', 'ghcr.io/org/app'), { code: 0 });
  t.match(await importTar(far, parts, '--as', `ghcr.io/org/app@${image.index.digest}`, '--set', 'own'), { code: 0 });
  t.same(await imagesOf(far), ['ghcr.io/org/app:7 any', 'ghcr.io/org/app:latest any']);
  t.same(await imagesOf(far, 'own'), [`ghcr.io/org/app@${image.index.digest} any`]);
  t.match(await importTar(far, parts, '--as', `ghcr.io/org/app@${plain.index.digest}`), {
    code: 1,
    err: /index\.json: says that ghcr\.io\/org\/app@sha256:\w+ is sha256:/,
  });
});

void t.test('two images without a name cannot both be what --as says', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index), entry(plain.index)], [...all, ...plain.manifests, ...plain.blobs]);
  const before = await far.seen();
  t.match(await importTar(far, parts, '--as', name), {
    code: 1,
    err: /^Refused, and nothing of it was kept\. index\.json: /,
  });
  t.same(await far.seen(), before);
});

void t.test('sparse: the platforms that are there are taken in, and no others are promised', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(plain.index, { [refName]: name })], [plain.index, ...partsOf(plain, 'linux/arm64')]);
  t.match(await importTar(far, parts), { code: 0, out: /linux\/arm64 +complete/ });
  t.same(await imagesOf(far), [`${name} linux/arm64`]);
  t.match(await far.run('check'), { code: 0 });
  const { get } = await startTestMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    store: far.store,
    config: { offline: true },
  });
  const answer = await get('/p/linux-arm64/v2/docker.io/library/app/manifests/1');
  t.same(answer.body, plain.children[0]!.manifest.bytes);
  t.equal((await get('/p/linux-arm-v7/v2/docker.io/library/app/manifests/1')).status, 404);
});

void t.test('sparse: a platform that is half there is refused', async (t) => {
  const far = await createSide(t);
  const before = await far.seen();
  const [manifest, config, layer] = partsOf(plain, 'linux/arm64') as [Content, Content, Content];
  for (const [what, blobs] of Object.entries({
    'no layer': [manifest, config],
    'no config': [manifest, layer],
    'no manifest': [config, layer],
    'nothing but the index': [],
  })) {
    const parts = makeLayout([entry(plain.index, { [refName]: name })], [plain.index, ...blobs]);
    t.match(
      await importTar(far, parts),
      { code: 1, err: /^Refused, and nothing of it was kept\. blobs\/sha256\/[0-9a-f]{64}: [\x20-\x7e]+\.\n$/ },
      what,
    );
    t.same(await far.seen(), before, what);
  }
});

void t.test('an image of one platform, that no index places', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(arm64.manifest, { [refName]: name })], partsOf(image, 'linux/arm64'));
  t.match(await importTar(far, parts), { code: 0, out: /app:1 +linux\/arm64 +complete/ });
  t.match(await far.run('check', 'app:1', '--platform', 'linux/arm64'), { code: 0 });
  t.match(await far.run('check', 'app:1', '--platform', 'linux/amd64'), { code: 1, out: /not offered/ });
});

void t.test('an artifact that is no image is taken in as it is', async (t) => {
  const far = await createSide(t);
  const empty = content(Buffer.from('{}'), 'application/vnd.oci.empty.v1+json');
  const chart = content(Buffer.from('a chart'), 'application/vnd.cncf.helm.chart.content.v1.tar+gzip');
  const manifest = content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      artifactType: 'application/vnd.cncf.helm.config.v1+json',
      config: descriptor(empty),
      layers: [descriptor(chart)],
    },
    mediaTypes.ociManifest,
  );
  const parts = makeLayout([entry(manifest, { [refName]: 'ghcr.io/org/chart:1' })], [manifest, empty, chart]);
  t.match(await importTar(far, parts), { code: 0 });
  t.match(await far.run('check'), { code: 0 });
});

void t.test('sha512 names blobs as well', async (t) => {
  const far = await createSide(t);
  const { manifest, blobs } = sha512Image(arm64);
  const parts = makeLayout([entry(manifest, { [refName]: name })], [manifest, ...blobs]);
  t.match(await far.run('import', await writeFolder(far, parts)), { code: 0, err: '' });
  t.match(await far.run('check'), { code: 0 });
});

void t.test('a folder is taken in as its tar is', async (t) => {
  const [far, other] = [await createSide(t), await createSide(t)];
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  const folder = await writeFolder(far, parts);
  const taken = await far.run('import', folder);
  t.match(taken, { code: 0, err: '' });
  t.same(await importTar(other, parts), taken);
  t.same((await other.seen()).files, (await far.seen()).files);
  t.match(await far.run('import', `${folder}/`), { code: 0 }, 'with a slash at its end');
});

void t.test('a folder whose blob was changed is refused', async (t) => {
  const far = await createSide(t);
  const folder = await writeFolder(far, makeLayout([entry(image.index, { [refName]: name })], all));
  const path = `blobs/sha256/${arm64.layers[0]!.digest.slice(7)}`;
  await writeFile(join(folder, path), Buffer.alloc(arm64.layers[0]!.bytes.length));
  const before = await far.seen();
  t.strictSame(await far.run('import', folder), {
    code: 1,
    out: '',
    err: `Refused, and nothing of it was kept. ${path}: its content is not that of its name.\n`,
  });
  t.same(await far.seen(), before);
});

void t.test('35. a link in a folder is refused, wherever it leads', async (t) => {
  const far = await createSide(t);
  const [layer] = arm64.layers as [Content];
  const parts = makeLayout(
    [entry(image.index, { [refName]: name })],
    all.filter((one) => one !== layer),
  );
  const folder = await writeFolder(far, parts);
  const path = `blobs/sha256/${layer.digest.slice(7)}`;
  await writeFile(far.path('outside'), layer.bytes);
  await symlink(far.path('outside'), join(folder, path));
  const before = await far.seen();
  t.match(await far.run('import', folder), {
    code: 1,
    out: '',
    err: new RegExp(`^Refused, and nothing of it was kept\\. ${path}: `),
  });
  t.same(await far.seen(), before);
});

void t.test('entries may come in any order, with folders and a leading dot', async (t) => {
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  const dotted = parts.map((part) => file(`./${pathOf(part)}`, part.content));
  for (const [what, order] of Object.entries({
    'the index first': parts.toReversed(),
    'with folders': [folderPart('./'), folderPart('blobs/'), folderPart('blobs/sha256/'), ...parts],
    'with a dot': [folderPart('./'), ...dotted],
  }))
    t.match(await importTar(await createSide(t), order), { code: 0 }, what);
});

void t.test('35. an entry that is there twice is refused', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  const before = await far.seen();
  for (const [at, part] of parts.entries()) {
    if (at > 0 && at < parts.length - 3) continue;
    const path = pathOf(part);
    const err = `Refused, and nothing of it was kept. ${path}: is there twice.\n`;
    t.strictSame(await importTar(far, [...parts, part]), { code: 1, out: '', err });
    t.strictSame(
      await importTar(far, [...parts, file(`./${path}`, part.content)]),
      { code: 1, out: '', err },
      'with a dot',
    );
    t.same(await far.seen(), before);
  }
});

void t.test('a file that no layout has is refused', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  const before = await far.seen();
  for (const path of [
    'README.md',
    '../x',
    '/etc/x',
    '/index.json',
    '././x',
    'blobs/sha256/../../x',
    'blobs/sha256/abc',
    `blobs/sha256/${'A'.repeat(64)}`,
    `blobs/sha1/${'a'.repeat(40)}`,
    `blobs/sha256/${'a'.repeat(64)}/x`,
    `blobs//sha256/${'a'.repeat(64)}`,
    'narrows/../x',
  ])
    for (const order of [
      [...parts, file(path, 'x')],
      [file(path, 'x'), ...parts],
    ]) {
      t.strictSame(
        await importTar(far, order),
        {
          code: 1,
          out: '',
          err: `Refused, and nothing of it was kept. ${path.replace(/^\.\//, '')}: has no place in an OCI image layout.\n`,
        },
        path,
      );
      t.same(await far.seen(), before, path);
    }
});

void t.test('what docker save writes beside a layout is passed over', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index, { [refName]: name })], all, [
    file('manifest.json', '[]'),
    file('repositories', '{}'),
  ]);
  t.match(await importTar(far, parts), { code: 0 });
});

void t.test('blobs that no image refers to are not kept, and have to be right all the same', async (t) => {
  const [far, other] = [await createSide(t), await createSide(t)];
  const more = content(Buffer.from('nobody asked'), 'text/plain');
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  t.match(await importTar(other, parts), { code: 0 });
  t.match(await importTar(far, makeLayout([entry(image.index, { [refName]: name })], [more, ...all])), { code: 0 });
  t.same((await far.seen()).files, (await other.seen()).files);
  const before = await far.seen();
  const wrong = file(`blobs/sha256/${hexDigest(Buffer.from('right'))}`, 'wrong');
  t.match(await importTar(far, [wrong, ...parts]), { code: 1, err: /: its content is not that of its name\.\n$/ });
  t.same(await far.seen(), before);
});

void t.test('a layout has its version, and its index', async (t) => {
  const far = await createSide(t);
  const parts = makeLayout([entry(image.index, { [refName]: name })], all);
  const unknown = 'oci-layout: is missing, or is of a version that is not known here';
  const changed = (path: string, text: string) =>
    parts.map((part) => (pathOf(part) === path ? file(path, text) : part));
  for (const [what, order, sentence] of [
    ['no version', parts.slice(0, -1), unknown],
    ['another version', changed('oci-layout', '{"imageLayoutVersion":"2.0.0"}'), unknown],
    ['no JSON', changed('oci-layout', 'x'), unknown],
    ['no index', parts.toSpliced(-2, 1), 'index.json: is missing'],
    ['an index that is none', changed('index.json', '{}'), 'index.json: lists no manifests'],
    ['an index of nothing', changed('index.json', '{"manifests":[]}'), 'index.json: names no image'],
    ['blobs alone', parts.slice(0, 3), unknown],
  ] as const)
    t.strictSame(
      await importTar(far, order),
      { code: 1, out: '', err: `Refused, and nothing of it was kept. ${sentence}.\n` },
      what,
    );
});

void t.test('what says something about an image, as its subject', async (t) => {
  const far = await createSide(t);
  const sbom = referrerOf(image.index, 'layout');
  const parts = makeLayout(
    [entry(image.index, { [refName]: name }), entry(sbom.manifest, { 'narrows.repository': 'docker.io/library/app' })],
    [...all, sbom.manifest, ...sbom.blobs],
  );
  t.match(await importTar(far, parts), { code: 0 });
  const { get } = await startTestMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    store: far.store,
    config: { offline: true },
  });
  t.match((await get(`/v2/docker.io/library/app/referrers/${image.index.digest}`)).json(), {
    manifests: [{ digest: sbom.manifest.digest }],
  });
});
