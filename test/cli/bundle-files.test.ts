import { spawnSync } from 'node:child_process';
import { mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import t from 'tap';
import type { ByteSource } from '../../src/airgap/tar-reader.ts';
import { createBundleWriter, folderEntries, openBundle, partsOf } from '../../src/cli/bundle-files.ts';
import type { OpenBundle } from '../../src/cli/bundle-files.ts';
import type { Io } from '../../src/cli/io.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { failureOf } from '../fixtures/servers.ts';

const bytes = noise('a bundle', 2_500_000);

const io: Io = {
  env: {},
  isTerminal: false,
  input: () => Readable.from([bytes.subarray(0, 10), Buffer.alloc(0), bytes.subarray(10)]),
  write: () => Promise.resolve(),
  out: () => undefined,
  err: () => undefined,
  onStop: () => undefined,
  onReload: () => undefined,
};

async function open(t: Teardown, ...paths: string[]): Promise<OpenBundle> {
  const bundle = await openBundle(paths, io);
  t.teardown(() => bundle.close());
  return bundle;
}

async function readAll(source: ByteSource, pieceBytes = 1_000_000_000): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let piece; (piece = await source.read(pieceBytes)).length > 0;) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** Writes the bytes as a bundle, in pieces that fit nothing. */
async function write(path: string, partBytes?: number, content = bytes): Promise<string[]> {
  const writer = createBundleWriter(path, partBytes);
  for (let at = 0; at < content.length; at += 77_777) await writer.write(content.subarray(at, at + 77_777));
  return writer.finish();
}

const namesIn = async (folder: string) => (await readdir(folder)).toSorted();

void t.test('writer: one file, with its sum beside it', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'bundle.tar');
  t.same(await write(path), [path]);
  t.same(await namesIn(folder), ['bundle.tar', 'bundle.tar.sha256']);
  t.ok((await readFile(path)).equals(bytes));
});

void t.test('writer: parts of the size that was said, and the last with the rest', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'bundle.tar');
  const parts = await write(path, 1_000_000);
  t.same(parts, [`${path}.001`, `${path}.002`, `${path}.003`]);
  const contents = await Promise.all(parts.map((part) => readFile(part)));
  t.same(
    contents.map(({ length }) => length),
    [1_000_000, 1_000_000, 500_000],
  );
  t.ok(Buffer.concat(contents).equals(bytes));
  await write(path, 1_250_000);
  t.same(await namesIn(folder), ['bundle.tar.001', 'bundle.tar.002', 'bundle.tar.sha256'], 'no empty part at the end');
});

void t.test('writer: the sums are those that sha256sum finds', async (t) => {
  for (const partBytes of [undefined, 1_000_000]) {
    const folder = await temporaryFolder(t);
    await write(join(folder, 'bundle.tar'), partBytes);
    const check = () =>
      spawnSync('sha256sum', ['-c', 'bundle.tar.sha256'], { cwd: folder, encoding: 'utf8', env: { LC_ALL: 'C' } });
    const { status, stdout } = check();
    t.equal(status, 0);
    t.equal(stdout.trim().split('\n').length, partBytes === undefined ? 1 : 3);
    const [first] = (await readdir(folder)).filter((name) => !name.endsWith('.sha256'));
    await writeFile(join(folder, first!), 'gone bad');
    t.not(check().status, 0);
  }
});

void t.test('writer: nothing has its name before all of it is there, and given up nothing is left', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'bundle.tar');
  await write(path, 1_000_000);
  const before = await Promise.all((await namesIn(folder)).map((name) => readFile(join(folder, name))));
  for (const [partBytes, partials] of [
    [undefined, ['bundle.tar.partial']],
    [400_000, ['bundle.tar.001.partial', 'bundle.tar.002.partial', 'bundle.tar.003.partial']],
  ] as const) {
    const writer = createBundleWriter(path, partBytes);
    await writer.write(noise('another bundle', 1_000_000));
    const names = await namesIn(folder);
    t.same(
      names.filter((name) => name.endsWith('.partial')),
      partials,
    );
    await writer.abandon();
    const after = await Promise.all((await namesIn(folder)).map((name) => readFile(join(folder, name))));
    t.ok(
      after.length === before.length && after.every((one, at) => one.equals(before[at]!)),
      'the old one is as it was',
    );
  }
});

void t.test('writer: parts of an older bundle of the name go, and what only looks alike stays', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'bundle.tar');
  await write(path, 400_000);
  const others = [
    'bundle.tar.01',
    'bundle.tar.gz',
    'bundle.tar2',
    'bundle.tar.001.bak',
    'a-bundle.tar.001',
    'xbundle.tar',
  ];
  for (const name of others) await writeFile(join(folder, name), 'x');
  await writeFile(join(folder, 'bundle.tar.009.partial'), 'x');
  await write(path, 1_000_000);
  const parts = ['bundle.tar.001', 'bundle.tar.002', 'bundle.tar.003', 'bundle.tar.sha256'];
  t.same(await namesIn(folder), [...parts, ...others].toSorted());
  await write(path);
  t.same(await namesIn(folder), ['bundle.tar', 'bundle.tar.sha256', ...others].toSorted(), 'one file after parts');
  await write(path, 1_000_000);
  t.same(await namesIn(folder), [...parts, ...others].toSorted(), 'and parts after one file');
});

void t.test('writer: a copy that somebody named by its date is no part, and stays', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'bundle.tar.20261101'), 'kept');
  await write(join(folder, 'bundle.tar'), 1_000_000);
  t.ok((await namesIn(folder)).includes('bundle.tar.20261101'));
});

