import { readFileSync } from 'node:fs';
import t from 'tap';
import { parse } from 'yaml';
import { ConfigError, parseConfig } from '../src/config.ts';

type Tree = { [key: string]: unknown };

const defaults = readFileSync(new URL('../config/default.yaml', import.meta.url), 'utf8');

const open: Tree = {};
const basic: Tree = { mode: 'basic', htpasswd: '/etc/narrows/users' };

/** The mistakes of the defaults with these repositories and this access, a line each. */
function mistakesOf(repositories: unknown, access: Tree = open): string[] {
  const config = parse(defaults) as Tree;
  config['repositories'] = repositories;
  config['access'] = { ...(config['access'] as Tree), ...access };
  try {
    parseConfig(config);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.mistakes.map(({ path, message }) => `${path}: ${message}`);
  }
}

const pushed = 'only what is hosted here is pushed to; add hosted: true';
const nobody = 'nobody can say who they are; set access.mode';
const names = 'expected a list of users and groups';

void t.test('repositories: takes what users write', (t) => {
  const right: [repositories: Tree[], access?: Tree][] = [
    [[]],
    [[{ name: 'team/app', hosted: true }]],
    [[{ name: 'team/*', hosted: true, compose: true, push: ['anonymous'] }]],
    [[{ name: 'team/app', hosted: true, push: [] }]],
    [[{ name: 'team/app', hosted: true, push: ['anonymous'], pull: ['anonymous'] }]],
    [[{ name: 'docker.io/library/mysql', primary: 'linux/arm64', pull: ['anonymous'] }]],
    [[{ name: 'docker.io/library/mysql', hosted: false }]],
    [[{ name: 'docker.io/library/mysql', pull: [] }]],
    [[{ name: 'docker.iox/app', hosted: true }], open],
    [[{ name: 'docker', hosted: true }], open],
    [
      [
        { name: 'team/app', hosted: true, push: ['ci'], pull: ['authenticated', 'alice'] },
        {
          name: 'team/*',
          hosted: true,
          owners: { 'linux/amd64': ['ci'], '*': ['release'], 'linux/arm': ['anonymous'] },
        },
        { name: 'docker.io/*', pull: ['authenticated'] },
      ],
      basic,
    ],
    [[{ name: 'team/app', hosted: true, owners: { '*': ['anonymous'] } }]],
    [[], { ...basic, groups: { ci: ['alice', 'bob'], empty: [] }, pull: ['anonymous'] }],
  ];
  for (const [repositories, access] of right) {
    t.same(mistakesOf(repositories, access), [], JSON.stringify(repositories));
  }
  t.end();
});

void t.test('repositories: what is hosted here is told by its name from what is mirrored', (t) => {
  for (const upstream of ['docker.io', 'ghcr.io']) {
    for (const name of ['team/app', '*', 'library/*']) {
      t.same(mistakesOf([{ name: `${upstream}/${name}`, hosted: true }]), [
        `repositories.0.name: ${upstream} is mirrored, and this would cover it: what is hosted here needs a name of its own`,
      ]);
    }
  }
  t.same(
    mistakesOf([
      { name: 'team/a', hosted: true },
      { name: 'docker.io/b', hosted: true },
    ]),
    [
      'repositories.1.name: docker.io is mirrored, and this would cover it: what is hosted here needs a name of its own',
    ],
    'by its place',
  );
  t.end();
});

void t.test('repositories: a pattern that covers a name that is mirrored is no name for what is hosted here', (t) => {
  for (const name of ['*', 'docker.*', 'docker.io*', '*.io/team/app', '*/library/nginx']) {
    const paths = mistakesOf([{ name, hosted: true }]).map((line) => line.split(': ', 1)[0]);
    t.same([...new Set(paths)], ['repositories.0.name'], name);
  }
  for (const name of ['team*', 'team/*', 'dock', 'docker.iox/*', 'team-*/app']) {
    t.same(mistakesOf([{ name, hosted: true }]), [], name);
  }
  t.end();
});

void t.test('repositories: rights to push are for what is hosted here', (t) => {
  const cases: [repository: Tree, expected: string[]][] = [
    [{ compose: true }, [`repositories.0.compose: ${pushed}`]],
    [{ compose: false }, [`repositories.0.compose: ${pushed}`]],
    [{ push: ['anonymous'] }, [`repositories.0.push: ${pushed}`]],
    [{ owners: { '*': ['anonymous'] } }, [`repositories.0.owners: ${pushed}`]],
    [
      { hosted: false, compose: true, push: [] },
      [`repositories.0.compose: ${pushed}`, `repositories.0.push: ${pushed}`],
    ],
  ];
  for (const [repository, expected] of cases) {
    t.same(mistakesOf([{ name: 'docker.io/library/mysql', ...repository }]), expected, JSON.stringify(repository));
    t.same(mistakesOf([{ name: 'team/app', ...repository, hosted: true }]), [], 'hosted, it is right');
  }
  t.end();
});

