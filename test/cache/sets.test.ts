import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import type { SetEntry } from '../../src/cache/sets.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const digest = (of: number | string): Digest => digestOf(Buffer.from(`content ${of}`));
const bytesEach = 1000;

async function open(t: Teardown, path?: string): Promise<Catalog> {
  let time = 0;
  const catalog = openCatalog(path ?? join(await temporaryFolder(t), 'catalog.sqlite'), () => ++time);
  t.teardown(() => catalog.close());
  return catalog;
}

/** A catalog of so many contents, none of them pinned. */
async function filled(t: Teardown, count: number): Promise<Catalog> {
  const catalog = await open(t);
  for (let at = 0; at < count; at++) catalog.add(digest(at), bytesEach);
  return catalog;
}

function entryOf(image: string, over: Partial<SetEntry> = {}): SetEntry {
  const common = { platforms: ['linux/arm64'], referrers: true, isComplete: true, warmedAtMs: 7 };
  return { image, digest: digest(image), ...common, ...over };
}

/** What may go, by its numbers. */
function loose(catalog: Catalog, of = 20): number[] {
  const all = new Set(catalog.oldest(1000).map((entry) => entry.digest));
  return Array.from({ length: of }, (_, at) => at).filter((at) => all.has(digest(at)));
}

const imagesOf = (entries: readonly SetEntry[]) => entries.map(({ image }) => image);

void t.test('sets: what was put is there, as it was, in the order of images', async (t) => {
  const { sets } = await open(t);
  const all = [
    entryOf('docker.io/library/app:1'),
    entryOf('docker.io/library/app:2', {
      platforms: ['any'],
      referrers: false,
      isComplete: false,
      warmedAtMs: 2 ** 42,
    }),
    entryOf(`ghcr.io/org/tool@${digest('tool')}`, { platforms: ['linux/amd64', 'linux/arm/v7'] }),
  ];
  for (const one of all.toReversed()) sets.put('edge', one, []);
  t.same(sets.entries('edge'), all);
  t.same(sets.entries('another'), []);
});

void t.test('sets: an image that is put again is what it was put as last', async (t) => {
  const { sets } = await open(t);
  sets.put('edge', entryOf('docker.io/library/app:1', { isComplete: false }), []);
  const next = entryOf('docker.io/library/app:1', { digest: digest('newer'), warmedAtMs: 9 });
  sets.put('edge', next, []);
  t.same(sets.entries('edge'), [next]);
});

void t.test('sets: the summary counts images, what lacks, and each digest that is here once', async (t) => {
  const catalog = await filled(t, 3);
  const { sets } = catalog;
  t.same(sets.all(), []);
  sets.put('edge', entryOf('a/b:1', { warmedAtMs: 5 }), [digest(0), digest(1)]);
  sets.put('edge', entryOf('a/b:2', { warmedAtMs: 9, isComplete: false }), [digest(1), digest(2), digest('not here')]);
  sets.put('base', entryOf('a/b:1', { warmedAtMs: 1 }), []);
  t.same(sets.all(), [
    { name: 'base', images: 1, incomplete: 0, bytes: 0, warmedAtMs: 1 },
    { name: 'edge', images: 2, incomplete: 1, bytes: 3 * bytesEach, warmedAtMs: 9 },
  ]);
});

void t.test('sets: what an image is stays, and may go when it is something else', async (t) => {
  const catalog = await filled(t, 6);
  const { sets } = catalog;
  sets.put('edge', entryOf('a/b:1'), [digest(0), digest(1)]);
  t.same(loose(catalog), [2, 3, 4, 5]);
  t.equal(catalog.pinnedBytes(), 2 * bytesEach);
  sets.put('edge', entryOf('a/b:1'), [digest(1), digest(2)]);
  t.same(loose(catalog), [0, 3, 4, 5]);
  sets.put('edge', entryOf('a/b:1'), [digest(3)], { keepsOthers: true });
  t.same(loose(catalog), [0, 4, 5], 'what it had before stays beside it');
  t.equal(catalog.pinnedBytes(), 3 * bytesEach);
  sets.put('edge', entryOf('a/b:1'), [digest(3)], { keepsOthers: false });
  t.same(loose(catalog), [0, 1, 2, 4, 5]);
});

