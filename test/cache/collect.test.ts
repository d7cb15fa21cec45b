import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { collectable } from '../../src/cache/collect.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import { isWanted } from '../../src/pull/keeping.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const named = (name: string): Digest => digestOf(Buffer.from(name));

/** The books of a store, in which each name was used later than the one before. */
async function prepare(t: Test, sizes: Record<string, number>) {
  let now = 1000;
  const catalog = openCatalog(join(await temporaryFolder(t), 'catalog.sqlite'), () => now++);
  t.teardown(() => catalog.close());
  for (const [name, bytes] of Object.entries(sizes)) catalog.add(named(name), bytes);
  const names = new Map(Object.keys(sizes).map((name) => [named(name), name]));
  /** What would go, in order, as `name reason platforms`. */
  const collect = (maxBytes: number, ...keep: string[]) =>
    [...collectable({ catalog, maxBytes, isWanted: (served) => isWanted(served, wantedOf(keep)) })].map(
      ({ digest, reason, platforms }) => [names.get(digest), reason, ...platforms].join(' '),
    );
  return { catalog, collect };
}

function wantedOf(keep: readonly string[]) {
  return keep.length === 0 ? 'any' : keep.map((text) => parsePlatform(text)!);
}

/** Two platforms that have a layer in common, and an attestation each. */
function learnImage(catalog: Catalog): void {
  catalog.learn(named('index'), [
    { child: named('amd64'), platform: 'linux/amd64' },
    { child: named('arm64'), platform: 'linux/arm64' },
    { child: named('about amd64'), platform: 'linux/amd64' },
    { child: named('about arm64'), platform: 'linux/arm64' },
  ]);
  catalog.learn(named('amd64'), [{ child: named('amd64 layer') }, { child: named('base') }]);
  catalog.learn(named('arm64'), [{ child: named('arm64 layer') }, { child: named('base') }]);
  catalog.learn(named('about amd64'), [{ child: named('amd64 statement') }]);
}

const image = {
  index: 10,
  amd64: 10,
  arm64: 10,
  base: 1000,
  'amd64 layer': 500,
  'arm64 layer': 500,
  'about amd64': 10,
  'about arm64': 10,
  'amd64 statement': 10,
};
const imageBytes = 2060;

void t.test('collect: what is wanted and within the bound stays', async (t) => {
  const { catalog, collect } = await prepare(t, image);
  t.equal(catalog.totalBytes(), imageBytes);
  t.same(collect(imageBytes), []);
  t.same((await prepare(t, {})).collect(0), []);
});

void t.test('collect: with a platform goes all that serves no other one', async (t) => {
  const { catalog, collect } = await prepare(t, image);
  t.same(collect(imageBytes, 'linux/amd64'), [], 'as long as nothing is known of it');
  learnImage(catalog);
  t.same(collect(imageBytes, 'linux/arm64').toSorted(), [
    'about amd64 platform linux/amd64',
    'amd64 layer platform linux/amd64',
    'amd64 platform linux/amd64',
    'amd64 statement platform linux/amd64',
  ]);
  t.same(collect(imageBytes, 'linux/arm64', 'linux/amd64'), []);
  const other = collect(imageBytes, 'linux/riscv64');
  t.equal(other.length, 8, 'all but the index');
  t.ok(other.includes('base platform linux/amd64 linux/arm64'));
});

void t.test('collect: what another image needs, or nobody can place, stays', async (t) => {
  const { catalog, collect } = await prepare(t, {
    ...image,
    'other arm64': 10,
    single: 10,
    'single layer': 10,
    loose: 10,
  });
  learnImage(catalog);
  catalog.learn(named('other index'), [{ child: named('other arm64'), platform: 'linux/arm64' }]);
  catalog.learn(named('other arm64'), [{ child: named('amd64 layer') }]);
  catalog.learn(named('single'), [{ child: named('single layer') }, { child: named('amd64 statement') }]);
  t.same(collect(1e6, 'linux/arm64').toSorted(), ['about amd64 platform linux/amd64', 'amd64 platform linux/amd64']);
  catalog.learnPlatform(named('single'), 'linux/amd64');
  t.same(
    collect(1e6, 'linux/arm64').toSorted(),
    [
      'about amd64 platform linux/amd64',
      'amd64 platform linux/amd64',
      'amd64 statement platform linux/amd64',
      'single layer platform linux/amd64',
      'single platform linux/amd64',
    ],
    'an image says its platform by its config',
  );
});

