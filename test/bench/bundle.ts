import { spawn } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** One command over all of it. */
export interface BundleFigures {
  readonly command: string;
  readonly bytes: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakRssMiB: number;
}

const main = fileURLToPath(new URL('../../src/narrows.js', import.meta.url));
const mib = 1024 * 1024;

/**
 * A bundle of `gib` GiB, nine tenths of it one layer: written, read into an empty store, and into the same store again.
 * Beside it what GNU tar takes to write and to unpack the same bytes, hashing nothing.
 */
export async function benchBundle(gib: number, say: (text: string) => void): Promise<BundleFigures[]> {
  const folder = await mkdtemp(join(tmpdir(), 'narrows-bundle-'));
  try {
    say(`making ${gib} GiB of content in ${folder}`);
    const layout = await makeLayout(join(folder, 'layout'), Math.round(gib * 1024));
    const config = async (name: string) => {
      const file = join(folder, `${name}.json`);
      await writeFile(file, JSON.stringify({ cache: { disk: { path: join(folder, name), maxSize: '1TiB' } } }));
      return file;
    };
    const [near, far] = [await config('near'), await config('far')];
    const bundle = join(folder, 'bundle.tar');
    const narrows = (label: string, ...args: string[]) => measure(label, process.execPath, [main, ...args]);
    await narrows('', 'import', layout, '--as', 'docker.io/bench/large:1', '--set', 'bench', '--config', near);
    await rm(layout, { recursive: true });
    const figures: Omit<BundleFigures, 'bytes'>[] = [];
    const add = async (running: Promise<Omit<BundleFigures, 'bytes'>>) => {
      const figure = await running;
      say(`${figure.command}: ${figure.seconds.toFixed(1)} s, peak ${figure.peakRssMiB.toFixed(0)} MiB`);
      figures.push(figure);
    };
    await add(narrows('narrows export', 'export', '--set', 'bench', '-o', bundle, '--config', near));
    const { size } = await stat(bundle);
    await add(measure('tar cf', 'tar', ['cf', join(folder, 'peer.tar'), '-C', join(folder, 'near'), 'blobs']));
    await rm(join(folder, 'near'), { recursive: true });
    await add(narrows('narrows import', 'import', bundle, '--config', far));
    await add(narrows('narrows import, again', 'import', bundle, '--config', far));
    await mkdir(join(folder, 'peer'));
    await add(measure('tar xf', 'tar', ['xf', join(folder, 'peer.tar'), '-C', join(folder, 'peer')]));
    return figures.map((figure) => ({ ...figure, bytes: size }));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** An OCI image layout of one image, whose layers are noise. */
async function makeLayout(path: string, totalMiB: number): Promise<string> {
  const blobs = join(path, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const large = Math.floor(totalMiB * 0.9);
  const layers = [];
  for (const size of [large, totalMiB - large]) layers.push(await makeBlob(blobs, size));
  const put = async (value: object) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(blobs, hex), bytes);
    return { digest: `sha256:${hex}`, size: bytes.length };
  };
  const config = await put({ os: 'linux', architecture: 'arm64', rootfs: { type: 'layers', diff_ids: [] } });
  const type = 'application/vnd.oci.image';
  const manifest = await put({
    schemaVersion: 2,
    mediaType: `${type}.manifest.v1+json`,
    config: { mediaType: `${type}.config.v1+json`, ...config },
    layers: layers.map((layer) => ({ mediaType: `${type}.layer.v1.tar`, ...layer })),
  });
  const entry = { mediaType: `${type}.manifest.v1+json`, ...manifest };
  await writeFile(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  await writeFile(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return path;
}

async function makeBlob(folder: string, sizeMiB: number): Promise<{ digest: string; size: number }> {
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, sizeMiB), Buffer.alloc(16));
  const running = createHash('sha256');
  const zeros = Buffer.alloc(mib);
  const file = await open(join(folder, 'making'), 'w');
  for (let at = 0; at < sizeMiB; at++) {
    const piece = noise.update(zeros);
    running.update(piece);
    await file.appendFile(piece);
  }
  await file.close();
  const hex = running.digest('hex');
  await rename(join(folder, 'making'), join(folder, hex));
  return { digest: `sha256:${hex}`, size: sizeMiB * mib };
}

/** Runs a command to its end. The kernel keeps the peak of its memory; it is read while the process is there. */
async function measure(
  command: string,
  program: string,
  args: readonly string[],
): Promise<Omit<BundleFigures, 'bytes'>> {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  let peakKiB = 0;
  let ticks = 0;
  const timer = setInterval(() => {
    try {
      peakKiB = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? peakKiB);
      const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
      ticks = Number(fields[11]) + Number(fields[12]);
    } catch {
      // It has just ended.
    }
  }, 50);
  const code = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${String(code)}`);
  const seconds = (performance.now() - started) / 1000;
  return { command, seconds, cpuSeconds: ticks / 100, peakRssMiB: peakKiB / 1024 };
}
