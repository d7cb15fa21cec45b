import { generateKeyPairSync } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { airgapStage } from '../fixtures/airgap.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { runCommand } from '../fixtures/process.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';

const arm64 = ['--platform', 'linux/arm64'];
const app = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'hostile' });

function indexOf(children: readonly object[]): Content {
  return content({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: children }, mediaTypes.ociIndex);
}

void t.test('29. indexes that list one another’s children many times are gone through once', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', 'plain', app);
  let index = indexOf([descriptor(app.children[1]!.manifest)]);
  for (let depth = 0; depth < 3; depth++) {
    registry.put('library/app', index);
    const below = descriptor(index);
    index = indexOf(Array.from({ length: 200 }, (_, at) => ({ ...below, annotations: { at: String(at) } })));
  }
  registry.put('library/app', index, 'bomb');
  registry.forget();
  t.match(await warm(await settings(), 'app:bomb', ...arm64, '--no-referrers'), { code: 0 });
  t.equal(registry.count('GET manifests'), 5, 'each document is asked for once');
  for (let depth = 0; depth < 2; depth++) {
    registry.put('library/app', index);
    index = indexOf([descriptor(index)]);
  }
  registry.put('library/app', index, 'deep');
  t.match(await warm(await settings(), 'app:deep', ...arm64, '--no-referrers'), {
    code: 1,
    images: [{ problems: [/indexes within indexes, more than 4 deep/] }],
  });
});

void t.test('29. an image of more documents than any has is not gone through to its end', async (t) => {
  const { registry, settings, warm } = await airgapStage(t);
  registry.putImage('library/app', 'plain', app);
  const middle = Array.from({ length: 6 }, (_, at) =>
    indexOf(
      Array.from({ length: 900 }, (_, child) => descriptor(content({ at, child }, 'application/vnd.example+json'))),
    ),
  );
  for (const one of middle) registry.put('library/app', one);
  registry.put('library/app', indexOf(middle.map(descriptor)), 'wide');
  const { code, images } = await warm(await settings(), 'app:wide', ...arm64, '--no-referrers');
  t.equal(code, 1);
  t.ok(images[0]!.problems.includes('It consists of more than 4096 documents.'));
});

void t.test('35. a layout that names a layer without bringing it gets nothing of another repository', async (t) => {
  const { registry, settings, warm, check, folder, store } = await airgapStage(t);
  registry.putImage('private/app', '1', app);
  const config = await settings();
  t.match(await warm(config, 'private/app:1', ...arm64), { code: 0 });
  const { manifest, config: imageConfig } = app.children[1]!;
  const layout = join(folder, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  for (const one of [manifest, imageConfig]) {
    await writeFile(join(layout, 'blobs', one.digest.replace(':', '/')), one.bytes);
  }
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor(manifest)] }));
  const before = await readdir(join(store(), 'blobs/sha256'));
  t.match(await runCommand(['import', layout, '--as', 'docker.io/public/tool:1', '--config', config]), {
    code: 1,
    err: /Refused, .*belongs to docker\.io\/public\/tool:1, and is neither in the bundle nor here/,
  });
  t.match(await check(config, 'public/tool:1', ...arm64), { code: 1, images: [{ status: 'absent' }] });
  t.same(await readdir(join(store(), 'blobs/sha256')), before);
});

void t.test('a bundle that is refused for its signature takes nothing away', async (t) => {
  const { registry, settings, warm, folder, store } = await airgapStage(t);
  registry.putImage('library/app', '1', app);
  const [near, far] = [await settings('near'), await settings('far')];
  t.match(await warm(near, 'app:1', ...arm64), { code: 0 });
  t.match(await warm(far, 'app:1', '--platform', 'linux/amd64'), { code: 0 });
  t.match(await runCommand(['sets', '--drop', 'default', '--config', far]), { code: 0 });
  const bundle = join(folder, 'bundle.tar');
  t.match(await runCommand(['export', '--set', 'default', '-o', bundle, '--config', near]), { code: 0 });
  const key = join(folder, 'key.pem');
  await writeFile(key, generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }));
  const before = await readdir(join(store('far'), 'blobs/sha256'));
  t.match(await runCommand(['import', bundle, '--verify-key', key, '--config', far]), {
    code: 1,
    err: /the bundle: is not signed, and --verify-key says that it has to be/,
  });
  t.same(await readdir(join(store('far'), 'blobs/sha256')), before);
});

void t.test('names from files do not steer the terminal that they are shown on', async (t) => {
  const { settings, folder } = await airgapStage(t);
  const config = await settings();
  const yaml = join(folder, 'evil.yaml');
  const name = String.raw`"web\e[2J"`;
  await writeFile(
    yaml,
    `apiVersion: v1\nkind: Pod\nmetadata: { name: ${name} }\nspec:\n  containers: [{ name: a, image: "gone:1" }]\n`,
  );
  for (const command of ['warm', 'check']) {
    const { out, err } = await runCommand([command, '-f', yaml, ...arm64, '--config', config]);
    t.notOk((out + err).includes('\u001B[2J'), command);
  }
});
