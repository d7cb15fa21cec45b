import { spawnSync } from 'node:child_process';
import {
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { bytesBlob, readAll } from '../../src/cache/bytes.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import type { DiskTier } from '../../src/cache/disk.ts';
import type { Blob } from '../../src/cache/tier.ts';
import { algorithmOf, digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { tierContract } from '../contracts/tier.ts';
import { noise } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { processBlob, processDigest, startStoreProcess, straceIsMissing } from '../fixtures/store-process.ts';

const content = noise('disk', 600_000);
const digest = digestOf(content);
const maxBufferBytes = 64 * 1024 * 1024;

async function openTier(t: Teardown, path: string): Promise<DiskTier> {
  const tier = await createDiskTier({ path, maxVerified: 100, maxBufferBytes, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => tier.close());
  return tier;
}

/** Everything below `tmp` but the folders and locks of those who are alive. */
async function litterOf(path: string): Promise<string[]> {
  const entries = await readdir(join(path, 'tmp'), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !/\.lock(?:-journal)?$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
}

function fileOf(path: string, of: Digest): string {
  return join(path, 'blobs', algorithmOf(of), hexOf(of));
}

function put(tier: DiskTier, bytes = content): Promise<void> {
  return tier.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** A store as an earlier life of the mirror left it. */
async function leaveStore(t: Teardown): Promise<string> {
  const path = await temporaryFolder(t);
  const tier = await createDiskTier({ path, maxVerified: 100, maxBufferBytes, maxLeftoverBytes: 2 ** 30 });
  await put(tier);
  await tier.close();
  return path;
}

void t.test('disk tier: keeps to the contract of tiers', (t) =>
  tierContract(t, async (t) => {
    const path = await temporaryFolder(t);
    return { tier: await openTier(t, path), litter: () => litterOf(path) };
  }),
);

void t.test('layout: blobs are files of an OCI image layout, readable by others', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const one = digestOf(content, algorithm);
    await tier.put(one, bytesBlob(content, 'miss'));
    const file = join(path, 'blobs', algorithm, hexOf(one));
    t.ok((await readFile(file)).equals(content), algorithm);
    t.equal((await stat(file)).mode & 0o444, 0o444 & ~process.umask(), algorithm);
  }
});

void t.test('layout: a blob of the empty name is never wrong, at worst it is not here', async (t) => {
  const tier = await openTier(t, await temporaryFolder(t));
  const empty = Buffer.alloc(0);
  await put(tier, empty);
  const blob = await tier.open(digestOf(empty));
  t.equal(blob?.size ?? 0, 0);
  await blob?.close();
});

// ---- A file in the making

void t.test('begin: what is appended can be read, and has no name before it is committed', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  const partial = await tier.begin(digest);
  const readers = [partial.reader(), partial.reader()];
  for (let at = 0; at < content.length; at += 150_000) {
    await partial.append([content.subarray(at, at + 70_000), content.subarray(at + 70_000, at + 150_000)]);
    for (const reader of readers) {
      const got = await reader.read(at + 10, 1000);
      t.ok(got.equals(content.subarray(at + 10, at + 10 + got.length)));
    }
    t.equal(await tier.open(digest), undefined);
  }
  t.equal((await litterOf(path)).length, 1);
  await partial.commit(digest);
  t.ok((await readers[0]!.read(0, 1000)).equals(content.subarray(0, 1000)), 'readable until it is closed');
  await partial.close();
  t.same(await litterOf(path), []);
  t.ok((await readAll((await tier.open(digest))!)).equals(content));
});

void t.test('begin: what is closed without a commit leaves nothing', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  const partial = await tier.begin(digest);
  await partial.append([content]);
  await partial.close();
  t.same(await litterOf(path), []);
  t.same(await readdir(join(path, 'blobs', 'sha256')), []);
});

void t.test('begin: the buffers of a reader stay until its second read after', async (t) => {
  const tier = await openTier(t, await temporaryFolder(t));
  const partial = await tier.begin(digest);
  t.teardown(() => partial.close());
  await partial.append([content]);
  const [one, other] = [partial.reader(), partial.reader()];
  const first = await one.read(0, 1000);
  for (let at = 0; at < 10; at++) await other.read(at * 1000, 1000);
  t.ok(first.equals(content.subarray(0, 1000)), 'whatever others read');
  await one.read(1000, 1000);
  t.ok(first.equals(content.subarray(0, 1000)));
});

void t.test('put: a tier that cannot begin a file closes what it was given', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  await rm(join(path, 'tmp'), { recursive: true });
  let closes = 0;
  const blob: Blob = { ...bytesBlob(content, 'miss'), close: () => Promise.resolve(void closes++) };
  await t.rejects(tier.put(digest, blob), { code: 'ENOENT' });
  t.equal(closes, 1);
});

