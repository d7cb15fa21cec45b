import t from 'tap';
import { anonymous } from '../../src/access/identity.ts';
import type { Identity } from '../../src/access/identity.ts';
import { formatPlatformSet, parsePlatform } from '../../src/oci/platform.ts';
import type { PlatformSet } from '../../src/oci/platform.ts';
import { addressRule, choosePlatforms } from '../../src/pull/choose-platform.ts';
import type { Caller, PlatformRules } from '../../src/pull/choose-platform.ts';

const set = (...texts: string[]): PlatformSet => texts.map((text) => parsePlatform(text)!);

const rules: PlatformRules = {
  sets: new Map([['edge', set('linux/arm64', 'linux/arm/v7')]]),
  hosts: new Map<string, PlatformSet>([
    ['arm64.mirror.example', set('linux/arm64')],
    ['all.mirror.example', 'any'],
  ]),
  users: [
    { name: 'ci:*', set: set('linux/ppc64le') },
    { name: 'edges', set: set('linux/mips64le') },
    { name: 'ci:7', set: 'any' },
  ],
  addresses: [
    addressRule('10.0.0.0/8', set('linux/amd64')),
    addressRule('10.1.0.0/16', set('linux/arm64')),
    addressRule('10.1.2.3/32', 'any'),
    addressRule('fd00::/8', set('linux/s390x')),
    addressRule('fe80::/10', set('linux/riscv64')),
  ],
  trustUserAgent: true,
};

/** As the answer tells it; undefined where nobody knows. */
const chosen = (caller: Caller, using = rules, by: Identity = anonymous) => {
  const found = choosePlatforms(caller, using, by);
  return found && `${formatPlatformSet(found.set)}; via=${found.via}`;
};

const dockerAgent =
  'docker/29.7.2 go/go1.26.3 git-commit/abc kernel/6.1.0 os/linux arch/arm64 UpstreamClient(Docker-Client/29.7.2 \\(darwin\\))';

void t.test('choosePlatforms: the first channel that speaks wins, the most deliberate first', (t) => {
  const channels: [Caller, expected: string][] = [
    [{ pathSet: 'linux-riscv64' }, 'linux/riscv64; via=path'],
    [{ host: 'arm64.mirror.example' }, 'linux/arm64; via=host'],
    [{ listenerSet: set('linux/ppc64le') }, 'linux/ppc64le; via=listener'],
    [{ header: 'linux/s390x' }, 'linux/s390x; via=header'],
    [{ address: '10.9.9.9' }, 'linux/amd64; via=address'],
    [{ userAgent: dockerAgent }, 'linux/arm64; via=user-agent'],
  ];
  for (const [at, [, expected]] of channels.entries()) {
    const caller = Object.assign({}, ...channels.slice(at).map(([channel]) => channel)) as Caller;
    t.equal(chosen(caller), expected);
  }
  t.end();
});

void t.test('choosePlatforms: where no channel speaks, nothing is known', (t) => {
  const silent: Caller[] = [
    {},
    { host: 'mirror.example', address: '192.0.2.1', userAgent: 'containerd/v2.3.4' },
    { host: '__proto__' },
    { host: 'xarm64.mirror.example' },
  ];
  for (const caller of silent) t.equal(chosen(caller), undefined, JSON.stringify(caller));
  t.end();
});

void t.test('choosePlatforms: any is an answer, and ends the search', (t) => {
  const rest: Caller = { header: 'linux/arm64', address: '10.1.0.1' };
  t.equal(chosen({ ...rest, pathSet: 'any' }), 'any; via=path');
  t.equal(chosen({ ...rest, host: 'all.mirror.example' }), 'any; via=host');
  t.equal(chosen({ ...rest, listenerSet: 'any' }), 'any; via=listener');
  t.equal(chosen({ ...rest, header: 'any' }), 'any; via=header');
  t.equal(chosen({ address: '10.1.2.3' }), 'any; via=address');
  t.end();
});

void t.test('choosePlatforms: path and header take lists and named sets, each in its spelling', (t) => {
  const cases: [Caller, expected: string][] = [
    [{ pathSet: 'edge' }, 'linux/arm64,linux/arm/v7; via=path'],
    [{ pathSet: 'linux-amd64_linux-arm-v6' }, 'linux/amd64,linux/arm/v6; via=path'],
    [{ header: 'edge' }, 'linux/arm64,linux/arm/v7; via=header'],
    [{ header: 'linux/amd64, linux/aarch64' }, 'linux/amd64,linux/arm64; via=header'],
    [{ header: 'windows(10.0.20348)/amd64' }, 'windows(10.0.20348)/amd64; via=header'],
  ];
  for (const [caller, expected] of cases) t.equal(chosen(caller), expected);
  t.end();
});

