import { setImmediate as immediate } from 'node:timers/promises';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import type { Test } from 'tap';
import { createBcrypt } from '../../src/access/bcrypt.ts';
import type { Bcrypt } from '../../src/access/bcrypt.ts';

const hash = hashSync('s3cret', 4);
/** A comparison with it takes several turns of any event loop. */
const slowHash = hashSync('s3cret', 9);

function bcryptFor(t: Test, maxWaiting = 100): Bcrypt {
  const bcrypt = createBcrypt(maxWaiting);
  t.teardown(() => bcrypt.close());
  return bcrypt;
}

void t.test('compare: a password fits its hash and no other, in all three spellings of bcrypt', async (t) => {
  const { compare } = bcryptFor(t);
  for (const kind of ['$2a$', '$2b$', '$2y$']) {
    t.equal(await compare('s3cret', hash.replace('$2b$', kind)), true, kind);
    t.equal(await compare('S3cret', hash.replace('$2b$', kind)), false, kind);
  }
  const cases: [password: string, expected: boolean][] = [
    ['', false],
    ['s3cret\0', false],
    ['s3cret ', false],
    ['\u{1f600}', false],
    ['x'.repeat(10_000), false],
  ];
  for (const [password, expected] of cases) t.equal(await compare(password, hash), expected);
  t.equal(await compare('pässwörd ☃', hashSync('pässwörd ☃', 4)), true);
});

void t.test('compare: what is no hash fits nothing, and does not stop the thread', async (t) => {
  const { compare } = bcryptFor(t);
  for (const wrong of ['', 'x', hash.slice(0, -1), hash.replace('$04$', '$99$'), hash.replace('$2b$', '$9b$')]) {
    t.equal(await compare('s3cret', wrong), false, wrong);
  }
  t.equal(await compare('s3cret', hash), true);
});

void t.test('compare: each is answered with its own answer', async (t) => {
  const { compare } = bcryptFor(t);
  const asked = Array.from({ length: 50 }, (_, at) => compare(at % 3 === 0 ? 's3cret' : `wrong ${at}`, hash));
  t.same(
    await Promise.all(asked),
    Array.from({ length: 50 }, (_, at) => at % 3 === 0),
  );
});

void t.test('compare: works in another thread, while this one goes on', async (t) => {
  const { compare } = bcryptFor(t);
  const open = new Set(Array.from({ length: 8 }, (_, at) => at));
  const asked = [...open].map((at) => compare('s3cret', slowHash).finally(() => open.delete(at)));
  const seen = new Set<number>();
  let turns = 0;
  while (open.size > 0) {
    await immediate();
    seen.add(open.size);
    turns++;
  }
  t.same(new Set(await Promise.all(asked)), new Set([true]));
  t.ok(turns > asked.length, `${turns} turns of the event loop meanwhile`);
  t.ok(seen.size > 1, 'and the answers come one by one');
});

void t.test('compare: more than may wait are refused, until others are done', async (t) => {
  const { compare } = bcryptFor(t, 3);
  const asked = [compare('s3cret', hash), compare('wrong', hash), compare('s3cret', slowHash)];
  await t.rejects(compare('s3cret', hash), {
    name: 'NarrowsError',
    kind: 'overloaded',
    status: 503,
    retryAfterS: Number,
    message: /^(?!.*s3cret)/,
  });
  t.same(await Promise.all(asked), [true, false, true], 'those who wait are not disturbed');
  t.equal(await compare('s3cret', hash), true);
  await t.rejects(bcryptFor(t, 0).compare('s3cret', hash), { kind: 'overloaded', code: 'TOOMANYREQUESTS' });
});

void t.test('close: who waits is told, and one that never compared closes too', async (t) => {
  const bcrypt = createBcrypt(10);
  const asked = [bcrypt.compare('s3cret', slowHash), bcrypt.compare('s3cret', slowHash)];
  const settled = Promise.allSettled(asked);
  await bcrypt.close();
  t.same(
    (await settled).map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await t.resolves(createBcrypt(1).close());
});

void t.test('close: who comes afterwards is not left waiting', async (t) => {
  const bcrypt = createBcrypt(10);
  await bcrypt.compare('s3cret', hash);
  await bcrypt.close();
  const late = bcrypt.compare('s3cret', hash).then(
    () => 'answered',
    () => 'refused',
  );
  // Another thread starts and answers meanwhile.
  const other = bcryptFor(t);
  const meanwhile = other.compare('s3cret', slowHash).then(() => 'left waiting');
  t.not(await Promise.race([late, meanwhile]), 'left waiting');
});
