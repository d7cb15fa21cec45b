import t from 'tap';
import { parseRange } from '../../src/http/range.ts';
import { noise } from '../fixtures/images.ts';

const size = 1000;

void t.test('41. parseRange: gives the first and last byte of the stretch that is asked for', (t) => {
  const cases: Record<string, [header: string, start: number, end: number]> = {
    'the first byte': ['bytes=0-0', 0, 0],
    'a stretch': ['bytes=200-499', 200, 499],
    'from a place on, as containerd takes up a pull again': ['bytes=500-', 500, 999],
    'all, as containerd begins a parallel pull': ['bytes=0-', 0, 999],
    'the last byte': ['bytes=-1', 999, 999],
    'the last 500 bytes': ['bytes=-500', 500, 999],
    'more last bytes than there are': ['bytes=-5000', 0, 999],
    'one beyond the end, as regctl counts': ['bytes=300-1000', 300, 999],
    'far beyond the end': ['bytes=999-999999999999999999999', 999, 999],
    'an endless suffix': [`bytes=-${'9'.repeat(400)}`, 0, 999],
    'a unit in upper case': ['Bytes=1-2', 1, 2],
    'leading zeros': ['bytes=0001-0002', 1, 2],
    'space around it': ['bytes= 1-2 ', 1, 2],
  };
  for (const [what, [header, start, end]] of Object.entries(cases)) {
    t.same(parseRange(header, size), { start, end }, `${what}: ${header}`);
  }
  t.end();
});

void t.test('41. parseRange: a stretch that does not touch the body is unsatisfiable', (t) => {
  for (const header of [
    'bytes=1000-',
    'bytes=1000-1001',
    'bytes=5000-',
    `bytes=${'9'.repeat(400)}-`,
    'bytes=-0',
    'bytes=-000',
  ]) {
    t.equal(parseRange(header, size), 'unsatisfiable', header.slice(0, 40));
  }
  t.end();
});

void t.test('41. parseRange: what is not understood asks for all of it', (t) => {
  const headers = [
    undefined,
    '',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=--1',
    'bytes=500-0',
    'bytes=a-b',
    'bytes=1-2-3',
    'bytes=+1-2',
    'bytes=1.5-2',
    'bytes=0x1-0x2',
    'bytes=1e2-',
    'bytes:0-1',
    'bytes 0-1',
    'items=0-1',
    'bytes=٠-١',
    'bytes=0-1\n',
  ];
  for (const header of headers) t.equal(parseRange(header, size), undefined, JSON.stringify(header));
  t.end();
});

void t.test('41. parseRange: several parts are answered with the whole', (t) => {
  const thousand = `bytes=${Array.from({ length: 1000 }, (_, at) => `${at}-${at}`).join(',')}`;
  for (const header of ['bytes=0-1,5-6', 'bytes=0-1, -1', 'bytes=0-,0-', thousand]) {
    t.equal(parseRange(header, size), undefined, header.slice(0, 40));
  }
  t.end();
});

void t.test('41. parseRange: nothing of an empty body can be asked for, so all of it is given', (t) => {
  for (const header of ['bytes=0-', 'bytes=0-0', 'bytes=-1']) t.equal(parseRange(header, 0), undefined, header);
  t.end();
});

void t.test('41. parseRange: a body cut to the range is what a buffer slices', (t) => {
  const body = noise('range', 61);
  let ranges = 0;
  for (let first = 0; first < 65; first++) {
    for (let last = 0; last < 65; last++) {
      const range = parseRange(`bytes=${first}-${last}`, body.length);
      const expected = body.subarray(first, last + 1);
      if (last < first) {
        if (range !== undefined) t.fail(`${first}-${last} is no range`);
      } else if (expected.length === 0) {
        if (range !== 'unsatisfiable') t.fail(`${first}-${last} is beyond the end`);
      } else {
        ranges++;
        if (!cut(body, range).equals(expected)) t.fail(`${first}-${last}`);
      }
    }
    const tail = first === 0 ? Buffer.alloc(0) : body.subarray(-first);
    if (first > 0 && !cut(body, parseRange(`bytes=-${first}`, body.length)).equals(tail)) t.fail(`-${first}`);
    if (first < 61 && !cut(body, parseRange(`bytes=${first}-`, body.length)).equals(body.subarray(first)))
      t.fail(`${first}-`);
  }
  t.equal(ranges, (61 * 62) / 2 + 61 * 4, 'every stretch that touches the body was tried');
  t.end();
});

function cut(body: Buffer, range: ReturnType<typeof parseRange>): Buffer {
  return typeof range === 'object' ? body.subarray(range.start, range.end + 1) : Buffer.alloc(0);
}
