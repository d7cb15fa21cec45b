import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { planBundle, writeBundle } from '../../src/airgap/export.ts';
import { wantedOfEntry } from '../../src/cli/choice.ts';
import { withWorkbench } from '../../src/cli/workbench.ts';
import type { Reader } from '../../src/pull/reader.ts';
import {
  app,
  appSbom,
  appSignature,
  createSide,
  exportEdge,
  hexDigest,
  pathOf,
  quiet,
  referrerOf,
  sha512Image,
  signatureOf,
  splitTar,
  startHub,
} from '../fixtures/bundles.ts';
import type { Side } from '../fixtures/bundles.ts';

async function exported(side: Side, ...args: string[]): Promise<Buffer> {
  const { code, err } = await side.run('export', ...args, '-o', side.path('again.tar'));
  if (code !== 0) throw new Error(err);
  return readFile(side.path('again.tar'));
}

void t.test('76. export: the same images are the same bytes, from whatever store and in whatever order', async (t) => {
  const { hub, near, bundle } = await exportEdge(t);
  t.same(await exported(near, '--set', 'edge'), bundle, 'once again');
  const other = await createSide(t, hub.url);
  for (const image of ['web:2', 'app:1'])
    t.equal((await other.run('warm', image, '--platform', 'linux/arm64', '--set', 'edge', '--add')).code, 0);
  t.same(await exported(other, '--set', 'edge'), bundle, 'from another store');

  const platform = ['--platform', 'linux/arm64'];
  const named = await exported(near, 'app:1', 'web:2', ...platform);
  t.same(await exported(near, 'web:2', 'app:1', ...platform), named, 'in another order');
  t.same(await exported(near, 'web:2', 'app:1', 'docker.io/library/web:2', ...platform), named, 'twice');
  t.same(await exported(other, 'docker.io/library/app:1', 'web:2', ...platform), named, 'by another name');
});

void t.test('export: what another side has imported, it exports as the same bytes', async (t) => {
  const { bundle, file } = await exportEdge(t);
  const far = await createSide(t);
  t.equal((await far.run('import', file)).code, 0);
  t.same(await exported(far, '--set', 'edge'), bundle);
});

void t.test('export: the same bytes, in whatever order a store answers', async (t) => {
  const hub = await startHub(t);
  for (const [at, child] of app.children.entries()) {
    const signature = signatureOf(child.manifest);
    const sboms = [referrerOf(child.manifest, `${at} first`), referrerOf(child.manifest, `${at} second`)];
    for (const { manifest, blobs } of [signature, ...sboms])
      for (const held of [manifest, ...blobs]) hub.put('library/app', held);
    hub.put('library/app', signature.manifest, signature.tag);
  }
  const near = await createSide(t, hub.url);
  t.equal((await near.run('warm', 'app:1', '--platform', 'linux/amd64,linux/arm64', '--set', 'edge')).code, 0);
  await withWorkbench({ config: near.file, offline: true }, quiet, async ({ pull, storage }) => {
    const wanted = storage.catalog.sets.entries('edge').map((entry) => wantedOfEntry(pull.reader, entry));
    const sums = new Set<string>();
    for (let seed = 1; seed <= 20; seed++) {
      const reader = shuffled(pull.reader, seed);
      const pieces: Buffer[] = [];
      for await (const piece of writeBundle(reader, await planBundle({ reader, since: [] }, wanted))) {
        pieces.push(Buffer.from(piece));
      }
      sums.add(hexDigest(Buffer.concat(pieces)));
    }
    t.equal(sums.size, 1, 'twenty orders, one bundle');
  });
});

/** Answers later, by turns of the event loop that are others for each seed. */
function shuffled(reader: Reader, seed: number): Reader {
  let asked = 0;
  const late = async <T>(answer: () => Promise<T>): Promise<T> => {
    const turns = ((asked++ + 1) * seed * 7) % 11;
    for (let left = turns; left > 0; left--) await turn();
    return answer();
  };
  return {
    ...reader,
    tag: (...args) => late(() => reader.tag(...args)),
    manifest: (...args) => late(() => reader.manifest(...args)),
    referrers: (...args) => late(() => reader.referrers(...args)),
    small: (...args) => late(() => reader.small(...args)),
  };
}

void t.test(
  'export: a bundle holds all that belongs to its images for their platforms, and nothing else',
  async (t) => {
    const { bundle } = await exportEdge(t, ['app:1']);
    const parts = splitTar(bundle);
    const arm64 = app.children[1]!;
    const attestation = app.attestations[1]!;
    const { config, layers } = JSON.parse(attestation.bytes.toString()) as {
      config: { digest: string };
      layers: { digest: string }[];
    };
    const expected = [
      app.index,
      arm64.manifest,
      arm64.config,
      ...arm64.layers,
      attestation,
      config,
      ...layers,
      appSignature.manifest,
      ...appSignature.blobs,
      appSbom.manifest,
      ...appSbom.blobs,
    ].map(({ digest }) => `blobs/${digest.replace(':', '/')}`);
    t.same(parts.slice(3).map(pathOf).toSorted(), expected.toSorted());
    t.match(pathOf(parts[0]!), /^narrows\/[0-9a-f]{64}\.json$/);
    t.same(parts.slice(1, 3).map(pathOf), ['oci-layout', 'index.json']);
    for (const part of parts.slice(3)) t.equal(hexDigest(part.content), pathOf(part).slice('blobs/sha256/'.length));
  },
);

void t.test('export: what is not all here is not written at all', async (t) => {
  const { near } = await exportEdge(t);
  const refused = await near.run('export', 'app:1', '--platform', 'linux/amd64', '-o', near.path('partial.tar'));
  t.match(refused, { code: 1, out: '', err: /narrows check says what is missing; nothing was written\.\n$/ });
  t.same(
    (await readdir(join(near.folder))).filter((name) => name.startsWith('partial')),
    [],
  );
});

void t.test('export: an image whose blobs are named by sha512 arrives', async (t) => {
  const hub = await startHub(t);
  const { manifest, blobs } = sha512Image(app.children[1]!);
  for (const held of [manifest, ...blobs]) hub.put('library/long', held);
  hub.put('library/long', manifest, '1');
  const near = await createSide(t, hub.url);
  t.match(await near.run('warm', 'long:1', '--platform', 'linux/arm64', '--set', 'long'), { code: 0 });
  const bundle = near.path('long.tar');
  t.match(await near.run('export', '--set', 'long', '-o', bundle), { code: 0 });
  const far = await createSide(t);
  t.match(await far.run('import', bundle), { code: 0, err: '' });
  t.match(await far.run('check', '--set', 'long'), { code: 0 });
});
