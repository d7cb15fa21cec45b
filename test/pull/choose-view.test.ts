import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseDocument } from '../../src/oci/manifest.ts';
import type { Descriptor, Document, Index } from '../../src/oci/manifest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parsePlatform } from '../../src/oci/platform.ts';
import type { Platform, PlatformSet } from '../../src/oci/platform.ts';
import { chooseView } from '../../src/pull/choose-view.ts';
import type { ViewChoice, ViewRequest } from '../../src/pull/choose-view.ts';
import { containerdAccept } from '../fixtures/mirror.ts';

const { ociIndex, ociManifest, dockerList, dockerManifest } = mediaTypes;

const platform = (text: string) => parsePlatform(text)!;
const digest = (name: string) => digestOf(Buffer.from(name));

/** A child by its name, which is its platform; ` #2` tells twins apart. */
function entry(name: string, more: object = {}): object {
  const { os, architecture, variant, osVersion } = platform(name.split(' ')[0]!);
  const version = osVersion && { 'os.version': osVersion };
  return { ...plain(name), platform: { os, architecture, ...(variant && { variant }), ...version }, ...more };
}

const plain = (name: string, mediaType: string = ociManifest) => ({
  mediaType,
  digest: digest(name),
  size: 500,
  'x-name': name,
});

/** What BuildKit says about the child called `subject`. */
const attestation = (subject: string) => ({
  ...plain(`about ${subject}`),
  platform: { os: 'unknown', architecture: 'unknown' },
  annotations: { 'vnd.docker.reference.digest': digest(subject), 'vnd.docker.reference.type': 'attestation-manifest' },
});

const indexOf = (manifests: readonly object[], fields: object = {}) => {
  const document = { schemaVersion: 2, mediaType: ociIndex, manifests, ...fields } as { mediaType: string };
  return parseDocument(Buffer.from(JSON.stringify(document)), document.mediaType) as Index;
};

const attested = (...names: string[]) => names.flatMap((name) => [entry(name), attestation(name)]);

/** The shapes of official images: attestations beside most children, two versions of Windows, several kinds of arm. */
const official = {
  alpine: indexOf(attested('linux/amd64', 'linux/arm/v6', 'linux/arm/v7', 'linux/arm64', 'linux/386', 'linux/s390x')),
  busybox: indexOf([
    ...attested('linux/amd64', 'linux/arm/v5'),
    entry('linux/arm/v6'),
    ...attested('linux/arm/v7', 'linux/arm64', 'linux/riscv64'),
  ]),
  caddy: indexOf([
    ...attested('linux/amd64', 'linux/arm/v6', 'linux/arm/v7', 'linux/arm64'),
    entry('windows(10.0.26100.33438)/amd64'),
    entry('windows(10.0.20348.5622)/amd64'),
  ]),
  node: indexOf(attested('linux/amd64', 'linux/arm64', 'linux/s390x')),
};

const shapes = {
  ...official,
  'a Docker list': indexOf([entry('linux/amd64'), entry('linux/arm64')], { mediaType: dockerList }),
  'zstd beside gzip': indexOf([
    entry('linux/amd64'),
    entry('linux/amd64 #2', { annotations: { 'io.github.containers.compression.zstd': 'true' } }),
    entry('linux/arm64'),
  ]),
  'micro-architectures': indexOf([entry('linux/amd64/v3'), entry('linux/amd64/v2'), entry('linux/amd64')]),
  'only a newer amd64': indexOf([entry('linux/amd64/v3'), entry('linux/arm64')]),
  'features of one child': indexOf([
    entry('linux/amd64'),
    entry('linux/amd64 #2', { platform: { os: 'linux', architecture: 'amd64', 'os.features': ['sgx'] } }),
  ]),
  'only children with features': indexOf([
    entry('linux/amd64', { platform: { os: 'linux', architecture: 'amd64', 'os.features': ['sgx'] } }),
    entry('linux/arm64'),
  ]),
  'a child without platform': indexOf([entry('linux/amd64'), plain('whatever')]),
  'one platform': indexOf([entry('linux/amd64')]),
};

