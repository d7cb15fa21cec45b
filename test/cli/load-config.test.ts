import { Readable } from 'node:stream';
import { readdir, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import t from 'tap';
import { loadConfig } from '../../src/cli/load-config.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';

const io = (env: Record<string, string> = {}) => ({
  env,
  isTerminal: false,
  input: () => Readable.from([]),
  write: () => Promise.resolve(),
  out: () => undefined,
  err: () => undefined,
  onStop: () => undefined,
  onReload: () => undefined,
});

void t.test('the sources in their order: defaults, file, environment, command line', async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'narrows.yaml');
  await writeFile(file, 'tags: { fresh: 5s, missing: 6s, stale: 7s }\ncache: { disk: { path: /from/file } }\n');
  const env = {
    NARROWS_TAGS_MISSING: '8s',
    NARROWS_CACHE_DISK_PATH: '/from/env',
    NARROWS_LIMITS_KEEP_ALIVE: '3m',
    NARROWS_LIMITS_DOWNLOADS: '7',
  };
  const { config } = await loadConfig(file, { store: '/from/flag' }, io(env));
  t.match(config, {
    tags: { fresh: 5000, missing: 8000, stale: 7000 },
    cache: { disk: { path: '/from/flag' } },
    limits: { keepAlive: 180_000, downloads: 7 },
  });
  t.match((await loadConfig(undefined, {}, io({ NARROWS_CONFIG: file }))).config.tags.fresh, 5000);
});

void t.test('secrets come from the environment or from files', async (t) => {
  const secret = join(await temporaryFolder(t), 'password');
  await writeFile(secret, 'from a file\n');
  const env = {
    NARROWS_UPSTREAM_DOCKER_IO_USERNAME: 'me',
    NARROWS_UPSTREAM_DOCKER_IO_PASSWORD_FILE: secret,
    NARROWS_UPSTREAM_LAB_USERNAME: 'you',
    NARROWS_UPSTREAM_LAB_PASSWORD: '12345',
  };
  const { config } = await loadConfig(undefined, { upstreams: ['lab=http://127.0.0.1:1'] }, io(env));
  t.same(config.upstreams['docker.io']!.credentials, { username: 'me', password: 'from a file' });
  t.same(config.upstreams['lab']!.credentials, { username: 'you', password: '12345' }, 'digits stay text');
});

void t.test('what Kubernetes puts into the environment of a pod is not taken for configuration', async (t) => {
  const env = {
    NARROWS_SERVICE_HOST: '10.0.0.1',
    NARROWS_SERVICE_PORT_HTTP: '5000',
    NARROWS_PORT: 'tcp://10.0.0.1:5000',
    NARROWS_PORT_5000_TCP: 'x',
  };
  await t.resolves(loadConfig(undefined, {}, io(env)));
});

void t.test('--upstream adds to those of the configuration, or gives one another address', async (t) => {
  const { config } = await loadConfig(
    undefined,
    { upstreams: ['docker.io=http://127.0.0.1:1', 'lab=http://127.0.0.1:2'] },
    io(),
  );
  t.match(config.upstreams, {
    'docker.io': { url: 'http://127.0.0.1:1', trustedHosts: ['auth.docker.io'] },
    lab: { url: 'http://127.0.0.1:2' },
    'ghcr.io': {},
  });
  await t.rejects(loadConfig(undefined, { upstreams: ['lab'] }, io()), /expected NAME=URL/);
});

void t.test('73. keys that are traps of the language are keys that do not exist', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, '__proto__: { polluted: 1 }\nconstructor: { x: 1 }\n');
  await t.rejects(loadConfig(file, {}, io()), /there is no such key/);
  t.notOk('polluted' in {});
});

void t.test('every example is a configuration without mistakes', async (t) => {
  const folder = new URL('../../config/', import.meta.url);
  const examples = (await readdir(folder)).filter((name) => name.endsWith('.example.yaml'));
  t.ok(examples.length >= 2);
  for (const name of examples) {
    const failure = await loadConfig(fileURLToPath(new URL(name, folder)), {}, io()).catch((error: Error) => error);
    // The secrets that it names are on the machine that it is for.
    const mistakes = failure instanceof Error ? failure.message.split('\n').slice(1) : [];
    t.ok(
      mistakes.every((line) => line.endsWith('cannot be read (ENOENT)')),
      `${name}: ${mistakes.join()}`,
    );
  }
});

void t.test('an upstream of the file, dots and all, has its credentials from the environment', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, 'upstreams: { registry.example: { url: "https://registry.example" } }\n');
  const env = { NARROWS_UPSTREAM_REGISTRY_EXAMPLE_USERNAME: 'me', NARROWS_UPSTREAM_REGISTRY_EXAMPLE_PASSWORD: 'x' };
  const { config } = await loadConfig(file, {}, io(env));
  t.same(config.upstreams['registry.example']!.credentials, { username: 'me', password: 'x' });
});

void t.test('files that are named and cannot be read are mistakes, all of them', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  const upstream = '{ url: "https://x", ca: /no/ca, credentials: { username: u, passwordFile: /no/pw } }';
  await writeFile(file, `upstreams: { x: ${upstream} }\n`);
  const failure = await loadConfig(file, {}, io()).catch((error: Error) => error.message);
  t.match(failure, 'upstreams.x.ca: /no/ca cannot be read (ENOENT)');
  t.match(failure, 'upstreams.x.credentials.passwordFile: /no/pw cannot be read (ENOENT)');
});

void t.test('the proxy of the environment is that of upstreams that say nothing of one', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(
    file,
    'upstreams:\n  ghcr.io: { proxy: none }\n  quay.io: { proxy: http://own.example:1 }\n  lab: { url: http://127.0.0.1:1 }\n',
  );
  const env = { HTTPS_PROXY: 'http://user:canary@proxy.example:3128', NO_PROXY: 'registry.k8s.io' };
  const { config } = await loadConfig(file, {}, io(env));
  const proxyOf = (name: string) => config.upstreams[name]!.proxy;
  t.equal(proxyOf('docker.io'), 'http://user:canary@proxy.example:3128');
  t.equal(proxyOf('ghcr.io'), 'none');
  t.equal(proxyOf('quay.io'), 'http://own.example:1');
  t.equal(proxyOf('registry.k8s.io'), undefined);
  t.equal(proxyOf('lab'), undefined);
  await t.rejects(loadConfig(undefined, {}, io({ HTTPS_PROXY: 'socks5://proxy.example:1' })), {
    message: /has a mistake:\n  HTTPS_PROXY: expected a URL such as http:\/\/proxy.example:3128$/,
  });
});
