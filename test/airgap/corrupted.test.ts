import { randomInt } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import t from 'tap';
import type { Test } from 'tap';
import { importBundle } from '../../src/airgap/import.ts';
import { readTar } from '../../src/airgap/tar-reader.ts';
import { openStaging } from '../../src/cache/staging.ts';
import { withWorkbench } from '../../src/cli/workbench.ts';
import type { Workbench } from '../../src/cli/workbench.ts';
import { importParts } from '../../src/wiring/airgap-parts.ts';
import {
  changeHeader,
  createSide,
  exportEdge,
  file,
  hexDigest,
  joinTar,
  paddingOf,
  pathOf,
  quiet,
  sourceOf,
  splitTar,
  storedFiles,
  tarHeader,
} from '../fixtures/bundles.ts';
import type { Side, TarPart } from '../fixtures/bundles.ts';
import { noise } from '../fixtures/images.ts';

/** The same numbers for the same seed (mulberry32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

type Below = (below: number) => number;
type Change = (below: Below, bundle: Buffer, parts: readonly TarPart[]) => Buffer;

const flip: Change = (below, bundle) => {
  const changed = Buffer.from(bundle);
  changed[below(bundle.length)]! ^= 1 << below(8);
  return changed;
};
const cut: Change = (below, bundle) => bundle.subarray(0, below(bundle.length));

/** A change to one entry, or more, that leaves the rest of the archive as it is. */
const toEntry =
  (change: (below: Below, part: TarPart, at: number, parts: readonly TarPart[]) => TarPart[]): Change =>
  (below, _, parts) => {
    const at = below(parts.length);
    return joinTar(parts.toSpliced(at, 1, ...change(below, parts[at]!, at, parts)));
  };

const renamed = (path: string) =>
  toEntry((_, part) => [{ header: tarHeader({ path, bytes: part.content.length }), content: part.content }]);

const turnedInto = (type: string, link = '', keepsContent = true) =>
  toEntry((_, part) => {
    const content = keepsContent ? part.content : Buffer.alloc(0);
    return [{ header: tarHeader({ path: pathOf(part), bytes: content.length, type, link }), content }];
  });

const pax = (records: string, type: string): TarPart => ({
  header: tarHeader({ path: 'PaxHeaders/x', bytes: records.length, type }),
  content: Buffer.from(records),
});

