import { Readable } from 'node:stream';
import { existsSync } from 'node:fs';
import { copyFile, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import type { Test } from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { run } from '../../src/cli/program.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { filesOf, until } from '../fixtures/downloads.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { BuiltChild, Content } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], payloadBytes: 2_000_000, seed: 'verified' });
const [, arm64] = image.children as [BuiltChild, BuiltChild];
const layer = arm64.layers[0]!;
/** What a client of arm64 leaves in a store. */
const everything = [image.index, arm64.manifest, arm64.config, layer];

async function prepare(t: Test) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  registry.putImage('library/app', '1', image);
  const upstreams = { 'docker.io': { url: registry.url } };
  const mirror = await startTestMirror(t, { upstreams });
  const fileOf = ({ digest }: Pick<Content, 'digest'>) => join(mirror.store, 'blobs/sha256', hexOf(digest));
  await mirror.get('/p/linux-arm64/v2/docker.io/library/app/manifests/1', { accept });
  for (const { digest } of [arm64.config, layer]) await mirror.get(`/v2/docker.io/library/app/blobs/${digest}`);
  await until(() => everything.every((held) => existsSync(fileOf(held))), 'the image on the disk');
  registry.forget();
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, JSON.stringify({ upstreams, cache: { disk: { path: mirror.store } } }));
  const verify = (...args: string[]) => runCommand(['verify', '--config', file, ...args]);
  return { registry, mirror, file, fileOf, verify };
}

type Stage = Awaited<ReturnType<typeof prepare>>;

/** One bit in the middle. */
async function flip({ fileOf }: Pick<Stage, 'fileOf'>, held: Content): Promise<void> {
  const bytes = Buffer.from(held.bytes);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(fileOf(held), bytes);
}

/** All that is here is what its name says. */
async function areRight({ mirror }: Stage, all: readonly Content[]): Promise<boolean> {
  const { blobs } = await filesOf(mirror.store);
  const right = await Promise.all(
    blobs.map(async (file) => digestOf(await readFile(file)) === `sha256:${basename(file)}`),
  );
  const names = blobs.map((file) => `sha256:${basename(file)}`).toSorted();
  return (
    right.every(Boolean) &&
    names.join() ===
      all
        .map(({ digest }) => digest)
        .toSorted()
        .join()
  );
}

void t.test('verify: a store that is right', async (t) => {
  const stage = await prepare(t);
  const { registry, verify } = stage;
  t.same(await verify(), { code: 0, out: '4 blobs, 1.9 MiB, all of them right\n', err: '' });
  t.same(JSON.parse((await verify('--json')).out), {
    blobs: 4,
    bytes: everything.reduce((sum, { bytes }) => sum + bytes.length, 0),
    wrong: [],
    lost: [],
    unreadable: [],
    repaired: [],
  });
  t.same(registry.seen, []);
  const empty = await verify('--store', await temporaryFolder(t));
  t.same(empty, { code: 0, out: '0 blobs, 0 B, all of them right\n', err: '' });
});

void t.test('verify: a wrong blob is fetched again, beside a running server', async (t) => {
  const stage = await prepare(t);
  const { registry, mirror, verify } = stage;
  await flip(stage, layer);
  t.same(await verify(), {
    code: 0,
    out: `${layer.digest} was not what its name says; fetched again\n4 blobs, 1.9 MiB, 1 of them wrong\n`,
    err: '',
  });
  t.ok(await areRight(stage, everything));
  t.equal(registry.count('GET blobs', layer.digest), 1);
  const path = `/v2/docker.io/library/app/blobs/${layer.digest}`;
  t.ok((await mirror.get(path)).body.equals(layer.bytes), 'the server goes on with what is there now');
  t.equal(registry.count('GET blobs'), 1);
  t.match(await verify(), { code: 0, out: '4 blobs, 1.9 MiB, all of them right\n' });
});

void t.test('verify: a wrong manifest, index or config is fetched again', async (t) => {
  const stage = await prepare(t);
  await stage.mirror.stop();
  const broken = [image.index, arm64.manifest, arm64.config];
  for (const held of broken) await flip(stage, held);
  const { code, out, err } = await stage.verify('--json');
  t.match({ code, err }, { code: 0, err: '' });
  const found = JSON.parse(out) as { wrong: string[]; repaired: string[]; lost: string[]; blobs: number };
  const digests = broken.map(({ digest }) => digest).toSorted();
  t.same(found.wrong.toSorted(), digests);
  t.same(found.repaired.toSorted(), digests);
  t.match(found, { lost: [], blobs: 4 });
  t.ok(await areRight(stage, everything));
  t.equal(stage.registry.count('GET blobs', layer.digest), 0, 'what is right is not fetched');
});

void t.test('verify: --no-repair only removes, asks nobody and is exit 1', async (t) => {
  const stage = await prepare(t);
  await flip(stage, layer);
  await flip(stage, arm64.config);
  const { code, out, err } = await stage.verify('--no-repair');
  t.equal(code, 1);
  t.same(out.split('\n').toSorted(), [
    '',
    '4 blobs, 1.9 MiB, 2 of them wrong',
    ...[layer, arm64.config].map(({ digest }) => `${digest} was not what its name says; removed`).toSorted(),
  ]);
  t.equal(err, '2 wrong blobs removed, and not fetched again.\n');
  t.same(stage.registry.seen, []);
  t.ok(await areRight(stage, [image.index, arm64.manifest]));
  t.same(await stage.verify('--no-repair'), { code: 0, out: '2 blobs, 896 B, all of them right\n', err: '' });
});

