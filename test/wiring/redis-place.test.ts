import t from 'tap';
import { nameOf, placeOf } from '../../src/wiring/redis-place.ts';

const nothing = { url: null, cluster: [], sentinels: [], master: 'mymaster' };

void t.test('one Redis, a cluster, or the master that sentinels know', (t) => {
  t.equal(placeOf(nothing), undefined);
  const single = placeOf({ ...nothing, url: 'redis://me:secret@cache:6380/2' })!;
  t.match(single, { kind: 'single' });
  t.equal(nameOf(single), 'cache:6380', 'the log tells of no password');
  const nodes = [
    { host: 'a', port: 7000 },
    { host: 'b', port: 7001 },
  ];
  const cluster = placeOf({ ...nothing, cluster: ['a:7000', 'b:7001'] })!;
  t.same(cluster, { kind: 'cluster', nodes });
  t.equal(nameOf(cluster), 'a:7000, b:7001');
  t.same(placeOf({ ...nothing, sentinels: ['a:7000', 'b:7001'] }), { kind: 'sentinel', master: 'mymaster', nodes });
  t.end();
});
