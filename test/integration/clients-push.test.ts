import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import type { Test } from 'tap';
import { createSandbox, requireProgram, requireRoot } from '../fixtures/clients.ts';
import type { Ran, Sandbox } from '../fixtures/clients.ts';
import { buildImage } from '../fixtures/images.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { runCommand } from '../fixtures/process.ts';

const upstreams = { lab: 'http://127.0.0.1:1' };

interface Machine {
  readonly arch: string;
  readonly sandbox: Sandbox;
  run(program: 'buildah' | 'podman', ...args: string[]): Promise<Ran>;
}

/** A place with images of its own, whose programs take it for a machine of an architecture. */
async function machineOf(t: Test, arch: string): Promise<Machine | undefined> {
  const programs = { buildah: await requireProgram(t, 'buildah'), podman: await requireProgram(t, 'podman') };
  if (!programs.buildah || !programs.podman) return undefined;
  const sandbox = await createSandbox(t);
  const storage = [
    '--root',
    join(sandbox.home, 'root'),
    '--runroot',
    join(sandbox.home, 'run'),
    '--storage-driver',
    'vfs',
  ];
  return {
    arch,
    sandbox,
    run: (program, ...args) => sandbox.run(programs[program]!, ...storage, ...args),
  };
}

/** What a builder does on its machine, and nothing else. */
async function build(t: Test, { run, arch, sandbox }: Machine, reference: string): Promise<void> {
  await sandbox.write('hello', `a program for ${arch}\n`);
  const file = await sandbox.write('Containerfile', 'FROM scratch\nCOPY hello /hello\nENTRYPOINT ["/hello"]\n');
  const built = await run(
    'buildah',
    'build',
    '--platform',
    `linux/${arch}`,
    '--tag',
    'app',
    '--file',
    file,
    sandbox.home,
  );
  t.equal(built.code, 0, built.err);
  const pushed = await run('buildah', 'push', '--tls-verify=false', 'app', `docker://${reference}`);
  t.equal(pushed.code, 0, pushed.err);
}

void t.test(
  'buildah push on two machines: no manifest command, and podman pull gets the right one on each',
  async (t) => {
    if (!requireRoot(t)) return;
    const machines = [await machineOf(t, 'amd64'), await machineOf(t, 'arm64')];
    const mirror = await startTestMirror(t, {
      upstreams,
      config: { repositories: [{ name: 'team/app', hosted: true, compose: true, push: ['anonymous'] }] },
    });
    const reference = `${new URL(mirror.url).host}/team/app:1`;
    for (const machine of machines) if (machine) await build(t, machine, reference);
    const { body } = await mirror.get('/v2/team/app/manifests/1');
    t.match(JSON.parse(body.toString()), {
      manifests: [{ platform: { architecture: 'amd64' } }, { platform: { architecture: 'arm64' } }],
    });
    for (const machine of machines) {
      if (!machine) continue;
      const { run, arch, sandbox } = machine;
      const tmp = ['--tmpdir', join(sandbox.home, 'tmp')];
      const pulled = await run('podman', ...tmp, 'pull', '--quiet', '--tls-verify=false', '--arch', arch, reference);
      t.equal(pulled.code, 0, pulled.err);
      t.match(await run('podman', ...tmp, 'image', 'inspect', '--format', '{{.Architecture}}', reference), {
        out: `${arch}\n`,
      });
    }
  },
);

const image = buildImage({ platforms: ['linux/amd64', 'linux/s390x'], seed: 'pushed by clients' });
const other = buildImage({ platforms: ['linux/amd64', 'linux/s390x'], seed: 'another' });

/** A mirror where platforms have owners; everyone's password is their name. */
async function owned(t: Test): Promise<{ mirror: TestMirror; host: string; config: string }> {
  const sandbox = await createSandbox(t);
  const users = ['ci-x86', 'ci-z', 'release', 'alice'].map((user) => `${user}:${hashSync(user, 4)}\n`);
  const htpasswd = await sandbox.write('users', users.join(''));
  const config = {
    access: { mode: 'basic', htpasswd, groups: { ci: ['ci-x86', 'ci-z'] }, pull: ['anonymous'] },
    repositories: [
      {
        name: 'team/app',
        hosted: true,
        compose: true,
        push: ['ci', 'alice'],
        owners: { 'linux/amd64': ['ci-x86'], 'linux/s390x': ['ci-z'], '*': ['release'] },
      },
    ],
  };
  const mirror = await startTestMirror(t, { upstreams, config });
  return { mirror, host: new URL(mirror.url).host, config: JSON.stringify(config) };
}

