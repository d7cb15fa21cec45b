import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { snippets } from '../../src/cli/snippets.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';

void t.test('client: a file with its place, for people; JSON for machines', async (t) => {
  for (const name of Object.keys(snippets)) {
    const { code, out } = await runCommand([
      'client',
      name,
      '--platform',
      'linux/arm64',
      '--mirror',
      'http://m.example:5000',
    ]);
    t.equal(code, 0, name);
    t.match(out, /^# \S+/);
    t.match(out, 'linux-arm64');
  }
  const { out } = await runCommand(['client', 'k3s', '--json']);
  t.match(JSON.parse(out), [{ path: '/etc/rancher/k3s/registries.yaml', text: /p\/any\/v2/ }]);
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
    t.match(one, '/p/any/ghcr.io');
    t.notMatch(one, /docker\.io/);
  },
);

void t.test('client: mistakes are one sentence and exit 2', async (t) => {
  t.match(await runCommand(['client', 'rkt']), {
    code: 2,
    err: /There is no client rkt; there is: containerd, docker/,
  });
  t.match(await runCommand(['client', 'docker', '--platform', 'arm64']), {
    code: 2,
    err: /no platform such as linux\/arm64/,
  });
  t.match(await runCommand(['client', 'docker', '--mirror', 'm.example']), { code: 2, err: /no URL/ });
  t.match(await runCommand(['client']), { code: 2, err: /missing required argument/ });
});