void t.test('choosePlatforms: a path that is not understood is unknown, and no other channel is asked', (t) => {
  for (const pathSet of [
    'nonsense',
    'linux',
    'linux%2Farm64',
    'linux-arm64_nonsense',
    'edge_linux-amd64',
    'ANY',
    'a'.repeat(3000),
  ]) {
    const expected = { kind: 'nameUnknown', code: 'NAME_UNKNOWN', status: 404 };
    t.throws(() => chosen({ pathSet, header: 'linux/amd64', address: '10.1.0.1' }), expected, pathSet.slice(0, 40));
  }
  t.end();
});

void t.test('choosePlatforms: a header that is not understood is a mistake, and no other channel is asked', (t) => {
  for (const header of ['', 'nonsense', 'linux-arm64', 'linux/arm64,', 'linux/*', 'linux/arm64/v8/x']) {
    t.throws(
      () => chosen({ header, address: '10.1.0.1' }),
      { kind: 'platformInvalid', code: 'UNSUPPORTED', status: 400 },
      header,
    );
  }
  t.end();
});

void t.test('choosePlatforms: the narrowest network that holds the address wins, in any order', (t) => {
  const cases: [address: string, expected: string | undefined][] = [
    ['10.0.0.1', 'linux/amd64; via=address'],
    ['10.1.0.1', 'linux/arm64; via=address'],
    ['10.1.2.3', 'any; via=address'],
    ['11.0.0.1', undefined],
    ['::ffff:10.1.0.1', 'linux/arm64; via=address'],
    ['::FFFF:10.0.0.1', 'linux/amd64; via=address'],
    ['fd12::1', 'linux/s390x; via=address'],
    ['fe80::1%eth0', 'linux/riscv64; via=address'],
    ['2001:db8::1', undefined],
    ['', undefined],
    ['nonsense', undefined],
  ];
  for (const addresses of [rules.addresses, rules.addresses.toReversed()]) {
    for (const [address, expected] of cases) t.equal(chosen({ address }, { ...rules, addresses }), expected, address);
  }
  t.end();
});

void t.test('choosePlatforms: a user agent tells the system of the daemon, where it tells one', (t) => {
  const cases: [userAgent: string, expected: string | undefined][] = [
    [dockerAgent, 'linux/arm64'],
    [
      dockerAgent
        .replace('arch/arm64', 'arch/amd64')
        .replace(' UpstreamClient', ' containerd-client/2.3 storage-driver/overlayfs UpstreamClient'),
      'linux/amd64',
    ],
    ['cri-o/1.33.0 go/go1.24.3 os/linux arch/amd64', 'linux/amd64'],
    ['docker/29 os/windows arch/amd64 UpstreamClient(x)', 'windows/amd64'],
    ['docker/29 UpstreamClient(os/linux arch/amd64)', undefined],
    ['docker/29 UpstreamClient(Docker-Client/29 os/darwin arch/arm64)', undefined],
    ['cosign/v3.0 (linux; amd64) go-containerregistry/v0.21', undefined],
    ['containerd/v2.3.4', undefined],
    ['buildkit/v0.32', undefined],
    ['containers/5.23.1 (github.com/containers/image)', undefined],
    ['skopeo/1.9.3', undefined],
    ['crane/v0.21.9 go-containerregistry/v0.21.9', undefined],
    ['regclient/regctl (v0.11.5)', undefined],
    ['oras-go', undefined],
    ['x os/linux', undefined],
    ['x os/linux arch/', undefined],
    ['xos/linux arch/amd64', undefined],
    ['', undefined],
  ];
  for (const [userAgent, expected] of cases) {
    t.equal(chosen({ userAgent }), expected && `${expected}; via=user-agent`, userAgent);
    t.equal(chosen({ userAgent }, { ...rules, trustUserAgent: false }), undefined, `not trusted: ${userAgent}`);
  }
  t.end();
});

void t.test('choosePlatforms: a user, or a group, after what the request says and before where it comes from', (t) => {
  const address = '10.1.0.1';
  const ci = { user: 'ci:7', groups: [] };
  t.equal(chosen({ address }, rules, ci), 'linux/ppc64le; via=user', 'the first that fits');
  t.equal(chosen({ address }, rules, { user: 'x', groups: ['edges'] }), 'linux/mips64le; via=user');
  t.equal(chosen({ address, header: 'linux/amd64' }, rules, ci), 'linux/amd64; via=header');
  t.equal(chosen({ address }, rules, { user: 'x', groups: [] }), 'linux/arm64; via=address');
  t.equal(chosen({ address }), 'linux/arm64; via=address');
  t.end();
});
