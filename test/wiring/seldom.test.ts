import t from 'tap';
import { seldom } from '../../src/wiring/seldom.ts';

void t.test('seldom: the same again only after a while, something else at once', (t) => {
  let now = 0;
  const said: string[] = [];
  const say = seldom(
    (error) => said.push((error as Error).message),
    () => now,
  );
  for (let at = 0; at < 5; at++) say(new Error('full'));
  t.same(said, ['full']);
  say(new Error('other'));
  t.same(said, ['full', 'other']);
  now = 9999;
  say(new Error('other'));
  t.equal(said.length, 2);
  now = 10_000;
  say(new Error('other'));
  t.equal(said.length, 3);
  t.end();
});
