import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import * as fc from 'fast-check';
import t from 'tap';
import { bent, tryMany } from '../fixtures/fuzz.ts';
import { noise } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const secret = blobOf(noise('secret', 500));
const open = blobOf(noise('open', 500));

void t.test('24. however a path is spelled, what is fetched is what its caller may read', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('team/secret', secret);
  registry.put('team/open', open);
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `alice:${hashSync('alice', 4)}\n`);
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: {
      access: { mode: 'basic', htpasswd, pull: ['anonymous'] },
      defaultUpstream: 'up',
      repositories: [{ name: 'up/team/secret', pull: ['alice'] }],
    },
  });
  const path = `/v2/up/team/secret/blobs/${secret.digest}`;
  const own = await mirror.get(path, { authorization: basic('alice:alice') });
  t.ok(own.body.equals(secret.bytes), 'who may read it gets it, and has it kept here');
  registry.seen.length = 0;

  const detours = [
    '/team/open/../secret',
    '/team/open%2f..%2fsecret',
    '/team//secret',
    '/team/./secret',
    '/team/SECRET',
    '/team%2Fsecret',
    '/team/open/..;/secret',
    '/team\\secret',
  ];
  const written = fc.oneof(
    fc.constantFrom(
      path,
      path.replace('/up', ''),
      `/p/linux-arm64${path}`,
      path.replace('secret', 'open').replace(secret.digest, open.digest),
    ),
    fc
      .tuple(fc.constantFrom(...detours), fc.constantFrom('/v2/up', '/v2', '/v2/p/any/up'))
      .map(([detour, prefix]) => `${prefix}${detour}/blobs/${secret.digest}`),
  );
  const queries = fc.constantFrom('', '', '?ns=up', '?ns=up&ns=up', '?ns=%75p', '?ns=up/team', '?NS=up');
  // The others cannot be in a request line.
  const targets = fc
    .tuple(fc.oneof(written, bent(written)), queries)
    .map((parts) => parts.join(''))
    .filter((text) => /^\/[!-~]*$/.test(text) && !text.includes('#'));
  const counts = new Map<number, number>();
  const property = fc.asyncProperty(targets, async (target) => {
    const { status, body, headers } = await mirror.get(target);
    counts.set(status, (counts.get(status) ?? 0) + 1);
    const isAsked = registry.seen.splice(0).some(({ path: asked }) => asked.startsWith('/v2/team/secret/'));
    const isTold = body.includes(secret.bytes.subarray(0, 16)) || headers['docker-content-digest'] === secret.digest;
    return status < 500 && !isAsked && !isTold;
  });
  await tryMany(t, property, 10);
  t.ok(counts.has(401) && counts.has(404), JSON.stringify([...counts]));
});
