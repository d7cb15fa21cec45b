import { execFileSync } from 'node:child_process';
import { mkdir, open, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import type { Test } from 'tap';
import { BundleError, endOfArchive, paddingOf, readExtended, readHeader, writeHeader } from '../../src/airgap/tar.ts';
import { readTar } from '../../src/airgap/tar-reader.ts';
import { changeHeader, sourceOf, tarHeader } from '../fixtures/bundles.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasProgram } from '../fixtures/process.ts';

const noTar = hasProgram('tar') ? {} : { skip: 'tar is not installed' };
const where = 'entry 7 at byte 3072';

function tar(...args: string[]): string {
  return execFileSync('tar', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function refuses(t: Test, what: string) {
  return (block: Buffer, message: RegExp) =>
    t.throws(() => readHeader(block, where), { name: 'BundleError', message }, what);
}

/** A size in binary, as GNU tar writes large ones. */
function binary(first: number, ...rest: number[]): Buffer {
  return Buffer.concat([Buffer.from([first]), Buffer.alloc(11 - rest.length), Buffer.from(rest)]);
}

function readRecords(...records: string[]) {
  return readExtended(Buffer.from(records.join(''), 'latin1'), 'x');
}

const printable = fc
  .string({
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 1,
    maxLength: 100,
  })
  .filter((path) => path.length > 0);

void t.test('what is written is read again, and known for what it is', (t) => {
  fc.assert(
    fc.property(printable, fc.oneof(fc.nat(), fc.maxSafeNat()), (path, bytes) => {
      const header = writeHeader(path, bytes);
      t.equal(header.length, 512);
      t.strictSame(readHeader(header, where), { path, bytes, kind: 'file' });
    }),
    { numRuns: 500 },
  );
  t.same(writeHeader('a/b', 5), tarHeader({ path: 'a/b', bytes: 5 }), 'as POSIX has it');
  t.end();
});

void t.test('a header with any other byte in it is another, or none', (t) => {
  const header = writeHeader('blobs/sha256/0123', 1234);
  fc.assert(
    fc.property(fc.nat(511), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const changed = Buffer.from(header);
      changed[at]! ^= change;
      try {
        const read = readHeader(changed, where);
        const again = read && writeHeader(read.path, read.bytes);
        t.notOk(again?.equals(changed), `byte ${at} by ${change}`);
      } catch (error) {
        t.type(error, BundleError);
      }
    }),
    { numRuns: 500 },
  );
  t.end();
});

void t.test('any block is a header, nothing, or refused with a sentence', (t) => {
  const message = /^entry 7 at byte 3072: is no entry of a tar/;
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 512, maxLength: 512 }), (bytes) => {
      const block = Buffer.from(bytes);
      if (block.every((byte) => byte === 0)) t.equal(readHeader(block, where), undefined);
      else t.throws(() => readHeader(block, where), { name: 'BundleError', message });
    }),
    { numRuns: 300 },
  );
  t.equal(readHeader(Buffer.alloc(512), where), undefined, 'a block of nothing ends an archive');
  t.end();
});

void t.test('an entry fills its last block', (t) => {
  t.same([0, 1, 511, 512, 513, 1024].map(paddingOf), [0, 511, 1, 0, 511, 0]);
  t.same(endOfArchive, Buffer.alloc(1024));
  t.end();
});

