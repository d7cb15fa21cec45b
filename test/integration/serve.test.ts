import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { download, until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { runNarrows, startServe } from '../fixtures/process.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const blob = blobOf(noise('serve', 4 * 1024 * 1024));
const path = `/v2/docker.io/library/x/blobs/${blob.digest}`;

/** A server, and a client whose answer has begun. */
async function startDownload(t: Teardown, bytesPerSecond: number) {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.put('library/x', blob);
  upstream.blobBytesPerSecond = bytesPerSecond;
  const args = ['--store', await temporaryFolder(t), '--upstream', `docker.io=${upstream.url}`];
  const server = await startServe(t, { args });
  const heads = Promise.withResolvers<void>();
  const running = download(server.url + path, { onHead: heads.resolve });
  await heads.promise;
  return { server, running };
}

void t.test('34. SIGTERM: what runs finishes, what is new is refused, and the exit is clean', async (t) => {
  const { server, running } = await startDownload(t, 8 * 1024 * 1024);
  server.child.kill('SIGTERM');
  await until(async () => (await download(`${server.url}/v2/`)).status === 0, 'the refusal');
  const got = await running;
  t.ok(got.isComplete && got.body.equals(blob.bytes));
  t.equal(await server.exit, 0);
});

void t.test('34. a second SIGTERM does not wait', async (t) => {
  const { server, running } = await startDownload(t, 1024);
  server.child.kill('SIGTERM');
  await until(() => server.output().includes('stopping'), 'the stop');
  server.child.kill('SIGTERM');
  t.notOk((await running).isComplete);
  t.equal(await server.exit, 0);
});

void t.test('an address in use: one sentence that says what to do, exit 1', async (t) => {
  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
  t.teardown(() => blocker.close());
  const address = `127.0.0.1:${(blocker.address() as AddressInfo).port}`;
  const { code, err } = runNarrows([
    'serve',
    '--listen',
    address,
    '--admin',
    '127.0.0.1:0',
    '--store',
    await temporaryFolder(t),
  ]);
  t.equal(code, 1);
  t.equal(err, `${address} is taken; choose another address with --listen or --admin.\n`);
});

void t.test('80. wrong use: exit 2, and every mistake of a configuration at once', async (t) => {
  t.equal(runNarrows(['serve', '--nonsense']).code, 2);
  t.equal(runNarrows(['nonsense']).code, 2);
  const file = join(await temporaryFolder(t), 'bad.yaml');
  await writeFile(file, 'listen: 5\nfoo: 1\ntags: { fresh: soon }\nupstreams: { x: { url: ftp://x } }\n');
  const { code, err } = runNarrows(['serve', '--config', file], { NARROWS_NOTHING: '1' });
  t.equal(code, 2);
  for (const path of ['listen', 'foo', 'tags.fresh', 'upstreams.x.url', 'NARROWS_NOTHING']) t.match(err, `  ${path}: `);
  const missing = runNarrows(['config', '--config', '/nowhere/at/all.yaml']);
  t.match(missing, { code: 2, err: /cannot be read \(ENOENT\)/ });
  await writeFile(file, 'listen: [\n');
  t.match(runNarrows(['config', '--config', file]), { code: 2, err: /is not YAML/ });
});

void t.test('help: every command has an example', (t) => {
  t.match(runNarrows(['--help']), { code: 0, out: /serve[\s\S]*client[\s\S]*config/ });
  for (const command of ['serve', 'client', 'config']) {
    t.match(runNarrows([command, '--help']), { code: 0, out: /Example:\n {2}narrows / }, command);
  }
  t.match(runNarrows(['--version']), { code: 0, out: /^\d+\.\d+\.\d+\n$/ });
  t.end();
});

void t.test('a store that cannot be used: one sentence that names it, exit 1', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'file'), 'in the way');
  const store = join(folder, 'file');
  const { code, err } = runNarrows(['serve', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--store', store]);
  t.equal(code, 1);
  t.match(err, /^The store .*\/file cannot be used \(E[A-Z]+\); choose another folder/);
});

void t.test('--listen beside listeners that say more than an address: refused, for it would drop them', async (t) => {
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, 'listen: [{ address: "127.0.0.1:0", platforms: linux/arm64 }]\n');
  const { code, err } = runNarrows(['serve', '--config', file, '--listen', ':0']);
  t.equal(code, 2);
  t.match(err, '--listen: would replace listeners');
});
