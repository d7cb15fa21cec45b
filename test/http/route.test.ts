import t from 'tap';
import { loggable, parseRoute, parseTarget } from '../../src/http/route.ts';

const hex = '0123456789abcdef'.repeat(4);
const digest = `sha256:${hex}`;

const ping = { kind: 'ping' };
const tag = (name: string, text: string) => ({ kind: 'manifest', name, reference: { kind: 'tag', tag: text } });
const manifest = (name: string) => ({ kind: 'manifest', name, reference: { kind: 'digest', digest } });
const blob = (name: string) => ({ kind: 'blob', name, digest });

const routeOf = (target: string) => parseRoute(parseTarget(target));

type Row = [target: string, expected: object];

interface Tester {
  same(found: unknown, wanted: unknown, message: string): boolean;
  end(): unknown;
}

function check(t: Tester, rows: readonly Row[], added: object = {}): void {
  for (const [target, expected] of rows) {
    t.same(routeOf(target), { path: target.split('?', 1)[0], ...expected, ...added }, target);
  }
  t.end();
}

/** What each client sends to a mirror that stands at the root of its host. */
const clients: Record<string, Row[]> = {
  'containerd, nerdctl, ctr': [
    ['/v2/library/nginx/manifests/1.31?ns=docker.io', { ...tag('library/nginx', '1.31'), namespace: 'docker.io' }],
    [`/v2/library/nginx/manifests/${digest}?ns=docker.io`, { ...manifest('library/nginx'), namespace: 'docker.io' }],
    [`/v2/library/nginx/blobs/${digest}?ns=docker.io`, { ...blob('library/nginx'), namespace: 'docker.io' }],
    ['/v2/pause/manifests/3.10?ns=registry.k8s.io', { ...tag('pause', '3.10'), namespace: 'registry.k8s.io' }],
    ['/v2/app/manifests/1?ns=localhost%3A5102', { ...tag('app', '1'), namespace: 'localhost:5102' }],
  ],
  'Docker with graph drivers': [
    ['/v2/', ping],
    ['/v2/library/nginx/manifests/latest', tag('library/nginx', 'latest')],
    [`/v2/library/nginx/manifests/${digest}`, manifest('library/nginx')],
    [`/v2/library/nginx/blobs/${digest}`, blob('library/nginx')],
  ],
  'Docker with the containerd store': [
    ['/v2/library/nginx/manifests/latest?ns=docker.io', { ...tag('library/nginx', 'latest'), namespace: 'docker.io' }],
    [
      `/v2/library/nginx/referrers/${digest}?ns=docker.io`,
      { kind: 'referrers', name: 'library/nginx', digest, page: {}, namespace: 'docker.io' },
    ],
    [
      `/v2/library/nginx/manifests/sha256-${hex}?ns=docker.io`,
      { ...tag('library/nginx', `sha256-${hex}`), namespace: 'docker.io' },
    ],
  ],
  'podman, buildah, skopeo, CRI-O': [
    ['/v2/', ping],
    ['/v2/docker.io/library/nginx/manifests/latest', tag('docker.io/library/nginx', 'latest')],
    [`/v2/docker.io/library/nginx/manifests/${digest}`, manifest('docker.io/library/nginx')],
    [`/v2/docker.io/library/nginx/blobs/${digest}`, blob('docker.io/library/nginx')],
    [`/v2/quay.io/org/app/manifests/sha256-${hex}.sig`, tag('quay.io/org/app', `sha256-${hex}.sig`)],
  ],
  'crane, kaniko, cosign': [
    ['/v2/', ping],
    ['/v2/ghcr.io/org/app/manifests/v1', tag('ghcr.io/org/app', 'v1')],
    [`/v2/ghcr.io/org/app/manifests/${digest}`, manifest('ghcr.io/org/app')],
    [
      `/v2/ghcr.io/org/app/referrers/${digest}?artifactType=application%2Fvnd.dev.cosign%2Bjson`,
      { kind: 'referrers', name: 'ghcr.io/org/app', digest, artifactType: 'application/vnd.dev.cosign+json', page: {} },
    ],
    ['/v2/ghcr.io/org/app/tags/list?n=1000', { kind: 'tags', name: 'ghcr.io/org/app', page: { n: 1000 } }],
  ],
  regctl: [
    [
      '/v2/library/nginx/manifests/latest?ns=registry-1.docker.io',
      { ...tag('library/nginx', 'latest'), namespace: 'registry-1.docker.io' },
    ],
    [
      '/v2/library/nginx/tags/list?last=1.30&n=100&ns=registry-1.docker.io',
      { kind: 'tags', name: 'library/nginx', page: { n: 100, last: '1.30' }, namespace: 'registry-1.docker.io' },
    ],
  ],
  'oras, Helm, notation': [
    ['/v2/ghcr.io/org/chart/manifests/0.1.0', tag('ghcr.io/org/chart', '0.1.0')],
    [`/v2/ghcr.io/org/chart/blobs/${digest}`, blob('ghcr.io/org/chart')],
    ['/v2/_catalog?last=a%2Fb&n=10', { kind: 'catalog', page: { n: 10, last: 'a/b' } }],
  ],
  'k3s, RKE2, Talos': [
    [
      '/v2/rancher/mirrored-pause/manifests/3.6?ns=docker.io',
      { ...tag('rancher/mirrored-pause', '3.6'), namespace: 'docker.io' },
    ],
  ],
};

