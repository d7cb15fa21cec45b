import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { createMemoryTier } from '../../src/cache/memory.ts';
import type { Tier } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { contractBytes, tierContract } from '../contracts/tier.ts';
import { noise } from '../fixtures/images.ts';

void t.test('memory tier: keeps to the contract of tiers', (t) =>
  tierContract(t, () =>
    Promise.resolve({
      tier: createMemoryTier({ maxBytes: 16 * 1024 * 1024, maxBlobBytes: contractBytes + 1 }),
      litter: () => Promise.resolve([]),
    }),
  ),
);

async function put(tier: Tier, bytes: Buffer): Promise<Digest> {
  const digest = digestOf(bytes);
  await tier.put(digest, bytesBlob(bytes, 'miss'));
  return digest;
}

async function holds(tier: Tier, digest: Digest): Promise<boolean> {
  return (await tier.open(digest)) !== undefined;
}

void t.test('memory tier: what it gives is verified', async (t) => {
  const tier = createMemoryTier({ maxBytes: 1024 * 1024, maxBlobBytes: 1024 });
  const digest = await put(tier, Buffer.from('content'));
  t.equal((await tier.open(digest))?.verified, undefined);
});

void t.test('memory tier: the empty blob is a blob', async (t) => {
  const tier = createMemoryTier({ maxBytes: 1024 * 1024, maxBlobBytes: 1024 });
  const digest = await put(tier, Buffer.alloc(0));
  const blob = await tier.open(digest);
  t.equal(blob?.size, 0);
  t.equal((await readAll(blob!)).length, 0);
});

void t.test('memory tier: a blob over the limit is declined unread, one at the limit is kept', async (t) => {
  const tier = createMemoryTier({ maxBytes: 1024 * 1024, maxBlobBytes: 1000 });
  t.equal(await holds(tier, await put(tier, noise('fits', 1000))), true);
  const large = noise('too large', 1001);
  let closes = 0;
  await tier.put(digestOf(large), {
    ...bytesBlob(large, 'miss'),
    read: () => Promise.reject(new Error('was read')),
    close: () => Promise.resolve(void closes++),
  });
  t.equal(await holds(tier, digestOf(large)), false);
  t.equal(closes, 1);
});

void t.test('memory tier: the bytes held stay below the limit, the least recently used go first', async (t) => {
  const blobBytes = 10_000;
  const tier = createMemoryTier({ maxBytes: 10 * (blobBytes + 1000), maxBlobBytes: blobBytes });
  const digests: Digest[] = [];
  for (let at = 0; at < 10; at++) digests.push(await put(tier, noise(`blob ${at}`, blobBytes)));
  t.equal(await holds(tier, digests[0]!), true, 'ten fit, and the first was just used');
  digests.push(await put(tier, noise('one more', blobBytes)), await put(tier, noise('and one', blobBytes)));
  const held = await Promise.all(digests.map((digest) => holds(tier, digest)));
  t.ok(held.filter(Boolean).length <= 10);
  t.equal(held[0], true);
  t.equal(held[1], false);
  t.same(held.slice(-2), [true, true]);
});

void t.test('memory tier: small entries cost more than their bytes', async (t) => {
  const tier = createMemoryTier({ maxBytes: 100_000, maxBlobBytes: 1000 });
  const digests: Digest[] = [];
  for (let at = 0; at < 2000; at++) digests.push(await put(tier, Buffer.from(`${at}`)));
  const held = await Promise.all(digests.map((digest) => holds(tier, digest)));
  t.ok(held.filter(Boolean).length <= 200, `${held.filter(Boolean).length} of 2000 entries in 100 kB`);
  t.equal(held.at(-1), true);
});

void t.test('memory tier: one of no bytes holds nothing and harms nothing', async (t) => {
  const tier = createMemoryTier({ maxBytes: 0, maxBlobBytes: 1000 });
  const digest = await put(tier, Buffer.from('content'));
  t.equal(await holds(tier, digest), false);
  await tier.delete(digest);
});
