import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import type { Catalog } from '../../src/cache/catalog.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { until } from '../fixtures/downloads.ts';

t.setTimeout(60_000);

function digest(name: string | number): Digest {
  return digestOf(Buffer.from(`catalog ${name}`));
}

interface Stage {
  readonly folder: string;
  readonly path: string;
  readonly catalog: Catalog;
  /** One second later each time that it is asked. */
  now(): number;
  /** Another one on the same file, as of another process. */
  another(): Catalog;
}

async function prepare(t: Teardown): Promise<Stage> {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'catalog.sqlite');
  let time = 1_000_000;
  const now = () => (time += 1000);
  const another = () => {
    const catalog = openCatalog(path, now);
    t.teardown(() => catalog.close());
    return catalog;
  };
  return { folder, path, now, another, catalog: another() };
}

/** What the books say, by way of another connection: their sum, and the total that is kept beside them. */
function sumsOf(path: string): { sum: number; total: number; totals: number } {
  const database = new DatabaseSync(path, { timeout: 5000 });
  const row = database
    .prepare(
      'SELECT (SELECT TOTAL(bytes) FROM content) AS sum, (SELECT SUM(bytes) FROM total) AS total, (SELECT COUNT(*) FROM total) AS totals',
    )
    .get()!;
  database.close();
  return { sum: Number(row['sum']), total: Number(row['total']), totals: Number(row['totals']) };
}

function entriesOf(catalog: Catalog): Map<Digest, number> {
  const all = new Map<Digest, number>();
  for (let after = ''; ;) {
    const page = catalog.entries(after, 7);
    const last = page.at(-1);
    if (!last) return all;
    for (const entry of page) all.set(entry.digest, entry.bytes);
    after = last.digest;
  }
}

function oldest(catalog: Catalog, count = 1000): Digest[] {
  return catalog.oldest(count).map((entry) => entry.digest);
}

// ---- How much there is

void t.test('total: is the sum of what is there, whatever comes, changes and goes', async (t) => {
  const { catalog, path, another } = await prepare(t);
  t.equal(catalog.totalBytes(), 0);
  for (let at = 0; at < 30; at++) catalog.add(digest(at), at * 100);
  for (let at = 0; at < 30; at += 3) catalog.add(digest(at), 7);
  for (let at = 0; at < 30; at += 5) catalog.remove(digest(at));
  for (const one of [digest(0), digest('never')]) catalog.remove(one);
  const left = Array.from({ length: 30 }, (_, at) => (at % 3 === 0 ? 7 : at * 100)).filter((_, at) => at % 5 !== 0);
  const sum = left.reduce((total, bytes) => total + bytes, 0);
  t.equal(catalog.totalBytes(), sum);
  t.same(sumsOf(path), { sum, total: sum, totals: 1 });
  t.equal(another().totalBytes(), sum, 'another sees the same');
  t.equal(entriesOf(catalog).size, left.length);
  t.equal(catalog.has(digest(1)), true);
  t.equal(catalog.has(digest(5)), false);
});

void t.test('books: what something else wrote into them is no content', async (t) => {
  const { catalog, path } = await prepare(t);
  catalog.add(digest(1), 10);
  const database = new DatabaseSync(path);
  database.exec("INSERT INTO content VALUES ('sha256:../../etc/passwd', 1, 1), ('', 1, 2)");
  database.close();
  t.same(oldest(catalog), [digest(1)]);
  t.same([...entriesOf(catalog)], [[digest(1), 10]]);
});

// ---- Several processes

const url = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);

