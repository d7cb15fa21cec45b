import t from 'tap';
import { createReadBuffers } from '../../src/cache/read-buffers.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

void t.test('strides shrink as room does, in powers of two, and grow with it', (t) => {
  const buffers = createReadBuffers(16 * MiB);
  t.equal(buffers.strideBytes(), MiB);
  const taken = Array.from({ length: 12 }, () => buffers.take(MiB));
  t.equal(buffers.strideBytes(), 512 * KiB);
  const rest = Array.from({ length: 7 }, () => buffers.take(512 * KiB));
  t.equal(buffers.strideBytes(), 64 * KiB);
  for (const buffer of [...taken, ...rest]) buffers.give(buffer);
  t.equal(buffers.strideBytes(), MiB);
  t.end();
});

void t.test('what was given back is taken again; what was forgotten is not', (t) => {
  const buffers = createReadBuffers(16 * MiB);
  const [first, second] = [buffers.take(100 * KiB), buffers.take(100 * KiB)];
  t.equal(first.length, 128 * KiB);
  buffers.give(first);
  buffers.forget(second);
  t.equal(buffers.take(100 * KiB), first);
  t.not(buffers.take(100 * KiB), second);
  t.end();
});

void t.test('what rests goes when there is no room, the longest first, unless it is woken', (t) => {
  const buffers = createReadBuffers(4 * MiB);
  const gone: string[] = [];
  const [a, b, c] = ['a', 'b', 'c'].map((name) => ({ name, buffer: buffers.take(MiB) })) as [
    { name: string; buffer: Buffer },
    { name: string; buffer: Buffer },
    { name: string; buffer: Buffer },
  ];
  for (const holder of [a, b, c]) buffers.rest(holder, () => void gone.push(holder.name));
  buffers.wake(a);
  buffers.take(MiB);
  t.same(gone, []);
  t.equal(buffers.take(MiB), b.buffer, 'and its buffer is used again');
  t.same(gone, ['b']);
  buffers.recycle(c);
  t.equal(buffers.take(MiB), c.buffer);
  t.same(gone, ['b']);
  t.end();
});

void t.test('beyond the budget there are the smallest ones, which are not kept', (t) => {
  const buffers = createReadBuffers(1);
  t.equal(buffers.strideBytes(), 16 * KiB);
  const taken = buffers.take(1);
  t.equal(taken.length, 16 * KiB);
  buffers.give(taken);
  t.not(buffers.take(1), taken);
  t.end();
});
