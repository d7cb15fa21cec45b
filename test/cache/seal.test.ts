import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import t from 'tap';
import { createRecords } from '../../src/cache/records.ts';
import type { Records } from '../../src/cache/records.ts';
import { createRedisLedger } from '../../src/cache/redis-ledger.ts';
import { createRedisNames } from '../../src/cache/redis-names.ts';
import { createSeal, sealedLedger } from '../../src/cache/seal.ts';
import type { Seal } from '../../src/cache/seal.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { ledgerContract } from '../contracts/ledger.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasRedis, openTestRedis, startRedis } from '../fixtures/redis.ts';
import type { TestRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const [key, older] = [randomBytes(32), randomBytes(32)];
const seal = createSeal([key]);
const digest = digestOf(Buffer.from('content'));

void t.test('createSeal: good for this text at this place, with a key that is known', (t) => {
  const made = seal.make('a', 'text');
  t.ok(seal.isGood('a', 'text', made));
  t.ok(createSeal([older, key]).isGood('a', 'text', made), 'of the key before');
  t.not(createSeal([older, key]).make('a', 'text'), made, 'the first one seals');
  t.not(seal.make('1:ab', 'c'), seal.make('1:a', 'bc'), 'where the place ends is part of it');
  const bad: [string, string, string][] = [
    ['b', 'text', made],
    ['a', 'Text', made],
    ['a', 'text', ''],
    ['a', 'text', made.slice(1)],
    ['a', 'text', `${made}AAAA`],
    ['a', 'text', createSeal([older]).make('a', 'text')],
  ];
  for (const one of bad) t.notOk(seal.isGood(...one), one.join());
  t.end();
});

/** Records of a replica, and what it found wrong. */
async function openReplica(t: Teardown, server: TestRedis, sealing: Seal | undefined) {
  const { redis } = await openTestRedis(t, server.port);
  const database = openSqliteRecords(join(await temporaryFolder(t), 'records.sqlite'), 2 ** 20);
  t.teardown(() => database.close());
  const trouble: string[] = [];
  const repositories = createRedisNames(redis, 'repositories');
  const shared = { open: redis.records, repositories, guard: redis.guard, ttlMs: 60_000, seal: sealing };
  const onTrouble = (error: unknown) => void trouble.push((error as Error).message);
  return { records: createRecords({ local: database.adapter, shared, onTrouble }), trouble };
}

const write = async ({ blobs, tags, origins }: Records) => {
  await blobs.set(`up/public@${digest}`, { size: 7 });
  await tags.set('up/public:1', { digest, checkedAtMs: 1 });
  await origins.set('up/public', { from: 'up/other' });
};

void t.test('20. records: replicas with the key believe one another', { skip }, async (t) => {
  const server = await startRedis(t);
  await write((await openReplica(t, server, seal)).records);
  for (const sealing of [seal, createSeal([older, key])]) {
    const { records, trouble } = await openReplica(t, server, sealing);
    t.same(await records.blobs.get(`up/public@${digest}`), { size: 7 });
    t.same(await records.tags.get('up/public:1'), { digest, checkedAtMs: 1 });
    t.same(await records.origins.get('up/public'), { from: 'up/other' });
    t.same(trouble, []);
  }
});

void t.test('20. records: what others write into Redis is none, and is told', { skip }, async (t) => {
  const server = await startRedis(t);
  await write((await openReplica(t, server, seal)).records);
  const own = `narrows:blobs:up/public@${digest}`;
  const text = server.cli('GET', own).trim();
  const forgeries: Record<string, [place: string, text: string]> = {
    'a record without a seal': [`up/private@${digest}`, JSON.stringify({ value: { size: 7 } })],
    'one that is moved here from another repository': [`up/private@${digest}`, text],
    'one with another size': [`up/public@${digest}`, text.replace('"size":7', '"size":8')],
    'one with more in it': [`up/public@${digest}`, text.replace('"size":7', '"size":7,"isAnswered":true')],
    'one with the seal of another key': [
      `up/private@${digest}`,
      JSON.stringify({
        value: { value: { size: 7 }, seal: createSeal([older]).make(`blobs:up/private@${digest}`, '{"size":7}') },
      }),
    ],
    'one of another kind': [`up/public:1`, text],
  };
  for (const [what, [place, forged]] of Object.entries(forgeries)) {
    server.cli('SET', `narrows:blobs:${place}`, forged);
    const { records, trouble } = await openReplica(t, server, seal);
    t.equal(await records.blobs.get(place), undefined, what);
    t.equal(trouble.length, what === 'a record without a seal' ? 0 : 1, what);
    await records.blobs.set(place, { size: 9 });
    const other = await openReplica(t, server, seal);
    t.same(await other.records.blobs.get(place), { size: 9 }, 'what is learnt again takes its place');
  }
  const open = await openReplica(t, server, undefined);
  t.equal(await open.records.tags.get('up/public:1'), undefined, 'who has no key reads nothing sealed');
});

async function openLedger(t: Teardown, server: TestRedis, sealing: Seal) {
  return sealedLedger(createRedisLedger((await openTestRedis(t, server.port)).redis), sealing);
}

void t.test('sealedLedger: the contract', { skip }, async (t) => {
  await ledgerContract(t, async (test) => {
    const server = await startRedis(test);
    return { ledger: await openLedger(test, server, seal), another: () => openLedger(test, server, seal) };
  });
});

void t.test('20. sealedLedger: a forged entry is trouble, and no other is harmed', { skip }, async (t) => {
  const server = await startRedis(t);
  const ledger = await openLedger(t, server, seal);
  await ledger.commit('team/x', [
    { key: 'tag/1', after: 'good' },
    { key: 'tag/2', after: 'other' },
  ]);
  const entries = server.cli('KEYS', '*{hosted:team/x}:entries').trim();
  const other = server.cli('HGET', entries, 'tag/2').trim();
  for (const forged of ['evil', other, `${other.split('.')[0]}.evil`, '.good', '']) {
    server.cli('HSET', entries, 'tag/1', forged);
    const told = { kind: 'storeUnavailable', status: 503, message: /team\/x was not written by this mirror/ };
    await t.rejects(ledger.get('team/x', ['tag/1']), told, forged);
    await t.rejects(ledger.list('team/x', '', '', 10), told, forged);
    await t.rejects(ledger.commit('team/x', [{ key: 'tag/1', before: 'good', after: 'x' }]), told, forged);
    t.same(await ledger.get('team/x', ['tag/2']), ['other']);
  }
});

void t.test('sealedLedger: the key is changed while entries have the seal of the one before', { skip }, async (t) => {
  const server = await startRedis(t);
  await (await openLedger(t, server, seal)).commit('r', [{ key: 'k', after: '1' }]);
  const rotated = await openLedger(t, server, createSeal([older, key]));
  t.ok(await rotated.commit('r', [{ key: 'k', before: '1', after: '2' }]));
  t.notOk(await rotated.commit('r', [{ key: 'k', before: '1', after: '3' }]));
  t.same(await (await openLedger(t, server, createSeal([older]))).get('r', ['k']), ['2'], 'sealed anew');
});
