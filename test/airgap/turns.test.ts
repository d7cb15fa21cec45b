import t from 'tap';
import { createTurns } from '../../src/airgap/turns.ts';

/** Actions that end when they are told to, in the order in which they began. */
function stage(atOnce: number, count: number) {
  const turns = createTurns(atOnce);
  const began: number[] = [];
  const gates = Array.from({ length: count }, () => Promise.withResolvers<void>());
  const all = gates.map(({ promise }, at) =>
    turns.run(async () => {
      began.push(at);
      await promise;
      return at;
    }),
  );
  return { turns, began, gates, all };
}

/** What is due to happen has happened. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

void t.test('turns: so many at a time, and the others in the order in which they came', async (t) => {
  const { began, gates, all } = stage(2, 5);
  await settled();
  t.same(began, [0, 1]);
  gates[1]!.resolve();
  await settled();
  t.same(began, [0, 1, 2]);
  gates[0]!.resolve();
  gates[2]!.resolve();
  await settled();
  t.same(began, [0, 1, 2, 3, 4]);
  for (const gate of gates) gate.resolve();
  t.same(await Promise.all(all), [0, 1, 2, 3, 4], 'each has the outcome of its own');
});

void t.test('turns: one that fails gives its place on', async (t) => {
  const { began, gates, all } = stage(1, 3);
  const failing = t.rejects(all[0]!, { message: 'cut' });
  gates[0]!.reject(new Error('cut'));
  await failing;
  await settled();
  t.same(began, [0, 1]);
  gates[1]!.resolve();
  gates[2]!.resolve();
  t.same(await Promise.all(all.slice(1)), [1, 2]);
});

void t.test('turns: one that throws before it promises anything gives its place on as well', async (t) => {
  const turns = createTurns(1);
  await t.rejects(
    turns.run(() => {
      throw new Error('at once');
    }),
    { message: 'at once' },
  );
  t.equal(await turns.run(() => Promise.resolve('next')), 'next');
});

void t.test('turns: when all are done, as many may begin as before', async (t) => {
  const { turns, gates, all } = stage(3, 10);
  for (const gate of gates) gate.resolve();
  await Promise.all(all);
  let running = 0;
  let most = 0;
  await Promise.all(
    Array.from({ length: 50 }, () =>
      turns.run(async () => {
        most = Math.max(most, ++running);
        await settled();
        running--;
      }),
    ),
  );
  t.equal(most, 3);
});