void t.test('collect: a variant that runs on what is kept stays', async (t) => {
  const { catalog, collect } = await prepare(t, { v6: 1, v7: 1, v8: 1 });
  catalog.learn(
    named('index'),
    ['v6', 'v7', 'v8'].map((variant) => ({ child: named(variant), platform: `linux/arm/${variant}` })),
  );
  t.same(collect(1e6, 'linux/arm/v7'), ['v8 platform linux/arm/v8']);
});

void t.test('collect: beyond the bound the least recently used goes, and no more than it takes', async (t) => {
  const { catalog, collect } = await prepare(t, { a: 100, b: 100, c: 100, d: 100 });
  t.same(collect(400), []);
  t.same(collect(399), ['a bound']);
  t.same(collect(200), ['a bound', 'b bound']);
  catalog.used(named('a'));
  t.same(collect(200), ['b bound', 'c bound'], 'what is used is young again');
  t.same(collect(0), ['b bound', 'c bound', 'd bound', 'a bound']);
});

void t.test('collect: what goes for its platform counts for the bound, and is told once', async (t) => {
  const { catalog, collect } = await prepare(t, { ...image, loose: 40 });
  learnImage(catalog);
  const others = ['amd64', 'amd64 layer', 'about amd64', 'amd64 statement'].map(
    (name) => `${name} platform linux/amd64`,
  );
  const left = imageBytes + 40 - 530;
  t.same(collect(left, 'linux/arm64').toSorted(), others.toSorted());
  const more = collect(left - 1, 'linux/arm64');
  t.same(more.slice(0, 4).toSorted(), others.toSorted(), 'these go first');
  t.same(more.slice(4), ['index bound']);
  const all = collect(0, 'linux/arm64');
  t.equal(new Set(all).size, 10);
  t.same(all.slice(4), [
    'index bound',
    'arm64 bound linux/arm64',
    'base bound linux/amd64 linux/arm64',
    'arm64 layer bound linux/arm64',
    'about arm64 bound linux/arm64',
    'loose bound',
  ]);
});

void t.test('58. collect: what is pinned stays, whatever it is for and however much it is', async (t) => {
  const { catalog, collect } = await prepare(t, image);
  learnImage(catalog);
  catalog.pin('amd64', [{ digest: named('amd64'), deep: true }]);
  t.same(collect(imageBytes, 'linux/arm64').toSorted(), [
    'about amd64 platform linux/amd64',
    'amd64 statement platform linux/amd64',
  ]);
  t.notMatch(collect(0).join('\n'), /^(?:amd64|base|amd64 layer) bound/m);
  t.equal(collect(0).length, 6);
  catalog.unpin('amd64');
  catalog.pin('amd64', [{ digest: named('amd64'), deep: false }]);
  t.same(
    collect(imageBytes, 'linux/arm64').toSorted(),
    ['about amd64', 'amd64 layer', 'amd64 statement'].map((name) => `${name} platform linux/amd64`),
    'alone',
  );
  catalog.pin('all', [{ digest: named('index'), deep: true }]);
  t.same(collect(0, 'linux/riscv64'), []);
});

void t.test('collect: thousands are gone through, and asking takes nothing away', async (t) => {
  const names = Array.from({ length: 2500 }, (_, at) => `blob ${at}`);
  const { catalog, collect } = await prepare(t, Object.fromEntries(names.map((name) => [name, 1])));
  catalog.learn(
    named('index'),
    names.filter((_, at) => at % 2 === 0).map((name) => ({ child: named(name), platform: 'linux/s390x' })),
  );
  const found = collect(1000, 'linux/arm64');
  t.equal(found.filter((line) => line.endsWith('platform linux/s390x')).length, 1250);
  t.same(
    found.slice(1250),
    names
      .filter((_, at) => at % 2 === 1)
      .slice(0, 250)
      .map((name) => `${name} bound`),
  );
  t.equal(catalog.totalBytes(), 2500);
  t.same(collect(1000, 'linux/arm64'), found);
});
