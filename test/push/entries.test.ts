import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import type { Index } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parsePlatform, platformJson } from '../../src/oci/platform.ts';
import { changedEntries, entriesOf, entryName, mergeEntries, other } from '../../src/push/entries.ts';
import type { MadeIndex } from '../../src/push/entries.ts';
import { indexIn, publishedImages } from '../fixtures/published.ts';

const digest = (name: string) => digestOf(Buffer.from(name));
const platform = (text: string) => parsePlatform(text)!;

const plain = (name: string) => ({
  mediaType: mediaTypes.ociManifest,
  digest: digest(name),
  size: name.length,
  'x-name': name,
});

/** A child by its platform; ` #2` tells others of the same apart. */
const image = (name: string) => ({ ...plain(name), platform: platformJson(platform(name.split(' ')[0]!)) });

/** What is said about the child called `subject`. */
const about = (subject: string) => ({
  ...plain(`about ${subject}`),
  platform: { os: 'unknown', architecture: 'unknown' },
  annotations: { 'vnd.docker.reference.digest': digest(subject) },
});

function indexOf(manifests: readonly object[], fields: object = {}): Index {
  const source = { schemaVersion: 2, mediaType: mediaTypes.ociIndex as string, manifests, ...fields };
  return indexIn(Buffer.from(JSON.stringify(source)), source.mediaType);
}

const names = ({ manifests }: Pick<Index, 'manifests'>) => manifests.map(({ source }) => source['x-name'] as string);

const told = (index: Index) =>
  [...entriesOf(index).values()].map(({ name, children }) => `${name}: ${names({ manifests: children }).join(', ')}`);

const reread = ({ bytes, mediaType }: MadeIndex) => indexIn(bytes, mediaType);