void t.test('sets: what is reserved stays before its image is there, beside what the image has', async (t) => {
  const catalog = await filled(t, 5);
  const { sets } = catalog;
  sets.reserve('edge', { ...entryOf('a/b:1'), isComplete: false }, [digest(0)]);
  t.same(loose(catalog), [1, 2, 3, 4]);
  t.match(sets.entries('edge'), [{ image: 'a/b:1', isComplete: false }], 'what is pinned can be seen');
  sets.put('edge', entryOf('a/b:1'), [digest(0), digest(1)]);
  sets.reserve('edge', { ...entryOf('a/b:1'), isComplete: false }, [digest(2), digest(2)]);
  t.match(sets.entries('edge'), [{ isComplete: true }], 'what is on its way takes nothing from what is there');
  t.same(loose(catalog), [3, 4]);
  sets.put('edge', entryOf('a/b:1'), [digest(1)]);
  t.same(loose(catalog), [0, 2, 3, 4], 'and goes when the image turns out to be something else');
  catalog.add(digest('later'), 1);
  sets.reserve('edge', { ...entryOf('a/b:1'), isComplete: false }, [digest('later')]);
  t.notOk(
    catalog.oldest(100).some((one) => one.digest === digest('later')),
    'what comes later as well',
  );
});

void t.test('sets: content of two images goes with the last of them', async (t) => {
  const catalog = await filled(t, 2);
  const { sets } = catalog;
  sets.put('edge', entryOf('a/b:1'), [digest(0)]);
  sets.put('edge', entryOf('a/b:2'), [digest(0)]);
  sets.put('base', entryOf('a/b:1'), [digest(0)]);
  t.equal(catalog.pinnedBytes(), bytesEach, 'counted once');
  t.equal(sets.remove('edge', 'a/b:1'), true);
  t.same(imagesOf(sets.entries('edge')), ['a/b:2']);
  t.equal(sets.drop('edge'), true);
  t.same(loose(catalog), [1]);
  t.equal(sets.remove('base', 'a/b:1'), true);
  t.same(loose(catalog), [0, 1]);
  t.equal(catalog.pinnedBytes(), 0);
});

void t.test('sets: remove and drop say whether there was such a thing', async (t) => {
  const { sets } = await open(t);
  t.equal(sets.remove('edge', 'a/b:1'), false);
  t.equal(sets.drop('edge'), false);
  sets.put('edge', entryOf('a/b:1'), []);
  t.equal(sets.remove('edge', 'a/b:2'), false);
  t.equal(sets.remove('base', 'a/b:1'), false);
  t.equal(sets.remove('edge', 'a/b:1'), true);
  t.equal(sets.remove('edge', 'a/b:1'), false);
  sets.put('edge', entryOf('a/b:1'), []);
  t.equal(sets.drop('edge'), true);
  t.equal(sets.drop('edge'), false);
});

void t.test('sets: a drop also takes what was only on its way', async (t) => {
  const catalog = await filled(t, 2);
  catalog.sets.reserve('edge', { ...entryOf('a/b:1'), isComplete: false }, [digest(0)]);
  t.equal(catalog.sets.drop('edge'), true);
  t.same(loose(catalog), [0, 1]);
});

void t.test('sets: one whose name begins another’s shares nothing with it', async (t) => {
  const catalog = await filled(t, 10);
  const { sets } = catalog;
  const names = ['edge', 'edge-2', 'edge.1', 'edge2', 'edg', 'edge_', 'EDGE'];
  for (const [at, name] of names.entries()) sets.put(name, entryOf('a/b:1'), [digest(at)]);
  t.same(
    sets.all().map(({ bytes, images }) => [bytes, images]),
    names.map(() => [bytesEach, 1]),
  );
  t.equal(sets.drop('edge'), true);
  t.same(loose(catalog, 10), [0, 7, 8, 9]);
  t.same(sets.entries('edge-2').length, 1);
  t.equal(sets.remove('edge2', 'a/b:1'), true);
  t.same(loose(catalog, 10), [0, 3, 7, 8, 9]);
});

