import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { airgapStage } from '../fixtures/airgap.ts';
import { buildImage, content } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { runCommand } from '../fixtures/process.ts';
import { refuse } from '../fixtures/registry.ts';
import { sign } from '../fixtures/synthetic.ts';

const app = buildImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/arm/v7'], attestations: true, seed: 'app' });
const web = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'web' });
const old = buildImage({ platforms: ['linux/amd64'], seed: 'old' });
const arm64 = ['--platform', 'linux/arm64'];

const digestsOf = (contents: readonly Content[]) => contents.map(({ digest }) => digest);

void t.test('78. one image that fails and one that lacks the platform do not stop the others', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  registry.putImage('library/web', '1', web);
  registry.putImage('library/old', '1', old);
  registry.delete('library/web', web.children[1]!.layers[0]!.digest);
  const config = await settings();
  const { code, err, images } = await warm(config, 'app:1', 'web:1', 'old:1', 'gone:1', ...arm64);
  t.equal(code, 1);
  t.match(
    images.map(({ image, status, problems }) => [image, status, problems]),
    [
      ['docker.io/library/app:1', 'complete', []],
      ['docker.io/library/web:1', 'incomplete', [/has no blob sha256:/]],
      ['docker.io/library/old:1', 'incomplete', [/not published for linux\/arm64; .*narrows inspect docker\.io/]],
      ['docker.io/library/gone:1', 'failed', [/docker\.io has no docker\.io\/library\/gone:1/]],
    ],
    'in the order that they were asked for',
  );
  t.match(err, /3 of 4 images not complete\. .* run the same again/);
  registry.putImage('library/web', '1', web);
  registry.forget();
  t.match(await warm(config, 'app:1', 'web:1', ...arm64), { code: 0 });
  t.same(registry.count('GET blobs'), 1, 'the next run fetches what was missing alone');
});

void t.test('what the table says names the file and the line where an image was found', async (t) => {
  const { registry, settings, folder } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const yaml = join(folder, 'web.yaml');
  await writeFile(
    yaml,
    [
      'apiVersion: apps/v1',
      'kind: Deployment',
      'metadata: { name: web }',
      'spec:',
      '  template:',
      '    spec:',
      '      containers:',
      '        - { name: api, image: "app:1" }',
      '        - { name: side, image: "gone:2" }',
      '        - { name: late, image: "{{ .Values.image }}" }',
    ].join('\n'),
  );
  const ran = await runCommand(['warm', '-f', yaml, ...arm64, '--config', await settings()]);
  t.equal(ran.code, 1);
  t.match(ran.out, /docker\.io\/library\/app:1 +linux\/arm64 +complete/);
  t.match(ran.out, /docker\.io\/library\/gone:2 \(.*web\.yaml:9 Deployment\/web, container side\): docker\.io has no/);
  t.match(ran.out, /web\.yaml:10: .*Values\.image.* is a template that has not been rendered/);
});

void t.test('digests, several platforms, and all of them', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const fetched = async (name: string, ...args: string[]) => {
    registry.forget();
    t.match(await warm(await settings(name), ...args), { code: 0 });
    return registry.count('GET blobs');
  };
  t.equal(
    await fetched('one', `app@${app.index.digest}`, '--platform', 'linux/arm64,linux/arm/v7', '--no-referrers'),
    4,
  );
  t.equal(await fetched('all', 'app:1', '--platform', 'any', '--no-referrers'), 6);
  t.equal(await fetched('child', `app@${app.children[1]!.manifest.digest}`, ...arm64, '--no-referrers'), 2);
});

void t.test('74. signatures, SBOMs and attestations come along unless they are left out', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const { manifests } = sign(registry, 'library/app', app.index);
  const about = [...digestsOf(manifests), app.attestations[1]!.digest];
  const asked = () => about.filter((digest) => registry.count('GET manifests', digest) > 0).length;
  t.match(await warm(await settings('without'), 'app:1', ...arm64, '--no-referrers'), { code: 0 });
  t.equal(asked(), 0);
  t.equal(registry.count('HEAD manifests', 'sha256-'), 0, 'nor is asked whether there are any');
  t.match(await warm(await settings('with'), 'app:1', ...arm64), { code: 0 });
  t.equal(asked(), 3);
});