for (const [client, rows] of Object.entries(clients)) {
  void t.test(`parseRoute: reads what ${client} asks for`, (t) => check(t, rows));

  void t.test(`parseRoute: reads ${client} with the platform before /v2`, (t) => {
    const set = { pathSet: 'linux-arm64' };
    check(
      t,
      rows.map(([target, expected]) => [`/p/linux-arm64${target}`, expected]),
      set,
    );
  });

  void t.test(`parseRoute: reads ${client} with the platform behind /v2`, (t) => {
    const set = { pathSet: 'linux-amd64_linux-arm-v7' };
    check(
      t,
      rows.map(([target, expected]) => [target.replace('/v2/', '/v2/p/linux-amd64_linux-arm-v7/'), expected]),
      set,
    );
  });
}

void t.test('parseRoute: reads the addresses that configurations of clients lead to', (t) => {
  check(t, [
    ['/v2', ping],
    ['/p/linux-arm64/v2', { ...ping, pathSet: 'linux-arm64' }],
    ['/v2/p/linux-arm64', { ...ping, pathSet: 'linux-arm64' }],
    [
      '/v2/p/any/docker.io/library/nginx/manifests/1?ns=docker.io',
      { ...tag('docker.io/library/nginx', '1'), pathSet: 'any', namespace: 'docker.io' },
    ],
    ['/p/edge/v2/nginx/manifests/1', { ...tag('nginx', '1'), pathSet: 'edge' }],
    ['/p/linux%2Farm64/v2/nginx/manifests/1', { ...tag('nginx', '1'), pathSet: 'linux%2Farm64' }],
  ]);
});

void t.test('parseRoute: the colon of a digest may be escaped', (t) => {
  check(t, [
    [`/v2/library/nginx/manifests/sha256%3A${hex}`, manifest('library/nginx')],
    [`/v2/library/nginx/blobs/sha256%3a${hex}`, blob('library/nginx')],
  ]);
});

void t.test('parseRoute: a repository may be named like the parts of an address', (t) => {
  check(t, [
    ['/v2/team/manifests/manifests/1', tag('team/manifests', '1')],
    ['/v2/blobs/manifests/list', tag('blobs', 'list')],
    ['/v2/team/tags/manifests/list', tag('team/tags', 'list')],
    [`/v2/manifests/blobs/blobs/${digest}`, blob('manifests/blobs')],
    ['/v2/team/tags/tags/list', { kind: 'tags', name: 'team/tags', page: {} }],
    ['/v2/v2/p/manifests/1', tag('v2/p', '1')],
    ['/v2/catalog/manifests/_catalog', tag('catalog', '_catalog')],
  ]);
});

void t.test('62. parseRoute: the namespace is told as it was sent, to be looked up in the closed map', (t) => {
  for (const namespace of [
    '',
    'evil.example',
    '169.254.169.254',
    '127.0.0.1:5000',
    'user:secret@ghcr.io',
    '__proto__',
  ]) {
    const route = routeOf(`/v2/nginx/manifests/1?ns=${encodeURIComponent(namespace)}`);
    t.equal(route.namespace, namespace);
  }
  t.notOk('namespace' in routeOf('/v2/nginx/manifests/1'));
  t.end();
});

