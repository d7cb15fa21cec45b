import { generateKeyPairSync } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import t from 'tap';
import type { Test } from 'tap';
import { importBundle } from '../../src/airgap/import.ts';
import { readTar } from '../../src/airgap/tar-reader.ts';
import { openStaging } from '../../src/cache/staging.ts';
import { withWorkbench } from '../../src/cli/workbench.ts';
import { importParts } from '../../src/wiring/airgap-parts.ts';
import {
  app,
  appSbom,
  appSignature,
  createSide,
  exportEdge,
  file,
  entry,
  hexDigest,
  joinTar,
  makeLayout,
  partsOf,
  pathOf,
  quiet,
  refName,
  sourceOf,
  splitTar,
  web,
} from '../fixtures/bundles.ts';
import type { Side } from '../fixtures/bundles.ts';
import { buildImage } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';

const arm64 = app.children[1]!;

interface Entry {
  readonly image: string;
  readonly digest: string;
}

async function entriesOf(side: Side, set: string): Promise<Entry[]> {
  const { out } = await side.run('sets', set, '--json');
  return (JSON.parse(out) as Entry[]).map(({ image, digest }) => ({ image, digest }));
}

/** What a store has on its disk, and which files these are: one that is written again is another. */
async function blobsOf({ store }: Side): Promise<string[]> {
  const folder = join(store, 'blobs/sha256');
  const names = (await readdir(folder)).toSorted();
  return Promise.all(names.map(async (name) => `${name} ${(await stat(join(folder, name))).ino}`));
}

const hasBlob = async (side: Side, { digest }: Content) =>
  (await blobsOf(side)).some((one) => one.startsWith(digest.slice(7)));

void t.test('import: all of a bundle is here, and is served offline', async (t) => {
  const { hub, file } = await exportEdge(t);
  await hub.close();
  const far = await createSide(t);
  const { code, out, err } = await far.run('import', file);
  t.same({ code, err }, { code: 0, err: '' });
  t.equal(
    out,
    `IMAGE                    PLATFORM     HERE      DIGEST
docker.io/library/app:1  linux/arm64  complete  ${app.index.digest}
docker.io/library/web:2  linux/arm64  complete  ${web.index.digest}

2 images taken in; they stay as the set edge
Serve them without a network: narrows serve --offline
`,
  );
  t.match(await far.run('check'), { code: 0, out: /2 images complete: nothing of them is missing here\n$/ });
  t.same(await entriesOf(far, 'edge'), [
    { image: 'docker.io/library/app:1', digest: app.index.digest },
    { image: 'docker.io/library/web:2', digest: web.index.digest },
  ]);
  t.same(
    (await far.seen()).files.filter((path) => path.startsWith('imports')),
    [],
    'nothing is left of the way',
  );
  const { get } = await startTestMirror(t, {
    upstreams: { 'docker.io': 'http://127.0.0.1:9' },
    store: far.store,
    config: { offline: true },
  });
  const base = '/v2/docker.io/library/app';
  for (const [path, { bytes, digest }] of [
    [`${base}/manifests/1`, app.index],
    [`${base}/manifests/${app.index.digest}`, app.index],
    [`${base}/manifests/${arm64.manifest.digest}`, arm64.manifest],
    [`${base}/manifests/${app.attestations[1]!.digest}`, app.attestations[1]!],
    [`${base}/manifests/${appSignature.tag}`, appSignature.manifest],
    [`${base}/manifests/${appSbom.manifest.digest}`, appSbom.manifest],
    ...[arm64.config, ...arm64.layers, ...appSignature.blobs, ...appSbom.blobs].map(
      (blob) => [`${base}/blobs/${blob.digest}`, blob] as const,
    ),
  ] as const) {
    const answer = await get(path);
    t.match(answer, { status: 200, headers: { 'docker-content-digest': digest } }, path);
    t.same(answer.body, bytes, path);
  }
  t.same((await get('/p/linux-arm64/v2/docker.io/library/app/manifests/1')).body, arm64.manifest.bytes);
  const referrers = await get(`${base}/referrers/${arm64.manifest.digest}`);
  t.match(referrers.json(), {
    manifests: [{ digest: appSbom.manifest.digest, artifactType: 'application/spdx+json' }],
  });
});