const changes: Record<string, Change> = {
  'a bit flipped': flip,
  'another bit flipped': flip,
  'one more bit flipped': flip,
  'a byte replaced in a header': (below, bundle, parts) => {
    const at = below(parts.length);
    const before = parts
      .slice(0, at)
      .reduce((total, { content }) => total + 512 + content.length + paddingOf(content.length), 0);
    const changed = Buffer.from(bundle);
    changed[before + below(512)] = below(256);
    return changed;
  },
  'a header changed, with a right checksum': toEntry((below, { header, content }) => [
    { header: changeHeader(header, below(500), Buffer.from([below(256)])), content },
  ]),
  'cut off': cut,
  'cut off at a block': (below, bundle) => bundle.subarray(0, 512 * below(bundle.length / 512)),
  'an entry repeated': toEntry((_, part) => [part, part]),
  'an entry repeated elsewhere': (below, _, parts) =>
    joinTar(parts.toSpliced(below(parts.length + 1), 0, parts[below(parts.length)]!)),
  'an entry left out': toEntry(() => []),
  'two entries swapped': (below, _, parts) => {
    const [one, other] = [below(parts.length), below(parts.length)];
    return joinTar(parts.with(one, parts[other]!).with(other, parts[one]!));
  },
  'contents of two entries swapped': (below, _, parts) => {
    const [one, other] = [below(parts.length), below(parts.length)];
    const held = (at: number, from: number) => file(pathOf(parts[at]!), parts[from]!.content);
    return joinTar(parts.with(one, held(one, other)).with(other, held(other, one)));
  },
  'renamed to a folder above': renamed('../x'),
  'renamed to a path of the machine': renamed('/etc/x'),
  'renamed to a way out of the blobs': renamed('blobs/sha256/../../x'),
  'renamed to a blob that it is not': renamed(`blobs/sha256/${hexDigest(Buffer.from('other'))}`),
  'renamed to the same by another way': toEntry((_, part) => [
    {
      header: tarHeader({ path: `./${pathOf(part)}`.slice(0, 100), bytes: part.content.length }),
      content: part.content,
    },
  ]),
  'turned into a symbolic link': turnedInto('2', '/etc/passwd', false),
  'turned into a hard link': turnedInto('1', 'index.json', false),
  'turned into a link with content': turnedInto('2', '../../x'),
  'turned into a device': turnedInto('3', '', false),
  'turned into a block device': turnedInto('4', '', false),
  'turned into a folder': turnedInto('5', '', false),
  'turned into a pipe': turnedInto('6', '', false),
  'turned into extended records': turnedInto('x'),
  'another size in the header': toEntry((below, { header, content }) => [
    { header: changeHeader(header, 124, `${below(5000).toString(8).padStart(11, '0')}\0`), content },
  ]),
  'longer by a byte': toEntry((below, part) => [
    file(pathOf(part), Buffer.concat([part.content, Buffer.from([below(256)])])),
  ]),
  'shorter by a byte': toEntry((_, part) => [file(pathOf(part), part.content.subarray(0, -1))]),
  emptied: toEntry((_, part) => [file(pathOf(part), '')]),
  'bytes inserted': (below, bundle) => {
    const at = below(bundle.length);
    return Buffer.concat([bundle.subarray(0, at), noise(String(at), 1 + below(600)), bundle.subarray(at)]);
  },
  'a block of nothing inserted': (below, bundle) => {
    const at = 512 * below(bundle.length / 512);
    return Buffer.concat([bundle.subarray(0, at), Buffer.alloc(512), bundle.subarray(at)]);
  },
  'an entry inserted': (below, _, parts) =>
    joinTar(
      parts.toSpliced(below(parts.length + 1), 0, file(`blobs/sha256/${hexDigest(Buffer.from('more'))}`, 'more')),
    ),
  'extended records inserted that say nothing': (below, _, parts) =>
    joinTar(parts.toSpliced(below(parts.length), 0, pax('13 comment=x\n', below(2) === 0 ? 'x' : 'g'))),
  'a path in extended records': (below, _, parts) =>
    joinTar(parts.toSpliced(below(parts.length), 0, pax('15 path=../../x', 'x'))),
  'bytes after the end': (below, bundle) => Buffer.concat([bundle, noise('end', 1 + below(2000))]),
  'nothing after the end': (below, bundle) => Buffer.concat([bundle, Buffer.alloc(1 + below(20_000))]),
  'another bundle after the end': (_, bundle) => Buffer.concat([bundle, bundle]),
  'another bundle in the place of the end': (_, bundle) => Buffer.concat([bundle.subarray(0, -1024), bundle]),
  'index.json altered': (below, _, parts) => {
    const text = parts[2]!.content.toString();
    const altered = [
      text.replace('app:1', 'app:2'),
      text.replace(/"size":\d+/, '"size":7'),
      `${text}\n`,
      '{"manifests":[]}',
    ];
    return joinTar(parts.with(2, file('index.json', altered[below(altered.length)]!)));
  },
  'contents altered': (below, _, parts) => {
    const text = parts[0]!.content.toString();
    const altered = [
      text.replace('edge', 'edgy'),
      text.replace('linux/arm64', 'linux/amd64'),
      text.replace('true', 'null'),
      `${text} `,
    ];
    return joinTar(parts.with(0, file(pathOf(parts[0]!), altered[below(altered.length)]!)));
  },
};

/** What can be seen of a store that is open. */
async function seenOf({ storage, config }: Workbench): Promise<unknown> {
  const { sets } = storage.catalog;
  const all = sets.all();
  const pinned = storage.catalog.pinnedBytes();
  return {
    files: await storedFiles(config.cache.disk.path),
    all,
    pinned,
    entries: all.map(({ name }) => sets.entries(name)),
  };
}

/** Tries bundles one after another on a store that is opened once, in the same way as the command does with one. */
async function withImports(
  side: Side,
  work: (attempt: (bytes: Buffer) => Promise<string | undefined>, seen: () => Promise<unknown>) => Promise<void>,
): Promise<void> {
  await withWorkbench({ config: side.file, offline: true }, quiet, async (bench) => {
    const staging = (await openStaging(side.store, Date.now))!;
    const parts = importParts({
      config: bench.config,
      work: bench,
      staging,
      checkSignature: () => undefined,
      onBytes: () => undefined,
      now: Date.now,
    });
    const options = { as: undefined, set: undefined, isFolder: false, signal: new AbortController().signal };
    const attempt = async (bytes: Buffer) => {
      try {
        await importBundle(parts, (isStrict) => readTar(sourceOf(bytes), isStrict), options);
        return undefined;
      } catch (error) {
        if ((error as Error).name !== 'BundleError') throw error;
        return (error as Error).message;
      }
    };
    await work(attempt, () => seenOf(bench));
    staging.close();
  });
}

const fixedSeeds = Array.from({ length: 700 }, (_, at) => at);
const randomSeed = randomInt(2 ** 31);
const randomSeeds = Array.from({ length: 300 }, (_, at) => randomSeed + at);
const kinds = Object.entries(changes);

