import * as fc from 'fast-check';
import t from 'tap';
import { readTar } from '../../src/airgap/tar-reader.ts';
import type { ByteSource, TarEntry } from '../../src/airgap/tar-reader.ts';
import { changeHeader, file, joinTar, paddingOf, sourceOf, tarHeader } from '../fixtures/bundles.ts';
import type { TarPart } from '../fixtures/bundles.ts';
import { noise } from '../fixtures/images.ts';

const sizes = [0, 1, 30, 511, 512, 513, 1500];
const parts = sizes.map((size) => file(`blobs/sha256/of-${size}`, noise(String(size), size)));
const archive = joinTar(parts);
const whole = sizes.map((size) => ({ path: `blobs/sha256/of-${size}`, bytes: noise(String(size), size) }));

const strict = () => true;
const lenient = () => false;

async function bytesOf({ content }: TarEntry): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of content()) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** All that comes before the end, or before what is wrong. */
async function read(source: ByteSource, isStrict = strict, skips: (at: number) => boolean = () => false) {
  const found: { path: string; bytes: Buffer | undefined }[] = [];
  try {
    for await (const entry of readTar(source, isStrict)) {
      const isSkipped = skips(found.length);
      if (isSkipped) await entry.skip();
      found.push({ path: entry.path, bytes: isSkipped ? undefined : await bytesOf(entry) });
    }
    return { found, error: '' };
  } catch (error) {
    if ((error as Error).name !== 'BundleError') throw error;
    return { found, error: (error as Error).message };
  }
}

void t.test('in pieces of any size, the same files come', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 3000 }), fc.boolean(), async (size, isStrict) => {
      t.strictSame(await read(sourceOf(archive, size), () => isStrict), { found: whole, error: '' }, String(size));
    }),
    {
      numRuns: 60,
      examples: [
        [1, true],
        [511, true],
        [512, true],
        [513, true],
      ],
    },
  );
});

void t.test('pieces of many sizes, one after another', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1 }), async (pieceSizes) => {
      const inner = sourceOf(archive);
      let count = 0;
      const source: ByteSource = {
        read: (maxBytes) => inner.read(Math.min(maxBytes, pieceSizes[count++ % pieceSizes.length]!)),
        skip: inner.skip,
      };
      t.strictSame(await read(source), { found: whole, error: '' });
    }),
    { numRuns: 60 },
  );
});

void t.test('a reader that lends its buffer until the next call loses nothing', async (t) => {
  const inner = sourceOf(archive);
  const lent = Buffer.alloc(700);
  const source: ByteSource = {
    async read(maxBytes) {
      const piece = await inner.read(Math.min(maxBytes, lent.length));
      lent.fill(0xee);
      return lent.subarray(0, piece.copy(lent));
    },
    skip: inner.skip,
  };
  t.strictSame(await read(source), { found: whole, error: '' });
});

void t.test('what is passed over, or left alone, does not hurt what follows', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.boolean(), { minLength: sizes.length, maxLength: sizes.length }), async (skipped) => {
      const expected = whole.map(({ path, bytes }, at) => ({ path, bytes: skipped[at] ? undefined : bytes }));
      t.strictSame(await read(sourceOf(archive, 100), strict, (at) => skipped[at]!), { found: expected, error: '' });
    }),
    { numRuns: 40 },
  );
  const paths: string[] = [];
  for await (const { path } of readTar(sourceOf(archive), strict)) paths.push(path);
  t.same(
    paths,
    whole.map(({ path }) => path),
    'nobody has read any of them',
  );
});

void t.test('an entry says its size and whether it is plain, and what it is does not depend on its name', async (t) => {
  const odd = [
    file('../../etc/passwd', 'x'),
    file('/etc/passwd', 'y'),
    file('./index.json', 'z'),
    { header: changeHeader(file('old', 'o').header, 100, '0000600'), content: Buffer.from('o') },
    { header: tarHeader({ path: 'folder/', bytes: 0, type: '5' }), content: Buffer.alloc(0) },
  ];
  const seen: unknown[] = [];
  for await (const { path, bytes, isPlain } of readTar(sourceOf(joinTar(odd)), lenient))
    seen.push([path, bytes, isPlain]);
  t.strictSame(seen, [
    ['../../etc/passwd', 1, true],
    ['/etc/passwd', 1, true],
    ['./index.json', 1, true],
    ['old', 1, false],
  ]);
});