void t.test('import --json: what was taken in, for machines', async (t) => {
  const { file } = await exportEdge(t);
  const far = await createSide(t);
  const { code, out } = await far.run('import', file, '--json');
  t.equal(code, 0);
  t.match(JSON.parse(out), {
    set: 'edge',
    images: [
      { image: 'docker.io/library/app:1', digest: app.index.digest, status: 'complete' },
      { image: 'docker.io/library/web:2', digest: web.index.digest, status: 'complete' },
    ],
  });
});

void t.test('a second import of the same bundle changes nothing', async (t) => {
  const { file } = await exportEdge(t);
  const far = await createSide(t);
  const first = await far.run('import', file);
  const [blobs, entries] = [await blobsOf(far), await entriesOf(far, 'edge')];
  t.same(await far.run('import', file), first);
  t.same(await blobsOf(far), blobs, 'no file was written again');
  t.same(await entriesOf(far, 'edge'), entries);
  t.match(await far.run('check'), { code: 0 });
});

void t.test('a second import takes no more room than the first', async (t) => {
  const { file, bundle } = await exportEdge(t);
  const blobs = splitTar(bundle).slice(3);
  const bytes = blobs.reduce((total, { content }) => total + content.length, 0);
  const far = await createSide(t, undefined, {}, { maxSize: `${Math.ceil(bytes * 1.5)}B` });
  t.match(await far.run('import', file), { code: 0, err: '' });
  t.match(await far.run('import', file), { code: 0, err: '' }, 'all of it is there already');
});

void t.test('35. a bundle that is larger than the store is refused before its blobs are read', async (t) => {
  const { bundle } = await exportEdge(t);
  const parts = splitTar(bundle);
  const bytes = parts.slice(3).reduce((total, { content }) => total + content.length, 0);
  const far = await createSide(t, undefined, {}, { maxSize: `${bytes - 1}B` });
  // Its blobs are not even there.
  await writeFile(far.path('cut.tar'), joinTar(parts.slice(0, 1)));
  const before = await far.seen();
  const sentence = `the bundle: brings ${bytes} bytes, and there is room for ${bytes - 1} beside what is pinned: raise cache.disk.maxSize, or drop a set`;
  t.strictSame(await far.run('import', far.path('cut.tar')), {
    code: 1,
    out: '',
    err: `Refused, and nothing of it was kept. ${sentence}.\n`,
  });
  t.same(await far.seen(), before);
});

void t.test('a layout of others that is larger than the store is refused as well', async (t) => {
  const blobs = [app.index, ...partsOf(app, 'linux/arm64'), ...app.blobs.slice(4), ...app.attestations];
  const sizes = blobs.map(({ bytes }) => bytes.length);
  const far = await createSide(t, undefined, {}, { maxSize: `${Math.max(...sizes) + 100}B` });
  const others = makeLayout([entry(app.index, { [refName]: 'docker.io/library/app:1' })], blobs);
  await writeFile(far.path('layout.tar'), joinTar(others));
  const before = await far.seen();
  t.match(await far.run('import', far.path('layout.tar')), { code: 1, err: /raise cache\.disk\.maxSize/ });
  t.same(await far.seen(), before);
});

void t.test('compressed: the sentence says how to unpack it', async (t) => {
  const { bundle } = await exportEdge(t);
  const far = await createSide(t);
  const before = await far.seen();
  for (const [how, bytes] of [
    ['gunzip -c', gzipSync(bundle)],
    ['zstd -dc', zstdCompressSync(bundle)],
    ['xz -dc', Buffer.from('fd377a585a0000', 'hex')],
  ] as const) {
    await writeFile(far.path('packed'), bytes);
    t.same(await far.run('import', far.path('packed')), {
      code: 2,
      out: '',
      err: `This is compressed: ${how} FILE | narrows import -\n`,
    });
  }
  t.same(await far.seen(), before);
});

void t.test('what is not there, or no image, is wrong use', async (t) => {
  const far = await createSide(t);
  t.match(await far.run('import', far.path('nothing.tar')), {
    code: 2,
    err: /nothing\.tar cannot be read \(ENOENT\)\.\n$/,
  });
  t.match(await far.run('import'), { code: 2 });
  t.match(await far.run('import', 'x', '--as', 'NO:1'), { code: 2, err: /^--as NO:1: / });
  t.match(await far.run('import', 'x', '--set', '../x'), { code: 2, err: /is no name of a set/ });
});

