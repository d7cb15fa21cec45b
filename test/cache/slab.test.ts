import { array, assert, boolean, constantFrom, nat, property, record } from 'fast-check';
import t from 'tap';
import { createSlab } from '../../src/cache/slab.ts';

const KiB = 1024;
const limits = { minBytes: 16 * KiB, maxBytes: 1024 * KiB };

void t.test('slab: what is out never overlaps, and what has come back is whole again', (t) => {
  const step = record({ order: nat(6), giveBack: boolean(), which: nat() });
  assert(
    property(array(step, { maxLength: 300 }), constantFrom(4096, 4096 + 48, 40), (steps, kib) => {
      const slab = createSlab({ bytes: kib * KiB, ...limits });
      const out: Buffer[] = [];
      for (const { order, giveBack, which } of steps) {
        if (giveBack && out.length > 0) slab.give(out.splice(which % out.length, 1)[0]!);
        else {
          const length = limits.minBytes * 2 ** order;
          const buffer = slab.take(length);
          if (buffer?.length !== length && buffer) throw new Error(`${buffer.length} bytes, not ${length}`);
          if (buffer) out.push(buffer);
        }
        const places = out
          .map(({ byteOffset, length }) => [byteOffset, byteOffset + length] as const)
          .toSorted(([one], [other]) => one - other);
        if (places.some(([start], at) => at > 0 && start < places[at - 1]![1])) throw new Error('they overlap');
      }
      for (const buffer of out) slab.give(buffer);
      const whole = Math.floor((kib * KiB) / limits.maxBytes);
      return Array.from({ length: whole }, () => slab.take(limits.maxBytes)).every((buffer) => buffer !== undefined);
    }),
  );
  t.end();
});

void t.test('slab: what was used last is taken first; where nothing is free there is none', (t) => {
  const slab = createSlab({ bytes: 64 * KiB, ...limits });
  const all = Array.from({ length: 4 }, () => slab.take(16 * KiB)!);
  t.equal(slab.take(16 * KiB), undefined);
  slab.give(all[2]!);
  slab.give(all[0]!);
  t.equal(slab.take(16 * KiB)!.byteOffset, all[0]!.byteOffset);
  t.equal(slab.take(32 * KiB), undefined, 'its other half is out');
  t.equal(createSlab({ bytes: 1, ...limits }).take(16 * KiB), undefined);
  t.end();
});

void t.test('slab: places beyond 4 GiB are joined with their own halves', (t) => {
  const GiB = 2 ** 30;
  const sizes = { minBytes: GiB / 2, maxBytes: GiB };
  // Only what is written to is ever taken of the machine.
  const slab = createSlab({ bytes: 6 * GiB, ...sizes });
  const halves = Array.from({ length: 12 }, () => slab.take(GiB / 2));
  if (halves.includes(undefined)) return t.end();
  const byPlace = halves.map((buffer) => buffer!).toSorted((one, other) => one.byteOffset - other.byteOffset);
  slab.give(byPlace[1]!);
  slab.give(byPlace[8]!);
  t.equal(slab.take(GiB), undefined, 'two that are no halves of one');
  slab.give(byPlace[9]!);
  t.equal(slab.take(GiB)!.byteOffset, 4 * GiB);
  return t.end();
});

void t.test('slab: a machine that has not so much memory has none of it', (t) => {
  const slab = createSlab({ bytes: 2 ** 52, ...limits });
  for (let time = 0; time < 3; time++) t.equal(slab.take(16 * KiB), undefined);
  t.end();
});
