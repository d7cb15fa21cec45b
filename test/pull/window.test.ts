import t from 'tap';
import { createWindow, worthKeeping } from '../../src/pull/window.ts';
import type { Window } from '../../src/pull/window.ts';
import { noise } from '../fixtures/images.ts';

/** A window over `content`, in pieces of these sizes. */
function filled(content: Buffer, sizes: readonly number[]): Window {
  const window = createWindow();
  let at = 0;
  for (const size of sizes) {
    window.push(content.subarray(at, at + size));
    at += size;
  }
  return window;
}

const content = noise('window', 100);

void t.test('window: is empty at first', (t) => {
  const window = createWindow();
  t.match(window, { start: 0, end: 0, bytes: 0 });
  t.equal(window.read(0, 10), undefined);
  t.same(window.from(0), []);
  window.trim(0, 0);
  t.match(window, { start: 0, end: 0, bytes: 0 });
  t.end();
});

void t.test('window: reads from any place, one piece at a time and without copying', (t) => {
  const sizes = [10, 1, 29, 60];
  const window = filled(content, sizes);
  t.match(window, { start: 0, end: 100, bytes: 100 });
  const ends = [10, 11, 40, 100];
  for (let position = 0; position < 100; position++) {
    const end = ends.find((one) => one > position)!;
    const all = window.read(position, 1000)!;
    if (!all.equals(content.subarray(position, end))) t.fail(`all from ${position}`);
    if (all.buffer !== content.buffer) t.fail(`copied at ${position}`);
    if (!window.read(position, 7)!.equals(content.subarray(position, Math.min(end, position + 7))))
      t.fail(`7 from ${position}`);
  }
  t.equal(window.read(100, 1), undefined, 'the end is not held yet');
  t.equal(window.read(-1, 1), undefined);
  t.end();
});

void t.test('window: a reader that follows sees every byte once, however the pieces fall', (t) => {
  for (const size of [1, 3, 7, 50, 100]) {
    for (const maxBytes of [1, 4, 64]) {
      const window = createWindow();
      const seen: Buffer[] = [];
      let position = 0;
      for (let at = 0; at < content.length; at += size) {
        window.push(content.subarray(at, at + size));
        for (let piece = window.read(position, maxBytes); piece; piece = window.read(position, maxBytes)) {
          seen.push(piece);
          position += piece.length;
        }
        window.trim(10, position);
      }
      t.same(Buffer.concat(seen), content, `pieces of ${size}, reads of ${maxBytes}`);
      t.ok(window.bytes <= Math.max(10, size));
    }
  }
  t.end();
});

void t.test('window: from gives all pieces from the start of one', (t) => {
  const window = filled(content, [10, 1, 29, 60]);
  for (const start of [0, 10, 11, 40]) t.same(Buffer.concat(window.from(start)), content.subarray(start), `${start}`);
  t.same(window.from(100), []);
  window.trim(60, 100);
  t.same(Buffer.concat(window.from(40)), content.subarray(40), 'and still does when the front is gone');
  t.end();
});

void t.test('window: trim drops whole pieces from the front until it holds little enough', (t) => {
  const cases: [maxBytes: number, limit: number, start: number][] = [
    [100, 100, 0],
    [99, 100, 10],
    [90, 100, 10],
    [89, 100, 11],
    [60, 100, 40],
    [59, 100, 100],
    [0, 100, 100],
    [0, 99, 40],
    [0, 40, 40],
    [0, 39, 11],
    [0, 11, 11],
    [0, 10, 10],
    [0, 9, 0],
    [0, 0, 0],
  ];
  for (const [maxBytes, limit, start] of cases) {
    const window = filled(content, [10, 1, 29, 60]);
    window.trim(maxBytes, limit);
    const name = `at most ${maxBytes}, nothing beyond ${limit}`;
    t.match(window, { start, end: 100, bytes: 100 - start }, name);
    t.equal(window.read(start - 1, 1), undefined, name);
    if (start < 100) t.equal(window.read(start, 1)?.[0], content[start], name);
  }
  t.end();
});

void t.test('window: what comes after everything was dropped stands at its place', (t) => {
  const window = filled(content, [40]);
  window.trim(0, 40);
  t.match(window, { start: 40, end: 40, bytes: 0 });
  window.push(content.subarray(40, 70));
  t.match(window, { start: 40, end: 70, bytes: 30 });
  t.same(window.read(50, 100), content.subarray(50, 70));
  t.equal(window.read(39, 1), undefined);
  t.end();
});

void t.test('window: empty pieces are no trouble', (t) => {
  const window = filled(content, [0, 10, 0, 0, 20, 0]);
  t.match(window, { start: 0, end: 30, bytes: 30 });
  t.same(window.read(0, 100), content.subarray(0, 10));
  t.same(window.read(10, 100), content.subarray(10, 30));
  t.same(Buffer.concat(window.from(10)), content.subarray(10, 30));
  t.equal(window.read(30, 1), undefined);
  window.trim(0, 30);
  t.equal(window.bytes, 0);
  t.end();
});

void t.test('window: what no reader waits for goes, but for a little, and never more than the limit stays', (t) => {
  const MiB = 1024 * 1024;
  t.equal(worthKeeping(50 * MiB, 100 * MiB, 64 * MiB), 50 * MiB);
  t.equal(worthKeeping(10 * MiB, 100 * MiB, 64 * MiB), 64 * MiB);
  t.equal(worthKeeping(99 * MiB, 100 * MiB, 64 * MiB), 4 * MiB);
  t.equal(worthKeeping(99 * MiB, 100 * MiB, MiB), MiB);
  t.equal(worthKeeping(Infinity, 100 * MiB, 64 * MiB), 4 * MiB);
  t.end();
});
