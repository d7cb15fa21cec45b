import { mkdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import { readImageList, wantedOf } from '../../src/cli/image-list.ts';
import type { ImageList } from '../../src/cli/image-list.ts';
import type { Io } from '../../src/cli/io.ts';
import { createRegistries } from '../../src/upstream/registries.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { failureOf } from '../fixtures/servers.ts';

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  template:
    spec:
      containers:
        - name: api
          image: ghcr.io/org/api:1
        - name: proxy
          image: nginx:1.27
`;

async function folderOf(t: Teardown, files: Record<string, string>): Promise<string> {
  const folder = await temporaryFolder(t);
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  return folder;
}

function read(args: readonly string[], file: string[] = [], input: readonly string[] = []): Promise<ImageList> {
  const io: Io = {
    env: {},
    isTerminal: false,
    input: async function* () {
      for (const text of input) yield Buffer.from(text);
    },
    write: () => Promise.resolve(),
    out: () => undefined,
    err: () => undefined,
    onStop: () => undefined,
    onReload: () => undefined,
  };
  return readImageList(args, { file, referrers: true }, io);
}

void t.test('list: the arguments, each once, in their order, from nowhere in particular', async (t) => {
  t.same(await read(['b:1', 'a:1', 'b:1']), {
    images: [
      { image: 'b:1', places: [] },
      { image: 'a:1', places: [] },
    ],
    unusable: [],
  });
  t.same(await read([]), { images: [], unusable: [] });
});

void t.test('list: a file of lines, and YAML, with the places that name each image', async (t) => {
  const folder = await folderOf(t, {
    'images.txt': '# what we run\nnginx:1.27\n\nalpine:3.20  # small\nnginx:1.27\n',
    'web.yaml': deployment,
  });
  const [list, web] = [join(folder, 'images.txt'), join(folder, 'web.yaml')];
  const { images, unusable } = await read(['nginx:1.27', 'busybox'], [list, web]);
  t.same(unusable, []);
  t.same(images, [
    { image: 'nginx:1.27', places: [`${list}:2`, `${list}:5`, `${web}:11 Deployment/web, container proxy`] },
    { image: 'busybox', places: [] },
    { image: 'alpine:3.20', places: [`${list}:4`] },
    { image: 'ghcr.io/org/api:1', places: [`${web}:9 Deployment/web, container api`] },
  ]);
});

void t.test('list: all files of a folder that can be meant, in the order of their names', async (t) => {
  const folder = await folderOf(t, {
    'b.yaml': deployment,
    'a.list': 'alpine:3.20\n',
    'below/deep/c.yml': 'image: redis:7\n',
    'd.json': '{"image": "postgres:17"}',
    'README.md': 'Not an image: at all\n',
    'values.yaml.bak': 'image: old:1\n',
  });
  const { images } = await read([], [folder]);
  t.same(
    images.map(({ image }) => image),
    ['alpine:3.20', 'ghcr.io/org/api:1', 'nginx:1.27', 'redis:7', 'postgres:17'],
  );
  t.same(images[3]?.places.length, 1);
  t.match(images[3]?.places[0], `${join(folder, 'below/deep/c.yml')}:1`);
});

void t.test('list: links to folders outside of a folder are not gone through', async (t) => {
  const folder = await folderOf(t, { 'a.list': 'alpine:3.20\n' });
  const outside = await folderOf(t, { 'b.list': 'secret:1\n' });
  await symlink(outside, join(folder, 'linked'));
  t.same(
    (await read([], [folder])).images.map(({ image }) => image),
    ['alpine:3.20'],
  );
});

void t.test('list: standard input, in whatever pieces it comes', async (t) => {
  const { images } = await read([], ['-'], ['alp', 'ine:3', '.20\nng', '', 'inx\n']);
  t.same(images, [
    { image: 'alpine:3.20', places: ['stdin:1'] },
    { image: 'nginx', places: ['stdin:2'] },
  ]);
});

void t.test('list: what looks like an image and cannot be one is told with file and line', async (t) => {
  const folder = await folderOf(t, {
    'images.txt': 'alpine:3.20\nNOT AN\n',
    'mixed.yaml':
      'spec:\n  containers:\n    - name: a\n      image: "{{ .Values.image }}"\n    - name: b\n      image: $TAG\n',
    'words.list': 'alpine\nUPPER/Case:1\n',
  });
  const { images, unusable } = await read([], [join(folder, 'words.list'), join(folder, 'mixed.yaml')]);
  t.same(
    images.map(({ image }) => image),
    ['alpine'],
  );
  t.match(unusable, [
    `${join(folder, 'words.list')}:2: UPPER/Case:1 is `,
    `${join(folder, 'mixed.yaml')}:4: {{ .Values.image }} is `,
    `${join(folder, 'mixed.yaml')}:6: $TAG is `,
  ]);
  const failure = await failureOf(read([], [join(folder, 'images.txt')]));
  t.match(failure, { exitCode: 2, message: `${join(folder, 'images.txt')}: ` });
  t.match(failure.message, /line \d|:\d/, 'and the line');
});

void t.test('list: files that cannot be read are wrong use', async (t) => {
  const folder = await folderOf(t, { 'README.md': 'x', 'large.txt': '' });
  await truncate(join(folder, 'large.txt'), 16 * 1024 * 1024 + 1);
  for (const [path, message] of [
    [join(folder, 'missing.yaml'), `${join(folder, 'missing.yaml')} cannot be read (ENOENT).`],
    [join(folder, 'large.txt'), `${join(folder, 'large.txt')} is larger than 16 MiB.`],
  ] as const) {
    t.match(await failureOf(read([], [path])), { exitCode: 2, message });
  }
  const empty = await folderOf(t, { 'README.md': 'x' });
  t.match(await failureOf(read([], [empty])), {
    exitCode: 2,
    message: `${empty} holds no file that ends in .yaml, .yml, .json, .txt or .list.`,
  });
  const million = '#'.repeat(1024 * 1024);
  t.match(
    await failureOf(
      read(
        [],
        ['-'],
        Array.from({ length: 17 }, () => million),
      ),
    ),
    {
      exitCode: 2,
      message: 'Standard input is larger than 16 MiB.',
    },
  );
});

const registries = createRegistries(new Map([['docker.io', createOfflineRegistry('docker.io')]]), 'docker.io');
const reader = { find: (name: Parameters<typeof registries.find>[0]) => registries.find(name, undefined, undefined) };

void t.test('wanted: images as they are asked for, by the registries that are configured', (t) => {
  const digest = `sha256:${'0'.repeat(64)}`;
  const images = ['alpine', 'team/app:2', `docker.io/library/app:1@${digest}`].map((image) => ({ image, places: [] }));
  const wanted = wantedOf({ images, unusable: [] }, reader, 'any', false);
  t.match(wanted, [
    { repository: 'docker.io/library/alpine', reference: { tag: 'latest' }, platforms: 'any', withReferrers: false },
    { repository: 'docker.io/team/app', reference: { tag: '2' } },
    { repository: 'docker.io/library/app', reference: { digest } },
  ]);
  t.end();
});

void t.test('wanted: every mistake is told at once, each with its place', (t) => {
  const images = [
    { image: 'alpine', places: [] },
    { image: 'ghcr.io/org/app:1', places: ['web.yaml:9 Deployment/web, container api', 'other.yaml:1'] },
    { image: 'Upper:1', places: [] },
  ];
  t.throws(() => wantedOf({ images, unusable: [] }, reader, 'any', true), {
    exitCode: 2,
    message:
      /^2 images cannot be fetched:\n {2}web\.yaml:9 Deployment\/web, container api: ghcr\.io\/org\/app:1: ghcr\.io is not a registry that this mirror serves.*\n {2}Upper:1: .*$/,
  });
  t.end();
});

void t.test('check: reads images from standard input, and says what lacks', async (t) => {
  const folder = await folderOf(t, {
    'narrows.yaml': JSON.stringify({ cache: { disk: { path: join(await temporaryFolder(t), 'store') } } }),
  });
  const check = (input: string, ...args: string[]) =>
    runCommand(
      ['check', '--config', join(folder, 'narrows.yaml'), '--platform', 'linux/arm64', '-f', '-', ...args],
      {},
      input,
    );
  const absent = await check('alpine:3.20\nghcr.io/org/app:1\n', '--json');
  t.equal(absent.code, 1);
  t.match(JSON.parse(absent.out), {
    complete: false,
    images: [{ image: /alpine:3\.20$/ }, { image: 'ghcr.io/org/app:1' }],
    unusable: [],
  });
  const strange = await check('alpine:3.20\nregistry.strange.example/app:1\n');
  t.equal(strange.code, 2);
  t.match(strange.err, /1 image cannot be fetched:\n {2}stdin:2: registry\.strange\.example\/app:1: /);
  t.match(strange.err, /registry\.strange\.example is not a registry that this mirror serves/);
  t.equal(strange.out, '');
});
