import { mkdtempSync } from 'node:fs';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { download, filesOf, until } from '../fixtures/downloads.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { hasProgram, startServe } from '../fixtures/process.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const blobs = [0, 1, 2].map((number) => blobOf(noise(`crash ${number}`, 4 * 1024 * 1024)));
const pathOf = (digest: string) => `/v2/docker.io/library/x/blobs/${digest}`;

async function stage(t: Teardown) {
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  for (const blob of blobs) upstream.put('library/x', blob);
  const store = await temporaryFolder(t);
  const args = ['--store', store, '--upstream', `docker.io=${upstream.url}`];
  return { upstream, store, args };
}

/** After a kill: what has a name is right, and the next life serves right bytes and leaves no debris. */
async function checkStore(t: Test, store: string, args: string[]) {
  for (const file of (await filesOf(store)).blobs) {
    t.equal(digestOf(await readFile(file)), `sha256:${basename(file)}`, 'a visible blob is whole');
  }
  const next = await startServe(t, { args });
  t.same((await filesOf(store)).unfinished, [], 'nothing unfinished is left');
  t.equal((await readdir(join(store, 'tmp'))).filter((name) => name.endsWith('.lock')).length, 1);
  for (const blob of blobs) {
    const got = await download(next.url + pathOf(blob.digest));
    t.ok(got.isComplete && got.body.equals(blob.bytes));
  }
  next.child.kill('SIGKILL');
  await next.exit;
}

void t.test('15. kill -9 while blobs come in: nothing wrong is ever served, nothing is left over', async (t) => {
  for (const share of [0.01, 0.3, 0.7, 0.999, 1]) {
    const { upstream, store, args } = await stage(t);
    upstream.blobBytesPerSecond = 40 * 1024 * 1024;
    const server = await startServe(t, { args });
    const leaveAfter = Math.floor(blobs[0]!.bytes.length * share);
    const first = download(server.url + pathOf(blobs[0]!.digest), { leaveAfter });
    const others = blobs.slice(1).map((blob) => download(server.url + pathOf(blob.digest)));
    await first;
    server.child.kill('SIGKILL');
    await server.exit;
    for (const other of await Promise.all(others))
      t.ok(!other.isComplete || blobs.some(({ bytes }) => bytes.equals(other.body)));
    upstream.blobBytesPerSecond = Infinity;
    await checkStore(t, store, args);
  }
});

void t.test(
  '15. kill -9 at each step of keeping a blob',
  { skip: hasProgram('strace') ? false : 'strace is not installed' },
  async (t) => {
    // strace counts for each thread; a path narrows it to calls upon that file.
    const steps = [
      { call: 'pwritev', when: 1 },
      { call: 'rename', when: 1 },
      { call: 'fsync', when: 1, path: 'blobs/sha256' },
    ];
    for (const { call, when, path } of steps) {
      const { store, args } = await stage(t);
      await mkdir(join(store, 'blobs/sha256'), { recursive: true });
      const only = path === undefined ? [] : ['-P', join(store, path)];
      const inject = `inject=${call}:signal=SIGKILL:when=${when}`;
      const under = ['strace', '-f', '-qq', '-o', '/dev/null', ...only, '-e', `trace=${call}`, '-e', inject];
      const server = await startServe(t, { args, under });
      const got = await download(server.url + pathOf(blobs[0]!.digest));
      t.ok(!got.isComplete || got.body.equals(blobs[0]!.bytes), inject);
      t.equal(await server.exit, 'SIGKILL', inject);
      await checkStore(t, store, args);
    }
  },
);

void t.test('83. two processes on one store: both serve, neither sweeps the other’s unfinished files', async (t) => {
  const { upstream, store, args } = await stage(t);
  upstream.blobBytesPerSecond = 8 * 1024 * 1024;
  const one = await startServe(t, { args });
  const running = download(one.url + pathOf(blobs[0]!.digest));
  await until(async () => (await filesOf(store)).unfinished.length === 1, 'an unfinished file');
  const two = await startServe(t, { args });
  const both = await Promise.all([
    running,
    download(two.url + pathOf(blobs[0]!.digest)),
    download(two.url + pathOf(blobs[1]!.digest)),
  ]);
  t.ok(
    both[0].body.equals(blobs[0]!.bytes) &&
      both[1].body.equals(blobs[0]!.bytes) &&
      both[2].body.equals(blobs[1]!.bytes),
  );
  await until(async () => (await filesOf(store)).unfinished.length === 0, 'both blobs on the disk');
  const seen = await download(one.url + pathOf(blobs[1]!.digest));
  t.ok(seen.isComplete && seen.body.equals(blobs[1]!.bytes));
  t.equal(upstream.count('GET blobs', blobs[1]!.digest), 1, 'what one fetched the other has');
});

void t.test(
  '17. a full disk: clients get everything, nothing half is left, and the mirror lives',
  { skip: process.getuid?.() === 0 ? false : 'needs root, to mount a small disk' },
  async (t) => {
    const upstream = await startRegistry();
    t.teardown(upstream.close);
    const large = blobOf(noise('large', 24 * 1024 * 1024));
    const small = blobOf(noise('small', 100_000));
    for (const blob of [large, small]) upstream.put('library/x', blob);
    const disk = mkdtempSync(join(tmpdir(), 'narrows-full-'));
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk]);
    const store = join(disk, 'store');
    await mkdir(store);
    const server = await startServe(t, { args: ['--store', store, '--upstream', `docker.io=${upstream.url}`] });
    t.teardown(() => spawnSync('umount', ['-l', disk]));
    const all = await Promise.all([1, 2, 3].map(() => download(server.url + pathOf(large.digest))));
    t.ok(all.every(({ isComplete, body }) => isComplete && body.equals(large.bytes)));
    await until(async () => (await filesOf(store)).unfinished.length === 0, 'the sweep');
    t.same((await filesOf(store)).blobs, []);
    t.ok((await download(server.url + pathOf(small.digest))).body.equals(small.bytes));
    t.ok((await download(server.url + pathOf(small.digest))).isComplete);
    t.match(server.output(), /"tier":"|keeping sha256/);
  },
);