/** Keeps blobs of 0 to 40 kB under books, and takes some of them away again, until it is killed. */
const keeper = `
  import { openCatalog } from ${url('cache/catalog.ts')};
  import { createDiskTier } from ${url('cache/disk.ts')};
  import { bytesBlob } from ${url('cache/bytes.ts')};
  import { digestOf } from ${url('oci/digest.ts')};
  import { randomBytes } from 'node:crypto';
  const path = process.argv[1];
  const catalog = openCatalog(path + '/catalog.sqlite', Date.now);
  const disk = await createDiskTier({ path, maxVerified: 100, maxBufferBytes: 1e6, books: {
    adding: catalog.add, added() {}, used: catalog.used, removed: catalog.remove, full() {},
  } });
  const mine = [];
  async function keep() {
    for (;;) {
      const bytes = randomBytes(Math.floor(Math.random() * 40_000) + 1);
      await disk.put(digestOf(bytes), bytesBlob(bytes, 'miss'));
      mine.push(digestOf(bytes));
      if (mine.length > 20) await disk.delete(mine.shift());
      process.stdout.write('kept\\n');
    }
  }
  for (let at = 0; at < 4; at++) void keep();
`;

/** Opens the books when it is told to, and keeps 60 blobs under its name, a third of which go again. */
const writer = `
  import { openCatalog } from ${url('cache/catalog.ts')};
  import { createDiskTier } from ${url('cache/disk.ts')};
  import { bytesBlob } from ${url('cache/bytes.ts')};
  import { digestOf } from ${url('oci/digest.ts')};
  const [path, name] = process.argv.slice(1);
  const of = (at) => Buffer.from(name + at);
  process.stdout.write('ready\\n');
  for await (const _ of process.stdin) break;
  const catalog = openCatalog(path + '/catalog.sqlite', Date.now);
  const disk = await createDiskTier({ path, maxVerified: 100, maxBufferBytes: 1e6, books: {
    adding: catalog.add, added() {}, used: catalog.used, removed: catalog.remove, full() {},
  } });
  for (let at = 0; at < 60; at++) {
    await disk.put(digestOf(of(at)), bytesBlob(of(at), 'miss'));
    catalog.used(digestOf(of(at)));
    catalog.learn(digestOf(of(at)), [{ child: digestOf(of(at + 1)) }]);
    if (at % 3 === 0) await disk.delete(digestOf(of(at)));
    if (at % 20 === 0) catalog.flush();
  }
  catalog.pin(name, [{ digest: digestOf(of(1)), deep: true }]);
  await disk.close();
  catalog.close();
  process.stdout.write('written\\n');
`;

function start(t: Teardown, script: string, ...args: string[]) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  t.teardown(async () => {
    child.kill('SIGKILL');
    await exit;
  });
  return { child, exit, lines };
}

void t.test('total: holds after kill -9 at any moment, and so do the books', async (t) => {
  const { folder, path, another } = await prepare(t);
  for (let round = 0; round < 8; round++) {
    const { child, exit, lines } = start(t, keeper, folder);
    const moment = 5 + Math.floor(Math.random() * 40);
    await until(() => lines.length >= moment, `${moment} blobs`);
    child.kill('SIGKILL');
    await exit;
    const { sum, total, totals } = sumsOf(path);
    t.same([total, totals], [sum, 1], `killed after ${lines.length} blobs`);
    const books = entriesOf(another());
    for (const name of await readdir(join(folder, 'blobs/sha256'))) {
      const { size } = await stat(join(folder, 'blobs/sha256', name));
      if (books.get(`sha256:${name}` as Digest) !== size) t.fail(`${name} is not in the books`);
      books.delete(`sha256:${name}` as Digest);
    }
    t.ok(books.size <= 4 * (round + 1), `${books.size} were on their way in or out`);
  }
});

