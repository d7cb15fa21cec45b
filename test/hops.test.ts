import t from 'tap';
import { newPseudonym, viaOf, withHops } from '../src/hops.ts';

void t.test('withHops: what a request came through is what its questions go on with', async (t) => {
  t.equal(viaOf('me'), '1.1 me');
  t.equal(await withHops(undefined, 'me', () => Promise.resolve(viaOf('me'))), '1.1 me');
  const later = withHops('1.1 edge, HTTP/1.0 proxy.example:80 (some, thing)', 'me', async () => {
    await Promise.resolve();
    return viaOf('me');
  });
  t.equal(viaOf('me'), '1.1 me', 'beside it nothing of it is known');
  t.equal(await later, '1.1 edge, HTTP/1.0 proxy.example:80, 1.1 me');
  t.equal(
    withHops('nonsense, 1.1 "a\r\nb", , 1.1', 'me', () => viaOf('me')),
    '1.1 me',
    'what is no hop is left out',
  );
  t.not(newPseudonym(), newPseudonym());
});

const hops = (count: number) => Array.from({ length: count }, (_, at) => `1.1 m${at}`).join(',');

void t.test('79. withHops: a mirror that was there already, and a chain without end', (t) => {
  const loop = { kind: 'loopDetected', status: 508, message: /own upstream/ };
  for (const via of ['1.1 me', '1.1 a, 1.1 me, 1.1 b', '1.0 me (comment)', hops(17)]) {
    t.throws(() => withHops(via, 'me', () => t.fail('nothing is answered')), loop, via);
  }
  t.equal(
    withHops(hops(16), 'me', () => 'answered'),
    'answered',
  );
  t.equal(
    withHops('1.1 metoo, 1.1 notme', 'me', () => 'answered'),
    'answered',
  );
  t.end();
});
