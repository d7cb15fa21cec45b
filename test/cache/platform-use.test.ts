import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { createPlatformUses } from '../../src/cache/platform-use.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const of = (text: string) => digestOf(Buffer.from(text));

void t.test('platform use: what is here counts for the platform that it serves', async (t) => {
  const path = join(await temporaryFolder(t), 'catalog.sqlite');
  const catalog = openCatalog(path, Date.now);
  t.teardown(() => catalog.close());
  const sizes: Record<string, number> = { index: 1, arm: 10, amd: 20, 'arm layer': 100, 'amd layer': 200, both: 1000 };
  for (const [name, bytes] of Object.entries(sizes)) catalog.add(of(name), bytes);
  catalog.add(of('alone'), 5);
  catalog.add(of('by itself'), 7);
  catalog.learn(of('index'), [
    { child: of('arm'), platform: 'linux/arm64' },
    { child: of('amd'), platform: 'linux/amd64' },
    { child: of('said about it'), platform: 'unknown' },
    { child: of('not here'), platform: 'linux/s390x' },
  ]);
  catalog.learn(of('arm'), [{ child: of('arm layer') }, { child: of('both') }]);
  catalog.learn(of('amd'), [{ child: of('amd layer') }, { child: of('both') }]);
  catalog.learnPlatform(of('by itself'), 'linux/riscv64');
  const clock = { nowMs: 0 };
  const uses = createPlatformUses(
    path,
    () => clock.nowMs,
    (error) => t.fail(String(error)),
  );
  const expected = [
    { platform: 'several', bytes: 1000, blobs: 1 },
    { platform: 'linux/amd64', bytes: 220, blobs: 2 },
    { platform: 'linux/arm64', bytes: 110, blobs: 2 },
    { platform: 'linux/riscv64', bytes: 7, blobs: 1 },
    { platform: 'unknown', bytes: 6, blobs: 2 },
  ];
  t.same(await uses.count(), expected);
  catalog.add(of('new'), 1);
  t.same(uses.last(), expected, 'as it was counted');
  clock.nowMs = 60_000;
  t.same(uses.last(), expected, 'and counted again behind the answer');
  const now = await uses.count();
  t.match(
    now.find(({ platform }) => platform === 'unknown'),
    { bytes: 7, blobs: 3 },
  );
});

void t.test('platform use: books that are no books are told of, and the last count stays', async (t) => {
  const trouble = Promise.withResolvers<unknown>();
  const uses = createPlatformUses(join(await temporaryFolder(t), 'nowhere'), Date.now, trouble.resolve);
  t.same(uses.last(), []);
  t.match(await trouble.promise, /open/);
  await t.rejects(uses.count());
});
