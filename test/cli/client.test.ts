import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { snippets } from '../../src/cli/snippets.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';

void t.test(
  'client: the file alone on standard output, its place and advice beside it; JSON for machines',
  async (t) => {
    for (const name of Object.keys(snippets)) {
      const args = ['client', name, '--platform', 'linux/arm64', '--mirror', 'http://m.example:5000'];
      const { code, out, err } = await runCommand(args);
      t.equal(code, 0, name);
      t.match(err, /^# \S+/);
      t.notMatch(out, /^#/m);
      t.match(out, '/p/linux-arm64');
    }
    t.same(JSON.parse((await runCommand(['client', 'docker', '--mirror', 'https://m.example'])).out), {
      'registry-mirrors': ['https://m.example/'],
    });
    const { out } = await runCommand(['client', 'k3s', '--json', '--platform', 'any']);
    t.match(JSON.parse(out), [{ path: '/etc/rancher/k3s/registries.yaml', text: /p\/any\/v2/ }]);
  },
);

void t.test('client: without a platform, the rules of the mirror decide', async (t) => {
  const { out, err } = await runCommand(['client', 'containerd']);
  t.match(out, '"http://127.0.0.1:5000/v2"');
  t.match(err, 'Only this machine can reach 127.0.0.1:5000');
});

void t.test(
  'client: platforms in every spelling, registries of one’s choice, the address of the configuration',
  async (t) => {
    const file = join(await temporaryFolder(t), 'narrows.yaml');
    await writeFile(file, 'listen: [{ address: "10.1.2.3:7000" }]\nplatforms: { sets: { edge: [linux/arm/v7] } }\n');
    const run = (...args: string[]) => runCommand(['client', 'podman', '--config', file, ...args]);
    t.match(await run('--platform', 'linux/amd64,linux/arm/v7'), {
      out: /10\.1\.2\.3:7000\/p\/linux-amd64_linux-arm-v7\/docker\.io/,
    });
    t.match(await run('--platform', 'edge'), { out: /\/p\/edge\/docker\.io/ });
    const one = (await run('--registry', 'ghcr.io')).out;
    t.match(one, '"10.1.2.3:7000/ghcr.io"');
    t.notMatch(one, /docker\.io/);
  },
);

void t.test('client: mistakes are one sentence and exit 2', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, 'listen: [{ address: ":5000" }]\nplatforms: { sets: { edge: [linux/arm64] } }\n');
  const cases: [args: string[], message: RegExp][] = [
    [['rkt'], /There is no client rkt; there is: containerd, docker/],
    [['docker', '--platform', 'arm64', '--mirror', 'http://m'], /no platform such as linux\/arm64/],
    [['docker', '--platform', 'constructor', '--mirror', 'http://m'], /no platform such as linux\/arm64/],
    [['docker', '--platform', 'any,linux/arm64', '--mirror', 'http://m'], /stands alone/],
    [['docker', '--platform', 'edge', '--platform', 'linux/arm64', '--mirror', 'http://m'], /stands alone/],
    [['docker', '--mirror', 'm.example'], /no URL/],
    [['docker', '--mirror', 'http://m.example/narrows'], /without a path/],
    [['docker', '--registry', 'nope.example', '--mirror', 'http://m'], /not under upstreams/],
    [['docker'], /at every address: say by --mirror/],
    [[], /missing required argument/],
  ];
  for (const [args, message] of cases) {
    const { code, err } = await runCommand(['client', ...args, ...(args.length > 0 ? ['--config', file] : [])]);
    t.equal(code, 2, args.join(' '));
    t.match(err, message);
  }
});
