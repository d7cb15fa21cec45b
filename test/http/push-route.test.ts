import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { parsePushRoute } from '../../src/http/push-route.ts';
import { parseTarget } from '../../src/http/route.ts';

const hex = '0123456789abcdef'.repeat(4);
const digest = `sha256:${hex}`;
const other = `sha256:${'f'.repeat(64)}`;
const long = `sha512:${hex}${hex}`;
const id = '01234567-89ab-cdef-0123-456789abcdef';

const routeOf = (method: string, target: string) => parsePushRoute(method, parseTarget(target));

function errorOf(method: string, target: string): NarrowsError | undefined {
  try {
    routeOf(method, target);
    return undefined;
  } catch (error) {
    if (error instanceof NarrowsError) return error;
    throw error;
  }
}

const tagQuery = (count: number) => Array.from({ length: count }, (_, at) => `tag=t${at}`).join('&');
const tag = (text: string) => ({ kind: 'tag', tag: text });
const byDigest = (text: string) => ({ kind: 'digest', digest: text });

void t.test('what each request of a push is', (t) => {
  const rows: [method: string, target: string, expected: object][] = [
    ['POST', '/v2/team/x/blobs/uploads/', { kind: 'start-upload' }],
    ['POST', '/v2/team/x/blobs/uploads', { kind: 'start-upload' }],
    ['POST', `/v2/team/x/blobs/uploads/?digest=${digest}`, { kind: 'start-upload', digest }],
    ['POST', `/v2/team/x/blobs/uploads/?digest=sha256%3A${hex}`, { kind: 'start-upload', digest }],
    ['POST', `/v2/team/x/blobs/uploads/?digest=${long}`, { kind: 'start-upload', digest: long }],
    [
      'POST',
      `/v2/team/x/blobs/uploads/?mount=${digest}&from=team/y`,
      { kind: 'start-upload', mount: digest, from: 'team/y' },
    ],
    [
      'POST',
      `/v2/team/x/blobs/uploads/?mount=${digest}&from=team%2Fy`,
      { kind: 'start-upload', mount: digest, from: 'team/y' },
    ],
    ['POST', `/v2/team/x/blobs/uploads/?mount=${digest}`, { kind: 'start-upload', mount: digest }],
    ['POST', '/v2/team/x/blobs/uploads/?from=team/y', { kind: 'start-upload', from: 'team/y' }],
    ['GET', `/v2/team/x/blobs/uploads/${id}`, { kind: 'upload-status', id }],
    ['HEAD', `/v2/team/x/blobs/uploads/${id}`, { kind: 'upload-status', id }],
    ['PATCH', `/v2/team/x/blobs/uploads/${id}`, { kind: 'append-upload', id }],
    ['PUT', `/v2/team/x/blobs/uploads/${id}?digest=${digest}`, { kind: 'finish-upload', id, digest }],
    ['PUT', `/v2/team/x/blobs/uploads/${id}?_state=x&digest=${long}`, { kind: 'finish-upload', id, digest: long }],
    ['DELETE', `/v2/team/x/blobs/uploads/${id}`, { kind: 'cancel-upload', id }],
    ['DELETE', `/v2/team/x/blobs/${digest}`, { kind: 'delete-blob', digest }],
    ['PUT', '/v2/team/x/manifests/1.0', { kind: 'put-manifest', reference: tag('1.0'), tags: [] }],
    ['PUT', `/v2/team/x/manifests/${digest}`, { kind: 'put-manifest', reference: byDigest(digest), tags: [] }],
    [
      'PUT',
      `/v2/team/x/manifests/${digest}?tag=1&tag=latest`,
      { kind: 'put-manifest', reference: byDigest(digest), tags: ['1', 'latest'] },
    ],
    ['PUT', '/v2/team/x/manifests/1?tag=2', { kind: 'put-manifest', reference: tag('1'), tags: [] }],
    ['DELETE', '/v2/team/x/manifests/1.0', { kind: 'delete-manifest', reference: tag('1.0') }],
    ['DELETE', `/v2/team/x/manifests/${long}`, { kind: 'delete-manifest', reference: byDigest(long) }],
  ];
  for (const [method, target, expected] of rows) {
    t.same(
      routeOf(method, target),
      { path: target.split('?', 1)[0], name: 'team/x', ...expected },
      `${method} ${target}`,
    );
  }
  t.end();
});

