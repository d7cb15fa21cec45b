import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const secret = blobOf(Buffer.from('for those who may'));
const path = `/v2/up/team/x/blobs/${secret.digest}`;

void t.test('63. ten thousand guesses: ten are looked at, the clock brings back a few, users stay in', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('team/x', secret);
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, `alice:${hashSync('s3cret', 4)}\nbob:${hashSync('xyzzy-s3cond', 4)}\n`);
  let nowMs = Date.now();
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: { access: { mode: 'basic', htpasswd } },
    now: () => nowMs,
  });
  const as = (login: string) => mirror.get(path, { authorization: basic(login) });
  t.same((await as('alice:s3cret')).body, secret.bytes);

  const statuses: Record<number, number> = {};
  for (let round = 0; round < 100; round++) {
    const user = round % 2 ? 'alice' : 'nobody';
    const answers = await Promise.all(Array.from({ length: 100 }, (_, at) => as(`${user}:${round}-${at}`)));
    for (const { status } of answers) statuses[status] = (statuses[status] ?? 0) + 1;
  }
  t.same(statuses, { 401: 10, 429: 9990 });

  const refused = await as('bob:xyzzy-s3cond');
  t.equal(refused.status, 429, 'even a right one is not looked at, where it was not before');
  t.match(refused.headers['retry-after'], /^[1-6]$/);
  t.match(refused.json(), { errors: [{ code: 'TOOMANYREQUESTS' }] });
  t.equal((await as('alice:s3cret')).status, 200, 'who was in stays in');
  t.equal((await mirror.get(path)).status, 401, 'who says no name is told to log in, as ever');

  nowMs += 6000;
  t.equal((await as('bob:xyzzy-s3cond')).status, 200);
  t.equal((await as('bob:guess')).status, 401, 'the right one cost nothing');
  t.equal((await as('bob:guess')).status, 429);
  t.notMatch(mirror.log.join('\n'), /s3cret|xyzzy-s3cond|guess/, 'no password is ever logged');
});
