import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { filesOf } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { startRegistry } from '../fixtures/registry.ts';
import { sign } from '../fixtures/synthetic.ts';

const main = fileURLToPath(new URL('../../src/narrows.js', import.meta.url));
const kills = 20;
const images = ['one', 'two', 'three'].map((seed) => ({
  seed,
  image: buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true, payloadBytes: 4_000_000, seed }),
}));

async function prepare(t: Test) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  for (const { seed, image } of images) registry.putImage(`library/${seed}`, '1', image);
  sign(registry, 'library/one', images[0]!.image.index);
  const folder = await temporaryFolder(t);
  const settings = async (name: string) => {
    const file = join(folder, `${name}.yaml`);
    const upstreams = { 'docker.io': { url: registry.url } };
    await writeFile(file, JSON.stringify({ upstreams, cache: { disk: { path: join(folder, name) } } }));
    return file;
  };
  return { registry, folder, settings };
}

const warmArgs = ['warm', ...images.map(({ seed }) => `${seed}:1`), '--platform', 'linux/arm64', '--set', 'edge'];

interface Run {
  readonly child: ChildProcess;
  /** The exit code, or the signal. */
  readonly exit: Promise<number | string>;
}

function start(args: readonly string[]): Run {
  const child = spawn(process.execPath, [main, ...args], { stdio: 'ignore', env: { PATH: process.env['PATH'] ?? '' } });
  const exit = new Promise<number | string>((resolve) =>
    child.on('exit', (code, signal) => resolve(code ?? signal ?? '')),
  );
  return { child, exit };
}

/** How long a whole run takes here: somewhere within that is where the next ones are killed. */
async function timed(args: readonly string[]): Promise<number> {
  const started = performance.now();
  if ((await start(args).exit) !== 0) throw new Error(`${args.join(' ')} fails`);
  return performance.now() - started;
}

/** @returns whether it was killed before its end */
async function killWithin(args: readonly string[], ms: number): Promise<boolean> {
  const { child, exit } = start(args);
  const timer = setTimeout(() => child.kill('SIGKILL'), ms * (0.3 + 0.7 * Math.random()));
  const ended = await exit;
  clearTimeout(timer);
  return ended === 'SIGKILL';
}

async function blobsIn(store: string): Promise<string[]> {
  return readdir(join(store, 'blobs/sha256')).catch(() => []);
}

void t.test('warm, killed at any moment: what has a name is right, and the next run goes on', async (t) => {
  const { registry, folder, settings } = await prepare(t);
  const args = [...warmArgs, '--config'];
  registry.blobBytesPerSecond = 20_000_000;
  const wholeMs = await timed([...args, await settings('whole')]);
  const whole = (await blobsIn(join(folder, 'whole'))).toSorted();
  const config = await settings('killed');
  const store = join(folder, 'killed');
  let killed = 0;
  registry.forget();
  for (let run = 0; run < kills; run++) {
    if (await killWithin([...args, config], wholeMs)) killed++;
    else await rm(store, { recursive: true, force: true });
    for (const name of await blobsIn(store)) {
      t.equal(digestOf(await readFile(join(store, 'blobs/sha256', name))), `sha256:${name}`, 'a visible blob is whole');
    }
  }
  t.ok(killed > kills / 4, `${killed} of ${kills} runs were killed before their end`);
  t.equal(await start([...args, config]).exit, 0);
  t.same((await blobsIn(store)).toSorted(), whole, 'all of it is there, and nothing else');
  t.same((await filesOf(store)).unfinished, []);
  t.same(await readdir(join(store, 'leftovers')), [], 'what was left over has been used');
  t.match(await runCommand(['check', '--set', 'edge', '--config', config]), { code: 0 });
  t.match(await runCommand(['verify', '--no-repair', '--config', config]), { code: 0 });
  t.ok(
    registry.seen.some(({ headers }) => headers.range !== undefined),
    'a download goes on where it was killed',
  );
  registry.forget();
  t.equal(await start([...args, config]).exit, 0);
  t.ok(registry.seen.every(({ method }) => method === 'HEAD'));
});

void t.test('export, killed at any moment: a bundle has its name when it is whole', async (t) => {
  const { folder, settings } = await prepare(t);
  const config = await settings('store');
  t.match(await runCommand([...warmArgs, '--config', config]), { code: 0 });
  const to = (name: string) => ['export', '--set', 'edge', '--config', config, '-o', join(folder, name)];
  const wholeMs = await timed(to('whole.tar'));
  const whole = await readFile(join(folder, 'whole.tar'));
  const out = join(folder, 'out');
  let killed = 0;
  for (let run = 0; run < kills; run++) {
    if (await killWithin(to('out'), wholeMs)) killed++;
    const written = await readFile(out).catch(() => undefined);
    t.ok(written === undefined || written.equals(whole), 'all of it, or nothing under its name');
    await rm(out, { force: true });
  }
  t.ok(killed > kills / 4, `${killed} of ${kills} runs were killed before their end`);
  t.equal(await start(to('out')).exit, 0);
  t.ok((await readFile(out)).equals(whole), 'the next one is the same bundle');
  t.same(
    (await readdir(folder)).filter((name) => name.includes('partial')),
    [],
    'and nothing unfinished lies beside it',
  );
});

void t.test('import, killed at any moment: the store has nothing wrong, and the next run ends right', async (t) => {
  const { folder, settings } = await prepare(t);
  const near = await settings('near');
  t.match(await runCommand([...warmArgs, '--config', near]), { code: 0 });
  const bundle = join(folder, 'edge.tar');
  t.match(await runCommand(['export', '--set', 'edge', '--config', near, '-o', bundle]), { code: 0 });
  const into = (config: string) => ['import', bundle, '--config', config];
  const wholeMs = await timed(into(await settings('whole')));
  const whole = (await blobsIn(join(folder, 'whole'))).toSorted();
  const config = await settings('far');
  const store = join(folder, 'far');
  let killed = 0;
  for (let run = 0; run < kills; run++) {
    if (await killWithin(into(config), wholeMs)) killed++;
    else await rm(store, { recursive: true, force: true });
    for (const name of await blobsIn(store)) {
      t.equal(digestOf(await readFile(join(store, 'blobs/sha256', name))), `sha256:${name}`, 'a visible blob is whole');
    }
  }
  t.ok(killed > kills / 4, `${killed} of ${kills} runs were killed before their end`);
  t.equal(await start(into(config)).exit, 0);
  t.same((await blobsIn(store)).toSorted(), whole, 'all of it is there, and nothing else');
  t.same(
    (await readdir(join(store, 'imports'))).filter((name) => name !== 'lock'),
    [],
    'nothing of it lies twice',
  );
  t.match(await runCommand(['check', '--set', 'edge', '--config', config]), { code: 0 });
  t.match(await runCommand(['verify', '--no-repair', '--config', config]), { code: 0 });
});