void t.test('tar lists and extracts what is written', noTar, async (t) => {
  const folder = await temporaryFolder(t);
  const contents: Record<string, Buffer> = {
    'oci-layout': Buffer.from('{}'),
    'blobs/sha256/empty': Buffer.alloc(0),
    'blobs/sha256/whole': noise('whole', 1024),
    [`blobs/sha256/${'a'.repeat(64)}`]: noise('odd', 1025),
    ['n'.repeat(100)]: noise('long', 3),
  };
  const archive = Object.entries(contents).flatMap(([path, bytes]) => [
    writeHeader(path, bytes.length),
    bytes,
    Buffer.alloc(paddingOf(bytes.length)),
  ]);
  await writeFile(join(folder, 'a.tar'), Buffer.concat([...archive, endOfArchive]));
  t.equal(
    tar('-tf', join(folder, 'a.tar')),
    Object.keys(contents)
      .map((path) => `${path}\n`)
      .join(''),
  );
  t.match(tar('-tvf', join(folder, 'a.tar')), /^-rw-r--r-- 0\/0 +2 1970-01-01 00:00 oci-layout\n/);
  await mkdir(join(folder, 'out'));
  tar('-xf', join(folder, 'a.tar'), '-C', join(folder, 'out'));
  for (const [path, bytes] of Object.entries(contents)) t.same(await readFile(join(folder, 'out', path)), bytes, path);
});

void t.test('a file larger than eight gibibytes has a size that tar understands', noTar, async (t) => {
  const bytes = 9 * 1024 ** 3;
  const name = join(await temporaryFolder(t), 'large.tar');
  const file = await open(name, 'w');
  await file.write(writeHeader('large', bytes));
  await file.truncate(512 + bytes + 1024);
  await file.close();
  t.match(tar('-tvf', name), / 9663676416 1970-01-01 00:00 large\n$/);
  for (const size of [8 ** 11 - 1, 8 ** 11, bytes, 2 ** 40, Number.MAX_SAFE_INTEGER])
    t.strictSame(readHeader(writeHeader('large', size), where), {
      path: 'large',
      bytes: size,
      kind: 'file',
    });
  t.end();
});

for (const format of ['ustar', 'gnu', 'pax', 'v7', 'oldgnu']) {
  void t.test(`what GNU tar writes in its format ${format} is read`, noTar, async (t) => {
    const files = { 'oci-layout': noise('l', 30), 'index.json': noise('i', 512), 'blobs/sha256/abc': noise('b', 3001) };
    const archive = await packed(t, files, `--format=${format}`);
    t.strictSame(await contentOf(archive), files);
  });
}

void t.test('of names longer than a hundred bytes, those of ustar and of pax are read', noTar, async (t) => {
  const path = `blobs/${'folder/'.repeat(12)}${'f'.repeat(60)}`;
  const files = { [path]: noise('x', 100) };
  for (const format of ['ustar', 'pax'])
    t.strictSame(await contentOf(await packed(t, files, `--format=${format}`)), files, format);
  await t.rejects(contentOf(await packed(t, files, '--format=gnu')), {
    name: 'BundleError',
    message: /LongLink: is a link, a device or something else that no layout has$/,
  });
});

void t.test('35. links, pipes and sparse files of GNU tar are refused', noTar, async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'file'), 'x');
  await symlink('/etc/passwd', join(folder, 'symlink'));
  execFileSync('ln', [join(folder, 'file'), join(folder, 'hardlink')]);
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  const hollow = await open(join(folder, 'sparse'), 'w');
  await hollow.truncate(1_000_000);
  await hollow.write('end', 999_997);
  await hollow.close();
  const archive = join(folder, 'x.tar');
  for (const names of [['symlink'], ['file', 'hardlink'], ['pipe']]) {
    tar('-cf', archive, '-C', folder, ...names);
    await t.rejects(
      contentOf(await readFile(archive)),
      { name: 'BundleError', message: `${names.at(-1)}: is a link, a device or something else that no layout has` },
      names.at(-1)!,
    );
  }
  for (const args of [
    ['--format=gnu'],
    ['--format=pax', '--sparse-version=1.0'],
    ['--format=pax', '--sparse-version=0.1'],
  ]) {
    tar('-cSf', archive, ...args, '-C', folder, 'sparse');
    await t.rejects(
      contentOf(await readFile(archive)),
      { name: 'BundleError', message: /no layout has$/ },
      args.join(' '),
    );
  }
});