void t.test('skopeo: amd64 for its owner, s390x for its owner, and neither for the other', async (t) => {
  const skopeo = await requireProgram(t, 'skopeo');
  if (!skopeo) return;
  const { mirror, host } = await owned(t);
  const sandbox = await createSandbox(t);
  const source = await startTestMirror(t, {
    upstreams,
    config: { repositories: [{ name: 'src/*', hosted: true, push: ['anonymous'] }] },
  });
  for (const [at, child] of image.children.entries()) await createPusher(source, 'src/app').child(child, `${at}`);
  const push = (at: number, user: string) =>
    sandbox.run(
      skopeo,
      'copy',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      '--dest-creds',
      `${user}:${user}`,
      `docker://${new URL(source.url).host}/src/app:${at}`,
      `docker://${host}/team/app:1`,
    );
  t.match(await push(0, 'ci-x86'), { code: 0 });
  const before = (await mirror.get('/v2/team/app/manifests/1')).headers['docker-content-digest'];
  const refused = await push(1, 'ci-x86');
  t.equal(refused.code, 1);
  t.match(refused.err, /denied: .*linux\/s390x.*ci-z/i);
  t.equal((await mirror.get('/v2/team/app/manifests/1')).headers['docker-content-digest'], before, 'unchanged');
  t.match(await push(1, 'ci-z'), { code: 0 });
  const { body } = await mirror.get('/v2/team/app/manifests/1');
  t.same(
    (JSON.parse(body.toString()) as { manifests: { digest: string }[] }).manifests.map(({ digest }) => digest),
    image.children.map(({ manifest }) => manifest.digest),
  );
  const wrong = await sandbox.run(
    skopeo,
    'inspect',
    '--tls-verify=false',
    '--creds',
    'ci-z:wrong',
    `docker://${host}/team/app:1`,
  );
  t.equal(wrong.code, 1);
  t.match(wrong.err, /unauthorized|invalid username\/password/i);
  const anonymous = await sandbox.run(skopeo, 'inspect', '--raw', '--tls-verify=false', `docker://${host}/team/app:1`);
  t.equal(anonymous.code, 0, anonymous.err);
});

void t.test('owners: an index that drops, replaces or hides the platform of another is refused', async (t) => {
  const { mirror } = await owned(t);
  const x86 = createPusher(mirror, 'team/app', 'ci-x86:ci-x86');
  const z = createPusher(mirror, 'team/app', 'ci-z:ci-z');
  const release = createPusher(mirror, 'team/app', 'release:release');
  const [amd64, s390x] = image.children as [(typeof image.children)[0], (typeof image.children)[0]];
  t.match(await x86.child(amd64, '1'), { status: 201 });
  t.match(await z.child(s390x, '1'), { status: 201 });
  const digestOf = async () => (await mirror.get('/v2/team/app/manifests/1')).headers['docker-content-digest'];
  const before = await digestOf();
  for (const child of other.children) for (const blob of [child.config, ...child.layers]) await release.blob(blob);
  for (const child of other.children) t.match(await release.manifest(child.manifest), { status: 201 });
  const only = buildImage({ platforms: ['linux/s390x'], seed: 'pushed by clients' });
  const refusals = {
    'drops amd64': [z, only.index],
    'replaces amd64': [z, other.index],
    'the whole by someone who owns none of it': [createPusher(mirror, 'team/app', 'alice:alice'), other.index],
  } as const;
  for (const [what, [pusher, index]] of Object.entries(refusals)) {
    const answer = await pusher.manifest(index, '1');
    t.match(answer, { status: 403 }, what);
    t.match(answer.json(), { errors: [{ code: 'DENIED', message: /linux\/.*belongs to/ }] }, what);
    t.equal(await digestOf(), before, what);
  }
  t.match(
    await createPusher(mirror, 'team/app').manifest(amd64.manifest, '1'),
    { status: 401 },
    'nobody pushes without a name',
  );
  t.match(await mirror.send('DELETE', '/v2/team/app/manifests/1', undefined, basicOf('ci-z')), { status: 403 });
  t.match(await release.manifest(other.index, '1'), { status: 201 }, 'who owns all of it may');
  t.equal(await digestOf(), other.index.digest);
});

function basicOf(user: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${user}:${user}`).toString('base64')}` };
}