// ---- What an earlier life, or someone else, left

void t.test('restart: a blob is served at once, and verified on the way', async (t) => {
  const path = await leaveStore(t);
  const tier = await openTier(t, path);
  const blob = await tier.open(digest);
  t.type(blob!.verified, Promise, 'it is not known yet to be right');
  t.ok((await readAll(blob!)).equals(content));
  const again = await tier.open(digest);
  t.equal(again!.verified, undefined, 'now it is');
  await again!.close();
});

void t.test('restart: one verdict serves all readers', async (t) => {
  const path = await leaveStore(t);
  const tier = await openTier(t, path);
  const blobs = await Promise.all(Array.from({ length: 20 }, () => tier.open(digest)));
  t.equal(new Set(blobs.map((blob) => blob!.verified)).size, 1);
  const all = await Promise.all(blobs.map(async (blob) => (await readAll(blob!)).equals(content)));
  t.ok(all.every(Boolean));
});

void t.test('55. rot: a wrong bit anywhere withholds the verdict, and the file goes', async (t) => {
  for (const at of [0, content.length >> 1, content.length - 1]) {
    const path = await leaveStore(t);
    const file = await open(fileOf(path, digest), 'r+');
    await file.write(Buffer.from([content[at]! ^ 1]), 0, 1, at);
    await file.close();
    const tier = await openTier(t, path);
    const blob = await tier.open(digest);
    await t.rejects(readAll(blob!), /does not hash/, `bit at ${at}`);
    t.equal(await tier.open(digest), undefined, 'a miss from then on');
    t.equal(await exists(fileOf(path, digest)), false);
    await put(tier);
    t.ok((await readAll((await tier.open(digest))!)).equals(content), 'and the good copy after');
  }
});

void t.test('55. rot: a file that is shorter or longer than its blob is no blob', async (t) => {
  for (const bytes of [1, content.length - 1, content.length + 1]) {
    const path = await leaveStore(t);
    await truncate(fileOf(path, digest), bytes);
    const tier = await openTier(t, path);
    const blob = await tier.open(digest);
    t.equal(blob!.size, bytes);
    await t.rejects(readAll(blob!), `${bytes} bytes`);
    t.equal(await exists(fileOf(path, digest)), false);
  }
});

void t.test('55. rot: a file of no bytes is a miss', async (t) => {
  const path = await leaveStore(t);
  await truncate(fileOf(path, digest), 0);
  const tier = await openTier(t, path);
  t.equal(await tier.open(digest), undefined);
  t.equal(await exists(fileOf(path, digest)), false);
});

void t.test('55. rot: what is changed while the process runs is verified again', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  await put(tier);
  const known = await tier.open(digest);
  t.equal(known!.verified, undefined);
  await known!.close();
  const file = fileOf(path, digest);
  const wrong = Buffer.from(content);
  wrong[1000] = content[1000]! ^ 1;
  for (const [what, change] of [
    ['written to in place', () => writeFile(file, wrong)],
    ['replaced', () => writeFile(`${file}.new`, wrong).then(() => rename(`${file}.new`, file))],
    [
      'replaced by one of the same time',
      async () => {
        const { atime, mtime } = await stat(file);
        await writeFile(`${file}.new`, wrong);
        await utimes(`${file}.new`, atime, mtime);
        await rename(`${file}.new`, file);
      },
    ],
  ] as const) {
    await put(tier);
    await change();
    const blob = await tier.open(digest);
    await t.rejects(readAll(blob!), /does not hash/, what);
    t.equal(await tier.open(digest), undefined, what);
  }
});

