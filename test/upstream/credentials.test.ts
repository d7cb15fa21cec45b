import { chmod, readFile, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { inspect } from 'node:util';
import t from 'tap';
import { createCredentials, dockerConfigSource } from '../../src/upstream/credentials.ts';
import type { Credential } from '../../src/upstream/credentials.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const auth = (username: string, secret: string) => Buffer.from(`${username}:${secret}`).toString('base64');
const login = (username: string, password: string): Credential => ({ kind: 'password', username, password });

/** What a configuration file gives for a host. */
async function read(t: Teardown, config: unknown, host: string): Promise<Credential | undefined> {
  const path = join(await temporaryFolder(t), 'config.json');
  await writeFile(path, typeof config === 'string' ? config : JSON.stringify(config));
  return dockerConfigSource(path, host)();
}

/** A credential helper on the PATH; its standard input and arguments go to `asked`. */
async function installHelper(t: Teardown, name: string, script: string): Promise<{ asked(): Promise<string> }> {
  const folder = await temporaryFolder(t);
  const log = join(folder, 'asked');
  await writeFile(log, '');
  const program = join(folder, `docker-credential-${name}`);
  await writeFile(program, `#!/bin/sh\nserver=$(cat)\necho "$1 $server" >> '${log}'\n${script}\n`);
  await chmod(program, 0o755);
  const before = process.env['PATH'] ?? '';
  process.env['PATH'] = folder + delimiter + before;
  t.teardown(() => (process.env['PATH'] = before));
  return { asked: () => readFile(log, 'utf8') };
}

void t.test(
  'docker config: auth is a user and a password in base64, of which only the first colon parts',
  async (t) => {
    const config = { auths: { 'registry.example': { auth: auth('ann', 'pass:word:') } } };
    t.same(await read(t, config, 'registry.example'), login('ann', 'pass:word:'));
  },
);

void t.test('docker config: user and password may stand in fields of their own', async (t) => {
  const config = { auths: { 'registry.example': { username: 'ann', password: 'secret' } } };
  t.same(await read(t, config, 'registry.example'), login('ann', 'secret'));
});

void t.test('docker config: an identity token goes before a password', async (t) => {
  const config = { auths: { 'registry.example': { auth: auth('ann', ''), identitytoken: 'refresh' } } };
  t.same(await read(t, config, 'registry.example'), { kind: 'identity', token: 'refresh' });
});

void t.test('docker config: a host is found under every form of its name, and under no other', async (t) => {
  const cases: [key: string, host: string, found: boolean][] = [
    ['ghcr.io', 'ghcr.io', true],
    ['https://ghcr.io', 'ghcr.io', true],
    ['http://ghcr.io', 'ghcr.io', true],
    ['https://ghcr.io/', 'ghcr.io', true],
    ['https://ghcr.io/v1/', 'ghcr.io', true],
    ['https://ghcr.io/v2/', 'ghcr.io', true],
    ['registry.example:5000', 'registry.example:5000', true],
    ['[::1]:5000', '[::1]:5000', true],
    ['ghcr.io.evil.example', 'ghcr.io', false],
    ['evil-ghcr.io', 'ghcr.io', false],
    ['ghcr.io', 'evil-ghcr.io', false],
    ['ghcr.io', 'ghcr.io.evil.example', false],
    ['ghcr.io', 'sub.ghcr.io', false],
    ['io', 'ghcr.io', false],
    ['', 'ghcr.io', false],
    ['https://', 'ghcr.io', false],
    ['evil.example/ghcr.io', 'ghcr.io', false],
    ['https://evil.example/https://ghcr.io', 'ghcr.io', false],
    ['ghcr.io@evil.example', 'ghcr.io', false],
    ['registry.example:5000', 'registry.example', false],
    ['registry.example', 'registry.example:5000', false],
    ['registry.example:5000', 'registry.example:50', false],
    ['docker.io', 'registry.example', false],
    ['https://index.docker.io/v1/', 'registry-1.docker.io', true],
    ['index.docker.io', 'registry-1.docker.io', true],
    ['docker.io', 'registry-1.docker.io', true],
    ['registry-1.docker.io', 'registry-1.docker.io', true],
    ['hub.docker.io', 'registry-1.docker.io', false],
  ];
  for (const [key, host, found] of cases) {
    const config = { auths: { [key]: { auth: auth('ann', 'secret') } } };
    t.same(await read(t, config, host), found ? login('ann', 'secret') : undefined, `"${key}" for ${host}: ${found}`);
  }
});

void t.test('docker config: the entry of a host goes before one of a namespace in it', async (t) => {
  const config = {
    auths: { 'quay.io/team': { auth: auth('team', '1') }, 'quay.io': { auth: auth('everyone', '2') } },
  };
  t.same(await read(t, config, 'quay.io'), login('everyone', '2'));
});

void t.test('docker config: no entry, an empty one and an unreadable one are no credential', async (t) => {
  for (const config of [
    {},
    { auths: {} },
    { auths: { 'registry.example': null } },
    { auths: { 'registry.example': { auth: Buffer.from('no colon').toString('base64') } } },
    { auths: { 'registry.example': { auth: auth('', 'secret') } } },
  ]) {
    t.equal(await read(t, config, 'registry.example'), undefined, JSON.stringify(config));
  }
});

void t.test(
  'docker config: an entry without secrets, as Docker leaves beside a helper, is no credential',
  async (t) => {
    for (const entry of [{}, { auth: '' }, { email: 'ann@example.com' }, { username: 'ann' }, { identitytoken: '' }]) {
      const config = { auths: { 'registry.example': entry } };
      t.equal(await read(t, config, 'registry.example'), undefined, JSON.stringify(entry));
    }
  },
);

void t.test('docker config: a file that is not there, or not JSON, is trouble and not "no credential"', async (t) => {
  const folder = await temporaryFolder(t);
  await t.rejects(dockerConfigSource(join(folder, 'none.json'), 'registry.example')(), { code: 'ENOENT' });
  await t.rejects(read(t, '{"auths": {', 'registry.example'));
});

void t.test('36. docker config: the message about a broken file holds nothing of the file', async (t) => {
  const canary = 'Y2FuYXJ5OnNlY3JldA==';
  const failure = await read(t, `{"auths":{"r":{"auth":${canary}}}}`, 'r').catch((error: Error) => error);
  t.type(failure, Error);
  t.notMatch((failure as Error).message, /Y2Fu|JldA==/);
});

void t.test('credential helper: is asked for the server on standard input, for its host alone', async (t) => {
  const helper = await installHelper(t, 'own', `printf '{"ServerURL":"x","Username":"ann","Secret":"s3cret"}'`);
  const config = {
    auths: { 'registry.example': { auth: auth('wrong', 'wrong') }, 'other.example': { auth: auth('bob', 'b') } },
    credHelpers: { 'registry.example': 'own' },
  };
  t.same(await read(t, config, 'registry.example'), login('ann', 's3cret'));
  t.equal(await helper.asked(), 'get registry.example\n');
  t.same(await read(t, config, 'other.example'), login('bob', 'b'));
  t.equal(await helper.asked(), 'get registry.example\n', 'not asked for a host that is not its own');
});

void t.test('credential helper: credsStore is for every host, but a helper of a host goes before it', async (t) => {
  const store = await installHelper(t, 'store', `printf '{"Username":"from-store","Secret":"1"}'`);
  const own = await installHelper(t, 'own', `printf '{"Username":"from-helper","Secret":"2"}'`);
  const config = { auths: { 'a.example': {} }, credsStore: 'store', credHelpers: { 'b.example': 'own' } };
  t.same(await read(t, config, 'a.example'), login('from-store', '1'));
  t.same(await read(t, config, 'b.example'), login('from-helper', '2'));
  t.equal(await store.asked(), 'get a.example\n');
  t.equal(await own.asked(), 'get b.example\n');
});

void t.test('credential helper: Docker Hub goes by the address of its first index', async (t) => {
  const helper = await installHelper(t, 'hub', `printf '{"Username":"ann","Secret":"s"}'`);
  t.same(await read(t, { credsStore: 'hub' }, 'registry-1.docker.io'), login('ann', 's'));
  t.equal(await helper.asked(), 'get https://index.docker.io/v1/\n');
  const config = { credHelpers: { 'https://index.docker.io/v1/': 'hub' } };
  t.same(await read(t, config, 'registry-1.docker.io'), login('ann', 's'));
});

void t.test('credential helper: the user <token> means an identity token', async (t) => {
  await installHelper(t, 'token', `printf '{"Username":"<token>","Secret":"refresh"}'`);
  t.same(await read(t, { credsStore: 'token' }, 'registry.example'), { kind: 'identity', token: 'refresh' });
});

void t.test('credential helper: "credentials not found" is no credential, whatever the exit code', async (t) => {
  for (const code of [0, 1]) {
    const name = `none${code}`;
    await installHelper(t, name, `echo 'credentials not found in native keychain'; exit ${code}`);
    t.equal(await read(t, { credsStore: name }, 'registry.example'), undefined, `exit code ${code}`);
  }
});

void t.test('credential helper: an empty secret is no credential', async (t) => {
  await installHelper(t, 'empty', `printf '{"Username":"ann","Secret":""}'`);
  t.equal(await read(t, { credsStore: 'empty' }, 'registry.example'), undefined);
});

void t.test('36. credential helper: its failure is trouble, told without a word of what it printed', async (t) => {
  await installHelper(t, 'fails', `echo canary-out; echo canary-err >&2; exit 3`);
  const failure = await read(t, { credsStore: 'fails' }, 'registry.example').catch((error: Error) => error);
  t.equal((failure as Error).message, 'docker-credential-fails failed (3)');
  t.notMatch(inspect(failure), /canary/);
});

void t.test('credential helper: what it prints beside JSON is in no message', async (t) => {
  await installHelper(t, 'talks', `echo canary`);
  const failure = await read(t, { credsStore: 'talks' }, 'registry.example').catch((error: Error) => error);
  t.type(failure, Error);
  t.notMatch((failure as Error).message, /canary/);
});

void t.test('credential helper: one that is not installed, and one that prints without end, are trouble', async (t) => {
  await t.rejects(read(t, { credsStore: 'is-not-installed' }, 'registry.example'), { message: /ENOENT/ });
  await installHelper(t, 'endless', `yes credentials`);
  await t.rejects(read(t, { credsStore: 'endless' }, 'registry.example'), {
    message: /^docker-credential-endless failed/,
  });
});

void t.test('credential helper: a name that is more than a name starts no program', async (t) => {
  for (const name of ['x/../../sh', '../sh', 'a b', 'a;touch x', '$(touch x)', 'a\u0000b', '']) {
    const config = { credsStore: name, auths: { 'registry.example': { auth: auth('ann', 's') } } };
    t.same(await read(t, config, 'registry.example'), login('ann', 's'), JSON.stringify(name));
  }
});

void t.test('credentials: a source is asked once for all who want it, and again after five minutes', async (t) => {
  let nowMs = 0;
  let asked = 0;
  const credentials = createCredentials(
    () => Promise.resolve(login('ann', String(++asked))),
    () => nowMs,
  );
  const all = await Promise.all(Array.from({ length: 50 }, () => credentials.get()));
  t.same(new Set(all).size, 1);
  nowMs = 5 * 60_000 - 1;
  t.same(await credentials.get(), login('ann', '1'));
  nowMs = 5 * 60_000;
  t.same(await credentials.get(), login('ann', '2'));
});

void t.test('credentials: what was forgotten is asked for again, "none" is kept like the rest', async (t) => {
  let asked = 0;
  const credentials = createCredentials(
    () => Promise.resolve(void asked++),
    () => 0,
  );
  t.equal(await credentials.get(), undefined);
  await credentials.get();
  t.equal(asked, 1);
  credentials.forget();
  await credentials.get();
  t.equal(asked, 2);
});

void t.test('credentials: a failure is everyone’s who waited, and is not kept', async (t) => {
  let asked = 0;
  const credentials = createCredentials(
    () => (++asked === 1 ? Promise.reject(new Error('helper failed')) : Promise.resolve(login('ann', 's'))),
    () => 0,
  );
  const outcomes = await Promise.allSettled([credentials.get(), credentials.get()]);
  t.same(
    outcomes.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  t.same(await credentials.get(), login('ann', 's'));
  t.equal(asked, 2);
});
