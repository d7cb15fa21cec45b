import t from 'tap';
import {
  fit,
  fitsButForVersion,
  formatPlatform,
  formatPlatformSet,
  normalise,
  parsePathPlatform,
  parsePlatform,
  parsePlatformSet,
} from '../../src/oci/platform.ts';
import type { Platform, PlatformSet } from '../../src/oci/platform.ts';

/** Every variant that the chains know, and some that nobody ships. */
const all = [
  ...words('linux/amd64 linux/amd64/v2 linux/amd64/v3 linux/amd64/v4 linux/amd64/v0 linux/amd64/v2.1'),
  ...words('linux/arm/v4 linux/arm/v5 linux/arm/v6 linux/arm/v6hf linux/arm/v7 linux/arm/v7.1 linux/arm/v8'),
  'linux/arm64',
  ...down('linux/arm64/v8.', 9, 1),
  'linux/arm64/v9',
  ...down('linux/arm64/v9.', 8, 1),
  ...words('linux/arm64/v10 linux/386 linux/386/sse2 linux/ppc64le linux/s390x linux/riscv64 linux/riscv64/rva23u64'),
  ...words('linux/mips64le linux/loong64 windows/amd64 windows/arm64 darwin/arm64 freebsd/amd64 wasip1/wasm'),
  'unknown/unknown',
];

const platform = (text: string) => parsePlatform(text)!;

/** Texts as `platforms.Only` would choose from them, best first. */
const chosenBy = (wanted: string, offered: readonly string[] = all) =>
  offered
    .map((text) => ({ text, step: fit(platform(wanted), platform(text)) }))
    .filter((one): one is { text: string; step: number } => one.step !== undefined)
    .toSorted((a, b) => a.step - b.step)
    .map(({ text }) => text);

function words(text: string): string[] {
  return text.split(' ');
}

function down(prefix: string, from: number, to: number): string[] {
  return Array.from({ length: from - to + 1 }, (_, step) => `${prefix}${from - step}`);
}