void t.test('verify: what cannot be fetched again is removed and told', async (t) => {
  const stage = await prepare(t);
  await flip(stage, layer);
  await stage.registry.close();
  const { code, out, err } = await stage.verify();
  t.equal(code, 1);
  t.equal(out, `${layer.digest} was not what its name says; removed\n4 blobs, 1.9 MiB, 1 of them wrong\n`);
  const lines = err.trimEnd().split('\n');
  t.equal(lines.pop(), '1 wrong blob removed, and not fetched again.');
  t.ok(lines.length > 0 && lines.every((line) => line.includes('ECONNREFUSED')), 'and why');
  t.ok(await areRight(stage, [image.index, arm64.manifest, arm64.config]));
});

void t.test('verify: an upstream that has other bytes now repairs nothing', async (t) => {
  const stage = await prepare(t);
  await flip(stage, layer);
  stage.registry.put('library/app', { ...layer, bytes: noise('other bytes', layer.bytes.length) });
  const { code, out } = await stage.verify();
  t.equal(code, 1);
  t.match(out, `${layer.digest} was not what its name says; removed\n`);
  t.ok(await areRight(stage, [image.index, arm64.manifest, arm64.config]));
});

void t.test('verify: a file deleted behind the books comes back, or goes out of them', async (t) => {
  const stage = await prepare(t);
  await rm(stage.fileOf(layer));
  t.same(await stage.verify('--no-repair'), {
    code: 0,
    out: `${layer.digest} was in the books and not there; struck off\n3 blobs, 1.2 KiB, all of them right\n`,
    err: '',
  });
  t.match(await stage.verify(), { code: 0, out: '3 blobs, 1.2 KiB, all of them right\n' });
  await stage.mirror.get(`/v2/docker.io/library/app/blobs/${layer.digest}`);
  await until(() => existsSync(stage.fileOf(layer)), 'the blob on the disk');
  await rm(stage.fileOf(layer));
  t.match(await stage.verify('--json'), { code: 0, out: new RegExp(`"repaired": \\[\n    "${layer.digest}"`) });
  t.ok(await areRight(stage, everything));
});

void t.test('verify: what cannot be read is left, told and exit 1', async (t) => {
  const stage = await prepare(t);
  const file = stage.fileOf(layer);
  await rename(file, join(stage.mirror.store, 'elsewhere'));
  await symlink(join(stage.mirror.store, 'elsewhere'), file);
  t.same(await stage.verify(), {
    code: 1,
    out: `${layer.digest} could not be read to its end; left as it is\n3 blobs, 1.2 KiB, all of them right\n`,
    err: '1 blob could not be read; the disk may be failing.\n',
  });
  t.ok(existsSync(file));
});

void t.test('verify: what was copied in is read too, and of a wrong one nobody knows where it is from', async (t) => {
  const stage = await prepare(t);
  const right = { digest: digestOf(noise('copied', 1000)) };
  const wrong = { digest: digestOf(noise('what it should be', 1000)) };
  await writeFile(stage.fileOf(right), noise('copied', 1000));
  await copyFile(stage.fileOf(right), stage.fileOf(wrong));
  const { code, out, err } = await stage.verify();
  t.equal(code, 1);
  t.equal(out, `${wrong.digest} was not what its name says; removed\n6 blobs, 1.9 MiB, 1 of them wrong\n`);
  t.equal(err, '1 wrong blob removed, and not fetched again.\n');
  t.ok(existsSync(stage.fileOf(right)));
});

void t.test('verify: it leaves who is to go first as it was', async (t) => {
  const { mirror, verify } = await prepare(t);
  await mirror.stop();
  const oldest = () => {
    const catalog = openCatalog(join(mirror.store, 'catalog.sqlite'), Date.now);
    const found = catalog.oldest(10);
    catalog.close();
    return found;
  };
  const before = oldest();
  t.equal(before.length, 4);
  await verify();
  t.same(oldest(), before, 'to be read by this is no use');
});

void t.test('verify: on a terminal a bar is drawn, and JSON beside it stays JSON', async (t) => {
  const { file } = await prepare(t);
  const printed = { out: '', err: '' };
  const code = await run(['verify', '--config', file, '--json'], {
    env: {},
    isTerminal: true,
    input: () => Readable.from([]),
    write: () => Promise.resolve(),
    out: (text) => void (printed.out += text),
    err: (text) => void (printed.err += text),
    onStop: () => undefined,
    onReload: () => undefined,
  });
  t.equal(code, 0);
  t.match(
    stripVTControlCharacters(printed.err),
    /^\rverifying ━{30} [\d.]+ (?:[KM]i)?B of 1\.9 MiB, .*s left(?:\rverifying .*)?\r$/,
  );
  t.match(JSON.parse(printed.out), { blobs: 4, wrong: [] });
});

void t.test('verify: wrong use, and a store that cannot be used', async (t) => {
  const { verify } = await prepare(t);
  t.equal((await verify('more')).code, 2);
  t.match(await runCommand(['verify', '--help']), { code: 0, out: /Example:\n {2}narrows verify / });
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'store'), 'in the way');
  const refused = await verify('--store', join(folder, 'store'));
  t.match(refused, { code: 1, out: '', err: /^The store [^\n]*\/store cannot be used \(E[A-Z]+\); [^\n]+\n$/ });
});
