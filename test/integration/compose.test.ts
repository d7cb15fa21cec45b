import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { Agent } from 'undici';
import { readDocument } from '../../src/oci/manifest.ts';
import type { Index } from '../../src/oci/manifest.ts';
import { formatPlatform } from '../../src/oci/platform.ts';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltChild } from '../fixtures/images.ts';
import { fetchAnswer, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import { createPusher } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';

const platforms = [
  'linux/amd64',
  'linux/arm64',
  'linux/arm/v7',
  'linux/386',
  'linux/riscv64',
  'linux/ppc64le',
  'linux/s390x',
  'windows(10.0.20348.2402)/amd64',
];
const first = buildImage({ platforms, seed: 'first' });
const second = buildImage({ platforms, seed: 'second' });
const repetitions = 200;

async function indexOf({ get }: TestMirror, tag: string): Promise<Index> {
  const answer = await get(`/v2/team/app/manifests/${tag}`);
  return readDocument(answer.body, answer.headers['content-type'] ?? '') as Index;
}

/** What a tag has, a line for each entry, in one order. */
function linesOf({ manifests }: Index): string[] {
  return manifests.map(({ platform, digest }) => `${formatPlatform(platform!)} ${digest}`).toSorted();
}

function linesOfChildren(children: readonly BuiltChild[]): string[] {
  return children.map(({ platform, manifest }) => `${platform} ${manifest.digest}`).toSorted();
}

void t.test(
  'compose: 8 clients push 8 platforms of one tag at once, over 2 replicas',
  { skip: !hasRedis },
  async (t) => {
    const redis = await startRedis(t);
    const config = {
      repositories: [{ name: 'team/*', hosted: true, compose: true, push: ['anonymous'] }],
      // A machine that is busy with other tests is slow, and not away.
      cache: { redis: { url: redis.url, timeout: '5s' } },
      log: { level: 'warn' },
    };
    const upstreams = { lab: 'http://127.0.0.1:1' };
    const replicas = [await startTestMirror(t, { upstreams, config }), await startTestMirror(t, { upstreams, config })];
    const pushers = platforms.map((_, at) => createPusher(replicas[at % 2]!, 'team/app'));
    for (const image of [first, second]) {
      for (const [at, child] of image.children.entries()) {
        for (const blob of [child.config, ...child.layers]) t.equal((await pushers[at]!.blob(blob)).status, 201);
      }
    }
    for (let round = 0; round < repetitions; round++) {
      const tag = `round-${round}`;
      const answers = await Promise.all(first.children.map((child, at) => pushers[at]!.manifest(child.manifest, tag)));
      const statuses = new Set(answers.map(({ status }) => status));
      const indexes = await Promise.all(replicas.map((replica) => indexOf(replica, tag)));
      const wanted = linesOfChildren(first.children);
      if (statuses.size !== 1 || !statuses.has(201)) t.fail(`${tag}: ${[...statuses].join()}`);
      for (const index of indexes) t.same(linesOf(index), wanted, `${tag}: all that were pushed`);

      const again = round % platforms.length;
      const before = indexes[0]!.manifests;
      await pushers[(again + 1) % 2]!.manifest(second.children[again]!.manifest, tag);
      const after = (await indexOf(replicas[again % 2]!, tag)).manifests;
      const replaced = before.findIndex(({ digest }) => digest === first.children[again]!.manifest.digest);
      t.equal(after[replaced]?.digest, second.children[again]!.manifest.digest, `${tag}: its entry is another`);
      t.same(
        after.toSpliced(replaced, 1).map(({ source }) => source),
        before.toSpliced(replaced, 1).map(({ source }) => source),
        `${tag}: and no other`,
      );
    }
  },
);

void t.test('compose: the workers of one machine lose nothing either', async (t) => {
  const store = await temporaryFolder(t);
  const path = join(store, 'narrows.json');
  const repositories = [{ name: 'team/*', hosted: true, compose: true, push: ['anonymous'] }];
  await writeFile(path, JSON.stringify({ repositories }));
  const { url } = await startServe(t, { args: ['--config', path, '--store', store, '--workers', '2'] });
  // A connection for each client: they are spread over the workers.
  const clients = platforms.map(() => {
    const agent = new Agent({ connections: 1 });
    t.teardown(() => agent.destroy());
    const send: TestMirror['send'] = (method, target, body, headers = {}) =>
      fetchAnswer(url + target, { method, headers, dispatcher: agent, ...(body !== undefined && { body }) });
    return { send, pusher: createPusher({ send }, 'team/app') };
  });
  for (let round = 0; round < 20; round++) {
    const answers = await Promise.all(
      first.children.map((child, at) => clients[at]!.pusher.child(child, `round-${round}`)),
    );
    t.same(new Set(answers.map(({ status }) => status)), new Set([201]));
    const { body, headers } = await clients[0]!.send('GET', `/v2/team/app/manifests/round-${round}`);
    const index = readDocument(body, headers['content-type'] ?? '') as Index;
    t.same(linesOf(index), linesOfChildren(first.children));
  }
});
