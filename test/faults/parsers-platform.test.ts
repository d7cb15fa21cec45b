import * as fc from 'fast-check';
import t from 'tap';
import { readPlatform } from '../../src/oci/manifest.ts';
import {
  fit,
  formatPlatform,
  normalise,
  parsePathPlatform,
  parsePlatform,
  parsePlatformSet,
} from '../../src/oci/platform.ts';
import type { Platform } from '../../src/oci/platform.ts';
import { nearly, tryMany } from '../fixtures/fuzz.ts';

/**
 * A second reading of containerd's rules (`github.com/containerd/platforms`: database.go, compare.go,
 * platform_windows_compat.go), as tables of texts. Left out is what strict clients refuse: 386 for amd64, arm for arm64.
 */
const spellings: Record<string, string> = {
  i386: '386',
  '386': '386',
  s390x: 's390x',
  riscv64: 'riscv64',
  amd64: 'amd64',
  'amd64/v1': 'amd64',
  x86_64: 'amd64',
  'x86-64': 'amd64',
  'X86_64/V1': 'amd64',
  'amd64/v2': 'amd64/v2',
  'AMD64/v3': 'amd64/v3',
  'x86_64/v4': 'amd64/v4',
  arm64: 'arm64',
  aarch64: 'arm64',
  'arm64/8': 'arm64',
  'arm64/v8': 'arm64',
  'aarch64/v8.0': 'arm64',
  'arm64/v8.1': 'arm64/v8.1',
  'arm64/v8.2': 'arm64/v8.2',
  'arm64/v8.6': 'arm64/v8.6',
  'ARM64/V8.5': 'arm64/v8.5',
  'arm64/9': 'arm64/v9',
  'arm64/9.0': 'arm64/v9',
  'arm64/v9.0': 'arm64/v9',
  'arm64/v9.1': 'arm64/v9.1',
  arm: 'arm/v7',
  'arm/7': 'arm/v7',
  'arm/v7': 'arm/v7',
  armhf: 'arm/v7',
  'armhf/v6': 'arm/v7',
  armel: 'arm/v6',
  'arm/5': 'arm/v5',
  'arm/6': 'arm/v6',
  'arm/8': 'arm/v8',
  'arm/v8': 'arm/v8',
  'Arm/V5': 'arm/v5',
};
const runs: Record<string, string> = {
  '386': '386',
  s390x: 's390x',
  riscv64: 'riscv64',
  amd64: 'amd64',
  'amd64/v2': 'amd64/v2 amd64',
  'amd64/v3': 'amd64/v3 amd64/v2 amd64',
  'amd64/v4': 'amd64/v4 amd64/v3 amd64/v2 amd64',
  'arm/v5': 'arm/v5',
  'arm/v6': 'arm/v6 arm/v5',
  'arm/v7': 'arm/v7 arm/v6 arm/v5',
  'arm/v8': 'arm/v8 arm/v7 arm/v6 arm/v5',
  arm64: 'arm64',
  'arm64/v8.1': 'arm64/v8.1 arm64',
  'arm64/v8.2': 'arm64/v8.2 arm64/v8.1 arm64',
  'arm64/v8.5': 'arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64',
  'arm64/v8.6': 'arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64',
  'arm64/v9': 'arm64/v9 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64',
  'arm64/v9.1': 'arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64',
};
const systems: Record<string, string> = {
  linux: 'linux',
  Linux: 'linux',
  macOS: 'darwin',
  darwin: 'darwin',
  WINDOWS: 'windows',
  windows: 'windows',
};
/** Which builds of Windows run on which: the same one before Server 2022, from the last long-term one on after it. */
const builds: Record<string, readonly string[]> = {
  '14393': ['14393'],
  '17763': ['17763'],
  '20348': ['20348'],
  '22621': ['20348', '22621'],
  '26100': ['20348', '22621', '26100'],
  '26200': ['26100', '26200'],
};

interface Spelled {
  readonly os: string;
  readonly spelled: string;
  readonly build: string;
  readonly features: readonly string[];
}

const spelled: fc.Arbitrary<Spelled> = fc.record({
  os: fc.constantFrom(...Object.keys(systems)),
  spelled: fc.constantFrom(...Object.keys(spellings)),
  build: fc.constantFrom('', ...Object.keys(builds)),
  features: fc.subarray(['win32k', 'a', 'b']),
});

function platformOf({ os, spelled, build, features }: Spelled, revision: number): Platform {
  const [architecture = '', variant] = spelled.split('/');
  const osVersion = build && `10.0.${build}.${revision}`;
  return normalise({
    os,
    architecture,
    ...(variant && { variant }),
    ...(osVersion && { osVersion }),
    osFeatures: features,
  });
}