void t.test('24. parseRoute: what is not in canonical form is refused, not repaired', (t) => {
  const [nameInvalid, unknown] = [
    { kind: 'nameInvalid', code: 'NAME_INVALID', status: 400 },
    { kind: 'routeUnknown', code: 'NAME_UNKNOWN', status: 404 },
  ];
  const digestInvalid = { kind: 'digestInvalid', code: 'DIGEST_INVALID', status: 400 };
  const noTag = { kind: 'manifestUnknown', code: 'MANIFEST_UNKNOWN', status: 404 };
  const queryInvalid = { kind: 'queryInvalid', code: 'UNSUPPORTED', status: 400 };
  const cases: Record<string, [target: string, error: { kind: string; code: string; status: number }]> = {
    'two namespaces': ['/v2/nginx/manifests/1?ns=docker.io&ns=ghcr.io', nameInvalid],
    'one namespace twice': ['/v2/nginx/manifests/1?ns=docker.io&ns=docker.io', nameInvalid],
    'two namespaces, one escaped': ['/v2/nginx/manifests/1?ns=docker.io&n%73=ghcr.io', nameInvalid],
    'dots as a name': ['/v2/p/linux-arm64/../q/manifests/1', nameInvalid],
    'dots in a name': ['/v2/team/../other/manifests/1', nameInvalid],
    'a dot in a name': ['/v2/./nginx/manifests/1', nameInvalid],
    'escaped dots': ['/v2/team/%2e%2e/other/manifests/1', nameInvalid],
    'a mixed escape': ['/v2/team/.%2E/other/manifests/1', nameInvalid],
    'an escaped slash in a name': ['/v2/team%2fother/manifests/1', nameInvalid],
    'an escaped slash before the kind': ['/v2/nginx%2Fmanifests/1', unknown],
    'an escaped letter': ['/v2/%6eginx/manifests/1', nameInvalid],
    'an escape twice': ['/v2/team/%252e%252e/manifests/1', nameInvalid],
    'an escaped colon in a name': ['/v2/localhost%3A5000/nginx/manifests/1', nameInvalid],
    'a port in a name': ['/v2/localhost:5000/nginx/manifests/1', nameInvalid],
    'two slashes behind v2': ['/v2//nginx/manifests/1', nameInvalid],
    'two slashes in a name': ['/v2/library//nginx/manifests/1', nameInvalid],
    'two slashes before the kind': ['/v2/nginx//manifests/1', nameInvalid],
    'two slashes before the tag': ['/v2/nginx/manifests//1', unknown],
    'a slash behind the tag': ['/v2/nginx/manifests/1/', unknown],
    'a slash behind the list': ['/v2/nginx/tags/list/', unknown],
    'a slash behind the catalog': ['/v2/_catalog/', unknown],
    'two slashes alone': ['/v2//', unknown],
    'two slashes before v2': ['//v2/nginx/manifests/1', unknown],
    'upper case in a name': ['/v2/Library/nginx/manifests/1', nameInvalid],
    'upper case in v2': ['/V2/nginx/manifests/1', unknown],
    'upper case in the kind': ['/v2/nginx/Manifests/1', unknown],
    'a parameter in a name': ['/v2/nginx;x=1/manifests/1', nameInvalid],
    'a parameter of a tag': ['/v2/nginx/manifests/1;x=1', noTag],
    'NUL in a name': ['/v2/nginx\0/manifests/1', nameInvalid],
    'an escaped NUL': ['/v2/nginx%00/manifests/1', nameInvalid],
    'NUL in a tag': ['/v2/nginx/manifests/1\0', noTag],
    'dots as a tag': ['/v2/nginx/manifests/..', noTag],
    'escaped dots as a tag': ['/v2/nginx/manifests/%2e%2e', noTag],
    'a backslash': ['/v2/nginx\\x/manifests/1', nameInvalid],
    'an absolute address': ['http://mirror.example/v2/nginx/manifests/1', unknown],
    'an asterisk': ['*', unknown],
    nothing: ['', unknown],
    'the root': ['/', unknown],
    'another version': ['/v1/search', unknown],
    'v2 with a tail': ['/v2x/nginx/manifests/1', unknown],
    'no v2 behind the platform': ['/p/linux-arm64/nginx/manifests/1', unknown],
    'no platform before v2': ['/p//v2/nginx/manifests/1', unknown],
    'a platform in two parts before v2': ['/p/linux/arm64/v2/nginx/manifests/1', unknown],
    'no name': ['/v2/manifests/1', unknown],
    'no name of tags': ['/v2/tags/list', unknown],
    'no name, a slash instead': ['/v2//manifests/1', unknown],
    'no kind': ['/v2/nginx/1', unknown],
    'an unknown kind': ['/v2/nginx/layers/1', unknown],
    'tags of another kind': ['/v2/nginx/tags/1', unknown],
    'an upload': ['/v2/nginx/blobs/uploads/', unknown],
    'a very long name': [`/v2/${'a'.repeat(256)}/manifests/1`, nameInvalid],
    'a very long tag': [`/v2/nginx/manifests/${'a'.repeat(129)}`, noTag],
    'a very long address': [`/v2/${'a/'.repeat(50_000)}manifests/1`, nameInvalid],
    'a very long query': [`/v2/nginx/manifests/1?${'a=1&'.repeat(5000)}`, nameInvalid],
    'a tag as a blob': ['/v2/nginx/blobs/latest', digestInvalid],
    'a digest that climbs': ['/v2/nginx/blobs/sha256:..%2f..%2fx', digestInvalid],
    'a digest of 63 digits': [`/v2/nginx/blobs/${digest.slice(0, -1)}`, digestInvalid],
    'a digest of 65 digits': [`/v2/nginx/manifests/${digest}0`, digestInvalid],
    'a digest in upper case': [`/v2/nginx/blobs/sha256:${hex.toUpperCase()}`, digestInvalid],
    'a short sha512': [`/v2/nginx/blobs/sha512:${hex}`, digestInvalid],
    md5: [`/v2/nginx/manifests/md5:${hex.slice(0, 32)}`, digestInvalid],
    'an empty digest': ['/v2/nginx/referrers/sha256:', digestInvalid],
    'a digest twice': [`/v2/nginx/blobs/${digest}:${digest}`, digestInvalid],
    'digits of another script': [`/v2/nginx/blobs/sha256:${'٠'.repeat(64)}`, digestInvalid],
    'a number that is none': ['/v2/nginx/tags/list?n=abc', queryInvalid],
    'a negative number': ['/v2/nginx/tags/list?n=-1', queryInvalid],
    'a broken number': ['/v2/_catalog?n=1.5', queryInvalid],
    'no number': ['/v2/_catalog?n=', queryInvalid],
    'a huge number': [`/v2/nginx/referrers/${digest}?n=${'9'.repeat(30)}`, queryInvalid],
    'a very long place to go on from': [`/v2/nginx/tags/list?last=${'a'.repeat(300)}`, queryInvalid],
  };
  for (const [what, [target, error]] of Object.entries(cases)) t.throws(() => routeOf(target), error, what);
  t.end();
});