void t.test('crane and oras: push, tags, referrers and deletion as at any registry', async (t) => {
  const crane = await requireProgram(t, 'crane');
  const oras = await requireProgram(t, 'oras');
  if (!crane || !oras) return;
  const mirror = await startTestMirror(t, {
    upstreams,
    config: { repositories: [{ name: 'team/*', hosted: true, push: ['anonymous'] }] },
  });
  const host = new URL(mirror.url).host;
  const sandbox = await createSandbox(t);
  await createPusher(mirror, 'team/source').image(image, '1');
  const copied = await sandbox.run(crane, 'copy', '--insecure', `${host}/team/source:1`, `${host}/team/copy:1`);
  t.equal(copied.code, 0, copied.err);
  t.match(await sandbox.run(crane, 'digest', '--insecure', `${host}/team/copy:1`), { out: `${image.index.digest}\n` });
  t.match(await sandbox.run(crane, 'tag', '--insecure', `${host}/team/copy:1`, '2'), { code: 0 });
  t.match(await sandbox.run(crane, 'ls', '--insecure', `${host}/team/copy`), { out: '1\n2\n' });
  t.match(await sandbox.run(crane, 'catalog', '--insecure', host), { out: 'team/copy\nteam/source\n' });
  const sbom = await sandbox.write('sbom.json', '{"packages":[]}');
  const attached = await sandbox.run(
    oras,
    'attach',
    '--plain-http',
    '--disable-path-validation',
    '--artifact-type',
    'application/spdx+json',
    `${host}/team/copy:1`,
    `${sbom}:application/json`,
  );
  t.equal(attached.code, 0, attached.err);
  const found = await sandbox.run(oras, 'discover', '--plain-http', '--format', 'json', `${host}/team/copy:1`);
  t.match(JSON.parse(found.out), { referrers: [{ artifactType: 'application/spdx+json' }] });
  const file = await sandbox.write('large.bin', 'x'.repeat(3_000_000));
  const pushed = await sandbox.run(
    oras,
    'push',
    '--plain-http',
    '--disable-path-validation',
    `${host}/team/file:1`,
    `${file}:text/plain`,
  );
  t.equal(pushed.code, 0, pushed.err);
  const pulled = await sandbox.run(
    oras,
    'blob',
    'fetch',
    '--plain-http',
    '--output',
    join(sandbox.home, 'out'),
    `${host}/team/file@sha256:${createHash('sha256')
      .update(await readFile(file))
      .digest('hex')}`,
  );
  t.equal(pulled.code, 0, pulled.err);
  t.same(await readFile(join(sandbox.home, 'out')), await readFile(file));
  t.match(await sandbox.run(crane, 'delete', '--insecure', `${host}/team/copy:2`), { code: 0 });
  t.match(await sandbox.run(crane, 'ls', '--insecure', `${host}/team/copy`), { out: '1\n' });
});

void t.test('history: the steps of a tag, who and when; one is put back', async (t) => {
  const { mirror, config } = await owned(t);
  const x86 = createPusher(mirror, 'team/app', 'ci-x86:ci-x86');
  const z = createPusher(mirror, 'team/app', 'ci-z:ci-z');
  await x86.child(image.children[0]!, '1');
  await z.child(image.children[1]!, '1');
  const good = (await mirror.get('/v2/team/app/manifests/1')).headers['docker-content-digest'];
  await x86.child(other.children[0]!, '1');
  const path = join(mirror.store, 'narrows.json');
  await writeFile(path, config);
  const run = (...args: string[]) => runCommand(['history', ...args, '--config', path, '--store', mirror.store]);
  const shown = await run('team/app:1');
  t.equal(shown.code, 0, shown.err);
  t.match(shown.out, /STEP +WHEN \(UTC\) +WHO +CHANGED +DIGEST/);
  t.match(shown.out, /3 +\S+ \S+ +ci-x86 +linux\/amd64 +sha256:[0-9a-f]{64} \(now\)/);
  t.match(shown.out, /2 +\S+ \S+ +ci-z +linux\/s390x/);
  const restored = await run('team/app:1', '--restore', '2', '--json');
  t.match(JSON.parse(restored.out), {
    current: { digest: good, step: 4 },
    steps: [{ step: 4, by: 'operator', restored: 2, changed: ['linux/amd64'] }, { step: 3 }, { step: 2 }, { step: 1 }],
  });
  t.equal((await mirror.get('/v2/team/app/manifests/1')).headers['docker-content-digest'], good, 'the server has it');
  t.match(await run('team/app:1', '--restore', '9'), { code: 1, err: /no step 9/ });
  t.match(await run('team/app:1', '--restore', 'nine'), { code: 2 });
  t.match(await run('docker.io/library/x:1'), { code: 1, err: /not hosted here/ });
});
