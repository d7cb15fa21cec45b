import t from 'tap';
import { createTurns } from '../../src/http/turns.ts';

/** Turns of the event loop, counted. */
function countTurns() {
  let count = 0;
  let isOver = false;
  const next = () => {
    count++;
    if (!isOver) setImmediate(next);
  };
  setImmediate(next);
  return { now: () => count, stop: () => void (isOver = true) };
}

void t.test('turns: so much goes out at once, the rest in order, a share for each turn of the loop', async (t) => {
  const turns = createTurns(1000);
  const loop = countTurns();
  const went: { at: number; turn: number }[] = [];
  const taken = Array.from({ length: 40 }, async (_, at) => {
    await turns.take(250);
    went.push({ at, turn: loop.now() });
  });
  await Promise.all(taken);
  loop.stop();
  t.same(
    went.map(({ at }) => at),
    Array.from({ length: 40 }, (_, at) => at),
  );
  for (const turn of new Set(went.map((one) => one.turn))) {
    const count = went.filter((one) => one.turn === turn).length;
    t.ok(count <= 5, `${count} in one turn`);
  }
  t.ok(went.at(-1)!.turn >= 9, `${went.at(-1)!.turn} turns`);
});

void t.test('turns: where an answer begins, less goes out in the next turn, and then as much as ever', async (t) => {
  const turns = createTurns(1600);
  const loop = countTurns();
  const went: number[] = [];
  await turns.take(100, true);
  const taken = Array.from({ length: 60 }, async () => {
    await turns.take(100);
    went.push(loop.now());
  });
  await Promise.all(taken);
  loop.stop();
  const perTurn = [...new Set(went)].map((turn) => went.filter((at) => at === turn).length);
  t.equal(perTurn[0], 15, 'what was left of the first turn');
  t.equal(perTurn[1], 2, 'an eighth');
  t.equal(perTurn[2], 16, 'nobody came any more');
});

void t.test('turns: what is larger than a share goes by itself, and nobody waits for ever', async (t) => {
  const turns = createTurns(10);
  const loop = countTurns();
  for (let time = 0; time < 5; time++) await turns.take(1_000_000);
  loop.stop();
  t.ok(loop.now() >= 4, `${loop.now()} turns`);
});

void t.test('turns: who comes alone does not wait', (t) => {
  const turns = createTurns(10);
  t.equal(turns.take(5), undefined);
  t.equal(turns.take(5), undefined);
  t.type(turns.take(5), Promise);
  t.end();
});