void t.test('books: several processes open new ones at once, write, and none fails', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'catalog.sqlite');
  const names = ['a', 'b', 'c', 'd'];
  const writers = names.map((name) => start(t, writer, folder, name));
  await until(() => writers.every(({ lines }) => lines.includes('ready')), 'the writers');
  for (const { child } of writers) child.stdin.end('go\n');
  const codes = await Promise.all(writers.map(async ({ exit }) => (await exit) as unknown[]));
  t.same(
    codes.map(([code]) => code),
    [0, 0, 0, 0],
  );
  t.ok(writers.every(({ lines }) => lines.includes('written')));
  const catalog = openCatalog(path, Date.now);
  t.teardown(() => catalog.close());
  const books = entriesOf(catalog);
  t.equal(books.size, 4 * 40);
  t.same([...books.keys()].map(hexOf).toSorted(), (await readdir(join(folder, 'blobs/sha256'))).toSorted());
  const sum = [...books.values()].reduce((total, bytes) => total + bytes, 0);
  t.same(sumsOf(path), { sum, total: sum, totals: 1 });
  t.equal(catalog.pinned().size, 4 * 3, 'each pins its second, and what hangs on it up to the one that went');
});

void t.test('books: while another holds them, whoever writes is told, and goes on after', async (t) => {
  const { catalog, path } = await prepare(t);
  catalog.add(digest(1), 10);
  const other = new DatabaseSync(path);
  other.exec('BEGIN IMMEDIATE');
  const started = performance.now();
  t.throws(() => catalog.add(digest(2), 10), /locked/);
  t.ok(performance.now() - started < 1000, 'soon');
  t.throws(() => catalog.remove(digest(1)), /locked/);
  t.throws(() => catalog.pin('a', [{ digest: digest(1), deep: false }]), /locked/);
  t.equal(catalog.totalBytes(), 10, 'what is there can be read');
  t.equal(catalog.has(digest(1)), true);
  catalog.used(digest(1));
  t.same(oldest(catalog), [digest(1)], 'what may go as well, though its use cannot be written');
  other.exec('ROLLBACK');
  other.close();
  catalog.add(digest(2), 10);
  catalog.remove(digest(1));
  t.same([...entriesOf(catalog)], [[digest(2), 10]]);
});

// ---- The order of use

void t.test('oldest: in the order of their coming, and of their use', async (t) => {
  const { catalog, another } = await prepare(t);
  const all = Array.from({ length: 6 }, (_, at) => digest(at));
  for (const one of all) catalog.add(one, 1);
  t.same(oldest(catalog), all);
  t.same(oldest(catalog, 2), all.slice(0, 2));
  catalog.used(all[0]!);
  catalog.used(all[3]!);
  catalog.used(digest('never'));
  const order = [all[1], all[2], all[4], all[5], all[0], all[3]];
  t.same(oldest(catalog), order, 'at once for whoever noted it');
  t.same(oldest(another()), order, 'and then for others');
  catalog.add(all[1]!, 1);
  t.same(oldest(catalog), [...order.slice(1), all[1]], 'what comes again is new');
  t.same(
    [...catalog.byUse()].map((entry) => entry.digest),
    [...order.slice(1), all[1]],
  );
});

void t.test('used: is written after a while, at a flush and at the end', async (t) => {
  const { catalog, path, now, another } = await prepare(t);
  const other = another();
  for (const at of [1, 2, 3]) catalog.add(digest(at), 1);
  catalog.used(digest(1));
  t.same(oldest(other), [1, 2, 3].map(digest), 'not yet');
  catalog.flush();
  t.same(oldest(other), [2, 3, 1].map(digest));
  catalog.used(digest(2));
  await until(() => oldest(other)[0] === digest(3), 'the note to be written by itself');
  const third = openCatalog(path, now);
  third.used(digest(3));
  third.close();
  t.same(oldest(other), [1, 2, 3].map(digest));
});

// ---- What stays

void t.test('pins: what is pinned is never the oldest, until its last pin goes', async (t) => {
  const { catalog, another } = await prepare(t);
  for (const at of [1, 2, 3]) catalog.add(digest(at), 1);
  catalog.pin('a', [{ digest: digest(1), deep: false }]);
  catalog.pin('b', [
    { digest: digest(1), deep: true },
    { digest: digest(2), deep: false },
  ]);
  t.same(oldest(catalog), [digest(3)]);
  t.same(oldest(another()), [digest(3)], 'for every process');
  catalog.unpin('b');
  t.same(oldest(catalog), [2, 3].map(digest));
  catalog.unpin('a');
  catalog.unpin('never');
  t.same(oldest(catalog), [1, 2, 3].map(digest));
});