void t.test('35. every kind but files, folders and extended records is refused', (t) => {
  const kinds = { '0': 'file', '\0': 'file', '5': 'folder', x: 'extended', g: 'extended' } as Record<string, string>;
  for (let code = 0; code < 256; code++) {
    const type = String.fromCharCode(code);
    const block = changeHeader(tarHeader({ path: 'name', bytes: 0, link: '/etc/passwd' }), 156, Buffer.from([code]));
    if (kinds[type]) t.match(readHeader(block, where), { kind: kinds[type] }, JSON.stringify(type));
    else refuses(t, JSON.stringify(type))(block, /^name: is a link, a device or something else that no layout has$/);
  }
  refuses(t, 'folder')(tarHeader({ path: 'f/', bytes: 5, type: '5' }), /^f\/: is a folder with content$/);
  t.end();
});

void t.test('a checksum that is wrong, or no number, is refused', (t) => {
  const header = writeHeader('name', 5);
  const message = /^entry 7 at byte 3072: is no entry of a tar: its checksum is wrong$/;
  for (const sum of ['000000\0 ', '-00001\0 ', '        ', '\0\0\0\0\0\0\0\0', 'abcdef\0 ', '9999999 ', '77777777']) {
    const block = Buffer.from(header);
    block.write(sum, 148, 'latin1');
    refuses(t, JSON.stringify(sum))(block, message);
  }
  const signed = Buffer.from(changeHeader(header, 330, Buffer.alloc(10, 0xff)));
  const total = Number.parseInt(signed.toString('latin1', 148, 154), 8) - 10 * 256;
  signed.write(total.toString(8).padStart(6, '0'), 148, 'latin1');
  refuses(t, 'the sum of signed bytes, as some tars of old')(signed, message);
  t.end();
});

void t.test('35. a size that is negative, too large or no number is refused', (t) => {
  const header = writeHeader('name', 5);
  for (const [what, size] of Object.entries<Buffer | string>({
    negative: '-0000000005\0',
    'negative in binary': Buffer.alloc(12, 0xff),
    'more than a number can count': binary(0x80, 0x20, 0, 0, 0, 0, 0, 0),
    'more than eight bytes': Buffer.concat([Buffer.from([0x80, 0, 0, 1]), Buffer.alloc(8)]),
    'in the first byte': binary(0x81, 5),
    'no digits': Buffer.alloc(12),
    blanks: ' '.repeat(12),
    hexadecimal: '0x000000005\0',
    eight: '00000000008\0',
    'two numbers': '00000 00005\0',
    'hidden behind a NUL': '0000\x00000005\0',
    'a fraction': '00000000.05\0',
  }))
    refuses(t, what)(changeHeader(header, 124, size), /^name: has no size that can be read$/);
  t.match(readHeader(changeHeader(header, 124, '         12 '), where), { bytes: 10 }, 'blanks around it');
  t.match(readHeader(changeHeader(header, 124, binary(0x80, 12)), where), { bytes: 12 }, 'small in binary');
  t.end();
});

void t.test('35. names are plain text: control characters and bytes beyond ASCII are refused', (t) => {
  const header = writeHeader('name', 5);
  for (const name of ['a\nb', 'a\x1b[2J', 'a\x7f', 'caf\xc3\xa9', '\xff', '\r', '\t'])
    refuses(t, JSON.stringify(name))(
      changeHeader(header, 0, Buffer.from(name, 'latin1')),
      /^entry 7 at byte 3072: has a name that is no plain text$/,
    );
  const prefixed = changeHeader(tarHeader({ path: 'b', bytes: 0, prefix: 'a' }), 345, 'a\n');
  refuses(t, 'prefix')(prefixed, /has a name that is no plain text$/);
  t.match(readHeader(changeHeader(header, 0, 'ab\0\ncd'), where), { path: 'ab' }, 'a NUL ends a name');
  t.match(readHeader(tarHeader({ path: 'b', bytes: 0, prefix: 'a' }), where), { path: 'a/b' });
  const old = changeHeader(tarHeader({ path: 'b', bytes: 0, prefix: 'a' }), 257, 'ustar  \0');
  t.match(readHeader(old, where), { path: 'b' }, 'what is no ustar has no prefix');
  t.end();
});

