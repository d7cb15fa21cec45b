import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { openTestTier } from '../fixtures/redis-tier.ts';
import type { TestRedisTier } from '../fixtures/redis-tier.ts';
import { hasRedis } from '../fixtures/redis.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
const blobs = Array.from({ length: 16 }, (_, at) => noise(`full ${at}`, 2_500_000));

function put({ tier }: TestRedisTier, bytes: Buffer): Promise<void> {
  return tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

type Found = 'right' | 'none' | 'broken';

/** What a client would get. A broken copy is one that a read fails at; wrong bytes are for nobody. */
async function look({ tier }: TestRedisTier, bytes: Buffer): Promise<Found> {
  const blob = await tier.open(digestOf(bytes));
  if (!blob) return 'none';
  try {
    const got = await readAll(blob);
    if (!got.equals(bytes)) throw new TypeError('wrong bytes were vouched for');
    return 'right';
  } catch (error) {
    if (error instanceof TypeError) throw error;
    return 'broken';
  }
}

/** Chunks that no copy names, and that live on for long. */
function orphans({ keys, server }: TestRedisTier): string[] {
  const named = keys('narrows:*:blob').map(
    (key) => (JSON.parse(server.cli('GET', key)) as { generation: string }).generation,
  );
  return keys('narrows:*')
    .filter((key) => /:\d+$/.test(key) && !named.some((generation) => key.includes(generation)))
    .filter((key) => Number(server.cli('PTTL', key)) > 60_000);
}

void t.test(
  '52. full, and nothing may be evicted: what fits is there, what does not leaves nothing',
  { skip },
  async (t) => {
    const stage = await openTestTier(t, { args: ['--maxmemory', '20mb', '--maxmemory-policy', 'noeviction'] });
    const outcomes: (Error | undefined)[] = [];
    for (const bytes of blobs)
      outcomes.push(
        await put(stage, bytes).then(
          () => undefined,
          (error: Error) => error,
        ),
      );
    const failed = outcomes.filter((error) => error !== undefined);
    t.ok(failed.length > 4 && failed.length < 14, `${failed.length} did not fit`);
    t.ok(failed.every(({ message }) => message.includes('OOM')));
    for (const [at, bytes] of blobs.entries()) t.equal(await look(stage, bytes), outcomes[at] ? 'none' : 'right');
    await until(() => orphans(stage).length === 0, 'the end of what did not fit');
    const kept = blobs.filter((_, at) => !outcomes[at]).map((bytes) => digestOf(bytes));
    t.same(stage.books().order.toSorted(), kept.toSorted());
    t.equal(stage.books().total, kept.length * 2_500_000);
    t.same(stage.changes, [], 'a full Redis is not away');
    t.equal(stage.redis.isAway, false);
    stage.server.cli('CONFIG', 'SET', 'maxmemory', '100mb');
    await put(stage, blobs.at(-1)!);
    t.equal(await look(stage, blobs.at(-1)!), 'right');
  },
);

void t.test('full, many writers at once: nothing wrong, nothing left behind', { skip }, async (t) => {
  const stage = await openTestTier(t, {
    args: ['--maxmemory', '20mb', '--maxmemory-policy', 'noeviction'],
    connection: { stallMs: 5000 },
  });
  const outcomes = await Promise.all(
    blobs.map((bytes) =>
      put(stage, bytes).then(
        () => undefined,
        (error: Error) => error,
      ),
    ),
  );
  for (const [at, bytes] of blobs.entries()) t.equal(await look(stage, bytes), outcomes[at] ? 'none' : 'right');
  await until(() => orphans(stage).length === 0, 'the end of what did not fit');
  t.same(stage.changes, []);
});

void t.test('19. full, and Redis evicts: never a wrong byte, and a copy with a hole is none', { skip }, async (t) => {
  for (const policy of ['allkeys-lru', 'allkeys-random', 'volatile-ttl']) {
    const stage = await openTestTier(t, { args: ['--maxmemory', '20mb', '--maxmemory-policy', policy] });
    const found: Found[] = [];
    for (const [at, bytes] of blobs.entries()) {
      await put(stage, bytes).catch(() => undefined);
      found.push(await look(stage, bytes), await look(stage, blobs[at >> 1]!));
    }
    for (const bytes of blobs) found.push(await look(stage, bytes));
    t.ok(found.filter((one) => one === 'right').length > 5, `${policy}: some are there`);
    t.ok(
      found.some((one) => one !== 'right'),
      `${policy}: not all fit`,
    );
    for (const bytes of blobs) {
      const first = await look(stage, bytes);
      // Redis evicts while it is read as well, so that one that was right may be gone.
      if (first === 'broken') t.equal(await look(stage, bytes), 'none', `${policy}: a hole is found once`);
    }
    t.ok(Number(/evicted_keys:(\d+)/.exec(stage.server.cli('INFO', 'stats'))?.[1]) > 5);
    t.same(stage.changes, []);
  }
});
