import t from 'tap';
import { fitted } from '../../src/pull/fitting.ts';
import { noise } from '../fixtures/images.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const bytes = noise('fitting', 2 * MiB + 5);

/** What comes of such pieces, and which were given back; these are overwritten. */
async function fit(lengths: readonly number[], shares: readonly number[]) {
  const recycled: number[] = [];
  async function* body() {
    let at = 0;
    for (const length of lengths) yield await Promise.resolve(Buffer.from(bytes.subarray(at, (at += length))));
  }
  let count = 0;
  const answer = fitted(
    {
      offset: 0,
      body: body(),
      cancel: () => undefined,
      recycle(piece) {
        recycled.push(piece.length);
        piece.fill(0xee);
      },
    },
    () => shares[count++ % shares.length]!,
  );
  const pieces: Buffer[] = [];
  for await (const piece of answer!.body) pieces.push(piece);
  return { pieces, recycled, lengths: pieces.map(({ length }) => length) };
}

void t.test('fitting: what is small, or for few, stays as it is', async (t) => {
  const { pieces, recycled, lengths } = await fit([128 * KiB, MiB, 5], [0, 4 * MiB, 0]);
  t.same(lengths, [128 * KiB, MiB, 5]);
  t.same(recycled, []);
  t.ok(Buffer.concat(pieces).equals(bytes.subarray(0, MiB + 128 * KiB + 5)));
  t.same((await fit([MiB], [Infinity])).lengths, [MiB], 'nobody reads it');
});

void t.test('fitting: for many it is cut, into memory of its own, and its memory is given back', async (t) => {
  const { pieces, recycled, lengths } = await fit([MiB, MiB - 1, 5], [4 * MiB - 1, 0]);
  t.same(lengths, [...Array<number>(8 + 7).fill(128 * KiB), 128 * KiB - 1, 5]);
  t.same(recycled, [MiB, MiB - 1]);
  t.ok(Buffer.concat(pieces).equals(bytes.subarray(0, 2 * MiB + 4)));
  t.ok(pieces.slice(0, -1).every(({ buffer, length }) => buffer.byteLength === length));
});

void t.test('fitting: no answer is none', (t) => {
  t.equal(
    fitted(undefined, () => 0),
    undefined,
  );
  t.end();
});