void t.test('55. rot: what is changed while it is being read is never whole, and is not there after', async (t) => {
  const path = await temporaryFolder(t);
  // Small buffers: most of it is read after the change.
  const tier = await createDiskTier({ path, maxVerified: 100, maxBufferBytes: 1, maxLeftoverBytes: 2 ** 30 });
  t.teardown(() => tier.close());
  for (const at of [100_000, content.length - 1]) {
    await put(tier);
    // Times of files go in steps of some milliseconds.
    await utimes(fileOf(path, digest), 1, 1);
    await readAll((await tier.open(digest))!);
    const blob = (await tier.open(digest))!;
    t.equal(blob.verified, undefined);
    t.ok((await blob.read(0, 1000)).equals(content.subarray(0, 1000)));
    const writer = await open(fileOf(path, digest), 'r+');
    await writer.write(Buffer.from([content[at]! ^ 1]), 0, 1, at);
    await writer.close();
    await t.rejects(readAll(blob), /changed while it was read/);
    await t.rejects(readAll((await tier.open(digest))!), /does not hash/);
    t.equal(await tier.open(digest), undefined);
  }
});

void t.test('55. rot: a symbolic link in the place of a blob is not followed', async (t) => {
  const path = await leaveStore(t);
  const secret = join(path, 'secret');
  await writeFile(secret, content);
  await rm(fileOf(path, digest));
  await symlink(secret, fileOf(path, digest));
  const tier = await openTier(t, path);
  await t.rejects(tier.open(digest), { code: 'ELOOP' });
  await put(tier);
  t.ok((await readAll((await tier.open(digest))!)).equals(content), 'a put replaces the link');
  t.ok((await readFile(secret)).equals(content), 'and not what it led to');
});

void t.test('55. rot: a folder in the place of a blob is no blob', async (t) => {
  const path = await leaveStore(t);
  await rm(fileOf(path, digest));
  await mkdir(fileOf(path, digest));
  const tier = await openTier(t, path);
  await t.rejects(tier.open(digest).then((blob) => blob && readAll(blob)));
});

// ---- Several lives of one store

void t.test('83. sharing: two tiers on one folder see what the other put, and verify it themselves', async (t) => {
  const path = await temporaryFolder(t);
  const [first, second] = [await openTier(t, path), await openTier(t, path)];
  await put(first);
  const blob = await second.open(digest);
  t.type(blob!.verified, Promise);
  t.ok((await readAll(blob!)).equals(content));
  await second.delete(digest);
  t.equal(await first.open(digest), undefined);
});

void t.test('83. sharing: a tier that opens or closes leaves the unfinished files of another alone', async (t) => {
  const path = await temporaryFolder(t);
  const first = await openTier(t, path);
  const partial = await first.begin(digest);
  await partial.append([content.subarray(0, 1000)]);
  const second = await createDiskTier({ path, maxVerified: 10, maxBufferBytes, maxLeftoverBytes: 2 ** 30 });
  await second.close();
  t.equal((await litterOf(path)).length, 1);
  await partial.append([content.subarray(1000)]);
  await partial.commit(digest);
  await partial.close();
  t.ok((await readAll((await first.open(digest))!)).equals(content));
});

void t.test(
  '83. sharing: another process keeps its unfinished files while it lives, and loses them when it is killed',
  async (t) => {
    const path = await temporaryFolder(t);
    const other = startStoreProcess(t, 'hold', path);
    await other.said('ready');
    const own = await openTier(t, path);
    t.equal((await litterOf(path)).length, 1, 'it lives');
    await put(own);
    other.child.kill('SIGKILL');
    t.equal(await other.ended, 'SIGKILL');
    t.equal((await litterOf(path)).length, 1, 'a kill leaves its file');
    await openTier(t, path);
    t.same(await litterOf(path), [], 'which the next to come sweeps away');
    t.ok((await readAll((await own.open(digest))!)).equals(content));
    await put(own, Buffer.from('still working'));
  },
);

