import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';

void t.test('config: what is in force, secrets not', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(
    file,
    'upstreams:\n  ghcr.io: { credentials: { username: me, password: canary-1 }, proxy: "http://canary-2:canary-3@proxy:1" }\n  quay.io: null\ntags: { fresh: 5s }\n',
  );
  for (const args of [[], ['--json']]) {
    const shown = await runCommand(['config', '--config', file, ...args]);
    t.equal(shown.code, 0);
    t.notMatch(shown.out, /canary/);
    const value = parse(shown.out) as { tags: object; upstreams: Record<string, object> };
    t.match(value, {
      tags: { fresh: '5s', missing: '10s' },
      upstreams: { 'ghcr.io': { url: 'https://ghcr.io', credentials: { username: 'me', password: '…' } } },
    });
    t.notOk('quay.io' in value.upstreams, 'null takes an upstream away');
  }
});

void t.test('config --schema: a JSON Schema with words and defaults', async (t) => {
  const schema = JSON.parse((await runCommand(['config', '--schema'])).out) as {
    properties: Record<string, { description?: string }>;
  };
  t.match(schema, {
    type: 'object',
    additionalProperties: false,
    properties: { tags: { properties: { fresh: { default: '60s', description: /believed/ } } } },
  });
  t.match(schema.properties['upstreams'], { description: /No other is ever dialled/ });
});