void t.test('24. parseRoute: a name that is understood is one that could be written again', (t) => {
  const pieces = [
    'a',
    'b.c',
    'p',
    'v2',
    '..',
    '.',
    '',
    '%2e',
    'A',
    'manifests',
    'blobs',
    'tags',
    'list',
    '1',
    'x;y',
    digest,
  ];
  const random = sequence(7);
  let understood = 0;
  for (let round = 0; round < 20_000; round++) {
    const target = `/v2/${Array.from({ length: 1 + (random() % 6) }, () => pieces[random() % pieces.length]).join('/')}`;
    const name = nameIn(target);
    if (name === undefined) continue;
    understood++;
    if (!/^(?:[a-z0-9.]+\/)*[a-z0-9.]+$/.test(name) || /(?:^|\/)\.|\.\./.test(name)) t.fail(`${target} gave ${name}`);
    if (!target.includes(`/${name}/`)) t.fail(`${target} gave ${name}, which is not in it`);
  }
  t.ok(understood > 100, `${understood} of the targets had a meaning`);
  t.end();
});

function nameIn(target: string): string | undefined {
  try {
    const route = routeOf(target);
    return 'name' in route ? route.name : undefined;
  } catch {
    return undefined;
  }
}

/** The same numbers every time. */
function sequence(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48_271) % 2_147_483_647);
}

void t.test(
  '36. loggable: what the API has names for, and nothing else that a client says behind a question mark',
  (t) => {
    t.equal(loggable('/v2/a/manifests/1'), '/v2/a/manifests/1');
    t.equal(loggable('/v2/a/tags/list?n=5&last=b'), '/v2/a/tags/list?n=5&last=b');
    t.equal(loggable('/v2/a/blobs/x?ns=ghcr.io&access_token=secret'), '/v2/a/blobs/x?ns=ghcr.io&…');
    t.equal(loggable('/v2/?secret'), '/v2/?…');
    t.equal(loggable('/token?scope=repository:a:pull&password=secret&'), '/token?scope=repository:a:pull&…&…');
    t.end();
  },
);