void t.test('since: what an earlier bundle brought is not in the next one, and has to be here', async (t) => {
  const { hub, near, file: base } = await exportEdge(t, ['app:1']);
  t.equal((await near.run('warm', 'web:2', '--platform', 'linux/arm64', '--set', 'edge', '--add')).code, 0);
  const delta = near.path('delta.tar');
  t.match(await near.run('export', '--set', 'edge', '--since', base, '-o', delta), { code: 0 });
  await hub.close();
  const [baseParts, deltaParts] = [splitTar(await readFile(base)), splitTar(await readFile(delta))];
  const paths = new Set(baseParts.slice(3).map(pathOf));
  t.same(
    deltaParts
      .slice(3)
      .map(pathOf)
      .filter((path) => paths.has(path)),
    [],
    'nothing goes twice',
  );

  const far = await createSide(t);
  const before = await far.seen();
  const refused = await far.run('import', delta);
  t.match(refused, { code: 1, out: '' });
  t.match(
    refused.err,
    /^Refused, and nothing of it was kept\. needs: it goes on from an earlier bundle, of which \d+ blobs \(\d+ bytes\) are not here, such as sha256:[0-9a-f]{64}; import that one first \(its first entry is narrows\/[0-9a-f]{64}\.json\)\.\n$/,
  );
  t.match(refused.err, pathOf(baseParts[0]!), 'it says which one');
  t.match(refused.err, `${baseParts.length - 3} blobs`);
  t.same(await far.seen(), before);

  t.equal((await far.run('import', base)).code, 0);
  t.match(await far.run('import', delta), { code: 0, err: '' });
  t.match(await far.run('check', '--set', 'edge'), { code: 0, out: /2 images complete/ });
  t.same(
    (await entriesOf(far, 'edge')).map(({ image }) => image),
    ['docker.io/library/app:1', 'docker.io/library/web:2'],
  );
});

/** Stops an import when so many bytes of blobs have come. @returns what it ended with */
async function interrupted(side: Side, bundle: Buffer, afterBytes: number): Promise<unknown> {
  return withWorkbench({ config: side.file, offline: true }, quiet, async (bench) => {
    const staging = (await openStaging(side.store, Date.now))!;
    const stopping = new AbortController();
    let bytes = 0;
    const parts = importParts({
      config: bench.config,
      work: bench,
      staging,
      checkSignature: () => undefined,
      onBytes(count) {
        bytes += count;
        if (bytes >= afterBytes) stopping.abort(new Error('stopped'));
      },
      now: Date.now,
    });
    try {
      await importBundle(parts, (isStrict) => readTar(sourceOf(bundle, 100), isStrict), {
        as: undefined,
        set: undefined,
        isFolder: false,
        signal: stopping.signal,
      });
      return undefined;
    } catch (error) {
      return error;
    } finally {
      staging.close();
    }
  });
}

void t.test('interrupted, nothing of it can be seen, and the same command goes on', async (t) => {
  const { bundle, file } = await exportEdge(t);
  const far = await createSide(t);
  for (const bytes of [1, 1500, 3000, 5000]) {
    t.match(await interrupted(far, bundle, bytes), { message: 'stopped' }, `after ${bytes} bytes`);
    const { files, sets } = await far.seen();
    t.same(sets, [[]]);
    t.same(
      files.filter((path) => path.startsWith('blobs/sha256/')),
      [],
    );
    const staged = files.filter((path) => path.startsWith('imports/'));
    t.ok(bytes < 1000 || staged.length > 0, `${staged.length} blobs wait`);
    t.notOk(
      staged.some((path) => path.endsWith('.part')),
      'none of them is half of one',
    );
  }
  t.match(await far.run('import', file), { code: 0, err: '' });
  t.match(await far.run('check'), { code: 0, out: /2 images complete/ });
  t.same(
    (await far.seen()).files.filter((path) => path.startsWith('imports')),
    [],
  );
});

void t.test('interrupted, and then it is broken: nothing of it is kept', async (t) => {
  const { bundle } = await exportEdge(t);
  const far = await createSide(t);
  const before = await far.seen();
  t.match(await interrupted(far, bundle, 3000), { message: 'stopped' });
  await writeFile(far.path('broken.tar'), bundle.subarray(0, -1200));
  t.match(await far.run('import', far.path('broken.tar')), { code: 1, err: /^Refused, and nothing of it was kept\. / });
  t.same(await far.seen(), before);
});

