import t from 'tap';
import { createOnce } from '../../src/pull/once.ts';

void t.test('once: whoever asks while an action runs waits for its outcome', async (t) => {
  const once = createOnce<object>();
  const action = Promise.withResolvers<object>();
  let runs = 0;
  const run = () =>
    once.run('key', () => {
      runs++;
      return action.promise;
    });
  const all = [run(), run(), run()];
  const value = { a: 1 };
  action.resolve(value);
  const outcomes = await Promise.all(all);
  t.equal(runs, 1);
  t.same(
    outcomes.map(({ joined }) => joined),
    [false, true, true],
  );
  for (const outcome of outcomes) t.equal(outcome.value, value, 'the very same');
});

void t.test('once: an error is everyone’s, and the next one tries again', async (t) => {
  const once = createOnce<number>();
  const action = Promise.withResolvers<number>();
  const first = once.run('key', () => action.promise);
  const second = once.run('key', () => Promise.resolve(2));
  const error = new Error('cut');
  action.reject(error);
  await t.rejects(first, error);
  await t.rejects(second, error);
  t.same(await once.run('key', () => Promise.resolve(3)), { value: 3, joined: false });
});

void t.test('once: when an action has ended, the next one runs anew', async (t) => {
  const once = createOnce<number>();
  let runs = 0;
  const run = () => once.run('key', () => Promise.resolve(++runs));
  t.same(await run(), { value: 1, joined: false });
  t.same(await run(), { value: 2, joined: false });
});

void t.test('once: keys do not wait for each other', async (t) => {
  const once = createOnce<string>();
  const never = Promise.withResolvers<string>();
  const stuck = once.run('__proto__', () => never.promise);
  t.same(await once.run('constructor', () => Promise.resolve('b')), { value: 'b', joined: false });
  never.resolve('a');
  t.same(await stuck, { value: 'a', joined: false });
});

void t.test('once: an action that throws before it promises anything leaves nothing behind', async (t) => {
  const once = createOnce<number>();
  const error = new Error('at once');
  await t.rejects(
    once.run('key', () => {
      throw error;
    }),
    error,
  );
  t.same(await once.run('key', () => Promise.resolve(1)), { value: 1, joined: false });
});

void t.test('once: who asks in answer to an outcome is not given that outcome', async (t) => {
  const once = createOnce<number>();
  const action = Promise.withResolvers<number>();
  const again = once.run('key', () => action.promise).then(() => once.run('key', () => Promise.resolve(2)));
  action.resolve(1);
  t.same(await again, { value: 2, joined: false });
});