void t.test('cut anywhere, it is refused, and what came before is right', async (t) => {
  for (let at = 0; at < archive.length; at++) {
    const isNearBoundary = at % 512 < 3 || at % 512 > 509 || at % 97 === 0;
    if (!isNearBoundary) continue;
    const { found, error } = await read(sourceOf(archive.subarray(0, at), 333));
    t.not(error, '', `cut at ${at}`);
    t.strictSame(found, whole.slice(0, found.length));
    const skipping = await read(sourceOf(archive.subarray(0, at), 333), strict, () => true);
    t.not(skipping.error, '', `cut at ${at}, when all is passed over`);
  }
});

void t.test('cut: it says where', async (t) => {
  const errorAt = async (at: number) => (await read(sourceOf(archive.subarray(0, at)))).error;
  t.equal(await errorAt(0), 'entry 1 at byte 0: the archive ends here, without the mark of its end');
  t.equal(await errorAt(100), 'entry 1 at byte 0: the archive ends in the middle of it');
  t.equal(await errorAt(512), 'entry 2 at byte 512: the archive ends here, without the mark of its end');
  const cut = 'the archive ends in the middle of it; a part of it may be missing';
  t.equal(await errorAt(1024), `blobs/sha256/of-1: ${cut}`);
  t.equal(await errorAt(1025), `blobs/sha256/of-1: ${cut}`, 'its content is there, and what fills the block is not');
  t.equal(
    await errorAt(archive.length - 1024),
    `entry 8 at byte ${archive.length - 1024}: the archive ends here, without the mark of its end`,
  );
  t.equal(await errorAt(archive.length - 512), 'the end of the archive: is cut off');
  t.equal(await errorAt(archive.length - 1), 'the end of the archive: is cut off');
});

void t.test('others may end with one block of nothing, or with many', async (t) => {
  for (const [what, bytes] of Object.entries({
    one: archive.subarray(0, -512),
    many: Buffer.concat([archive, Buffer.alloc(10_240)]),
  })) {
    t.equal((await read(sourceOf(bytes), lenient)).error, '', what);
    t.match((await read(sourceOf(bytes), strict)).error, /^the end of the archive: /, what);
  }
});

void t.test('nothing follows the end', async (t) => {
  for (const isStrict of [strict, lenient])
    for (const more of [archive, Buffer.from('x'), Buffer.concat([Buffer.alloc(5000), Buffer.from('x')])])
      t.match((await read(sourceOf(Buffer.concat([archive, more])), isStrict)).error, /^the end of the archive: is /);
  const hidden = Buffer.from(archive);
  hidden[hidden.length - 1] = 1;
  t.equal((await read(sourceOf(hidden), lenient)).error, 'the end of the archive: is followed by more');
});

void t.test('what fills a block has to be nothing, where it is strict', async (t) => {
  const [first] = [file('name', 'x')];
  const bytes = Buffer.from(joinTar([first]));
  for (const at of [513, 700, 1023]) {
    const changed = Buffer.from(bytes);
    changed[at] = 1;
    t.equal((await read(sourceOf(changed), strict)).error, 'name: is followed by bytes that belong to nothing');
    t.equal((await read(sourceOf(changed), lenient)).error, '');
  }
});

void t.test('strict: every header is as it is written, and what it is said to be may be known late', async (t) => {
  const touched = { header: changeHeader(file('b', 'b').header, 136, '00000000001'), content: Buffer.from('b') };
  const bytes = joinTar([file('a', 'a'), touched]);
  t.equal((await read(sourceOf(bytes), strict)).error, 'b: has a header that no bundle of narrows has');
  t.equal((await read(sourceOf(bytes), lenient)).error, '');
  let isOurs = false;
  const late = await read(sourceOf(bytes), () => {
    const before = isOurs;
    isOurs = true;
    return before;
  });
  t.equal(late.error, 'b: has a header that no bundle of narrows has');
  const folder = { header: tarHeader({ path: 'blobs/', bytes: 0, type: '5' }), content: Buffer.alloc(0) };
  t.match((await read(sourceOf(joinTar([folder])), strict)).error, /^blobs\/: has a header/);
});