void t.test('half of a blob, which a kill has left, is swept away', async (t) => {
  const { file } = await exportEdge(t);
  const far = await createSide(t);
  t.equal((await far.run('import', file)).code, 0);
  const { files } = await far.seen();
  await writeFile(join(far.store, 'imports', `sha256-${'0'.repeat(64)}.part`), 'half');
  t.equal((await far.run('import', file)).code, 0);
  t.same((await far.seen()).files, files);
});

void t.test('one import at a time', async (t) => {
  const { file } = await exportEdge(t);
  const far = await createSide(t);
  t.equal((await far.run('sets')).code, 0);
  const other = (await openStaging(far.store, Date.now))!;
  t.same(await far.run('import', file), {
    code: 1,
    out: '',
    err: 'Another import into this store is under way; wait for it to end.\n',
  });
  other.close();
  t.equal((await far.run('import', file)).code, 0);
});

void t.test('a newer bundle of a set takes the place of the older', async (t) => {
  const { hub, near, file } = await exportEdge(t);
  const far = await createSide(t);
  t.equal((await far.run('import', file)).code, 0);
  const newer = buildImage({ platforms: ['linux/arm64'], seed: 'newer' });
  hub.putImage('library/web', '3', newer);
  const newerFile = near.path('newer.tar');
  t.equal((await near.run('warm', 'app:1', 'web:3', '--platform', 'linux/arm64', '--set', 'edge')).code, 0);
  t.equal((await near.run('export', '--set', 'edge', '-o', newerFile)).code, 0);
  t.equal((await far.run('import', newerFile)).code, 0);
  t.same(await entriesOf(far, 'edge'), [
    { image: 'docker.io/library/app:1', digest: app.index.digest },
    { image: 'docker.io/library/web:3', digest: newer.index.digest },
  ]);
  t.match(await far.run('check', '--set', 'edge'), { code: 0, out: /2 images complete/ });
  t.equal((await far.run('import', file)).code, 0, 'and back again');
  t.same(
    (await entriesOf(far, 'edge')).map(({ image }) => image),
    ['docker.io/library/app:1', 'docker.io/library/web:2'],
  );
});

void t.test('--set: it stays under another name, beside what the bundle says', async (t) => {
  const { file } = await exportEdge(t);
  const far = await createSide(t);
  t.match(await far.run('import', file, '--set', 'mine'), { code: 0, out: /they stay as the set mine\n/ });
  t.match(JSON.parse((await far.run('sets', '--json')).out), [{ name: 'mine', images: 2, incomplete: 0 }]);
  t.equal((await far.run('import', file)).code, 0);
  t.match(JSON.parse((await far.run('sets', '--json')).out), [{ name: 'edge' }, { name: 'mine' }]);
  t.equal((await far.run('sets', '--drop', 'edge')).code, 0);
  t.match(await far.run('check'), { code: 0, out: /2 images complete/ });
});

void t.test('what no set was exported as is added to the set default', async (t) => {
  const { near } = await exportEdge(t);
  const far = await createSide(t);
  for (const [at, image] of ['app:1', 'web:2'].entries()) {
    const one = near.path(`${at}.tar`);
    t.equal((await near.run('export', image, '--platform', 'linux/arm64', '-o', one)).code, 0);
    t.match(await far.run('import', one), { code: 0, out: /they stay as the set default\n/ });
  }
  t.same(
    (await entriesOf(far, 'default')).map(({ image }) => image),
    ['docker.io/library/app:1', 'docker.io/library/web:2'],
  );
});

void t.test('platforms of an image come one after another', async (t) => {
  const { near } = await exportEdge(t);
  t.equal((await near.run('warm', 'app:1', '--platform', 'linux/amd64', '--set', 'other')).code, 0);
  const far = await createSide(t);
  for (const set of ['edge', 'other']) {
    t.equal((await near.run('export', '--set', set, '-o', near.path(set))).code, 0);
    t.equal((await far.run('import', near.path(set))).code, 0);
  }
  t.match(await far.run('check', 'app:1', '--platform', 'linux/amd64,linux/arm64'), { code: 0 });
  t.ok(await hasBlob(far, app.children[0]!.layers[0]!));
});