void t.test('parts: by the whole name or by that of the first, in their order', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'bundle.tar');
  await write(path, 200_000);
  const parts = Array.from({ length: 13 }, (_, at) => `${path}.${String(at + 1).padStart(3, '0')}`);
  t.same(await partsOf(path), parts);
  t.same(await partsOf(`${path}.001`), parts);
  t.same(await partsOf(`${path}.004`), [`${path}.004`], 'another part is that part');
  for (const name of [path, `${path}.001`]) {
    const bundle = await open(t, name);
    t.equal(bundle.bytes, bytes.length);
    t.ok((await readAll(bundle.source)).equals(bytes));
  }
  await writeFile(path, bytes);
  t.same(await partsOf(path), [path], 'a whole file goes before parts');
});

void t.test('parts: that are named one by one are read in the order in which they are named', async (t) => {
  const path = join(await temporaryFolder(t), 'bundle.tar');
  const [one, two, three] = (await write(path, 1_000_000)) as [string, string, string];
  const bundle = await open(t, one, two, three);
  t.ok((await readAll(bundle.source, 333_333)).equals(bytes));
});

void t.test('reading: a skip goes over the ends of parts, and says how far it came', async (t) => {
  const path = join(await temporaryFolder(t), 'bundle.tar');
  await write(path, 100_000);
  const whole = async (skipped: number) => {
    const { source } = await open(t, path);
    t.equal((await source.read(10)).length, 10);
    t.equal(await source.skip(skipped), Math.min(skipped, bytes.length - 10));
    return (await readAll(source)).equals(bytes.subarray(10 + skipped));
  };
  for (const skipped of [0, 1, 99_990, 99_991, 250_000, bytes.length - 11, bytes.length - 10, bytes.length + 5]) {
    t.ok(await whole(skipped), String(skipped));
  }
});

void t.test('reading: standard input is a bundle as well, of unknown size', async (t) => {
  const { source, bytes: size } = await open(t, '-');
  t.equal(size, undefined);
  t.equal(await source.skip(1_000_000), 1_000_000);
  t.ok((await readAll(source, 4096)).equals(bytes.subarray(1_000_000)));
  const other = await open(t, '-');
  t.equal(await other.source.skip(bytes.length + 1), bytes.length);
});

void t.test('reading: what is compressed is refused, with what unpacks it', async (t) => {
  const folder = await temporaryFolder(t);
  for (const [name, content, hint] of [
    ['gz', gzipSync('x'), 'gunzip -c'],
    ['zst', zstdCompressSync('x'), 'zstd -dc'],
    ['xz', Buffer.from('fd377a585a000004e6d6b446', 'hex'), 'xz -dc'],
  ] as const) {
    const path = join(folder, `bundle.tar.${name}`);
    await writeFile(path, content);
    const message = `This is compressed: ${hint} FILE | narrows import -`;
    t.match(await failureOf(openBundle([path], io)), { exitCode: 2, message });
  }
});

void t.test('reading: what is not there, or no file, is told by its name and why', async (t) => {
  const folder = await temporaryFolder(t);
  for (const [path, why] of [
    [join(folder, 'missing.tar'), 'ENOENT'],
    [join(folder, 'missing.tar.001'), 'ENOENT'],
    [folder, 'EISDIR'],
  ] as const) {
    const failure = await failureOf(openBundle([path], io));
    t.match(failure, { exitCode: 2, message: `${path} cannot be read (${why}).` });
  }
});

async function entriesIn(folder: string, found: Record<string, string> = {}) {
  for await (const entry of folderEntries(folder)) {
    const pieces: Buffer[] = [];
    for await (const piece of entry.content()) pieces.push(Buffer.from(piece));
    const text = Buffer.concat(pieces).toString();
    found[entry.path] = entry.bytes === text.length ? text : `${text} is not ${entry.bytes} bytes`;
  }
  return found;
}

void t.test('folder: its files in order, by their paths below it', async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
  for (const name of ['oci-layout', 'index.json', 'blobs/sha256/bb', 'blobs/sha256/aa']) {
    await writeFile(join(folder, name), `this is ${name}`);
  }
  await writeFile(join(folder, 'empty'), '');
  const names = ['blobs/sha256/aa', 'blobs/sha256/bb', 'empty', 'index.json', 'oci-layout'];
  for (const path of [folder, `${folder}/`]) {
    const found = await entriesIn(path);
    t.same(Object.keys(found), names);
    t.equal(found['blobs/sha256/aa'], 'this is blobs/sha256/aa');
    t.equal(found['empty'], '');
  }
});

void t.test('folder: a link or a pipe in it is an error, and leads nowhere', async (t) => {
  const outside = await temporaryFolder(t);
  await mkdir(join(outside, 'below'));
  for (const name of ['secret', 'below/secret']) await writeFile(join(outside, name), 'secret');
  for (const [what, make] of [
    ['a file outside', (path: string) => symlink(join(outside, 'secret'), path)],
    ['a folder outside', (path: string) => symlink(outside, path)],
    ['nothing', (path: string) => symlink(join(outside, 'missing'), path)],
    ['a file beside', (path: string) => symlink('oci-layout', path)],
    ['itself', (path: string) => symlink('a', path)],
    ['a pipe', (path: string) => Promise.resolve(void spawnSync('mkfifo', [path]))],
  ] as const) {
    const folder = await temporaryFolder(t);
    await mkdir(join(folder, 'blobs'));
    for (const name of ['oci-layout', 'blobs/b']) await writeFile(join(folder, name), '{}');
    await make(join(folder, 'blobs', 'a'));
    const found: Record<string, string> = {};
    const failure = await failureOf(entriesIn(folder, found));
    t.match(failure, { name: 'BundleError', message: /blobs\/a.* is a link or something else/ }, what);
    t.notOk(Object.values(found).includes('secret'), what);
  }
});