const pax = (records: string, type = 'x'): TarPart => ({
  header: tarHeader({ path: 'PaxHeaders/x', bytes: records.length, type }),
  content: Buffer.from(records),
});

void t.test('extended records belong to what follows them, and to nothing else', async (t) => {
  const bytes = joinTar([pax('13 path=other\n'.replace('13', '14')), file('name', 'x'), file('next', 'y')]);
  t.strictSame(await read(sourceOf(bytes, 100), lenient), {
    found: [
      { path: 'other', bytes: Buffer.from('x') },
      { path: 'next', bytes: Buffer.from('y') },
    ],
    error: '',
  });
  t.equal((await read(sourceOf(bytes), strict)).error, 'other: has a header that no bundle of narrows has');
  const sized = joinTar([pax('10 size=3\n'), { header: file('name', '').header, content: Buffer.from('xyz') }]);
  t.strictSame((await read(sourceOf(sized), lenient)).found, [{ path: 'name', bytes: Buffer.from('xyz') }]);
  const commented = joinTar([pax('13 comment=x\n', 'g'), pax('13 comment=y\n'), file('name', 'x')]);
  t.strictSame((await read(sourceOf(commented), lenient)).found, [{ path: 'name', bytes: Buffer.from('x') }]);
  t.match((await read(sourceOf(commented), strict)).error, /^name: has a header/, 'even those that say nothing');
});

void t.test('35. extended records are bounded, whole, and not at the end', async (t) => {
  t.equal(
    (await read(sourceOf(joinTar([pax('x'.repeat(65_537)), file('a', 'a')])), lenient)).error,
    'PaxHeaders/x: has more extended records than any layout needs',
  );
  const cut = joinTar([pax('10 size=3\n')]).subarray(0, 600);
  t.match((await read(sourceOf(cut), lenient)).error, /^entry 1 at byte 0: the archive ends in the middle of it$/);
  t.match(
    (await read(sourceOf(joinTar([pax('nonsense')])), lenient)).error,
    /^PaxHeaders\/x: has extended records that/,
  );
});

void t.test('a folder has no content, whoever says so', async (t) => {
  const folder = { header: tarHeader({ path: 'blobs/', bytes: 0, type: '5' }), content: Buffer.alloc(0) };
  const inner = joinTar([file('hidden', 'x')]).subarray(0, 1024);
  const bytes = joinTar([pax('13 size=1024\n'), { header: folder.header, content: inner }, file('name', 'y')]);
  t.match((await read(sourceOf(bytes), lenient)).error, /^blobs\/: is a folder with content$/);
});

void t.test('a size that the archive does not have ends in a sentence, at once', async (t) => {
  for (const size of [8 ** 11 - 1, 5 * 512]) {
    const bytes = Buffer.concat([tarHeader({ path: 'large', bytes: size }), Buffer.alloc(1024)]);
    const error = 'large: the archive ends in the middle of it; a part of it may be missing';
    t.equal((await read(sourceOf(bytes), lenient)).error, error);
    t.equal((await read(sourceOf(bytes), lenient, () => true)).error, error);
  }
});

void t.test('35. any bytes are an archive, or refused', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(archive.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 700 }),
      async (changes, pieceBytes) => {
        const bytes = Buffer.from(archive);
        for (const [at, byte] of changes) bytes[at] = byte;
        const { found, error } = await read(sourceOf(bytes, pieceBytes), lenient);
        t.ok(found.length === whole.length || error !== '');
        t.ok(found.every((one) => one.bytes!.length + paddingOf(one.bytes!.length) <= archive.length));
      },
    ),
    { numRuns: 200 },
  );
});