const record = (key: string, value: string) => {
  const text = ` ${key}=${value}\n`;
  const digits = [1, 2, 3, 4, 5].find((count) => String(text.length + count).length === count)!;
  return `${text.length + digits}${text}`;
};

void t.test('extended records: path and size are read, the rest is passed over', (t) => {
  t.strictSame(readRecords(), {});
  t.strictSame(readRecords(record('mtime', '1.5'), record('path', 'blobs/a=b'), record('size', '12')), {
    path: 'blobs/a=b',
    bytes: 12,
  });
  t.strictSame(readRecords(record('path', 'one'), record('path', 'two')), { path: 'two' }, 'the last one counts');
  t.strictSame(readRecords(record('comment', 'caf\xe9')), {});
  fc.assert(
    fc.property(printable, fc.nat(10 ** 15 - 1), (path, bytes) =>
      t.strictSame(readRecords(record('path', path), record('size', String(bytes))), { path, bytes }),
    ),
    { numRuns: 200 },
  );
  t.end();
});

void t.test('35. extended records that are malformed are refused', (t) => {
  const unreadable = /^PaxHeaders\/x: has extended records that cannot be read$/;
  for (const [text, message] of [
    ['x', unreadable],
    ['8 a=b\n', unreadable],
    ['5 a=b\n', unreadable],
    ['6 a=b ', unreadable],
    ['0 a=b\n', unreadable],
    ['-6 a=b\n', unreadable],
    [' 6 a=b\n', unreadable],
    ['6  =b\n6', unreadable],
    ['4 b\n', unreadable],
    ['5 =b\n', unreadable],
    ['99999999 a=b\n', unreadable],
    [`${record('a', 'b')}0 `, unreadable],
    [`${record('a', 'b')}\0\0`, unreadable],
    ['3 \n', unreadable],
    ['2 ', unreadable],
    [record('path', ''), /^PaxHeaders\/x: has a name that is no plain text$/],
    [record('path', 'a\0b'), /has a name that is no plain text$/],
    [record('path', 'a\nb'), /has a name that is no plain text$/],
    [record('path', 'caf\xe9'), /has a name that is no plain text$/],
    [record('size', '-1'), /has no size that can be read$/],
    [record('size', '1e9'), /has no size that can be read$/],
    [record('size', ''), /has no size that can be read$/],
    [record('size', '9'.repeat(16)), /has no size that can be read$/],
    [record('GNU.sparse.major', '1'), /is a sparse file, which no layout has$/],
  ] as const)
    t.throws(
      () => readExtended(Buffer.from(text, 'latin1'), 'PaxHeaders/x'),
      { name: 'BundleError', message },
      JSON.stringify(text),
    );
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii', maxLength: 60 }), (text) => {
      try {
        t.type(readExtended(Buffer.from(text), 'x'), 'object');
      } catch (error) {
        t.type(error, BundleError);
      }
    }),
    { numRuns: 500 },
  );
  t.end();
});

async function packed(t: Teardown, files: Readonly<Record<string, Buffer>>, format: string): Promise<Buffer> {
  const folder = await temporaryFolder(t);
  for (const [path, bytes] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), bytes);
  }
  const archive = join(await temporaryFolder(t), 'x.tar');
  tar('-cf', archive, format, '-C', folder, ...Object.keys(files));
  return readFile(archive);
}

async function contentOf(archive: Buffer): Promise<Record<string, Buffer>> {
  const found: Record<string, Buffer> = {};
  for await (const { path, content } of readTar(sourceOf(archive), () => false)) {
    const pieces: Buffer[] = [];
    for await (const piece of content()) pieces.push(Buffer.from(piece));
    found[path] = Buffer.concat(pieces);
  }
  return found;
}