void t.test('83. sharing: what another process put is there', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  const other = startStoreProcess(t, 'put', path);
  await other.said('put');
  t.equal(await other.ended, 0);
  t.ok((await readAll((await tier.open(processDigest))!)).equals(processBlob));
});

void t.test('close: takes the unfinished with it', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await createDiskTier({ path, maxVerified: 10, maxBufferBytes, maxLeftoverBytes: 2 ** 30 });
  const partial = await tier.begin(digest);
  t.teardown(() => partial.close());
  await partial.append([content]);
  await tier.close();
  t.same(await readdir(join(path, 'tmp')), []);
});

// ---- The order of system calls, and what ends it

const noStrace = straceIsMissing() && 'strace is not installed';

void t.test('16. strace: write, fsync, rename, fsync of the folder, in this order', { skip: noStrace }, async (t) => {
  const path = await temporaryFolder(t);
  const trace = join(path, 'trace');
  const under = ['strace', '-f', '-y', '-o', trace, '-e', 'trace=write,writev,pwrite64,pwritev,fsync,fdatasync,rename'];
  const other = startStoreProcess(t, 'put', path, { under });
  t.equal(await other.ended, 0);
  const calls = (await readFile(trace, 'utf8'))
    .split('\n')
    .filter((line) => line.includes(`${path}/tmp`) || line.includes(`${path}/blobs`))
    .filter((line) => !line.includes('.lock'))
    .map((line) => {
      const call = /(\w+)\(/.exec(line)?.[1] ?? '';
      if (call === 'rename') return line.includes(`/${hexOf(processDigest)}"`) ? 'rename' : line;
      return `${call.replace(/^p?write(v|64)?$/, 'write')} ${line.includes(`${path}/blobs/sha256>`) ? 'folder' : 'file'}`;
    });
  const order = calls.filter((call, at) => call !== calls[at - 1]);
  t.same(order, ['write file', 'fsync file', 'rename', 'fsync folder']);
});

void t.test('15. strace: a kill at any step leaves the whole blob or none', { skip: noStrace }, async (t) => {
  const steps = {
    'the write': 'pwrite64:1',
    'fsync of the file': 'fsync:1',
    rename: 'rename:1',
    'fsync of the folder': 'fsync:2',
  };
  await Promise.all(
    Object.entries(steps).map(async ([what, step]) => {
      const [call, when] = step.split(':');
      const path = await temporaryFolder(t);
      const inject = `inject=${call}:signal=KILL:when=${when}`;
      const under = ['strace', '-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
      const other = startStoreProcess(t, 'put', path, { under });
      t.equal(await other.ended, 'SIGKILL', what);
      const tier = await openTier(t, path);
      t.same(await litterOf(path), [], `${what}: no litter`);
      const blob = await tier.open(processDigest);
      const isWhole = blob && (await readAll(blob)).equals(processBlob);
      t.equal(isWhole, what === 'fsync of the folder' ? true : undefined, what);
    }),
  );
});

void t.test('16. strace: a disk that fails a step keeps nothing of it', { skip: noStrace }, async (t) => {
  const steps = {
    'no space for the write': ['pwrite64', 'ENOSPC', 1],
    'an error of fsync': ['fsync', 'EIO', 1],
    'no space for fsync': ['fsync', 'ENOSPC', 1],
    'no space for the name': ['rename', 'ENOSPC', 1],
    'an error of fsync of the folder': ['fsync', 'EIO', 2],
  } as const;
  await Promise.all(
    Object.entries(steps).map(async ([what, [call, error, when]]) => {
      const path = await temporaryFolder(t);
      const inject = `inject=${call}:error=${error}:when=${when}`;
      const under = ['strace', '-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
      const other = startStoreProcess(t, 'put', path, { under });
      await other.said(`failed ${error}`);
      t.equal(await other.ended, 0, what);
      t.equal(await exists(fileOf(path, processDigest)), false, `${what}: no blob`);
      t.same(await litterOf(path), [], `${what}: no litter`);
    }),
  );
});

void t.test(
  '55. strace: a look at a kept file that fails leaves none of its handles open',
  { skip: noStrace },
  async (t) => {
    const path = await temporaryFolder(t);
    await put(await openTier(t, path), processBlob);
    // A look when it is opened, before it is verified, and after it was read; there is no fourth. It is opened twice.
    for (const [call, error, when, said] of [
      ['statx', 'EIO', 1, 'failed EIO'],
      ['statx', 'EIO', 2, 'failed EIO'],
      ['statx', 'EIO', 3, 'failed EIO'],
      ['statx', 'EIO', 4, 'right'],
      ['openat', 'EMFILE', 1, 'failed EMFILE'],
      ['openat', 'EMFILE', 2, 'failed EMFILE'],
    ] as const) {
      const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:error=${error}:when=${when}`];
      const under = ['strace', '-f', '-o', '/dev/null', '-P', fileOf(path, processDigest), ...inject];
      const other = startStoreProcess(t, 'read', path, { under });
      await other.said(said);
      await other.said('open 0');
      t.equal(await other.ended, 0);
    }
  },
);

// ---- A full disk

function needsRoot(): string | false {
  if (process.getuid?.() === 0) return false;
  if (process.env['CI'] === 'true') throw new Error('these tests mount a file system: CI must run them as root');
  return 'mounting a file system needs to be root';
}

const skip = needsRoot();

/** A file system of its own, of a few bytes. */
async function mountSmall(t: Teardown, bytes: number): Promise<string> {
  const path = await temporaryFolder(t);
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path]);
  if (status !== 0) throw new Error(`mount failed: ${String(stderr)}`);
  t.teardown(() => void spawnSync('umount', [path]));
  return path;
}

void t.test(
  '17. root: a full disk refuses, keeps nothing of it, and goes on when there is room',
  { skip },
  async (t) => {
    const path = await mountSmall(t, 1024 * 1024);
    const tier = await openTier(t, path);
    const large = noise('too large', 2 * 1024 * 1024);
    for (let at = 0; at < 3; at++) {
      await t.rejects(put(tier, large), 'too large');
      t.same(await litterOf(path), []);
      t.equal(await tier.open(digestOf(large)), undefined);
    }
    await put(tier);
    t.ok((await readAll((await tier.open(digest))!)).equals(content));
    const second = noise('second', 600_000);
    await t.rejects(put(tier, second), 'no room beside the first');
    await tier.delete(digest);
    await put(tier, second);
    t.ok((await readAll((await tier.open(digestOf(second)))!)).equals(second));
  },
);

void t.test('17. root: a download keeps what fitted readable when the disk is full', { skip }, async (t) => {
  const path = await mountSmall(t, 1024 * 1024);
  const tier = await openTier(t, path);
  const partial = await tier.begin(digest);
  await partial.append([content]);
  await t.rejects(partial.append([content]));
  const reader = partial.reader();
  t.ok((await reader.read(content.length - 1000, 1000)).equals(content.subarray(-1000)));
  await partial.close();
  t.same(await litterOf(path), []);
});

void t.test('adopt: who still has the file open cannot change what was kept', async (t) => {
  const path = await temporaryFolder(t);
  const tier = await openTier(t, path);
  const upload = join(await temporaryFolder(t), 'upload');
  await writeFile(upload, content);
  const writer = await open(upload, 'r+');
  t.teardown(() => writer.close());
  await tier.adopt(upload, digest);
  await writer.write(Buffer.from('EVIL'), 0, 4, 0);
  t.notOk(await exists(upload));
  t.same(await readAll((await tier.open(digest))!), content);

  await writeFile(upload, content.subarray(1));
  await t.rejects(tier.adopt(upload, digest), /does not hash/);
  t.same(await readAll((await tier.open(digest))!), content, 'what is right stays');
  t.same(await litterOf(path), []);
});
