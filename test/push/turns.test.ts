import t from 'tap';
import { createTurns } from '../../src/push/turns.ts';

/** Actions that tell when they begin, and end when they are told to. */
function stage() {
  const turns = createTurns();
  const begun: string[] = [];
  const start = (key: string, name: string) => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const done = turns(key, () => {
      begun.push(name);
      return promise;
    });
    return { done, end: () => resolve(name), fail: () => reject(new Error(name)) };
  };
  return { turns, begun, start };
}

void t.test('turns: of one key one after the other, in the order that they came', async (t) => {
  const { begun, start } = stage();
  const [first, second, third] = [start('a', '1'), start('a', '2'), start('a', '3')] as const;
  third.end();
  second.end();
  await Promise.resolve();
  t.same(begun, ['1']);
  first.end();
  t.equal(await first.done, '1');
  t.same(await Promise.all([second.done, third.done]), ['2', '3']);
  t.same(begun, ['1', '2', '3']);
});

void t.test('turns: never two at once', async (t) => {
  const turns = createTurns();
  let running = 0;
  let most = 0;
  const action = async () => {
    most = Math.max(most, ++running);
    await Promise.resolve();
    running--;
  };
  await Promise.all(Array.from({ length: 100 }, () => turns('a', action)));
  t.equal(most, 1);
});

void t.test('turns: those of other keys do not wait', async (t) => {
  const { begun, start } = stage();
  const held = start('a', 'held');
  const other = start('b', 'other');
  other.end();
  t.equal(await other.done, 'other');
  t.same(begun.toSorted(), ['held', 'other']);
  held.end();
  await held.done;
});

void t.test('turns: one that fails is told so, and the next has its turn', async (t) => {
  const { turns, begun, start } = stage();
  const [first, second] = [start('a', '1'), start('a', '2')];
  first.fail();
  second.end();
  await t.rejects(first.done, { message: '1' });
  t.equal(await second.done, '2');
  t.same(begun, ['1', '2']);
  await t.rejects(
    turns('a', () => {
      throw new Error('at once');
    }),
    { message: 'at once' },
  );
  t.equal(await turns('a', () => Promise.resolve('after')), 'after');
});

void t.test('turns: one that comes while the last ends waits for it', async (t) => {
  const turns = createTurns();
  const seen: string[] = [];
  const chain = async (left: number): Promise<void> => {
    if (left === 0) return;
    await turns('a', async () => {
      seen.push(`begin ${left}`);
      await Promise.resolve();
      seen.push(`end ${left}`);
    });
    await chain(left - 1);
  };
  await Promise.all([chain(5), chain(5), chain(5)]);
  for (let at = 0; at < seen.length; at += 2) t.equal(seen[at + 1], seen[at]!.replace('begin', 'end'));
  t.equal(seen.length, 30);
});
