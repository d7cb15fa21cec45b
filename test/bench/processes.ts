import { fork, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A server under measurement. */
export interface Server {
  readonly name: string;
  readonly url: string;
  readonly pid: number;
  /** Its clients look at what they get, as it does not. */
  readonly isHashedByClients?: boolean;
  stop(): Promise<void>;
}

/** A helper script of this folder that talks by messages. */
export interface Worker<Order, Result> {
  ask(order: Order): Promise<Result>;
  stop(): void;
}

export function startWorker<Order, Result>(file: string): Worker<Order, Result> {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)));
  return {
    ask: (order) =>
      new Promise((resolve, reject) => {
        const ended = () => reject(new Error(`${file} ended`));
        child.once('exit', ended);
        child.once('message', (message) => {
          child.off('exit', ended);
          resolve(message as Result);
        });
        child.send(order as object);
      }),
    stop: () => void child.kill(),
  };
}

export interface StoreOptions {
  /** A folder that outlives the server. */
  readonly store?: string;
  readonly maxDiskBytes?: number;
}

export interface NarrowsOptions extends StoreOptions {
  readonly workers?: number;
}

/** What `npm start` does: that is what is measured. */
function startScript(): string {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } };
  return scripts.start;
}

export async function startNarrows(upstreamUrl: string, options: NarrowsOptions = {}): Promise<Server> {
  const { workers, store, maxDiskBytes } = options;
  const folder = store ?? (await mkdtemp(join(tmpdir(), 'narrows-bench-')));
  const port = await freePort();
  const [, ...line] = startScript().split(' ');
  const args = ['--listen', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0', '--store', folder];
  if (workers !== undefined) args.push('--workers', String(workers));
  const child = spawn(process.execPath, [...line, ...args, '--upstream', `docker.io=${upstreamUrl}`], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {
      NARROWS_LOG_LEVEL: 'warn',
      ...process.env,
      ...(maxDiskBytes !== undefined && { NARROWS_CACHE_DISK_MAX_SIZE: `${Math.ceil(maxDiskBytes / 1024)}KiB` }),
    },
  });
  const name = workers === undefined ? 'narrows' : `narrows, ${workers} workers`;
  return serverOf(name, child, port, store === undefined ? folder : undefined);
}

/** What else is called a registry mirror: `{upstream}`, `{port}` and `{store}` in its command are filled in. */
export async function startPeer(name: string, command: string, upstreamUrl: string): Promise<Server> {
  const store = await mkdtemp(join(tmpdir(), 'peer-bench-'));
  const port = await freePort();
  const filled = { upstream: upstreamUrl, port: String(port), store };
  const line = command.replaceAll(/\{(upstream|port|store)\}/g, (_, key: keyof typeof filled) => filled[key]);
  return serverOf(name, spawn('sh', ['-c', `exec ${line}`], { stdio: ['ignore', 'ignore', 'inherit'] }), port, store);
}

/** What the libraries that narrows is made of can do at most. */
export function startBare(upstreamUrl: string): Promise<Server> {
  const script = fileURLToPath(new URL('bare.ts', import.meta.url));
  return startPeer('bare proxy', `${process.execPath} ${script} {upstream} {port} {store}`, upstreamUrl);
}

/** Debian's docker-registry (distribution 2.8) as a pull-through proxy: the mirror that most people have. */
export async function startDockerRegistry(upstreamUrl: string): Promise<Server> {
  const store = await mkdtemp(join(tmpdir(), 'registry-bench-'));
  const port = await freePort();
  const file = join(store, 'config.yml');
  await writeFile(
    file,
    `version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\nstorage: { filesystem: { rootdirectory: ${store}/data } }\nhttp: { addr: 127.0.0.1:${port} }\nproxy: { remoteurl: ${upstreamUrl} }\n`,
  );
  const child = spawn('docker-registry', ['serve', file], { stdio: 'ignore' });
  return serverOf('docker-registry', child, port, store);
}

/** The one that most have, the one that is fastest on loopback, and the latter with files that are not opened again. */
const nginxWays = {
  'nginx, sendfile': 'sendfile on; tcp_nopush on;',
  nginx: 'sendfile off; output_buffers 2 1m;',
  'nginx, open files':
    'sendfile off; output_buffers 2 1m; open_file_cache max=1000 inactive=10m; open_file_cache_valid 10m;',
};

