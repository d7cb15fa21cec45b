import t from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { snippets } from '../../src/cli/snippets.ts';

const options = { mirror: new URL('http://m.example:5000'), set: 'linux-arm64', registries: ['docker.io', 'ghcr.io'] };
const textOf = (name: string, mirror = options.mirror) => snippets[name]!({ ...options, mirror })[0]!.text;

void t.test('each client gets the path where it can say it', (t) => {
  t.match(textOf('containerd'), '[host."http://m.example:5000/p/linux-arm64/v2"]');
  t.match(textOf('containerd'), 'capabilities = ["pull", "resolve"]');
  t.same(JSON.parse(textOf('docker')), {
    'registry-mirrors': ['http://m.example:5000/p/linux-arm64/'],
    'insecure-registries': ['m.example:5000'],
  });
  for (const name of ['podman', 'crio']) {
    t.match(
      textOf(name),
      'prefix = "ghcr.io"\nlocation = "ghcr.io"\n[[registry.mirror]]\nlocation = "m.example:5000/p/linux-arm64/ghcr.io"\ninsecure = true\n',
    );
  }
  t.same(parse(textOf('k3s')), { mirrors: { '*': { endpoint: ['http://m.example:5000/p/linux-arm64/v2'] } } });
  t.match(parse(textOf('talos')), {
    kind: 'RegistryMirrorConfig',
    endpoints: [{ url: 'http://m.example:5000/p/linux-arm64/v2' }],
  });
  t.match(textOf('buildkit'), '[registry."docker.io"]\n  mirrors = ["m.example:5000/p/linux-arm64/docker.io"]');
  t.equal(parseAllDocuments(textOf('talos')).length, 1);
  for (const [name, write] of Object.entries(snippets)) {
    t.notMatch(write({ ...options, set: undefined })[0]!.text, /\/p\//, `${name}: no set, no path`);
  }
  t.end();
});

void t.test('with TLS nothing is called insecure', (t) => {
  const mirror = new URL('https://m.example');
  for (const name of Object.keys(snippets)) t.notMatch(textOf(name, mirror), /insecure|http = true|http:/, name);
  t.end();
});
