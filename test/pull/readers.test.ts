import t from 'tap';
import { createReaders } from '../../src/pull/readers.ts';

/** Readers, and the pieces that came back. */
function stage() {
  const free: Buffer[] = [];
  const readers = createReaders((piece) => free.push(piece));
  const pieces = Array.from({ length: 5 }, (_, index) => Buffer.from(new ArrayBuffer(10)).fill(index));
  return { free, readers, pieces: pieces as [Buffer, Buffer, Buffer, Buffer, Buffer] };
}

void t.test('readers: where the first and the last of them are', (t) => {
  const { readers } = stage();
  t.match(readers, { size: 0, hasClients: false, foremost: Infinity, rearmost: Infinity });
  const [one, other] = [readers.add(false), readers.add(true)];
  t.match(readers, { size: 2, hasClients: true, foremost: 0, rearmost: 0 });
  [one.position, other.position] = [7, 3];
  t.match(readers, { foremost: 7, rearmost: 3 });
  one.position = Infinity;
  t.match(readers, { foremost: 3, rearmost: 3 }, 'who has read all waits for nothing');
  one.position = 7;
  t.ok(readers.leave(other));
  t.match(readers, { size: 1, hasClients: false, foremost: 7, rearmost: 7 });
  t.notOk(readers.leave(other), 'once');
  t.notOk(other.isOpen);
  t.end();
});

void t.test('readers: what nobody looks at is free at once', (t) => {
  const { free, readers, pieces } = stage();
  readers.add(true);
  readers.drop([pieces[0], pieces[1]]);
  t.same(free, [pieces[0], pieces[1]]);
  t.end();
});

void t.test('readers: what one looks at is free with the second read after it, be it of other memory', (t) => {
  const { free, readers, pieces } = stage();
  const reader = readers.add(true);
  readers.lend(reader, pieces[0].subarray(2, 4));
  readers.drop([pieces[0]]);
  t.same(free, []);
  readers.lend(reader, pieces[1]);
  t.same(free, []);
  readers.lend(reader, Buffer.alloc(1));
  t.same(free, [pieces[0]], 'the whole of it, not the part');
  readers.drop([pieces[1]]);
  t.same(free, [pieces[0]]);
  readers.lend(reader, Buffer.alloc(1));
  t.same(free, [pieces[0], pieces[1]]);
  t.end();
});

void t.test('readers: who reads a piece in parts looks at it until the second read after the last part', (t) => {
  const { free, readers, pieces } = stage();
  const reader = readers.add(true);
  for (const at of [0, 2, 4]) readers.lend(reader, pieces[0].subarray(at, at + 2));
  readers.drop([pieces[0]]);
  readers.lend(reader, pieces[1]);
  t.same(free, []);
  readers.lend(reader, pieces[2]);
  t.same(free, [pieces[0]]);
  t.end();
});

void t.test('readers: the last of several who looks at it decides, and who leaves looks at nothing', (t) => {
  const { free, readers, pieces } = stage();
  const all = [readers.add(true), readers.add(false), readers.add(true)];
  for (const reader of all) readers.lend(reader, pieces[0]);
  readers.drop([pieces[0]]);
  readers.leave(all[0]!);
  for (const piece of [pieces[1], pieces[2]]) readers.lend(all[1]!, piece);
  t.same(free, []);
  readers.leave(all[2]!);
  t.same(free, [pieces[0]]);
  readers.leave(all[1]!);
  t.same(free, [pieces[0]], 'what was not dropped is not free');
  readers.drop([pieces[1], pieces[2]]);
  t.same(free, [pieces[0], pieces[1], pieces[2]]);
  t.end();
});

void t.test('readers: memory that came back and is lent again is free once more, and not before', (t) => {
  const { free, readers, pieces } = stage();
  const reader = readers.add(true);
  readers.lend(reader, pieces[0]);
  readers.drop([pieces[0]]);
  for (const piece of [pieces[1], pieces[2]]) readers.lend(reader, piece);
  t.same(free, [pieces[0]]);
  readers.lend(reader, pieces[0]);
  for (const piece of [pieces[1], pieces[2]]) readers.lend(reader, piece);
  t.same(free, [pieces[0]], 'it is in use');
  readers.drop([pieces[0]]);
  t.same(free, [pieces[0], pieces[0]]);
  readers.leave(reader);
  t.equal(readers.lend(reader, pieces[3]), pieces[3]);
  readers.drop([pieces[3]]);
  t.equal(free.at(-1), pieces[3], 'who has left holds nothing');
  t.end();
});

void t.test('readers: who leaves closes the file', (t) => {
  const { readers } = stage();
  const reader = readers.add(true);
  let closed = 0;
  reader.file = { read: () => Promise.resolve(Buffer.alloc(0)), close: () => void closed++ };
  readers.leave(reader);
  readers.leave(reader);
  t.equal(closed, 1);
  t.end();
});