void t.test('repositories: a right that nobody can have is a mistake', (t) => {
  const cases: [rights: Tree, expected: string[]][] = [
    [{ push: ['alice'] }, ['push']],
    [{ push: ['anonymous', 'ci'] }, ['push']],
    [{ push: ['authenticated'] }, ['push']],
    [{ pull: ['authenticated'] }, ['pull']],
    [{ pull: ['anonymous'] }, []],
    [{ owners: { '*': ['anonymous'], 'linux/arm64': ['ci'] } }, ['owners']],
    [{ owners: { '*': ['anonymous'] } }, []],
    [{ push: ['a'], pull: ['b'], owners: { '*': ['c'] } }, ['push', 'pull', 'owners']],
  ];
  for (const [rights, keys] of cases) {
    const repositories = [{ name: 'team/app', hosted: true, ...rights }];
    const expected = keys.map((key) => `repositories.0.${key}: ${nobody}`);
    t.same(mistakesOf(repositories, { mode: 'none' }), expected, JSON.stringify(rights));
    t.same(mistakesOf(repositories, basic), [], 'where they can say who they are');
  }
  t.same(
    mistakesOf([{ name: 'docker.io/library/mysql', pull: ['alice'] }]),
    [`repositories.0.pull: ${nobody}`],
    'what is mirrored too',
  );
  t.end();
});

void t.test('access: basic needs a file of users', (t) => {
  const expected = ['access.htpasswd: expected a file of users, as htpasswd -B makes it'];
  t.same(mistakesOf([], { mode: 'basic' }), expected);
  t.same(mistakesOf([], { mode: 'basic', htpasswd: null }), expected);
  t.same(mistakesOf([], { mode: 'none', htpasswd: '/etc/narrows/users' }), [], 'and none takes one');
  t.match(mistakesOf([], { mode: 'ldap' }), ['access.mode: expected none, basic, token, certificate or upstream']);
  t.match(mistakesOf([], { ...basic, groups: { ci: 'alice' } }), [`access.groups.ci: ${names}`]);
  t.match(mistakesOf([], { ...basic, pull: 'authenticated' }), [`access.pull: ${names}`]);
  t.end();
});

void t.test('repositories: what is wrong in itself is told where it stands', (t) => {
  const cases: [repository: Tree, path: string][] = [
    [{}, 'repositories.0.name'],
    [{ name: '' }, 'repositories.0.name'],
    [{ name: 'Team/App' }, 'repositories.0.name'],
    [{ name: 'team/app:1' }, 'repositories.0.name'],
    [{ name: 'team/app', hosted: 'yes' }, 'repositories.0.hosted'],
    [{ name: 'team/app', hosted: true, push: 'alice' }, 'repositories.0.push'],
    [{ name: 'team/app', hosted: true, push: [''] }, 'repositories.0.push.0'],
    [{ name: 'team/app', hosted: true, owners: ['alice'] }, 'repositories.0.owners'],
    [{ name: 'team/app', hosted: true, owners: { '*': [] } }, 'repositories.0.owners.*'],
    [{ name: 'team/app', hosted: true, owners: { linux: ['ci'] } }, 'repositories.0.owners.linux'],
    [{ name: 'team/app', hosted: true, owners: { any: ['ci'] } }, 'repositories.0.owners.any'],
    [{ name: 'team/app', surprise: 1 }, 'repositories.0.surprise'],
  ];
  for (const [repository, path] of cases) {
    const paths = mistakesOf([repository], basic).map((line) => line.split(': ', 1)[0]);
    t.same([...new Set(paths)], [path], JSON.stringify(repository));
  }
  t.end();
});

void t.test('repositories: whatever stands there is a mistake and not a failure', (t) => {
  for (const value of [
    null,
    'x',
    1,
    {},
    [null],
    ['x'],
    [[]],
    [{ name: null, hosted: true, owners: null, push: null }],
  ]) {
    const found = mistakesOf(value, basic);
    t.ok(found.length > 0, JSON.stringify(value));
    t.ok(
      found.every((line) => line.startsWith('repositories')),
      found.join(),
    );
  }
  for (const value of [null, 'x', 1, []]) {
    const config = parse(defaults) as Tree;
    config['access'] = value;
    t.throws(() => parseConfig(config), { name: 'ConfigError', message: /^access/ }, JSON.stringify(value));
  }
  t.end();
});