void t.test('pins: a shallow one holds itself, a deep one all that hangs on it, learnt before or after', async (t) => {
  const { catalog } = await prepare(t);
  const names = ['index', 'image', 'config', 'layer', 'other image', 'other layer', 'stranger'];
  for (const name of names) catalog.add(digest(name), 1);
  const left = () => oldest(catalog).map((one) => names.find((name) => digest(name) === one));
  catalog.learn(digest('index'), [
    { child: digest('image'), platform: 'linux/arm64' },
    { child: digest('other image'), platform: 'linux/amd64' },
  ]);
  catalog.pin('shallow', [{ digest: digest('index'), deep: false }]);
  t.same(left(), names.slice(1));
  catalog.pin('deep', [{ digest: digest('index'), deep: true }]);
  t.same(left(), ['config', 'layer', 'other layer', 'stranger']);
  catalog.learn(digest('image'), [{ child: digest('config') }, { child: digest('layer') }]);
  catalog.learn(digest('other image'), [{ child: digest('layer') }, { child: digest('other layer') }]);
  t.same(left(), ['stranger']);
  t.same(catalog.pinned(), new Set(names.slice(0, -1).map(digest)));
  catalog.unpin('deep');
  t.same(left(), names.slice(1));
});

void t.test('pins: a graph that goes round in a circle is gone through once', async (t) => {
  const { catalog } = await prepare(t);
  for (const at of [1, 2, 3]) catalog.add(digest(at), 1);
  for (const at of [1, 2, 3]) catalog.learn(digest(at), [{ child: digest((at % 3) + 1), platform: 'linux/amd64' }]);
  catalog.pin('a', [{ digest: digest(2), deep: true }]);
  t.same(oldest(catalog), []);
  t.same(catalog.served(digest(1)), { platforms: ['linux/amd64'], isOpen: false });
});

// ---- What content is for

void t.test('served: all platforms of all images that a blob is part of', async (t) => {
  const { catalog } = await prepare(t);
  catalog.learn(digest('index'), [
    { child: digest('arm'), platform: 'linux/arm64' },
    { child: digest('amd'), platform: 'linux/amd64' },
  ]);
  catalog.learn(digest('arm'), [{ child: digest('shared') }, { child: digest('arm layer') }]);
  catalog.learn(digest('amd'), [{ child: digest('shared') }, { child: digest('amd layer') }]);
  t.same(catalog.served(digest('shared')), { platforms: ['linux/amd64', 'linux/arm64'], isOpen: false });
  t.same(catalog.served(digest('arm layer')), { platforms: ['linux/arm64'], isOpen: false });
  t.same(catalog.served(digest('amd')), { platforms: ['linux/amd64'], isOpen: false });
  t.same(catalog.served(digest('index')), { platforms: [], isOpen: false }, 'an index is for none');
  t.same(catalog.served(digest('unknown')), { platforms: [], isOpen: false }, 'nor is what nobody knows');
  catalog.learn(digest('index'), [{ child: digest('amd layer'), platform: 'linux/s390x' }]);
  t.same(catalog.served(digest('amd layer')).platforms, ['linux/amd64'], 'a document is learnt once');
});

void t.test('served: a blob of an image that no index lists is open, until its config tells', async (t) => {
  const { catalog } = await prepare(t);
  catalog.learn(digest('image'), [{ child: digest('config') }, { child: digest('layer') }]);
  for (const name of ['config', 'layer']) {
    t.same(catalog.served(digest(name)), { platforms: [], isOpen: true }, name);
  }
  catalog.learnPlatform(digest('image'), 'linux/s390x');
  for (const name of ['image', 'config', 'layer']) {
    t.same(catalog.served(digest(name)), { platforms: ['linux/s390x'], isOpen: false }, name);
  }
  catalog.learn(digest('another'), [{ child: digest('layer') }]);
  t.same(catalog.served(digest('layer')), { platforms: ['linux/s390x'], isOpen: true }, 'part of something else');
});

