import t from 'tap';
import { bytesBlob, pieces, readAll, verify } from '../../src/cache/bytes.ts';
import type { Blob } from '../../src/cache/tier.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';

const content = noise('bytes', 700_000);

/** Gives at most `step` bytes a read, from two buffers by turns, as a tier may. */
function frugal(bytes: Buffer, step: number): Blob & { closes: number } {
  const buffers = [Buffer.alloc(step), Buffer.alloc(step)];
  let turn = 0;
  const blob = {
    size: bytes.length,
    state: 'hit-disk' as const,
    verified: undefined,
    closes: 0,
    read(position: number, maxBytes: number) {
      turn = 1 - turn;
      const buffer = buffers[turn]!;
      const length = bytes.copy(buffer, 0, position, position + Math.min(step, maxBytes));
      return Promise.resolve(buffer.subarray(0, length));
    },
    close() {
      blob.closes++;
      return Promise.resolve();
    },
  };
  return blob;
}

void t.test('bytesBlob: bytes at hand are a blob that is known to be right', async (t) => {
  const blob = bytesBlob(content, 'miss');
  t.match(blob, { size: content.length, state: 'miss' });
  t.equal(blob.verified, undefined);
  t.ok((await blob.read(0, 10)).equals(content.subarray(0, 10)));
  t.ok((await blob.read(content.length - 5, 100)).equals(content.subarray(-5)), 'no more than there is');
  await t.resolves(blob.close());
});

void t.test('pieces: the whole in order, whatever a read gives', async (t) => {
  for (const step of [700, 65_536, 300_000, 1_000_000]) {
    const got: Buffer[] = [];
    for await (const piece of pieces(frugal(content, step))) got.push(Buffer.from(piece));
    t.ok(Buffer.concat(got).equals(content), `${step} bytes a read`);
  }
  for await (const piece of pieces(bytesBlob(Buffer.alloc(0), 'miss'))) t.fail(`a piece of ${piece.length} bytes`);
});

void t.test('pieces: one stays as it is until the second after it', async (t) => {
  let before: Buffer | undefined;
  let position = 0;
  for await (const piece of pieces(frugal(content, 10_000))) {
    if (before && !before.equals(content.subarray(position - before.length, position))) t.fail(`at ${position}`);
    before = piece;
    position += piece.length;
  }
  t.equal(position, content.length);
});

void t.test('readAll: gives the whole in memory of its own, and closes the blob', async (t) => {
  const blob = frugal(content, 1000);
  t.ok((await readAll(blob)).equals(content));
  t.equal(blob.closes, 1);
});

void t.test(
  'readAll: a verdict against the blob is a failure, and so is a broken read; it is closed all the same',
  async (t) => {
    const rotten = frugal(content, 65_536);
    const verdict = Promise.reject(new Error('rotten'));
    verdict.catch(() => undefined);
    await t.rejects(readAll({ ...rotten, verified: verdict, close: rotten.close }), /rotten/);
    t.equal(rotten.closes, 1);
    const broken = frugal(content, 65_536);
    const read: Blob['read'] = (position, maxBytes) =>
      position > 300_000 ? Promise.reject(new Error('broken')) : frugal(content, 65_536).read(position, maxBytes);
    await t.rejects(readAll({ ...broken, read, close: broken.close }), /broken/);
    t.equal(broken.closes, 1);
  },
);

void t.test('readAll: waits for the verdict', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let isRead = false;
  const reading = readAll({ ...bytesBlob(content, 'hit-disk'), verified: promise }).then(() => (isRead = true));
  await new Promise((next) => setImmediate(next));
  t.equal(isRead, false);
  resolve();
  t.equal(await reading, true);
});

void t.test('verify: passes what hashes to its digest, in each algorithm, and nothing else', async (t) => {
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const digest = digestOf(content, algorithm);
    t.equal(await verify(frugal(content, 10_000), digest), true);
    const wrong = Buffer.from(content);
    wrong[wrong.length - 1]! ^= 1;
    t.equal(await verify(frugal(wrong, 10_000), digest), false);
    t.equal(await verify(bytesBlob(content.subarray(0, -1), 'miss'), digest), false);
  }
});