void t.test(
  'access: tokens need someone to have them, keys that workers share, and issuers that can be told apart',
  (t) => {
    const issuer = { url: 'https://a.example', audience: 'narrows', prefix: 'a:' };
    const token = { mode: 'token', htpasswd: '/u' };
    const own = (parse(defaults) as { access: { token: Tree } }).access.token;
    const cases: [access: Tree, path: string | undefined][] = [
      [{ mode: 'token' }, 'access.mode'],
      [token, undefined],
      [{ mode: 'token', issuers: [issuer] }, undefined],
      [{ ...token, issuers: [issuer, { ...issuer, prefix: 'b:' }] }, 'access.issuers.1.url'],
      [{ ...token, issuers: [issuer, { ...issuer, url: 'https://b.example' }] }, 'access.issuers.1.prefix'],
      [{ ...token, issuers: [{ ...issuer, prefix: 'a' }] }, 'access.issuers.0.prefix'],
      [{ ...token, issuers: [{ ...issuer, prefix: '*:' }] }, 'access.issuers.0.prefix'],
      [{ ...token, issuers: [{ ...issuer, audience: '' }] }, 'access.issuers.0.audience'],
      [{ ...token, issuers: [{ ...issuer, url: 'accounts' }] }, 'access.issuers.0.url'],
      [{ ...token, issuers: [{ ...issuer, url: 'accounts', jwks: '/keys' }] }, undefined],
      [{ mode: 'none', issuers: [issuer] }, 'access.issuers'],
      [{ mode: 'certificate', issuers: [issuer] }, 'access.issuers'],
      [{ ...token, token: { ...own, lifetime: '10s' } }, 'access.token.lifetime'],
      [{ ...token, token: { ...own, realm: 'mirror/token' } }, 'access.token.realm'],
      [{ ...token, token: { ...own, service: 'a"b' } }, 'access.token.service'],
    ];
    for (const [access, path] of cases) {
      const at = mistakesOf([], access).map((text) => text.slice(0, text.indexOf(': ')));
      const expected =
        access['mode'] === 'certificate' ? ['access.mode', path] : [path].filter((one) => one !== undefined);
      t.same(new Set(at), new Set(expected), JSON.stringify(access));
    }
    t.end();
  },
);

void t.test('access: where the upstream says who may read, nothing else does', (t) => {
  const asked: Tree = { mode: 'upstream', upstream: { registry: 'ghcr.io', granted: '60s', refused: '10s' } };
  t.same(mistakesOf([{ name: 'ghcr.io/a/*', primary: 'linux/arm64' }], asked), []);
  const missing = 'expected the upstream whose users and passwords clients show, such as ghcr.io';
  const place = 'access.upstream.registry';
  for (const registry of [null, 'nowhere.example']) {
    const wrong = { ...asked, upstream: { registry, granted: '60s', refused: '10s' } };
    t.same(mistakesOf([], wrong), [`${place}: ${missing}`]);
  }
  const unasked = { ...asked, mode: 'none' };
  t.same(mistakesOf([], unasked), [`${place}: callers are not asked for it; set access.mode to upstream`]);
  const alone = 'with access.mode upstream, the upstream alone says who may read, and knows nothing of this';
  const overlays = [{ platform: 'linux/riscv64', from: 'ghcr.io/riscv/a' }];
  const repositories = [
    { name: 'ghcr.io/a/b', pull: ['alice'] },
    { name: 'team/*', hosted: true },
    { name: 'ghcr.io/a/c', overlays },
  ];
  t.same(mistakesOf(repositories, asked), [
    `repositories.0.pull: ${alone}`,
    `repositories.1.hosted: ${alone}`,
    `repositories.2.overlays: ${alone}`,
  ]);
  const config: Tree = {
    ...(parse(defaults) as Tree),
    access: { ...(parse(defaults) as { access: Tree }).access, ...asked },
  };
  const platforms = { ...(config['platforms'] as Tree), users: { alice: 'linux/arm64' } };
  const listen = [{ address: '127.0.0.1:5000', tls: { cert: 'c', key: 'k', clientCa: 'a' } }];
  try {
    parseConfig({ ...config, platforms, listen, offline: true });
    t.fail('it was taken');
  } catch (error) {
    t.same((error as ConfigError).mistakes, [
      { path: 'access.mode', message: 'offline, no upstream can be asked what callers may read' },
      {
        path: 'listen.0.tls.clientCa',
        message: 'with access.mode upstream, no certificate says what a caller may read',
      },
      { path: 'platforms.users', message: 'with access.mode upstream nobody here knows who a caller is' },
    ]);
  }
  t.end();
});