/** What is no image for platforms: nothing in it can be chosen. */
const others: Record<string, Document> = {
  'an artifact': indexOf([entry('linux/amd64'), entry('linux/arm64')], { artifactType: 'application/vnd.example' }),
  nested: indexOf([entry('linux/amd64'), entry('linux/arm64'), entry('linux/arm64 #2', { mediaType: ociIndex })]),
  'nested in the old type': indexOf([entry('linux/amd64'), plain('x', dockerList)]),
  'no platforms': indexOf([plain('a'), plain('b')]),
  'unknown platforms alone': indexOf([attestation('a'), attestation('b')]),
  empty: indexOf([]),
  'a manifest': parseDocument(Buffer.from(JSON.stringify({ config: plain('c'), layers: [] })), ociManifest),
  opaque: { kind: 'opaque', mediaType: 'application/vnd.docker.distribution.manifest.v1+prettyjws' },
};

type Ask = Partial<Omit<ViewRequest, 'set' | 'document'>> & { readonly set?: string | readonly string[] };

const choose = (document: Document, { set, ...rest }: Ask): ViewChoice =>
  chooseView({
    document,
    set: toSet(set),
    accept: containerdAccept,
    endpointView: 'image',
    onMissing: 'error',
    primary: platform('linux/amd64'),
    isCompanionTag: false,
    ...rest,
  });

function toSet(set: Ask['set']): PlatformSet | undefined {
  if (set === undefined || set === 'any') return set;
  return [set].flat().map(platform);
}

const nameOf = ({ source }: Descriptor) => source['x-name'] as string;

/** The choice in one line, its children by their names. */
function told(choice: ViewChoice): string {
  if (choice.view === 'image') return `image ${nameOf(choice.child)}`;
  if (choice.view === 'index') return `index ${choice.keep.map(nameOf).join(', ')}`;
  return choice.view;
}

void t.test('chooseView: one platform and one child that fits is that image', (t) => {
  const cases: [shape: keyof typeof shapes, set: string, expected: string][] = [
    ['alpine', 'linux/amd64', 'image linux/amd64'],
    ['alpine', 'linux/arm64/v8', 'image linux/arm64'],
    ['alpine', 'linux/arm64/v9.2', 'image linux/arm64'],
    ['alpine', 'linux/arm', 'image linux/arm/v7'],
    ['alpine', 'linux/arm/v6', 'image linux/arm/v6'],
    ['alpine', 'linux/arm/v8', 'image linux/arm/v7'],
    ['alpine', 'linux/386', 'image linux/386'],
    ['busybox', 'linux/arm/v5', 'image linux/arm/v5'],
    ['busybox', 'linux/arm/v6', 'image linux/arm/v6'],
    ['caddy', 'windows(10.0.20348.1)/amd64', 'image windows(10.0.20348.5622)/amd64'],
    ['caddy', 'windows(10.0.26200.1)/amd64', 'image windows(10.0.26100.33438)/amd64'],
    ['a Docker list', 'linux/arm64', 'image linux/arm64'],
    ['zstd beside gzip', 'linux/arm64', 'image linux/arm64'],
    ['micro-architectures', 'linux/amd64', 'image linux/amd64'],
    ['micro-architectures', 'linux/amd64/v2', 'image linux/amd64/v2'],
    ['micro-architectures', 'linux/amd64/v4', 'image linux/amd64/v3'],
    ['features of one child', 'linux/amd64', 'image linux/amd64'],
    ['a child without platform', 'linux/amd64', 'image linux/amd64'],
    ['one platform', 'linux/amd64', 'image linux/amd64'],
  ];
  for (const [shape, set, expected] of cases)
    t.equal(told(choose(shapes[shape], { set })), expected, `${shape}, ${set}`);
  t.end();
});

void t.test('chooseView: where more than the platform decides, the client is left to choose', (t) => {
  const cases: [shape: keyof typeof shapes, set: string, why: string][] = [
    ['zstd beside gzip', 'linux/amd64', 'two compressions'],
    ['caddy', 'windows/amd64', 'two versions, and none asked for'],
    ['caddy', 'windows(10.0.26100.1)/amd64', 'two versions that run'],
    ['caddy', 'windows(10.0.17763.1)/amd64', 'versions that do not run, though it is Windows'],
    ['only children with features', 'linux/amd64', 'a feature that may be there'],
    ['a child without platform', 'linux/arm64', 'a child that may be meant'],
  ];
  for (const [shape, set, why] of cases) t.equal(told(choose(shapes[shape], { set })), 'verbatim', `${shape}: ${why}`);
  t.end();
});

