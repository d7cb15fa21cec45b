import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { createPreferred, createTraffic, createYielding } from '../../src/upstream/yielding.ts';

const repository = parseRepositoryName('team/app');
const digest = digestOf(Buffer.from('x'));

/** A registry whose blobs are pieces that are handed out one by one. */
function registryOf(pieces: number, name = 'up'): Upstream {
  return {
    ...createOfflineRegistry(name),
    blob: () =>
      Promise.resolve({
        offset: 0,
        body: (async function* () {
          for (let at = 0; at < pieces; at++) yield Promise.resolve(Buffer.from([at]));
        })(),
        cancel: () => undefined,
      }),
  };
}

async function bodyOf(upstream: Upstream) {
  return (await upstream.blob(repository, digest, 0))!.body[Symbol.asyncIterator]();
}

void t.test('yielding: while a client is served from a registry, the background waits for its end', async (t) => {
  const traffic = createTraffic();
  const client = await bodyOf(createPreferred(registryOf(2), traffic));
  const background = await bodyOf(createYielding(registryOf(3), traffic));
  const other = await bodyOf(createYielding(registryOf(1, 'another'), traffic));
  await client.next();
  const order: string[] = [];
  const waiting = background.next().then(() => order.push('background'));
  await other.next();
  order.push('another registry');
  await client.next();
  order.push('client');
  t.equal((await client.next()).done, true);
  await waiting;
  t.same(order, ['another registry', 'client', 'background']);
  t.equal((await background.next()).done, false, 'and then goes on');
});

void t.test('yielding: a client that leaves is one that has ended', async (t) => {
  const traffic = createTraffic();
  const client = await bodyOf(createPreferred(registryOf(5), traffic));
  await client.next();
  const background = await bodyOf(createYielding(registryOf(1), traffic));
  const waiting = background.next();
  await client.return?.();
  t.equal((await waiting).done, false);
});

void t.test('yielding: a piece comes now and then however long a client takes', async (t) => {
  const traffic = createTraffic();
  const end = traffic.begin('up');
  const background = await bodyOf(createYielding(registryOf(2), traffic));
  t.equal((await background.next()).done, false);
  end();
  await traffic.quiet('up', 60_000);
  t.pass('and nobody waits for nothing');
});

void t.test('yielding: of several clients the last one counts', async (t) => {
  const traffic = createTraffic();
  const ends = [traffic.begin('up'), traffic.begin('up')];
  let isQuiet = false;
  const quiet = traffic.quiet('up', 60_000).then(() => (isQuiet = true));
  ends[0]!();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(isQuiet, false);
  ends[1]!();
  await quiet;
  t.equal(isQuiet, true);
});