void t.test('what two repositories share is fetched once', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  registry.putImage('team/copy', '1', app);
  t.match(await warm(await settings(), 'app:1', 'team/copy:1', ...arm64), { code: 0 });
  for (const { digest } of app.children[1]!.layers) t.equal(registry.count('GET blobs', digest), 1);
});

void t.test('78. a registry that limits its rate is waited for, and asked again', async (t) => {
  const { registry, settings } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  let refusals = 3;
  registry.script = (seen, response) => {
    if (seen.method !== 'GET' || !seen.path.includes('/manifests/') || refusals-- <= 0) return false;
    refuse(response, 429, 'TOOMANYREQUESTS', { 'retry-after': '0' });
    return true;
  };
  const config = await settings('store', { warm: { patience: '1h' } });
  const ran = await runCommand(['warm', 'app:1', ...arm64, '--config', config]);
  t.match(ran, { code: 0, err: /docker\.io limits the rate of requests\. Waiting 1s\./ });
  registry.script = () => false;
  t.ok(refusals < 0);
});

void t.test('of a pull quota, a share is left to clients', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  registry.putImage('library/web', '1', web);
  registry.script = (_, response) => {
    response.setHeader('ratelimit-limit', '100;w=21600');
    response.setHeader('ratelimit-remaining', '9;w=21600');
    return false;
  };
  const { code, images } = await warm(await settings(), 'app:1', ...arm64);
  t.equal(code, 1);
  t.match(images[0]!.problems[0], /docker\.io has 9 of 100 pulls left, which are kept for clients/);
  t.equal(registry.count('GET manifests'), 0);
  t.match(await warm(await settings('spent', { warm: { spare: 0 } }), 'app:1', ...arm64), { code: 0 });
});

void t.test(
  'a named set is what it was last said to be, and what it was until then stays while that fails',
  async (t) => {
    const { registry, settings, store, warm } = await airgapStage(t);
    registry.putImage('library/app', '1', app);
    registry.putImage('library/web', '1', web);
    const config = await settings();
    const set = ['--set', 'edge', ...arm64];
    const sets = async (name: string) => {
      const { out } = await runCommand(['sets', name, '--config', config, '--json']);
      return (JSON.parse(out) as { image: string }[]).map(({ image }) => image);
    };
    t.match(await warm(config, 'app:1', ...set), { code: 0 });
    t.match(await warm(config, 'web:1', 'gone:1', ...set), { code: 1 });
    t.same(await sets('edge'), ['docker.io/library/app:1', 'docker.io/library/web:1'], 'nothing good is let go');
    t.match(await warm(config, 'web:1', ...set), { code: 0, err: /1 image no longer in the set edge/ });
    t.same(await sets('edge'), ['docker.io/library/web:1']);
    t.match(await warm(config, 'app:1', ...set, '--add'), { code: 0 });
    t.same(await sets('edge'), ['docker.io/library/app:1', 'docker.io/library/web:1']);
    const pinned = () => {
      const catalog = openCatalog(join(store(), 'catalog.sqlite'), Date.now);
      t.teardown(() => catalog.close());
      return catalog.pinned();
    };
    t.ok(digestsOf([app.index, ...app.children[1]!.layers, web.index]).every((digest) => pinned().has(digest)));
    t.match(await runCommand(['sets', '--drop', 'edge', '--config', config]), { code: 0 });
    t.equal(pinned().size, 0);
    t.match(await runCommand(['sets', '--drop', 'edge', '--config', config]), { code: 1, err: /There is no set edge/ });
  },
);

