import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { startMirror } from '../../src/mirror.ts';
import type { Mirror } from '../../src/mirror.ts';
import { buildImage } from '../fixtures/images.ts';
import { defaults } from '../fixtures/mirror.ts';
import { startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';
import { pullAsContainerd } from './client.ts';
import { bar, bytesText, heading, startProgress, table } from './show.ts';
import type { Screen } from './show.ts';

const platforms = ['linux/amd64', 'linux/arm64', 'linux/arm/v7', 'linux/386', 'linux/riscv64'];
const payloadBytes = 6 * 1024 * 1024;
const [repository, tag] = ['library/hello', '1'];

const screen: Screen = {
  isTerminal: process.stdout.isTTY,
  write: (text) => void process.stdout.write(text),
};

function requireNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 24 || (major === 24 && minor >= 12)) return;
  screen.write(`narrows needs Node 24.12 or newer, this is ${process.versions.node}: run it by npm, after npm ci.\n`);
  process.exit(2);
}

/** The wanted port where it is free, so that the lines to try look as they will at home. */
function freePort(wanted: number): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(0));
    probe.listen(wanted, '127.0.0.1', () => probe.close(() => resolve(wanted)));
  });
}

async function startDemo(upstream: TestRegistry, store: string): Promise<Mirror> {
  const config = parseConfig({
    ...defaults,
    listen: [{ address: `127.0.0.1:${await freePort(5000)}` }],
    admin: { ...(defaults['admin'] as object), address: `127.0.0.1:${await freePort(5001)}` },
    upstreams: { 'docker.io': { url: upstream.url } },
    cache: { ...(defaults['cache'] as object), disk: { path: store, maxSize: '1GiB' } },
  });
  const log = createLog('info', { isTerminal: screen.isTerminal, write: (line) => isHandsOn && screen.write(line) });
  return startMirror(config, log);
}

/** The demo's own pulls are told in its own words; what visitors do is logged as it comes. */
let isHandsOn = false;

async function pullAndTell(mirror: string, platform: string, upstream: TestRegistry): Promise<string[]> {
  upstream.forget();
  const progress = startProgress(screen, platform.padEnd(13));
  const base = `${mirror}/p/${platform.replaceAll('/', '-')}/v2`;
  const pulled = await pullAsContainerd(base, repository, tag, (done, total) => progress.update(done, total));
  progress.end(`${pulled.requests} requests, ${bytesText(pulled.bytes)}, every digest right`);
  return [
    platform,
    `${pulled.digest.slice(7, 19)} (${pulled.view})`,
    bytesText(pulled.bytes),
    String(upstream.seen.length),
    bytesText(upstream.sentBytes),
  ];
}

async function tell(mirror: string, upstream: TestRegistry, everything: number): Promise<void> {
  screen.write(heading('Pulling as containerd does, one machine after the other'));
  const rows = [['client runs', 'the tag meant', 'client took', 'asked upstream', 'upstream sent']];
  let moved = 0;
  for (const platform of ['linux/arm64', 'linux/amd64', 'linux/arm64']) {
    rows.push(await pullAndTell(mirror, platform, upstream));
    moved += upstream.sentBytes;
  }
  screen.write(`\n${table(rows)}`);
  screen.write(heading('What crossed the wire from the upstream'));
  screen.write(`  narrows, 2 platforms          ${bar(moved / everything, 32)} ${bytesText(moved)}\n`);
  screen.write(`  a mirror of all ${platforms.length} platforms   ${bar(1, 32)} ${bytesText(everything)}\n`);
}

function linesToTry(mirror: string, admin: string): string {
  const host = new URL(mirror).host;
  const here = process.arch === 'arm64' ? 'linux-arm64' : 'linux-amd64';
  return [
    heading('Still running; try by hand (Ctrl-C ends it)'),
    '  # the tag, as an arm64 machine sees it, and as it is',
    `  curl -sI ${mirror}/p/linux-arm64/v2/library/hello/manifests/1`,
    `  curl -s ${mirror}/v2/library/hello/manifests/1 | head -c 300; echo`,
    '  # a platform that the image does not have',
    `  curl -s ${mirror}/p/windows-amd64/v2/library/hello/manifests/1; echo`,
    '  # clients (the program in the image prints which platform it is)',
    `  skopeo inspect --tls-verify=false docker://${host}/p/linux-arm64/docker.io/library/hello:1`,
    `  docker run --rm ${host}/p/${here}/docker.io/library/hello:1`,
    `  podman run --rm --tls-verify=false ${host}/p/${here}/docker.io/library/hello:1`,
    '  # what was counted',
    `  curl -s ${admin}/metrics | grep narrows_`,
    '',
    '',
  ].join('\n');
}

requireNode();
const store = await mkdtemp(join(tmpdir(), 'narrows-demo-'));
screen.write('narrows: a pull-through mirror that moves only the platforms you run\n');
screen.write(`\n  building a sample image for ${platforms.join(', ')} …\n`);
const image = buildImage({ platforms, attestations: true, payloadBytes });
const upstream = await startRegistry();
upstream.blobBytesPerSecond = 20 * 1024 * 1024;
upstream.putImage(repository, tag, image);
const everything = [...image.manifests, ...image.blobs].reduce((sum, { bytes }) => sum + bytes.length, 0);
const running = await startDemo(upstream, store);
const mirrorUrl = `http://127.0.0.1:${running.ports[0]}`;
screen.write(`  upstream  docker.io stands in at ${upstream.url}, 20 MiB/s\n  mirror    ${mirrorUrl}\n`);

async function stop(): Promise<void> {
  await running.stop();
  await upstream.close();
  await rm(store, { recursive: true, force: true });
}

try {
  await tell(mirrorUrl, upstream, everything);
} catch (error) {
  await stop();
  throw error;
}
if (process.argv.includes('--once')) {
  await stop();
} else {
  screen.write(linesToTry(mirrorUrl, `http://127.0.0.1:${running.adminPort}`));
  isHandsOn = true;
  const end = () =>
    void stop().then(() => {
      screen.write('\nstopped; its files are gone\n');
      process.exit(0);
    });
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
}
