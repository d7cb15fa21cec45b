import t from 'tap';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createRegistries } from '../../src/upstream/registries.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';

/** An upstream that must not be asked: to find it is to know its name. */
const upstream = (name: string): Upstream => ({
  name,
  head: () => Promise.reject(new Error(`${name} was asked`)),
  manifest: () => Promise.reject(new Error(`${name} was asked`)),
  blobHead: () => Promise.reject(new Error(`${name} was asked`)),
  blob: () => Promise.reject(new Error(`${name} was asked`)),
  list: () => Promise.reject(new Error(`${name} was asked`)),
});

const mapOf = (...names: string[]) => new Map(names.map((name) => [name, upstream(name)]));

const registries = createRegistries(mapOf('docker.io', 'ghcr.io', 'registry.k8s.io', 'lab'), 'docker.io');

const find = (name: string, namespace?: string, fallback?: string, using = registries) => {
  const source = using.find(parseRepositoryName(name), namespace, fallback);
  return [source.upstream.name, source.repository, source.key, source.namespace];
};

void t.test('find: the first part of a name, then ns, then the default name the upstream', (t) => {
  const cases: [name: string, namespace: string | undefined, upstream: string, repository: string][] = [
    ['ghcr.io/org/app', undefined, 'ghcr.io', 'org/app'],
    ['ghcr.io/app', undefined, 'ghcr.io', 'app'],
    ['lab/team/app', undefined, 'lab', 'team/app'],
    ['docker.io/library/nginx', undefined, 'docker.io', 'library/nginx'],
    ['docker.io/nginx', undefined, 'docker.io', 'library/nginx'],
    ['org/app', 'ghcr.io', 'ghcr.io', 'org/app'],
    ['pause', 'registry.k8s.io', 'registry.k8s.io', 'pause'],
    ['nginx', 'docker.io', 'docker.io', 'library/nginx'],
    ['library/nginx', 'docker.io', 'docker.io', 'library/nginx'],
    ['ghcr.io/org/app', 'docker.io', 'ghcr.io', 'org/app'],
    ['nginx', undefined, 'docker.io', 'library/nginx'],
    ['library/nginx', undefined, 'docker.io', 'library/nginx'],
    ['grafana/grafana', undefined, 'docker.io', 'grafana/grafana'],
    ['a/b/c', undefined, 'docker.io', 'a/b/c'],
    ['labs/app', undefined, 'docker.io', 'labs/app'],
  ];
  for (const [name, namespace, expected, repository] of cases) {
    t.match(
      find(name, namespace).slice(0, 3),
      [expected, repository, `${expected}/${repository}`],
      `${name} with ns=${namespace}`,
    );
  }
  t.end();
});

void t.test('find: one repository has one key, however it is asked for', (t) => {
  const ways: [name: string, namespace?: string][] = [
    ['nginx'],
    ['library/nginx'],
    ['docker.io/nginx'],
    ['docker.io/library/nginx'],
    ['index.docker.io/library/nginx'],
    ['registry-1.docker.io/nginx'],
    ['nginx', 'docker.io'],
    ['library/nginx', 'registry-1.docker.io'],
    ['library/nginx', 'index.docker.io'],
  ];
  for (const [name, namespace] of ways)
    t.equal(find(name, namespace)[2], 'docker.io/library/nginx', `${name} ${namespace}`);
  t.end();
});

void t.test('find: the namespace is told back where it named the upstream, as it was sent', (t) => {
  t.equal(find('nginx', 'docker.io')[3], 'docker.io');
  t.equal(find('nginx', 'registry-1.docker.io')[3], 'registry-1.docker.io');
  t.equal(find('ghcr.io/org/app', 'ghcr.io')[3], undefined);
  t.equal(find('nginx')[3], undefined);
  t.end();
});

void t.test('find: a listener may have a default of its own', (t) => {
  t.same(find('org/app', undefined, 'ghcr.io').slice(0, 2), ['ghcr.io', 'org/app']);
  t.same(find('app', undefined, 'ghcr.io').slice(0, 2), ['ghcr.io', 'app'], 'without library, that is Docker Hub’s');
  t.same(find('nginx', 'docker.io', 'ghcr.io').slice(0, 2), ['docker.io', 'library/nginx']);
  t.same(find('docker.io/nginx', undefined, 'ghcr.io').slice(0, 2), ['docker.io', 'library/nginx']);
  t.end();
});

void t.test('find: a registry that is not configured is unknown, and the message says what to do', (t) => {
  const cases: [name: string, namespace?: string | undefined, fallback?: string][] = [
    ['quay.io/org/app'],
    ['nginx', 'quay.io'],
    ['nginx', ''],
    ['nginx', '127.0.0.1'],
    ['nginx', '169.254.169.254'],
    ['nginx', '[::1]:5000'],
    ['nginx', 'ghcr.io:443'],
    ['nginx', 'user@ghcr.io'],
    ['nginx', 'ghcr.io/x'],
    ['nginx', 'ghcr.io,docker.io'],
    ['nginx', '__proto__'],
    ['nginx', 'constructor'],
    ['nginx', 'a'.repeat(3000)],
    ['localhost/app'],
    ['127.0.0.1/app'],
    ['mirror.example/docker.io/library/nginx'],
    ['nginx', undefined, 'gone.example'],
  ];
  const expected = {
    kind: 'nameUnknown',
    code: 'NAME_UNKNOWN',
    status: 404,
    message: /^.{1,200} add it under upstreams/,
  };
  for (const [name, namespace, fallback] of cases) {
    t.throws(() => find(name, namespace, fallback), expected, `${name} ${namespace?.slice(0, 40)} ${fallback}`);
  }
  t.end();
});

void t.test('find: Docker Hub’s other names are no way round a map without it', (t) => {
  const using = createRegistries(mapOf('ghcr.io'), 'ghcr.io');
  for (const name of ['docker.io/nginx', 'index.docker.io/nginx', 'registry-1.docker.io/nginx']) {
    t.throws(() => find(name, undefined, undefined, using), { kind: 'nameUnknown', code: 'NAME_UNKNOWN' }, name);
  }
  t.same(find('nginx', undefined, undefined, using).slice(0, 2), ['ghcr.io', 'nginx']);
  t.end();
});

void t.test('find: an upstream that is configured under such a name is meant by it', (t) => {
  const using = createRegistries(mapOf('docker.io', 'index.docker.io'), 'docker.io');
  t.match(find('index.docker.io/org/app', undefined, undefined, using), ['index.docker.io', 'org/app']);
  t.match(find('org/app', 'index.docker.io', undefined, using), ['index.docker.io', 'org/app']);
  t.match(find('org/app', 'registry-1.docker.io', undefined, using), ['docker.io', 'org/app']);
  t.end();
});

void t.test('find: a name that is too long with library before it is invalid, not cut', (t) => {
  const name = 'a'.repeat(250);
  t.throws(() => find(name), { kind: 'nameInvalid', code: 'NAME_INVALID', status: 400 });
  t.equal(find(name, 'ghcr.io')[1], name);
  t.end();
});
