import t from 'tap';
import { createRedisLedger } from '../../src/cache/redis-ledger.ts';
import type { Ledger } from '../../src/cache/ledger.ts';
import { ledgerContract } from '../contracts/ledger.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startCluster, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

async function prepare(t: Teardown): Promise<{ server: TestRedis; ledger: Ledger; another(): Promise<Ledger> }> {
  const server = await startRedis(t);
  const another = async () => createRedisLedger((await openTestRedis(t, server.port)).redis);
  return { server, ledger: await another(), another };
}

void t.test('the contract', { skip }, async (t) => {
  await ledgerContract(t, prepare);
});

void t.test('nothing of it ends by itself, and all of it has the prefix', { skip }, async (t) => {
  const { server, ledger } = await prepare(t);
  await ledger.commit('team/x', [{ key: 'tag/1', before: null, after: '1' }]);
  await ledger.commit('team/x', [{ key: 'tag/1', before: '1', after: '2' }]);
  await ledger.commit('team/y', [{ key: 'tag/1', after: '1' }]);
  const names = server.cli('KEYS', '*').split('\n');
  t.equal(names.length, 5);
  for (const name of names) {
    t.match(name, /^narrows:/);
    t.equal(server.cli('TTL', name), '-1', name);
  }
});

void t.test('what is wrong is thrown, never taken for an empty book', { skip }, async (t) => {
  const { server, ledger } = await prepare(t);
  await ledger.commit('team/x', [{ key: 'tag/1', after: '1' }]);
  for (const name of server.cli('KEYS', '*').split('\n')) {
    server.cli('DEL', name);
    server.cli('SET', name, 'another kind of thing');
  }
  await t.rejects(ledger.get('team/x', ['tag/1']), /WRONGTYPE/);
  await t.rejects(ledger.list('team/x', '', '', 10), /WRONGTYPE/);
  await t.rejects(ledger.commit('team/x', [{ key: 'tag/1', after: '2' }]), /WRONGTYPE/);
  await t.rejects(ledger.repositories(), /WRONGTYPE/);
});

void t.test('a Redis that has stopped is thrown', { skip }, async (t) => {
  const { server, ledger } = await prepare(t);
  await ledger.commit('team/x', [{ key: 'tag/1', after: '1' }]);
  await server.kill();
  await t.rejects(ledger.get('team/x', ['tag/1']));
  await t.rejects(ledger.list('team/x', '', '', 10));
  await t.rejects(ledger.commit('team/x', [{ key: 'tag/1', after: '2' }]));
  await t.rejects(ledger.repositories());
});

void t.test('in a cluster, repositories on all nodes', { skip }, async (t) => {
  const { place } = await startCluster(t);
  const { redis } = await openTestRedis(t, 0, { place });
  const ledger = createRedisLedger(redis);
  const names = Array.from({ length: 12 }, (_, at) => `team/${String(at).padStart(2, '0')}`);
  for (const name of names) {
    t.equal(
      await ledger.commit(name, [
        { key: 'a', before: null, after: name },
        { key: 'b', after: '1' },
      ]),
      true,
    );
  }
  for (const name of names) {
    t.same(await ledger.get(name, ['a', 'b']), [name, '1']);
    t.same(await ledger.list(name, '', 'a', 10), [{ key: 'b', value: '1' }]);
  }
  t.same(await ledger.repositories(), names);
});