/** Debian's nginx as a cache for everything, one process that works. */
export async function startNginx(
  upstreamUrl: string,
  { store, maxDiskBytes = 10 * 2 ** 30 }: StoreOptions = {},
  name: keyof typeof nginxWays = 'nginx',
): Promise<Server> {
  const folder = store ?? (await mkdtemp(join(tmpdir(), 'nginx-bench-')));
  const port = await freePort();
  const file = join(folder, 'nginx.conf');
  await writeFile(
    file,
    `daemon off; worker_processes 1; pid ${folder}/pid; error_log /dev/null; user root;
events { worker_connections 4096; }
http {
  access_log off; ${nginxWays[name]} tcp_nodelay on;
  keepalive_requests 1000000;
  proxy_cache_path ${folder}/cache levels=1:2 keys_zone=blobs:10m max_size=${maxDiskBytes} use_temp_path=off;
  upstream registry { server ${new URL(upstreamUrl).host}; keepalive 64; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://registry; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host registry;
      proxy_cache blobs; proxy_cache_key $request_uri; proxy_cache_valid 200 1h; proxy_cache_lock on;
      proxy_cache_lock_timeout 60s; proxy_ignore_headers Vary;
    }
  }
}
`,
  );
  const child = spawn('nginx', ['-c', file], { stdio: 'ignore' });
  return serverOf(name, child, port, store === undefined ? folder : undefined, 'SIGTERM');
}

/** What others have written is on the disk: whoever is measured next does not wait for it. */
export function settleDisk(): void {
  spawnSync('sync');
}

/**
 * As much memory as anything here takes is at hand. A virtual machine gives what it does not use back to its host, and
 * whoever takes it next waits for it page by page: several times as long as writing to it takes. What a file that is
 * gone took is the next to be taken; what a process had goes back to the host in large pieces when it ends.
 */
export function settleMemory(): void {
  const folder = mkdtempSync(join(tmpdir(), 'memory-'));
  try {
    const file = openSync(join(folder, 'touched'), 'w');
    const piece = Buffer.alloc(2 ** 20, 1);
    for (let pieces = 0; pieces < 512; pieces++) writeSync(file, piece);
    closeSync(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
}

async function serverOf(
  name: string,
  child: ChildProcess,
  port: number,
  store: string | undefined,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<Server> {
  await answers(port);
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    pid: child.pid!,
    async stop() {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      const others = familyOf(child.pid!).slice(1);
      child.kill(signal);
      await ended;
      for (const pid of others) end(pid);
      if (store !== undefined) await rm(store, { recursive: true, force: true });
    },
  };
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended with the process that started it.
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function answers(port: number): Promise<void> {
  for (const until = performance.now() + 15_000; performance.now() < until;) {
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true));
      socket.once('connect', () => socket.destroy());
      socket.once('error', () => setTimeout(() => resolve(false), 50));
    });
    if (isOpen) return;
  }
  throw new Error(`nothing listens at port ${port}`);
}

/** A process and all that it started. */
function familyOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);
  return [pid, ...children.flatMap(familyOf)];
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

export interface Usage {
  readonly rssMiB: number;
  readonly peakMiB: number;
  readonly cpuSeconds: number;
}

/** Of a server and its workers, as the kernel counts: memory now and at its peak, and the processor time it used. */
export function usageOf(pid: number): Usage {
  const all = familyOf(pid).map((one) => {
    const status = read(`/proc/${one}/status`);
    const kib = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0);
    const stat = read(`/proc/${one}/stat`).split(') ')[1]?.split(' ') ?? [];
    return {
      rssMiB: kib('VmRSS') / 1024,
      peakMiB: kib('VmHWM') / 1024,
      cpuSeconds: (Number(stat[11] ?? 0) + Number(stat[12] ?? 0)) / 100,
    };
  });
  const sum = (of: (one: Usage) => number) => all.reduce((total, one) => total + of(one), 0);
  return {
    rssMiB: sum((one) => one.rssMiB),
    peakMiB: sum((one) => one.peakMiB),
    cpuSeconds: sum((one) => one.cpuSeconds),
  };
}

export function median(numbers: readonly number[]): number {
  return numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? 0;
}
