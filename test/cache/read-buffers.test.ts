import t from 'tap';
import { createReadBuffers } from '../../src/cache/read-buffers.ts';
import type { ReadBuffers } from '../../src/cache/read-buffers.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

interface Holder {
  readonly name: string;
  readonly buffer: Buffer;
}

function holders(buffers: ReadBuffers<Holder>, count: number, bytes: number): Holder[] {
  return Array.from({ length: count }, (_, at) => ({ name: `${at}`, buffer: buffers.take(bytes) }));
}

void t.test('strides shrink as room does, in powers of two, and grow with it', (t) => {
  const buffers = createReadBuffers<Holder>(16 * MiB);
  t.equal(buffers.strideBytes(1), MiB);
  const taken = holders(buffers, 12, MiB);
  t.equal(buffers.strideBytes(1), 512 * KiB);
  const rest = holders(buffers, 7, 512 * KiB);
  t.equal(buffers.strideBytes(1), 64 * KiB);
  const borrowed = buffers.borrow(400 * KiB);
  t.equal(buffers.strideBytes(1), 16 * KiB);
  buffers.returned(borrowed);
  for (const holder of [...taken, ...rest]) buffers.recycle(holder);
  t.equal(buffers.strideBytes(1), MiB);
  t.equal(buffers.strideBytes(256), 128 * KiB, 'many of the same go in small steps');
  t.equal(buffers.strideBytes(1_000_000), 16 * KiB);
  t.end();
});

void t.test('what is out of use is used again', (t) => {
  const buffers = createReadBuffers<Holder>(16 * MiB);
  const [first] = holders(buffers, 1, 100 * KiB);
  t.equal(first!.buffer.length, 128 * KiB);
  buffers.recycle(first!);
  t.equal(buffers.take(100 * KiB).byteOffset, first!.buffer.byteOffset);
  t.end();
});

void t.test('what rests goes when there is no room, the longest first, unless it is woken', (t) => {
  const buffers = createReadBuffers<Holder>(4 * MiB);
  const gone: string[] = [];
  const [a, b, c] = holders(buffers, 3, MiB) as [Holder, Holder, Holder];
  for (const holder of [a, b, c]) buffers.rest(holder, () => void gone.push(holder.name));
  buffers.wake(a);
  buffers.take(MiB);
  t.same(gone, []);
  t.equal(buffers.take(MiB).byteOffset, b.buffer.byteOffset, 'and its buffer is used again');
  t.same(gone, ['1']);
  buffers.recycle(c);
  t.equal(buffers.take(MiB).byteOffset, c.buffer.byteOffset);
  t.same(gone, ['1']);
  t.end();
});

void t.test('beyond the budget there are the smallest ones, which are not kept', (t) => {
  const buffers = createReadBuffers<Holder>(1);
  t.equal(buffers.strideBytes(1), 16 * KiB);
  const [one] = holders(buffers, 1, 1);
  t.equal(one!.buffer.length, 16 * KiB);
  buffers.recycle(one!);
  t.not(buffers.take(1).buffer, one!.buffer.buffer);
  let isGone = false;
  const [other] = holders(buffers, 1, 1);
  buffers.rest(other!, () => void (isGone = true));
  t.ok(isGone, 'nor do they rest');
  t.end();
});
