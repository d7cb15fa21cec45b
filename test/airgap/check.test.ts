import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { hexOf } from '../../src/oci/digest.ts';
import { airgapStage } from '../fixtures/airgap.ts';
import { buildImage } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { runCommand } from '../fixtures/process.ts';
import { sign } from '../fixtures/synthetic.ts';

const app = buildImage({
  platforms: ['linux/amd64', 'linux/arm64'],
  attestations: true,
  payloadBytes: 50_000,
  seed: 'checked',
});
const child = app.children[1]!;
const [layer] = child.layers;
const arm64 = ['--platform', 'linux/arm64'];

/** A store that holds the image for arm64, and what of it is taken away. */
async function prepare(t: Parameters<typeof airgapStage>[0]) {
  const stage = await airgapStage(t);
  stage.registry.putImage('library/app', '1', app);
  const signed = sign(stage.registry, 'library/app', app.index);
  const config = await stage.settings();
  await stage.warm(config, 'app:1', ...arm64, '--set', 'edge');
  const fileOf = ({ digest }: Content) => join(stage.store(), 'blobs/sha256', hexOf(digest));
  return { ...stage, config, signed, fileOf, check: (...args: string[]) => stage.check(config, ...args) };
}

void t.test('an image that is all here is complete, and no upstream is asked', async (t) => {
  const { registry, config, check } = await prepare(t);
  registry.forget();
  t.match(await check('app:1', ...arm64), { code: 0, images: [{ status: 'complete', digest: app.index.digest }] });
  t.match(await check('--set', 'edge'), { code: 0 }, 'a set knows its images and platforms');
  t.match(await check(), { code: 0 }, 'and without a word, all sets are meant');
  const { out } = await runCommand(['check', '--set', 'edge', '--config', config]);
  t.match(out, /docker\.io\/library\/app:1 +linux\/arm64 +complete +\d+\.\d KiB +-/);
  t.match(out, /1 image complete: nothing of them is missing here/);
  t.same(registry.seen, []);
});

void t.test('what is missing is named, with its size, and what to type next', async (t) => {
  const { config, check, fileOf } = await prepare(t);
  await rm(fileOf(layer!));
  const { code, images } = await check('app:1', ...arm64);
  t.equal(code, 1);
  t.match(images, [
    {
      status: 'partial',
      platforms: [
        {
          platform: 'linux/arm64',
          status: 'partial',
          missing: [{ digest: layer!.digest, bytes: layer!.bytes.length, kind: 'layer' }],
        },
        { platform: '', status: 'complete', missing: [] },
      ],
    },
  ]);
  const { out, err } = await runCommand(['check', '--set', 'edge', '--details', '--config', config]);
  t.match(out, /app:1 +linux\/arm64 +partial +\S+ KiB +\S+ KiB +1 layer/);
  t.match(out, new RegExp(`linux/arm64 +layer +\\S+ KiB +${layer!.digest}`));
  t.match(
    err,
    /1 of 1 image not complete: .* KiB are known to be missing\. Where there is network: narrows warm docker\.io\/library\/app:1 .*--set edge --add/,
  );
});

void t.test('without its manifest a platform is absent, and one of another size is as good as missing', async (t) => {
  const { check, fileOf } = await prepare(t);
  await writeFile(fileOf(layer!), 'short');
  t.match(await check('app:1', ...arm64), { code: 1, images: [{ status: 'partial' }] });
  await rm(fileOf(child.manifest));
  t.match(await check('app:1', ...arm64), { code: 1, images: [{ status: 'absent' }] });
});

void t.test('another platform, a platform that is not published, another tag', async (t) => {
  const { check } = await prepare(t);
  t.match(await check('app:1', '--platform', 'linux/amd64'), { code: 1, images: [{ status: 'absent' }] });
  t.match(await check('app:1', '--platform', 'linux/s390x'), {
    code: 1,
    images: [{ status: 'not offered' }],
    err: /not published for it: narrows inspect docker\.io\/library\/app:1/,
  });
  t.match(await check('app:2', ...arm64), {
    code: 1,
    images: [{ status: 'absent', problem: 'nothing of it is here' }],
  });
});

void t.test('signatures and attestations count, unless nobody asks for them', async (t) => {
  const { check, signed, fileOf } = await prepare(t);
  await rm(fileOf(signed.blobs[1]!));
  t.match(await check('app:1', ...arm64), {
    code: 1,
    images: [
      { platforms: [{ status: 'complete' }, { platform: '', status: 'partial', missing: [{ kind: 'layer' }] }] },
    ],
  });
  t.match(await check('app:1', ...arm64, '--no-referrers'), { code: 0 });
});

void t.test('bytes that another repository brought are not this one’s', async (t) => {
  const { registry, config, warm, check } = await prepare(t);
  registry.put('team/other', app.index, '1');
  registry.put('team/other', child.manifest);
  const warmed = await warm(config, 'team/other:1', ...arm64, '--no-referrers');
  t.match(warmed.images, [{ image: 'docker.io/team/other:1' }]);
  t.match(await check('team/third:1', ...arm64), { code: 1, images: [{ status: 'absent' }] });
  t.match(await check(`team/third@${app.index.digest}`, ...arm64), { code: 1, images: [{ status: 'absent' }] });
});

void t.test('images from YAML, and what of it is no image', async (t) => {
  const { config, folder } = await prepare(t);
  const file = join(folder, 'compose.yaml');
  await writeFile(file, 'services:\n  web: { image: "app:1" }\n  late: { image: "app:${TAG}" }\n');
  const ran = await runCommand(['check', '-f', file, ...arm64, '--config', config]);
  t.equal(ran.code, 1, 'what cannot be looked at is not complete');
  t.match(ran.out, /app:1 +linux\/arm64 +complete/);
  t.match(ran.out, /compose\.yaml:3: app:\$\{TAG\} is a variable without a value/);
});

void t.test('wrong use ends with 2', async (t) => {
  const { config } = await prepare(t);
  t.match(await runCommand(['check', 'app:1', '--config', config]), { code: 2, err: /Say for which platforms/ });
  t.match(await runCommand(['check', '--set', 'none', '--config', config]), {
    code: 2,
    err: /There is no set none in this store; there is: edge/,
  });
});
