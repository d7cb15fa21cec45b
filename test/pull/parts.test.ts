import t from 'tap';
import { worstState } from '../../src/pull/parts.ts';

void t.test('an answer is as fresh as its stalest part', (t) => {
  t.equal(worstState('hit-memory', 'stale', 'miss'), 'stale');
  t.equal(worstState('revalidated', 'miss'), 'miss');
  t.equal(worstState('revalidated', 'hit-disk'), 'revalidated');
  t.equal(worstState('hit-memory', 'hit-disk'), 'hit-disk');
  t.equal(worstState('hit-memory'), 'hit-memory');
  t.end();
});