void t.test('chooseView: what is no index of images goes out as it is, whoever asks', (t) => {
  const asks: Ask[] = [
    {},
    { set: 'any' },
    { set: 'linux/arm64' },
    { set: 'linux/mips' },
    { set: ['linux/amd64', 'linux/arm64'] },
    { set: 'linux/amd64', endpointView: 'index' },
    { set: 'linux/amd64', accept: dockerManifest },
  ];
  for (const [what, document] of Object.entries(others)) {
    for (const ask of asks) t.equal(told(choose(document, ask)), 'verbatim', `${what}, ${JSON.stringify(ask)}`);
  }
  t.end();
});

void t.test('chooseView: without a platform, with any, and under a companion tag nothing is narrowed', (t) => {
  for (const [shape, document] of Object.entries(shapes)) {
    for (const ask of [{}, { set: 'any' }, { accept: undefined }, { set: 'linux/arm64', isCompanionTag: true }]) {
      t.equal(told(choose(document, ask)), 'verbatim', `${shape}, ${JSON.stringify(ask)}`);
    }
  }
  t.end();
});

void t.test('chooseView: several platforms are an index of those, with what is said about them', (t) => {
  const cases: [shape: keyof typeof shapes, set: string[], expected: string][] = [
    ['alpine', ['linux/arm64', 'linux/amd64'], 'index linux/amd64, about linux/amd64, linux/arm64, about linux/arm64'],
    ['busybox', ['linux/arm/v6', 'linux/s390x'], 'index linux/arm/v5, about linux/arm/v5, linux/arm/v6'],
    ['caddy', ['windows/amd64', 'linux/mips'], 'index windows(10.0.26100.33438)/amd64, windows(10.0.20348.5622)/amd64'],
    ['zstd beside gzip', ['linux/amd64', 'linux/386'], 'index linux/amd64, linux/amd64 #2'],
    ['a child without platform', ['linux/arm64', 'linux/amd64'], 'verbatim'],
    ['node', ['linux/amd64', 'linux/arm64', 'linux/s390x', 'linux/386'], 'verbatim'],
    ['node', ['linux/mips', 'linux/386'], 'missing'],
  ];
  for (const [shape, set, expected] of cases) {
    t.equal(told(choose(shapes[shape], { set })), expected, `${shape}, ${set.join()}`);
  }
  t.end();
});

void t.test('chooseView: an endpoint may ask for an index even for one platform', (t) => {
  t.equal(
    told(choose(official.alpine, { set: 'linux/arm64', endpointView: 'index' })),
    'index linux/arm64, about linux/arm64',
  );
  t.equal(
    told(choose(official.alpine, { set: 'linux/arm/v7', endpointView: 'index' })),
    'index linux/arm/v6, about linux/arm/v6, linux/arm/v7, about linux/arm/v7',
  );
  t.equal(told(choose(official.alpine, { set: 'linux/mips', endpointView: 'index' })), 'missing');
  t.end();
});

void t.test('chooseView: a child without platform is in every index, what is said about a dropped one in none', (t) => {
  const document = indexOf([...attested('linux/amd64', 'linux/arm64'), attestation('gone'), plain('whatever')]);
  t.equal(
    told(choose(document, { set: ['linux/arm64', 'linux/386'] })),
    'index linux/arm64, about linux/arm64, whatever',
  );
  t.end();
});

function missing(document: Document, set: string | readonly string[]): string {
  const choice = choose(document, { set });
  return choice.view === 'missing' ? choice.message : told(choice);
}

void t.test('chooseView: a platform that is not there is missing, and the message tells what of it is', (t) => {
  const architecture = missing(official.node, 'linux/riscv64');
  t.match(architecture, /architecture/);
  t.match(architecture, 'linux/riscv64');
  t.match(architecture, /there is: linux\/amd64, linux\/arm64, linux\/s390x\.$/);
  t.notMatch(architecture, 'unknown', 'attestations are no platforms');
  const os = missing(official.node, 'windows/amd64');
  t.match(os, /does not support the operating system/);
  t.match(os, 'windows');
  t.notMatch(os, 'architecture');
  t.match(
    missing(official.alpine, 'linux/arm/v5'),
    /architecture.*linux\/arm\/v5/,
    'a variant below all that there are',
  );
  t.match(missing(shapes['only a newer amd64'], 'linux/amd64'), /architecture/, 'a variant above what is asked for');
  t.match(missing(official.node, ['windows/amd64', 'linux/386']), /architecture/, 'one of the systems is there');
  t.match(missing(official.caddy, 'darwin/arm64'), /windows\(10\.0\.20348\.5622\)\/amd64\.$/);
  t.end();
});