/** @param fresh a store that none of the corrupted bundles has been in */
async function tryAll(t: Test, bundle: Buffer, fresh: () => Promise<Side>): Promise<void> {
  const parts = splitTar(bundle);
  const corrupted = [...fixedSeeds, ...randomSeeds].flatMap((seed, at) => {
    const [kind, change] = kinds[at % kinds.length]!;
    const bytes = change(numbers(seed), bundle, parts);
    return bytes.equals(bundle) ? [] : [{ name: `${kind} (seed ${seed})`, bytes }];
  });
  const accepted: string[] = [];
  const unlike: string[] = [];
  for (let at = 0; at < corrupted.length; at++) {
    await withImports(await fresh(), async (attempt, seen) => {
      const before = JSON.stringify(await seen());
      for (let refusal: string | undefined = ''; refusal !== undefined && at < corrupted.length; at++) {
        const { name, bytes } = corrupted[at]!;
        refusal = await attempt(bytes);
        if (refusal === undefined) accepted.push(name);
        else if (!/^[\x20-\x7e]+: [\x20-\x7e]+[^.]$/.test(refusal)) unlike.push(refusal);
        else if (JSON.stringify(await seen()) !== before) t.fail(`${name}: the store is as it was`);
      }
    });
    at--;
  }
  t.comment(`${corrupted.length} different bundles, random seed ${randomSeed}`);
  t.same(accepted, [], 'none is taken in');
  t.same(unlike, [], 'each refusal says which entry, and why');
  t.ok(corrupted.length > 950, `${corrupted.length} were really different`);
}

void t.test('76. a thousand corrupted bundles: none is taken in, and an empty store stays empty', async (t) => {
  const { bundle } = await exportEdge(t);
  await tryAll(t, bundle, () => createSide(t));
});

void t.test('76. a thousand corrupted bundles: a store that has all of it stays as it is', async (t) => {
  const { bundle, file } = await exportEdge(t);
  await tryAll(t, bundle, async () => {
    const far = await createSide(t);
    t.equal((await far.run('import', file)).code, 0);
    return far;
  });
});

void t.test('the command: exit 1, one sentence with the entry and the reason, and nothing of it is kept', async (t) => {
  const { bundle } = await exportEdge(t);
  const parts = splitTar(bundle);
  const far = await createSide(t);
  const before = await far.seen();
  const blob = pathOf(parts[5]!);
  const firstBlob = bundle.indexOf(parts[3]!.content);
  const flipped = Buffer.from(bundle);
  flipped[firstBlob]! ^= 1;
  const broken: [string, Buffer, string][] = [
    ['a bit of a blob', flipped, `${pathOf(parts[3]!)}: its content is not that of its name`],
    [
      'cut in its first half',
      bundle.subarray(0, firstBlob + 5),
      `${pathOf(parts[3]!)}: the archive ends in the middle of it; a part of it may be missing`,
    ],
    ['empty', Buffer.alloc(0), 'entry 1 at byte 0: the archive ends here, without the mark of its end'],
    ['only an end', Buffer.alloc(1024), 'the archive: is empty'],
    ['no tar', noise('no tar', 5000), 'entry 1 at byte 0: is no entry of a tar: its checksum is wrong'],
    ['a blob left out', joinTar(parts.toSpliced(5, 1)), `${pathOf(parts[6]!)}: stands where ${blob} should be`],
    ['the last blob left out', joinTar(parts.slice(0, -1)), `${pathOf(parts.at(-1)!)}: is missing`],
    [
      'a blob too many',
      joinTar([...parts, file('blobs/sha256/x', 'x')]),
      'blobs/sha256/x: is more than the bundle says it holds',
    ],
    [
      'a way out',
      changes['renamed to a folder above']!(() => 5, bundle, parts),
      `../x: stands where ${blob} should be`,
    ],
    [
      'a link',
      changes['turned into a symbolic link']!(() => 5, bundle, parts),
      `${blob}: is a link, a device or something else that no layout has`,
    ],
    [
      'another size',
      joinTar(parts.with(5, file(blob, 'x'))),
      `${blob}: has 1 bytes instead of ${parts[5]!.content.length}`,
    ],
    [
      'another index',
      joinTar(parts.with(2, file('index.json', parts[2]!.content.toString().replace('app:1', 'app:2')))),
      'index.json: was changed after it was written',
    ],
    ['two of them', Buffer.concat([bundle, bundle]), 'the end of the archive: is followed by more'],
  ];
  for (const [what, bytes, sentence] of broken) {
    await writeFile(far.path('broken.tar'), bytes);
    const refused = await far.run('import', far.path('broken.tar'));
    t.strictSame(refused, { code: 1, out: '', err: `Refused, and nothing of it was kept. ${sentence}.\n` }, what);
    t.strictSame(await far.seen(), before, `${what}: nothing of it is there`);
  }
  t.match(await far.run('check', 'app:1', '--platform', 'linux/arm64'), { code: 1, out: /absent/ });
});