void t.test('normalise: gives the spelling of containerd for each that is in use', (t) => {
  const cases: [written: string, expected: string][] = [
    ['linux/amd64', 'linux/amd64'],
    ['Linux/AMD64', 'linux/amd64'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/x86-64', 'linux/amd64'],
    ['linux/amd64/v1', 'linux/amd64'],
    ['linux/x86_64/V1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/i386', 'linux/386'],
    ['linux/i386/v1', 'linux/386'],
    ['linux/386', 'linux/386'],
    ['linux/aarch64', 'linux/arm64'],
    ['linux/arm64/8', 'linux/arm64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm64/v8.0', 'linux/arm64'],
    ['linux/aarch64/V8', 'linux/arm64'],
    ['linux/arm64/v8.2', 'linux/arm64/v8.2'],
    ['linux/arm64/9', 'linux/arm64/v9'],
    ['linux/arm64/9.0', 'linux/arm64/v9'],
    ['linux/arm64/v9.0', 'linux/arm64/v9'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/7', 'linux/arm/v7'],
    ['linux/arm/5', 'linux/arm/v5'],
    ['linux/arm/6', 'linux/arm/v6'],
    ['linux/arm/8', 'linux/arm/v8'],
    ['linux/armhf', 'linux/arm/v7'],
    ['linux/armhf/v6', 'linux/arm/v7'],
    ['linux/armel', 'linux/arm/v6'],
    ['linux/armel/v7', 'linux/arm/v6'],
    ['macOS/arm64', 'darwin/arm64'],
    ['linux/s390x', 'linux/s390x'],
    ['linux/riscv64/RVA23U64', 'linux/riscv64/rva23u64'],
    ['Windows(10.0.20348.5622)/amd64', 'windows(10.0.20348.5622)/amd64'],
  ];
  for (const [written, expected] of cases) t.equal(formatPlatform(platform(written)), expected, written);
  t.end();
});

void t.test('normalise: once is enough, and leaves what it cannot know', (t) => {
  for (const text of all) t.same(normalise(platform(text)), platform(text), text);
  const full: Platform = { os: 'windows', architecture: 'amd64', osVersion: '10.0.1', osFeatures: ['win32k'] };
  t.same(normalise(full), full);
  t.same(normalise({ os: 'linux', architecture: 'amd64', variant: '', osVersion: '', osFeatures: [] }), {
    os: 'linux',
    architecture: 'amd64',
  });
  t.end();
});

void t.test('parsePlatform: reads what formatPlatform writes', (t) => {
  for (const text of [...all, 'windows(10.0.20348)/amd64']) {
    t.equal(formatPlatform(platform(text)), text);
    t.same(parsePlatform(formatPlatform(platform(text))), platform(text), text);
  }
  t.end();
});

void t.test('parsePlatform: what is no platform is undefined', (t) => {
  const texts = [
    '',
    ' ',
    'linux',
    'arm64',
    '/',
    'linux/',
    '/arm64',
    'linux//v8',
    'linux/arm64/',
    'linux/arm64/v8/x',
    'linux/*',
    'linux/arm 64',
    'linux/arm64/v%38',
    'li nux/arm64',
    'windows(10.0/amd64',
    'windows()/amd64',
    'windows(10.0;x)/amd64',
    'linux/arm64\n/v8',
    'linux/ärm64',
    'any',
    '__proto__',
  ];
  for (const text of texts) t.equal(parsePlatform(text), undefined, JSON.stringify(text));
  t.end();
});

void t.test('parsePlatform: names that every JavaScript object has are unknown architectures', (t) => {
  for (const name of ['constructor', '__proto__', 'toString', 'valueOf', 'hasOwnProperty']) {
    t.same(parsePlatform(`linux/${name}`), { os: 'linux', architecture: name.toLowerCase() }, name);
    t.same(parsePlatform(`${name}/amd64`), { os: name.toLowerCase(), architecture: 'amd64' }, name);
  }
  t.end();
});

void t.test('parsePathPlatform: dashes stand for slashes', (t) => {
  const cases: [text: string, expected: string | undefined][] = [
    ['linux-arm64', 'linux/arm64'],
    ['linux-arm-v7', 'linux/arm/v7'],
    ['linux-arm64-v8.2', 'linux/arm64/v8.2'],
    ['windows-amd64', 'windows/amd64'],
    ['linux', undefined],
    ['linux/arm64', undefined],
    ['linux-arm64-v8-x', undefined],
    ['linux-', undefined],
    ['-arm64', undefined],
    ['linux%2Farm64', undefined],
    ['', undefined],
  ];
  for (const [text, expected] of cases) {
    const read = parsePathPlatform(text);
    t.equal(read && formatPlatform(read), expected, text);
  }
  t.end();
});

void t.test('parsePlatformSet: reads any, named sets and lists in both spellings', (t) => {
  const named = new Map<string, PlatformSet>([
    ['edge', [platform('linux/arm64'), platform('linux/arm/v7')]],
    ['big_iron', [platform('linux/s390x')]],
    ['all', 'any'],
  ]);
  const cases: [text: string, spelling: 'path' | 'header', expected: string | undefined][] = [
    ['any', 'path', 'any'],
    ['any', 'header', 'any'],
    ['all', 'path', 'any'],
    ['edge', 'path', 'linux/arm64,linux/arm/v7'],
    [' edge ', 'header', 'linux/arm64,linux/arm/v7'],
    ['big_iron', 'path', 'linux/s390x'],
    ['linux-arm64', 'path', 'linux/arm64'],
    ['linux-amd64_linux-arm-v7', 'path', 'linux/amd64,linux/arm/v7'],
    ['linux/amd64, linux/arm64', 'header', 'linux/amd64,linux/arm64'],
    ['linux-arm64_linux-aarch64-v8_linux-arm64', 'path', 'linux/arm64'],
    ['linux/arm64', 'path', undefined],
    ['linux-arm64', 'header', undefined],
    ['linux-arm64_', 'path', undefined],
    ['linux-arm64_nonsense', 'path', undefined],
    ['linux/arm64,', 'header', undefined],
    ['linux/arm64;linux/amd64', 'header', undefined],
    ['ANY', 'path', undefined],
    ['constructor', 'path', undefined],
    ['', 'path', undefined],
    ['', 'header', undefined],
  ];
  for (const [text, spelling, expected] of cases) {
    const set = parsePlatformSet(text, named, spelling);
    t.equal(set && formatPlatformSet(set), expected, `${JSON.stringify(text)} in a ${spelling}`);
  }
  t.end();
});

void t.test('fit: every platform fits itself exactly', (t) => {
  for (const text of [
    ...all,
    'windows(10.0.17763.1)/amd64',
    'windows(10.0.20348.1)/amd64',
    'windows(10.0.26100.1)/amd64',
  ]) {
    t.equal(fit(platform(text), platform(text)), 0, text);
  }
  t.end();
});

void t.test('fit: chooses the variants that containerd chooses, in its order', (t) => {
  const v8 = [...down('linux/arm64/v8.', 5, 1), 'linux/arm64'];
  const cases: Record<string, string[]> = {
    'linux/amd64': ['linux/amd64'],
    'linux/amd64/v2': ['linux/amd64/v2', 'linux/amd64'],
    'linux/amd64/v4': ['linux/amd64/v4', 'linux/amd64/v3', 'linux/amd64/v2', 'linux/amd64'],
    'linux/arm': ['linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5'],
    'linux/arm/v5': ['linux/arm/v5'],
    'linux/arm/v6': ['linux/arm/v6', 'linux/arm/v5'],
    'linux/arm/v8': ['linux/arm/v8', 'linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5'],
    'linux/arm64': ['linux/arm64'],
    'linux/arm64/v8.1': ['linux/arm64/v8.1', 'linux/arm64'],
    'linux/arm64/v8.5': v8,
    'linux/arm64/v9': ['linux/arm64/v9', ...v8],
    'linux/arm64/v9.2': [...down('linux/arm64/v9.', 2, 1), 'linux/arm64/v9', ...down('linux/arm64/v8.', 7, 6), ...v8],
    'linux/arm64/v9.7': [...down('linux/arm64/v9.', 7, 1), 'linux/arm64/v9', ...down('linux/arm64/v8.', 9, 6), ...v8],
    'linux/s390x': ['linux/s390x'],
    'linux/riscv64': ['linux/riscv64'],
    'windows/amd64': ['windows/amd64'],
  };
  for (const [wanted, expected] of Object.entries(cases)) t.same(chosenBy(wanted), expected, wanted);
  t.end();
});

void t.test('fit: no architecture and no system stands in for another', (t) => {
  for (const wanted of all) {
    for (const offered of all) {
      const [a, b] = [platform(wanted), platform(offered)];
      if (a.os === b.os && a.architecture === b.architecture) continue;
      if (fit(a, b) !== undefined) t.fail(`${offered} was taken for ${wanted}`);
    }
  }
  t.equal(fit(platform('linux/amd64'), platform('linux/386')), undefined, 'save what containerd allows here');
  t.equal(fit(platform('linux/arm64'), platform('linux/arm/v7')), undefined, 'and here');
  t.end();
});

void t.test('fit: a lesser variant never gets a greater one', (t) => {
  for (const wanted of all) {
    for (const offered of all) {
      const [there, back] = [fit(platform(wanted), platform(offered)), fit(platform(offered), platform(wanted))];
      if (wanted !== offered && there !== undefined && back !== undefined)
        t.fail(`${wanted} and ${offered} fit both ways`);
    }
  }
  t.equal(fit(platform('linux/amd64'), platform('linux/amd64/v2')), undefined);
  t.equal(fit(platform('linux/arm/v6'), platform('linux/arm/v7')), undefined);
  t.equal(fit(platform('linux/arm64'), platform('linux/arm64/v9')), undefined);
  t.end();
});

void t.test('fit: on Windows the host decides which builds run, as containerd has it', (t) => {
  const [ltsc2019, ltsc2022, win11, v23H2, ltsc2025] = [17763, 20348, 22621, 25398, 26100];
  const cases: [host: number, image: number, runs: boolean][] = [
    [ltsc2019, ltsc2019, true],
    [ltsc2019, ltsc2022, false],
    [ltsc2022, ltsc2019, false],
    [ltsc2022, ltsc2022, true],
    [win11, ltsc2019, false],
    [win11, ltsc2022, true],
    [v23H2, ltsc2019, false],
    [v23H2, ltsc2022, true],
    [ltsc2025, ltsc2022, true],
    [ltsc2022, ltsc2025, false],
    [ltsc2022, win11, false],
    [ltsc2025, win11, true],
    [26200, ltsc2025, true],
    [26200, v23H2, false],
    [14393, 17763, false],
  ];
  for (const [host, image, runs] of cases) {
    const step = fit(platform(`windows(10.0.${host}.1)/amd64`), platform(`windows(10.0.${image}.9999)/amd64`));
    t.equal(step, runs ? 0 : undefined, `${image} on ${host}`);
  }
  t.end();
});

void t.test('fit: a Windows version matters only where both tell one', (t) => {
  const cases: [wanted: string, offered: string, fits: boolean][] = [
    ['windows/amd64', 'windows(10.0.20348.1)/amd64', true],
    ['windows(10.0.20348)/amd64', 'windows/amd64', true],
    ['windows(10.0.20348)/amd64', 'windows(10.0.20348.5622)/amd64', true],
    ['windows(10.0.26100.1)/amd64', 'windows(10.1.26100.1)/amd64', false],
    ['windows(10.0.26100.1)/amd64', 'windows(6.0.26100.1)/amd64', false],
    ['windows(10.0.26100.1)/amd64', 'windows(10.0)/amd64', false],
    ['windows(10.0)/amd64', 'windows(10.0.20348.1)/amd64', true],
    ['windows(10.0.26100.1)/arm64', 'windows(10.0.26100.1)/amd64', false],
    ['linux(5.4)/amd64', 'linux(6.1)/amd64', true],
  ];
  for (const [wanted, offered, fits] of cases) {
    t.equal(fit(platform(wanted), platform(offered)), fits ? 0 : undefined, `${offered} for ${wanted}`);
  }
  t.end();
});

const having = (os: string, ...osFeatures: string[]) => normalise({ os, architecture: 'amd64', osFeatures });

void t.test('fit: an image needs no feature that its host has not', (t) => {
  t.equal(fit(having('linux'), having('linux')), 0);
  t.equal(fit(having('linux', 'a', 'b'), having('linux')), 0);
  t.equal(fit(having('linux', 'a', 'b'), having('linux', 'b')), 0);
  t.equal(fit(having('linux', 'b', 'a'), having('linux', 'a', 'b')), 0);
  t.equal(fit(having('linux', 'a'), having('linux', 'a', 'b')), undefined);
  t.equal(fit(having('linux'), having('linux', 'a')), undefined);
  t.equal(fit(having('windows'), having('windows', 'win32k')), 0, 'win32k is overlooked on Windows');
  t.equal(fit(having('windows'), having('windows', 'win32k', 'a')), undefined);
  t.equal(fit(having('linux'), having('linux', 'win32k')), undefined, 'and only there');
  t.end();
});

void t.test('fit: a variant that no one has costs no more than one that all have', (t) => {
  const started = process.cpuUsage();
  for (const text of [
    'linux/amd64/v999999999',
    'linux/arm/v999999999',
    'linux/arm64/v8.999999999',
    'linux/arm64/v9.999999999',
  ]) {
    t.equal(fit(platform(text), platform(text)), 0, text);
  }
  t.ok(process.cpuUsage(started).user < 100_000);
  t.end();
});

void t.test('fitsButForVersion: overlooks version and features, and nothing else', (t) => {
  const old = platform('windows(10.0.17763.1)/amd64');
  t.ok(fitsButForVersion(old, platform('windows(10.0.26100.1)/amd64')));
  t.ok(fitsButForVersion(platform('linux/arm/v7'), { ...platform('linux/arm/v6'), osFeatures: ['a'] }));
  t.notOk(fitsButForVersion(old, platform('windows/arm64')));
  t.notOk(fitsButForVersion(platform('linux/arm/v6'), platform('linux/arm/v7')));
  for (const wanted of all) {
    for (const offered of all) {
      const fits = fit(platform(wanted), platform(offered)) !== undefined;
      if (fits && !fitsButForVersion(platform(wanted), platform(offered))) t.fail(`${offered} for ${wanted}`);
    }
  }
  t.end();
});