const kinds: Record<string, () => { privateKey: KeyObject; publicKey: KeyObject }> = {
  Ed25519: () => generateKeyPairSync('ed25519'),
  ECDSA: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RSA: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
};

async function keysOf(side: Side, kind: string, name: string): Promise<{ own: string; open: string }> {
  const { privateKey, publicKey } = kinds[kind]!();
  const [own, open] = [side.path(`${name}.pem`), side.path(`${name}.pub`)];
  await writeFile(own, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  await writeFile(open, publicKey.export({ type: 'spki', format: 'pem' }));
  return { own, open };
}

async function refused(t: Test, far: Side, args: readonly string[], sentence: string): Promise<void> {
  const before = await far.seen();
  const err = `Refused, and nothing of it was kept. the bundle: ${sentence}.\n`;
  t.strictSame(await far.run('import', ...args), { code: 1, out: '', err });
  t.strictSame(await far.seen(), before);
}

for (const kind of Object.keys(kinds)) {
  void t.test(`signed with ${kind}: only what the right key has signed is taken in`, async (t) => {
    const { near } = await exportEdge(t);
    const far = await createSide(t);
    const [right, wrong] = [await keysOf(near, kind, 'right'), await keysOf(near, kind, 'wrong')];
    const signed = near.path('signed.tar');
    t.equal((await near.run('export', '--set', 'edge', '--sign-key', right.own, '-o', signed)).code, 0);
    const parts = splitTar(await readFile(signed));
    t.equal(pathOf(parts[1]!), pathOf(parts[0]!).replace(/json$/, 'sig'));
    await refused(t, far, [signed, '--verify-key', wrong.open], 'is signed by another key than that of --verify-key');

    const asked = ['--verify-key', right.open];
    const notSigned = 'is not signed, and --verify-key says that it has to be';
    await writeFile(far.path('bare.tar'), joinTar(parts.toSpliced(1, 1)));
    await refused(t, far, [far.path('bare.tar'), ...asked], notSigned);
    await writeFile(far.path('layout.tar'), joinTar(parts.toSpliced(0, 2)));
    await refused(t, far, [far.path('layout.tar'), ...asked], notSigned);
    await writeFile(far.path('late.tar'), joinTar([...parts.toSpliced(1, 1), parts[1]!]));
    await refused(t, far, [far.path('late.tar'), ...asked], notSigned);
    const other = parts[0]!.content.toString().replace('edge', 'edgy');
    const forged = [
      file(`narrows/${hexDigest(Buffer.from(other))}.json`, other),
      file(`narrows/${hexDigest(Buffer.from(other))}.sig`, parts[1]!.content),
    ];
    await writeFile(far.path('forged.tar'), joinTar([...forged, ...parts.slice(2)]));
    await refused(t, far, [far.path('forged.tar'), ...asked], 'is signed by another key than that of --verify-key');
    await writeFile(far.path('empty.tar'), joinTar(parts.with(1, file(pathOf(parts[1]!), ''))));
    await refused(t, far, [far.path('empty.tar'), ...asked], 'is signed by another key than that of --verify-key');

    t.match(await far.run('import', signed, ...asked), { code: 0, err: '' });
    t.match(await far.run('check'), { code: 0 });
  });
}

void t.test('signed, and nobody asks: it is taken in; a key that is none is wrong use', async (t) => {
  const { near, file: unsigned } = await exportEdge(t);
  const far = await createSide(t);
  const { own, open } = await keysOf(near, 'Ed25519', 'right');
  const signed = near.path('signed.tar');
  t.equal((await near.run('export', '--set', 'edge', '--sign-key', own, '-o', signed)).code, 0);
  t.match(await far.run('import', signed, '--verify-key', near.path('nothing')), {
    code: 2,
    err: /is no public key in PEM/,
  });
  t.match(await far.run('import', signed, '--verify-key', unsigned), { code: 2, err: /is no public key in PEM/ });
  t.match(await near.run('export', '--set', 'edge', '--sign-key', open, '-o', signed), {
    code: 2,
    err: /is no private key in PEM/,
  });
  t.equal((await far.run('import', signed)).code, 0);
});