void t.test('entryName: of a Windows version the build counts', (t) => {
  const cases: [text: string, expected: string][] = [
    ['linux/amd64', 'linux/amd64'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['windows/amd64', 'windows/amd64'],
    ['windows(10.0.20348.5622)/amd64', 'windows(10.0.20348)/amd64'],
    ['windows(10.0.20348)/amd64', 'windows(10.0.20348)/amd64'],
    ['windows(10.0)/amd64', 'windows(10.0)/amd64'],
  ];
  for (const [text, expected] of cases) t.equal(entryName(platform(text)), expected, text);
  t.end();
});

void t.test('entriesOf: what is said about an image goes with it, wherever it stands', (t) => {
  const index = indexOf([
    about('linux/arm64'),
    image('linux/amd64'),
    about('linux/amd64'),
    image('linux/arm64'),
    image('windows(10.0.20348.1)/amd64'),
    image('windows(10.0.26100.1)/amd64'),
    image('linux/amd64 #2'),
    image('windows(10.0.20348.2)/amd64'),
    about('what is not here'),
    plain('no platform'),
    about('no platform'),
  ]);
  t.same(told(index), [
    'linux/arm64: about linux/arm64, linux/arm64',
    'linux/amd64: linux/amd64, about linux/amd64, linux/amd64 #2',
    'windows(10.0.20348)/amd64: windows(10.0.20348.1)/amd64, windows(10.0.20348.2)/amd64',
    'windows(10.0.26100)/amd64: windows(10.0.26100.1)/amd64',
    'other: about what is not here, no platform, about no platform',
  ]);
  t.same(entriesOf(index).get('linux/amd64')?.platform, platform('linux/amd64'));
  t.equal(entriesOf(index).get(other)?.platform, undefined);
  t.equal(entriesOf(indexOf([])).size, 0);
  t.end();
});

void t.test('entriesOf: each platform of a published image has its own entry, with all of its children', (t) => {
  for (const { name, index } of publishedImages) {
    const entries = entriesOf(index);
    const children = [...entries.values()].flatMap((entry) => entry.children);
    t.equal(children.length, index.manifests.length, name);
    t.equal(new Set(children).size, children.length);
    t.notOk(entries.has(other));
    for (const entry of entries.values()) {
      const [first, ...rest] = entry.children;
      if (entryName(first!.platform!) !== entry.name) t.fail(entry.name);
      if (rest.some(({ annotations }) => annotations['vnd.docker.reference.digest'] !== first!.digest)) t.fail(name);
    }
  }
  t.end();
});

void t.test('changedEntries: those that are not the same, come or gone', (t) => {
  const before = [image('linux/amd64'), about('linux/amd64'), image('linux/arm64'), plain('note')];
  const cases: Record<string, [after: object[], expected: string[]]> = {
    nothing: [before, []],
    'another order of platforms': [[before[3]!, before[2]!, before[0]!, before[1]!], []],
    'another image': [[image('linux/amd64 #2'), image('linux/arm64'), plain('note')], ['linux/amd64']],
    'its attestation gone': [[image('linux/amd64'), image('linux/arm64'), plain('note')], ['linux/amd64']],
    'one more': [[...before, image('linux/s390x')], ['linux/s390x']],
    'one gone': [[before[0]!, before[1]!, before[3]!], ['linux/arm64']],
    'what is of no platform': [before.slice(0, 3), ['other']],
    'a field that nobody knows': [[...before.slice(0, 2), { ...before[2], 'x-new': 1 }, before[3]!], ['linux/arm64']],
    everything: [[], ['linux/amd64', 'linux/arm64', 'other']],
  };
  const old = entriesOf(indexOf(before));
  for (const [what, [after, expected]] of Object.entries(cases)) {
    const changed = (one: typeof old, two: typeof old) => changedEntries(one, two).map(({ name }) => name);
    const now = entriesOf(indexOf(after));
    t.same(changed(old, now), expected, what);
    t.same(changed(now, old).toSorted(), expected, `${what}, the other way`);
  }
  const patched = changedEntries(
    entriesOf(indexOf([image('windows(10.0.20348.1)/amd64')])),
    entriesOf(indexOf([image('windows(10.0.20348.2)/amd64')])),
  );
  t.same(
    patched.map(({ children }) => names({ manifests: children })),
    [['windows(10.0.20348.2)/amd64']],
    'what has changed is told as it is afterwards',
  );
  t.end();
});

void t.test('mergeEntries: replaces in place, appends what is new, leaves the others', (t) => {
  const base = indexOf([
    image('linux/amd64'),
    image('linux/arm64'),
    image('windows(10.0.20348.1)/amd64'),
    image('windows(10.0.26100.1)/amd64'),
    about('linux/amd64'),
    about('linux/arm64'),
    plain('note'),
  ]);
  const cases: Record<string, [pushed: object[], expected: string[]]> = {
    nothing: [[], names(base)],
    'one of them again': [
      [image('linux/arm64')],
      [
        'linux/amd64',
        'linux/arm64',
        'windows(10.0.20348.1)/amd64',
        'windows(10.0.26100.1)/amd64',
        'about linux/amd64',
        'note',
      ],
    ],
    'the first, with what is said about it': [
      [about('linux/amd64 #2'), image('linux/amd64 #2')],
      [
        'about linux/amd64 #2',
        'linux/amd64 #2',
        'linux/arm64',
        'windows(10.0.20348.1)/amd64',
        'windows(10.0.26100.1)/amd64',
        'about linux/arm64',
        'note',
      ],
    ],
    'a new patch of Windows': [
      [image('windows(10.0.20348.9)/amd64')],
      names(base).map((name) => name.replace('20348.1', '20348.9')),
    ],
    'a new build of Windows': [[image('windows(10.0.17763.1)/amd64')], [...names(base), 'windows(10.0.17763.1)/amd64']],
    'another variant': [
      [image('linux/arm/v6'), about('linux/arm/v6'), image('linux/arm/v7')],
      [...names(base), 'linux/arm/v6', 'about linux/arm/v6', 'linux/arm/v7'],
    ],
    'what is of no platform': [[plain('note #2')], [...names(base).slice(0, -1), 'note #2']],
  };
  for (const [what, [pushed, expected]] of Object.entries(cases)) {
    const merged = mergeEntries(base, entriesOf(indexOf(pushed)));
    t.same(names(reread(merged)), expected, what);
    t.equal(merged.digest, digestOf(merged.bytes));
    t.ok(mergeEntries(base, entriesOf(indexOf(pushed))).bytes.equals(merged.bytes), 'the same again');
    const twice = mergeEntries(reread(merged), entriesOf(indexOf(pushed)));
    t.ok(twice.bytes.equals(merged.bytes), 'and pushing it twice changes nothing');
  }
  t.end();
});

void t.test('mergeEntries: twins go together', (t) => {
  const base = indexOf([image('linux/amd64'), image('linux/arm64'), image('linux/amd64 #2'), about('linux/amd64 #2')]);
  const merged = mergeEntries(base, entriesOf(indexOf([image('linux/amd64 #3')])));
  t.same(names(reread(merged)), ['linux/amd64 #3', 'linux/arm64']);
  t.end();
});

void t.test('mergeEntries: everything else of the index stays, and without one there is a new one', (t) => {
  const fields = { annotations: { a: 'ü' }, 'x-unknown': [{ b: 1, a: 2 }], mediaType: mediaTypes.dockerList };
  const base = indexOf([image('linux/amd64')], fields);
  const entries = entriesOf(indexOf([image('linux/arm64')]));
  const merged = mergeEntries(base, entries);
  t.equal(merged.mediaType, mediaTypes.dockerList);
  t.equal(
    merged.bytes.toString(),
    JSON.stringify({ ...base.source, manifests: [image('linux/amd64'), image('linux/arm64')] }),
  );
  const made = mergeEntries(undefined, entries);
  t.equal(made.mediaType, mediaTypes.ociIndex);
  t.equal(
    made.bytes.toString(),
    JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [image('linux/arm64')] }),
  );
  t.end();
});

void t.test('mergeEntries: a published image put together platform by platform is the same image', (t) => {
  for (const { name, index, bytes } of publishedImages) {
    let built: Index | undefined;
    for (const [key, entry] of entriesOf(index)) built = reread(mergeEntries(built, new Map([[key, entry]])));
    const all = new Map(index.manifests.map((child) => [child.digest, child.source]));
    t.same(new Map(built!.manifests.map((child) => [child.digest, child.source])), all, name);
    t.equal(changedEntries(entriesOf(index), entriesOf(built!)).length, 0);
    t.ok(mergeEntries(index, entriesOf(index)).bytes.equals(bytes), 'and all of it over itself');
  }
  t.end();
});