void t.test('chooseView: where the configuration says so, a missing platform gets the index', (t) => {
  for (const set of ['linux/mips', 'windows/amd64', ['linux/mips', 'linux/386']]) {
    t.equal(told(choose(official.node, { set, onMissing: 'verbatim' })), 'verbatim');
    t.equal(told(choose(official.node, { set, onMissing: 'error' })), 'missing');
  }
  t.end();
});

void t.test('chooseView: a client that takes no index gets its own platform, else the primary one', (t) => {
  const cases: [ask: Ask, expected: string][] = [
    [{}, 'image linux/amd64'],
    [{ set: 'any' }, 'image linux/amd64'],
    [{ primary: platform('linux/arm64') }, 'image linux/arm64'],
    [{ set: 'linux/arm/v6' }, 'image linux/arm/v6'],
    [{ set: 'linux/arm64', endpointView: 'index' }, 'image linux/arm64'],
    [{ set: ['linux/s390x', 'linux/amd64'] }, 'image linux/amd64'],
    [{ set: ['linux/s390x', 'linux/arm64'] }, 'image linux/s390x'],
    [{ set: 'linux/mips' }, 'missing'],
    [{ set: 'linux/mips', onMissing: 'verbatim' }, 'missing'],
    [{ primary: platform('windows/amd64') }, 'missing'],
    [{ isCompanionTag: true }, 'verbatim'],
  ];
  for (const accept of [dockerManifest, `${ociManifest}, ${dockerManifest}`, dockerList, 'application/json']) {
    for (const [ask, expected] of cases) {
      t.equal(told(choose(official.alpine, { ...ask, accept })), expected, `${accept}, ${JSON.stringify(ask)}`);
    }
  }
  t.equal(
    told(choose(shapes['a Docker list'], { accept: dockerList })),
    'verbatim',
    'one that takes this index gets it',
  );
  t.end();
});

void t.test('chooseView: a client that takes no index is never given one of images', (t) => {
  const wanted = ['linux/amd64', 'linux/arm64', 'windows/amd64', 'windows(10.0.17763.1)/amd64', 'linux/mips'];
  for (const [shape, document] of Object.entries(shapes)) {
    for (const set of [undefined, ...wanted]) {
      const choice = choose(document, { ...(set && { set }), accept: dockerManifest });
      t.match(choice.view, /^(?:image|missing)$/, `${shape}, ${set ?? 'no platform'}`);
    }
  }
  t.equal(
    told(choose(shapes['zstd beside gzip'], { accept: dockerManifest })),
    'image linux/amd64',
    'the first of twins',
  );
  t.end();
});

void t.test('chooseView: whatever the set, what goes out fits it, and the order of the set changes nothing', (t) => {
  const texts = ['linux/amd64', 'linux/arm64', 'linux/arm/v6', 'linux/386', 'windows/amd64', 'linux/mips'];
  const sets = texts.flatMap((a) => texts.filter((b) => a !== b).map((b) => [a, b]));
  for (const [shape, document] of Object.entries(shapes)) {
    for (const set of sets) {
      const choice = choose(document, { set });
      t.equal(told(choose(document, { set: set.toReversed() })), told(choice), `${shape}, ${set.join()}`);
      if (choice.view !== 'index') continue;
      t.ok(choice.keep.every((child) => document.manifests.includes(child)));
      t.ok(choice.keep.length > 0 && choice.keep.length < document.manifests.length);
      t.ok(
        choice.keep.every(({ platform }) => mayRun(platform, set)),
        `${shape}, ${set.join()}`,
      );
    }
  }
  t.end();
});

/** A looser rule than the matcher's: the same system and architecture, or nothing said. */
function mayRun(offered: Platform | undefined, set: readonly string[]): boolean {
  if (!offered || offered.os === 'unknown') return true;
  return set.map(platform).some(({ os, architecture }) => offered.os === os && offered.architecture === architecture);
}