void t.test('served: a child of an index that says no platform is open, and what hangs on it', async (t) => {
  const { catalog } = await prepare(t);
  catalog.learn(digest('index'), [
    { child: digest('nested'), platform: 'unknown' },
    { child: digest('amd'), platform: 'linux/amd64' },
  ]);
  catalog.learn(digest('nested'), [{ child: digest('deep'), platform: 'linux/arm64' }]);
  catalog.learn(digest('deep'), [{ child: digest('layer') }]);
  t.same(catalog.served(digest('nested')), { platforms: [], isOpen: true });
  t.same(catalog.served(digest('layer')), { platforms: ['linux/arm64'], isOpen: true });
});

void t.test('a layer of two platforms outlives the eviction of one, and goes with the last', async (t) => {
  const { catalog } = await prepare(t);
  const platforms = { s390x: 'linux/s390x', arm64: 'linux/arm64' };
  catalog.learn(
    digest('index'),
    Object.entries(platforms).map(([name, platform]) => ({ child: digest(name), platform })),
  );
  const names = ['index', 'shared'];
  for (const name of Object.keys(platforms)) {
    const own = [name, `${name} config`, `${name} layer`];
    names.push(...own);
    catalog.learn(
      digest(name),
      [...own.slice(1), 'shared'].map((child) => ({ child: digest(child) })),
    );
  }
  for (const name of names) catalog.add(digest(name), 1);
  const left = () => names.filter((name) => catalog.has(digest(name)));
  const evict = (platform: string) => {
    const alone = [...entriesOf(catalog).keys()].filter((one) => {
      const served = catalog.served(one);
      return !served.isOpen && served.platforms.length > 0 && served.platforms.every((other) => other === platform);
    });
    for (const one of alone) catalog.remove(one);
  };
  evict('linux/s390x');
  t.same(left(), ['index', 'shared', 'arm64', 'arm64 config', 'arm64 layer']);
  t.same(catalog.served(digest('shared')).platforms, ['linux/arm64'], 'what is gone needs it no more');
  evict('linux/arm64');
  t.same(left(), ['index']);
});

void t.test('alone: what is of one document and of nothing else that is here', async (t) => {
  const { catalog } = await prepare(t);
  const names = ['index', 'arm', 'amd', 'arm layer', 'shared', 'other index', 'other', 'pinned layer'];
  for (const name of names) catalog.add(digest(name), 10);
  catalog.learn(digest('index'), [
    { child: digest('arm'), platform: 'linux/arm64' },
    { child: digest('amd'), platform: 'linux/amd64' },
    { child: digest('not here'), platform: 'linux/s390x' },
  ]);
  catalog.learn(digest('arm'), [
    { child: digest('arm layer') },
    { child: digest('shared') },
    { child: digest('pinned layer') },
  ]);
  catalog.learn(digest('amd'), [{ child: digest('amd layer') }]);
  catalog.learn(digest('other index'), [
    { child: digest('other'), platform: 'linux/arm64' },
    { child: digest('amd'), platform: 'linux/amd64' },
  ]);
  catalog.learn(digest('other'), [{ child: digest('shared') }]);
  catalog.learn(digest('gone'), [{ child: digest('arm layer') }]);
  catalog.pin('set:x', [{ digest: digest('pinned layer'), deep: false }]);
  const alone = (name: string) => catalog.alone(digest(name)).toSorted();
  const expected = (...found: string[]) => found.map(digest).toSorted();
  t.same(alone('index'), expected('index', 'arm', 'arm layer'));
  t.same(alone('arm'), [], 'an index that is here lists it');
  t.same(alone('other index'), expected('other index', 'other'));
  catalog.markHosted(digest('arm layer'));
  t.same(alone('index'), expected('index', 'arm'));
  t.same(alone('nothing'), []);
});