void t.test('sets: an image whose name begins another’s shares nothing with it', async (t) => {
  const catalog = await filled(t, 4);
  const { sets } = catalog;
  const images = ['a/b:1', 'a/b:1.2', 'a/b:12', 'a/b:1-x'];
  for (const [at, image] of images.entries()) sets.put('edge', entryOf(image), [digest(at)]);
  sets.remove('edge', 'a/b:1');
  t.same(loose(catalog), [0]);
  t.same(imagesOf(sets.entries('edge')).toSorted(), images.slice(1).toSorted());
});

void t.test('sets: who holds images of a repository, and of no other that begins alike', async (t) => {
  const { sets } = await open(t);
  const own = ['docker.io/library/app:1', 'docker.io/library/app:zzz', `docker.io/library/app@${digest('app')}`];
  const others = [
    'docker.io/library/app2:1',
    'docker.io/library/app-x:1',
    'docker.io/library/app.x:1',
    'docker.io/library/app_x:1',
    'docker.io/library/app/x:1',
    `docker.io/library/app/x@${digest('x')}`,
    'docker.io/library/ap:1',
    'ghcr.io/docker.io/library/app:1',
  ];
  for (const image of [...others, ...own]) sets.put('edge', entryOf(image), []);
  sets.put('base', entryOf(own[0]!, { platforms: ['any'] }), []);
  const held = sets.holding('docker.io/library/app');
  t.same(
    held.map(({ set, image }) => `${set} ${image}`).toSorted(),
    [`base ${own[0]}`, ...own.map((image) => `edge ${image}`)].toSorted(),
  );
  t.match(
    held.find(({ set }) => set === 'base'),
    entryOf(own[0]!, { platforms: ['any'] }),
  );
  t.same(imagesOf(sets.holding('docker.io/library/app/x')).length, 2);
  t.same(sets.holding('docker.io/library'), []);
  t.same(sets.holding('docker.io/library/app2:1'), []);
});

void t.test('sets: names are text, whatever stands in them', async (t) => {
  const catalog = await filled(t, 3);
  const { sets } = catalog;
  const odd = "e%_'; DROP TABLE sets; --";
  sets.put(odd, entryOf("a/b:'%"), [digest(0)]);
  sets.put('edge', entryOf('a/b:1'), [digest(1)]);
  t.same(imagesOf(sets.entries(odd)), ["a/b:'%"]);
  t.equal(sets.drop(odd), true);
  t.same(loose(catalog), [0, 2]);
  t.same(imagesOf(sets.entries('edge')), ['a/b:1']);
});

void t.test('sets: two processes on one file see what the other does at once, and it outlives both', async (t) => {
  const path = join(await temporaryFolder(t), 'catalog.sqlite');
  const one = openCatalog(path, Date.now);
  const other = openCatalog(path, Date.now);
  for (const at of [0, 1]) one.add(digest(at), bytesEach);
  one.sets.put('edge', entryOf('a/b:1'), [digest(0)]);
  t.same(imagesOf(other.sets.entries('edge')), ['a/b:1']);
  t.same(loose(other), [1]);
  other.sets.put('edge', entryOf('a/b:2'), [digest(1)]);
  t.same(loose(one), []);
  t.equal(one.sets.remove('edge', 'a/b:1'), true);
  t.equal(other.sets.remove('edge', 'a/b:1'), false);
  one.close();
  other.close();
  const next = await open(t, path);
  t.same(imagesOf(next.sets.entries('edge')), ['a/b:2']);
  t.same(loose(next), [0]);
});

void t.test('sets: one that cannot be written whole is not written at all', async (t) => {
  const catalog = await filled(t, 3);
  const { sets } = catalog;
  sets.put('edge', entryOf('a/b:1'), [digest(0)]);
  const broken = entryOf('a/b:1', { digest: null as unknown as Digest });
  t.throws(() => sets.put('edge', broken, [digest(1)]));
  t.same(sets.entries('edge'), [entryOf('a/b:1')]);
  t.same(loose(catalog), [1, 2]);
});