void t.test('a platform set and a namespace are told apart from the name, and the address is kept', (t) => {
  for (const path of [`/p/linux-arm64/v2/team/x/manifests/1`, '/v2/p/linux-arm64/team/x/manifests/1']) {
    t.match(routeOf('PUT', path), { path, name: 'team/x', kind: 'put-manifest', reference: tag('1') });
  }
  t.match(routeOf('PUT', '/v2/team/x/manifests/1?ns=docker.io'), { name: 'team/x', namespace: 'docker.io' });
  t.match(routeOf('POST', '/v2/team/x/blobs/uploads/?ns='), { namespace: '' });
  t.match(routeOf('PATCH', `/v2/team/x/blobs/uploads/${id}?ns=ghcr.io`), { namespace: 'ghcr.io' });
  t.end();
});

void t.test('a tag is not deleted where one platform of it is seen; what a digest names is', (t) => {
  t.match(routeOf('DELETE', '/p/any/v2/team/x/manifests/1'), { kind: 'delete-manifest' }, 'of which all is seen');
  for (const base of ['/p/linux-arm64/v2/team/x', '/v2/p/linux-arm64/team/x', '/v2/p/nonsense/team/x']) {
    t.throws(() => routeOf('DELETE', `${base}/manifests/1`), {
      kind: 'methodNotAllowed',
      message: /all its platforms/,
      headers: { allow: 'GET, HEAD, PUT' },
    });
    t.match(routeOf('DELETE', `${base}/manifests/${digest}`), { name: 'team/x', kind: 'delete-manifest' });
  }
  t.end();
});

void t.test('names that look like addresses are read from the right', (t) => {
  t.match(routeOf('PUT', '/v2/team/manifests/manifests/1'), { name: 'team/manifests', reference: tag('1') });
  t.match(routeOf('PUT', '/v2/manifests/x/manifests/1'), { name: 'manifests/x', reference: tag('1') });
  t.match(routeOf('DELETE', `/v2/team/blobs/blobs/${digest}`), { name: 'team/blobs', kind: 'delete-blob' });
  t.match(routeOf('POST', '/v2/team/blobs/uploads/blobs/uploads/'), {
    name: 'team/blobs/uploads',
    kind: 'start-upload',
  });
  t.match(routeOf('PATCH', `/v2/team/blobs/uploads/x/blobs/uploads/${id}`), { name: 'team/blobs/uploads/x', id });
  t.match(routeOf('PUT', '/v2/team/blobs/uploads/manifests/1'), { name: 'team/blobs/uploads', kind: 'put-manifest' });
  t.end();
});

void t.test('what is read is no push', (t) => {
  for (const method of ['GET', 'HEAD']) {
    for (const target of [
      '/v2/',
      '/v2',
      '/v2/_catalog',
      '/v2/team/x/manifests/1',
      `/v2/team/x/blobs/${digest}`,
      '/v2/team/x/tags/list',
      `/v2/team/x/referrers/${digest}`,
      '/v2/whatever',
    ]) {
      t.equal(routeOf(method, target), undefined, `${method} ${target}`);
    }
  }
  t.end();
});

