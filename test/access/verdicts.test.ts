import { assert, asyncProperty, constantFrom, option, record, string, tuple } from 'fast-check';
import t from 'tap';
import { createGuesses } from '../../src/access/guesses.ts';
import { createVerdicts } from '../../src/access/verdicts.ts';
import { NarrowsError } from '../../src/errors.ts';

function start(more: { maxQuestions?: number; maxVerdicts?: number } = {}) {
  const clock = { nowMs: 0 };
  const now = () => clock.nowMs;
  const verdicts = createVerdicts({
    grantedMs: 60,
    refusedMs: 10,
    maxVerdicts: 1000,
    maxQuestions: 100,
    guesses: createGuesses({ maxWrong: 1000, maxAddresses: 10, now }),
    now,
    ...more,
  });
  return { verdicts, clock };
}

const loginOf = (username: string, password: string) => ({ username, password, address: '192.0.2.1' });
const q = { of: 'here', text: 'q' };
const pass = () => Promise.resolve();
const refuse = () => Promise.reject(new NarrowsError('denied', 'No.'));
const fail = () => Promise.reject(new NarrowsError('upstreamUnavailable', 'Not now.'));

void t.test('verdicts: each lasts its time, and trouble is none', async (t) => {
  const { verdicts, clock } = start();
  const login = loginOf('a', 'b');
  t.equal(await verdicts.find(login, 'x', q, pass), true);
  t.equal(
    await verdicts.find(login, 'x', { of: 'here', text: 'other' }, refuse),
    true,
    'one subject, whatever the question',
  );
  clock.nowMs = 60;
  t.equal(verdicts.last(login, 'x'), undefined);
  await t.rejects(verdicts.find(login, 'x', q, fail), { message: 'Not now.' });
  t.equal(verdicts.last(login, 'x'), undefined);
  t.equal(await verdicts.find(login, 'x', q, refuse), false);
  clock.nowMs = 69;
  t.equal(await verdicts.find(login, 'x', q, pass), false);
  clock.nowMs = 70;
  t.equal(await verdicts.find(login, 'x', q, pass), true);
});

void t.test(
  'verdicts: those who ask the same at once share one question, others do not share its failure',
  async (t) => {
    const { verdicts } = start();
    const { promise, resolve } = Promise.withResolvers<void>();
    let asked = 0;
    const ask = () => {
      asked++;
      return promise;
    };
    const same = Array.from({ length: 20 }, () => verdicts.find(undefined, 'x', q, ask));
    await t.rejects(verdicts.find(undefined, 'x', { of: 'here', text: 'another' }, fail), { message: 'Not now.' });
    resolve();
    t.same(new Set(await Promise.all(same)), new Set([true]));
    t.equal(asked, 1);
  },
);

void t.test('verdicts: so many questions and no more', async (t) => {
  const { verdicts } = start({ maxQuestions: 3 });
  const { promise, resolve } = Promise.withResolvers<void>();
  const waiting = ['a', 'b', 'c'].map((subject) => verdicts.find(undefined, subject, q, () => promise));
  await t.rejects(verdicts.find(undefined, 'd', q, pass), {
    message: '3 questions for the rights of callers are waiting for here already.',
  });
  t.equal(await verdicts.find(undefined, 'd', { of: 'elsewhere', text: 'q' }, pass), true, 'another is asked');
  resolve();
  await Promise.all(waiting);
  t.equal(await verdicts.find(undefined, 'e', q, pass), true);
});

void t.test('66. verdicts: nobody gets that of someone who differs in anything', async (t) => {
  const text = string({ maxLength: 4, unit: constantFrom('a', 'b', ':', ',', '1') });
  const who = record({ login: option(tuple(text, text), { nil: undefined }), subject: text });
  await assert(
    asyncProperty(who, who, async (one, other) => {
      const { verdicts } = start();
      const loginOfOne = one.login && loginOf(...one.login);
      await verdicts.find(loginOfOne, one.subject, q, pass);
      const isSame = JSON.stringify(one) === JSON.stringify(other);
      return (verdicts.last(other.login && loginOf(...other.login), other.subject) === true) === isSame;
    }),
    { numRuns: 2000 },
  );
  t.pass('2,000 pairs');
});