void t.test('a tag that moved: the new image is held, and the old one is not any more', async (t) => {
  const { registry, settings, store, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const config = await settings();
  t.match(await warm(config, 'app:1', ...arm64), { code: 0 });
  registry.putImage('library/app', '1', web);
  t.match(await warm(config, 'app:1', ...arm64), { code: 0 });
  const catalog = openCatalog(join(store(), 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  t.ok(catalog.pinned().has(web.children[1]!.layers[0]!.digest));
  t.notOk(catalog.pinned().has(app.children[1]!.layers[0]!.digest));
});

void t.test('78. an upstream in trouble: the image fails, and what was held of it before stays held', async (t) => {
  const { registry, settings, warm, check } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const config = await settings();
  t.match(await warm(config, 'app:1', ...arm64), { code: 0 });
  registry.script = (_, response) => (refuse(response, 503, 'UNAVAILABLE'), true);
  const { code, images } = await warm(config, 'app:1', ...arm64);
  t.equal(code, 1);
  t.match(images, [{ status: 'failed', problems: ['docker.io answers 503.'] }]);
  t.match(await check(config, 'app:1', ...arm64), { code: 0 });
});

void t.test('58. what does not fit beside what is pinned is not begun', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  const large = buildImage({ platforms: ['linux/arm64'], payloadBytes: 300_000, seed: 'large' });
  registry.putImage('library/large', '1', large);
  const config = await settings('store', { cache: { disk: { maxSize: '200KiB' } } });
  const { code, images } = await warm(config, 'large:1', ...arm64);
  t.equal(code, 1);
  t.match(images[0]!.problems[0], /cache\.disk\.maxSize is 204800: raise it, or drop a set with narrows sets --drop/);
  t.equal(registry.count('GET blobs'), 0);
});

void t.test('what may not be kept is said to be so', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const config = await settings('store', { cache: { platforms: ['linux/arm64'] } });
  t.match(await warm(config, 'app:1'), { code: 0 }, 'the platforms that are kept are those that are meant');
  const { code, images } = await warm(config, 'app:1', '--platform', 'linux/amd64');
  t.equal(code, 1);
  t.match(images[0]!.problems.join(), /fetched and not kept: cache\.platforms leaves it out/);
});

void t.test('a platform that another repository supplies is warmed from there', async (t) => {
  const { registry, settings, warm, check } = await airgapStage(t);
  const riscv = buildImage({ platforms: ['linux/riscv64'], seed: 'riscv' });
  registry.putImage('library/app', '1', app);
  registry.putImage('riscv/app', '1', riscv);
  const overlays = [{ platform: 'linux/riscv64', from: 'docker.io/riscv/app' }];
  const config = await settings('store', { repositories: [{ name: 'docker.io/library/app', overlays }] });
  const both = ['--platform', 'linux/arm64,linux/riscv64'];
  const { code, images } = await warm(config, 'app:1', ...both);
  t.equal(code, 0);
  t.match(images, [
    { image: 'docker.io/library/app:1', platforms: [{ status: 'complete' }, { status: 'supplied' }] },
    { image: 'docker.io/riscv/app:1', platforms: [{ platform: 'linux/riscv64', status: 'complete' }] },
  ]);
  t.match(await check(config, 'app:1', ...both), { code: 0, images: [{}, { image: 'docker.io/riscv/app:1' }] });
});

void t.test('an image that no index lists says in its config what it runs on', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  registry.put('library/app', app.children[1]!.manifest, 'arm64-alone');
  const config = await settings();
  t.match(await warm(config, 'app:arm64-alone', ...arm64), { code: 0, images: [{ status: 'complete' }] });
  const { code, images } = await warm(config, 'app:arm64-alone', '--platform', 'linux/amd64');
  t.equal(code, 1);
  t.match(images[0], { platforms: [{ platform: 'linux/amd64', status: 'not offered' }] });
});

void t.test('an artifact has no platform, and goes whole', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  const chart = content('a chart', 'application/vnd.cncf.helm.chart.content.v1.tar+gzip');
  const { manifests } = sign(registry, 'team/chart', chart);
  registry.put('team/chart', manifests[0]!, '1');
  const { code, images } = await warm(await settings(), 'team/chart:1', ...arm64);
  t.equal(code, 0);
  t.match(images, [{ status: 'complete', platforms: [] }]);
});

void t.test('wrong use ends with 2, and says what to type', async (t) => {
  const { settings } = await airgapStage(t);
  const config = await settings();
  const run = (...args: string[]) => runCommand(['warm', ...args, '--config', config]);
  t.match(await run('app:1'), { code: 2, err: /Say for which platforms: --platform linux\/arm64/ });
  t.match(await run(...arm64), { code: 2, err: /Say which images/ });
  t.match(await run('app:1', '--platform', 'arm64'), { code: 2, err: /"arm64" is no platform/ });
  t.match(await run('app:1', ...arm64, '--set', 'a b'), { code: 2, err: /no name of a set/ });
  t.match(await run('app:1', ...arm64, '--jobs', '0'), { code: 2, err: /--jobs 0/ });
  t.match(await run('app:1', ...arm64, '--bandwidth', 'fast'), { code: 2, err: /--bandwidth fast: expected a size/ });
  const { code, err } = await run('ghcr.io/a/b:1', 'App', ...arm64);
  t.equal(code, 2);
  t.match(err, /"App" is not a repository name/);
});