/** How many better ones there are; undefined for what does not run. */
function fitByHand(host: Spelled, image: Spelled): number | undefined {
  const [system, architecture] = [systems[image.os], spellings[image.spelled]];
  const step = runs[spellings[host.spelled]!]!.split(' ').indexOf(architecture!);
  if (systems[host.os] !== system || step < 0) return undefined;
  const isWindows = system === 'windows';
  const needed = image.features.filter((feature) => !(isWindows && feature === 'win32k'));
  if (!needed.every((feature) => host.features.includes(feature))) return undefined;
  return isWindows && host.build && image.build && !builds[host.build]!.includes(image.build) ? undefined : step;
}

void t.test('what runs where, and what is best, is what containerd says, however it is spelled', (t) => {
  const counts = { fit: 0, other: 0 };
  const property = fc.property(
    spelled,
    spelled,
    fc.nat(9999),
    fc.nat(9999),
    fc.boolean(),
    (host, other, one, two, isTwin) => {
      const image = isTwin ? { ...other, os: host.os, build: host.build, features: host.features } : other;
      const expected = fitByHand(host, image);
      counts[expected === undefined ? 'other' : 'fit']++;
      return fit(platformOf(host, one), platformOf(image, two)) === expected;
    },
  );
  tryMany(t, property);
  t.ok(counts.fit > 0 && counts.other > 0, JSON.stringify(counts));
  t.end();
});

const texts = fc
  .tuple(
    fc.constantFrom(...Object.keys(systems), 'windows(10.0.20348)', 'linux(5.4)'),
    fc.constantFrom(...Object.keys(spellings)),
  )
  .map(([os, rest]) => `${os}/${rest}`);

void t.test('any text is a platform in the one spelling that is compared, or none', (t) => {
  let read = 0;
  const property = fc.property(nearly(texts), (text) => {
    const platform = parsePlatform(text);
    if (!platform) return true;
    read++;
    const written = formatPlatform(platform);
    const isPlain = /^[a-z0-9_.-]+(?:\([0-9.]+\))?(?:\/[a-z0-9_.-]+){1,2}$/.test(written);
    const isOne = JSON.stringify(parsePlatform(written)) === JSON.stringify(platform);
    return (
      isPlain &&
      isOne &&
      JSON.stringify(normalise(platform)) === JSON.stringify(platform) &&
      fit(platform, platform) === 0
    );
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} were platforms`);
  t.end();
});

void t.test('an index’s platform is one spelling of it, whatever stands there, and never throws', (t) => {
  const field = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom('linux', 'Arm', 'v7', '8', '10.0.1.1') },
    fc.string(),
    fc.jsonValue({ maxDepth: 1 }),
  );
  const sources = fc.record(
    {
      os: field,
      architecture: field,
      variant: field,
      'os.version': field,
      'os.features': fc.oneof(fc.array(field), field),
    },
    { requiredKeys: [] },
  );
  let read = 0;
  const property = fc.property(fc.oneof({ weight: 9, arbitrary: sources }, fc.jsonValue()), spelled, (source, host) => {
    const platform = readPlatform(source);
    if (!platform) return true;
    read++;
    fit(platformOf(host, 1), platform);
    const isText = Object.values(platform).every(
      (one) => typeof one === 'string' || (one as unknown[]).every((each) => typeof each === 'string'),
    );
    return (
      isText &&
      platform.os !== '' &&
      platform.architecture !== '' &&
      JSON.stringify(normalise(platform)) === JSON.stringify(platform)
    );
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} were platforms`);
  t.end();
});

void t.test('a set in a path and one in a header are the same platforms, each once, sixteen at most', (t) => {
  const single = fc.constantFrom(...Object.keys(spellings)).filter((text) => !/[-_]/.test(text));
  const lists = fc.array(
    single.map((text) => `linux/${text}`),
    { minLength: 1, maxLength: 20, size: 'max' },
  );
  const none = new Map<string, never>();
  const counts = { read: 0, refused: 0 };
  const property = fc.property(lists, (list) => {
    const inHeader = parsePlatformSet(list.join(', '), none, 'header');
    const inPath = parsePlatformSet(list.map((one) => one.replaceAll('/', '-')).join('_'), none, 'path');
    const expected = [...new Set(list.map((one) => `linux/${spellings[one.slice('linux/'.length)]}`))];
    counts[inPath ? 'read' : 'refused']++;
    if (JSON.stringify(inHeader) !== JSON.stringify(inPath)) return false;
    if (list.length > 16) return inPath === undefined;
    return Array.isArray(inPath) && inPath.map(formatPlatform).join() === expected.join();
  });
  tryMany(t, property);
  t.ok(counts.read > 0 && counts.refused > 0, JSON.stringify(counts));
  t.end();
});

void t.test('24. a platform in a path has no slash, and is what it is elsewhere', (t) => {
  let read = 0;
  const property = fc.property(nearly(texts.map((text) => text.replaceAll('/', '-'))), (text) => {
    const platform = parsePathPlatform(text);
    if (platform) read++;
    const elsewhere = parsePlatform(text.replaceAll('-', '/'));
    return JSON.stringify(platform) === JSON.stringify(text.includes('/') ? undefined : elsewhere);
  });
  tryMany(t, property);
  t.ok(read > 0, `${read} were platforms`);
  t.end();
});