void t.test('65. what cannot be done there: 405, and what can', (t) => {
  const rows: [method: string, target: string, allow: string][] = [
    ['POST', '/v2/', 'GET, HEAD'],
    ['PUT', '/v2/_catalog', 'GET, HEAD'],
    ['DELETE', '/v2/team/x/tags/list', 'GET, HEAD'],
    ['POST', `/v2/team/x/referrers/${digest}`, 'GET, HEAD'],
    ['POST', '/v2/team/x/manifests/1', 'GET, HEAD, PUT, DELETE'],
    ['PATCH', '/v2/team/x/manifests/1', 'GET, HEAD, PUT, DELETE'],
    ['PUT', `/v2/team/x/blobs/${digest}`, 'GET, HEAD, DELETE'],
    ['OPTIONS', `/v2/team/x/blobs/${digest}`, 'GET, HEAD, DELETE'],
    ['GET', '/v2/team/x/blobs/uploads/', 'POST'],
    ['PUT', '/v2/team/x/blobs/uploads/', 'POST'],
    ['DELETE', '/v2/team/x/blobs/uploads', 'POST'],
    ['POST', `/v2/team/x/blobs/uploads/${id}`, 'GET, HEAD, PATCH, PUT, DELETE'],
    ['OPTIONS', `/v2/team/x/blobs/uploads/${id}`, 'GET, HEAD, PATCH, PUT, DELETE'],
  ];
  for (const [method, target, allow] of rows) {
    t.match(errorOf(method, target), { kind: 'methodNotAllowed', headers: { allow } }, `${method} ${target}`);
  }
  t.end();
});

void t.test('24. what is not in the form that it has to be in', (t) => {
  const rows: [method: string, target: string, kind: string][] = [
    ['POST', '/v2/Team/x/blobs/uploads/', 'nameInvalid'],
    ['POST', '/v2/../x/blobs/uploads/', 'nameInvalid'],
    ['POST', '/v2/team//x/blobs/uploads/', 'nameInvalid'],
    ['POST', `/v2/team/${'x'.repeat(255)}/blobs/uploads/`, 'nameInvalid'],
    ['PUT', '/v2/team/%2e%2e/manifests/1', 'nameInvalid'],
    ['POST', '/v2/team/x/blobs/uploads/?digest=', 'digestInvalid'],
    ['POST', '/v2/team/x/blobs/uploads/?digest=sha256:abc', 'digestInvalid'],
    ['POST', `/v2/team/x/blobs/uploads/?digest=md5:${'a'.repeat(32)}`, 'digestInvalid'],
    ['POST', `/v2/team/x/blobs/uploads/?digest=${digest.toUpperCase()}`, 'digestInvalid'],
    ['POST', '/v2/team/x/blobs/uploads/?mount=x&from=team/y', 'digestInvalid'],
    ['POST', `/v2/team/x/blobs/uploads/?mount=${digest}&from=../y`, 'nameInvalid'],
    ['POST', `/v2/team/x/blobs/uploads/?mount=${digest}&from=`, 'nameInvalid'],
    ['PUT', `/v2/team/x/blobs/uploads/${id}`, 'digestInvalid'],
    ['PUT', `/v2/team/x/blobs/uploads/${id}?digest=x`, 'digestInvalid'],
    ['DELETE', '/v2/team/x/blobs/latest', 'digestInvalid'],
    ['DELETE', '/v2/team/x/blobs/sha256:..', 'digestInvalid'],
    ['PUT', '/v2/team/x/manifests/sha256:abc', 'digestInvalid'],
    ['PUT', '/v2/team/x/manifests/.tag', 'manifestUnknown'],
    ['PUT', `/v2/team/x/manifests/${'x'.repeat(129)}`, 'manifestUnknown'],
    ['PUT', `/v2/team/x/manifests/${digest}?tag=-x`, 'manifestUnknown'],
    ['PUT', `/v2/team/x/manifests/${digest}?tag=`, 'manifestUnknown'],
    ['PUT', `/v2/team/x/manifests/1?ns=a&ns=b`, 'nameInvalid'],
    ['PUT', '/v3/team/x/manifests/1', 'routeUnknown'],
    ['PUT', '/', 'routeUnknown'],
  ];
  for (const [method, target, kind] of rows) t.equal(errorOf(method, target)?.kind, kind, `${method} ${target}`);
  t.end();
});

void t.test('tags at once: as many as anyone needs, and no more', (t) => {
  const path = `/v2/team/x/manifests/${other}`;
  t.match(routeOf('PUT', `${path}?${tagQuery(50)}`), { tags: Array.from({ length: 50 }, (_, at) => `t${at}`) });
  t.equal(errorOf('PUT', `${path}?${tagQuery(51)}`)?.kind, 'queryInvalid');
  t.end();
});
