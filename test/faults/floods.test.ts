import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { Agent } from 'undici';
import t from 'tap';
import type { Test } from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { filesOf, hashDownload } from '../fixtures/downloads.ts';
import { awaitFootprint, footprintOf, memoryHeld, settled, untilLevel } from '../fixtures/footprint.ts';
import type { Footprint } from '../fixtures/footprint.ts';
import { buildImage, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { fetchAnswer, temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import type { ServeProcess } from '../fixtures/process.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import { hasKernelFiles } from '../fixtures/workers.ts';

const skip = hasKernelFiles ? false : 'the kernel shows no /proc';
const MiB = 1024 * 1024;
const cold = 2500;
const image = buildImage({ platforms: ['linux/amd64'], seed: 'floods' });

interface Stage {
  readonly serve: ServeProcess;
  readonly store: string;
  readonly port: number;
  readonly large: Content;
  readonly small: readonly Content[];
  /** Asked for by nobody yet. */
  readonly unseen: readonly Content[];
  footprint(): Promise<Footprint>;
  /** The same once they have all gone, and once the runtime has collected what nobody reaches: it would do so later. */
  afterwards(fresh: Footprint, tolerance: number): Promise<Footprint>;
  /** As it was before: what it reaches, and what it has of the machine. */
  isBack(t: Test): Promise<void>;
}

t.setTimeout(280_000);

function make(name: string, count: number, bytes: number): Content[] {
  return Array.from({ length: count }, (_, at) => blobOf(noise(`${name} ${at}`, bytes)));
}

/** A server as a process of its own, with little patience and little memory to keep things in. */
async function start(t: Test): Promise<Stage> {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  const [large] = make('large', 1, 8 * MiB);
  const small = make('small', 40, 256 * 1024);
  const unseen = make('unseen', cold, 32 * 1024);
  for (const blob of [large!, ...small, ...unseen]) registry.put('team/x', blob);
  registry.putImage('team/x', '1', image);
  const store = await temporaryFolder(t);
  const config = join(await temporaryFolder(t), 'narrows.yaml');
  const settings = {
    upstreams: { up: { url: registry.url } },
    defaultUpstream: 'up',
    repositories: [{ name: 'here/*', hosted: true, push: ['anonymous'] }],
    cache: { disk: { path: store }, memory: { maxSize: '1MiB', maxBlobSize: '64KiB' } },
    limits: { sendStall: '5s', requestStall: '2s', headersTimeout: '2s', keepAlive: '5s' },
    log: { level: 'silent' },
  };
  await writeFile(config, JSON.stringify({ ...settings, log: { level: 'info' } }));
  const serve = await startServe(t, { args: ['--config', config], collects: true });
  const port = Number(new URL(serve.url).port);
  for (const blob of [large!, ...small]) await hashDownload(`${serve.url}/v2/up/team/x/blobs/${blob.digest}`);
  // Where it was: at work, with as many who do as they should. A server that has done nothing yet is smaller.
  for (let round = 0; round < 3; round++) {
    const crowd = Array.from({ length: 1000 }, (_, at) => `${serve.url}${pathOf([large!, ...small][at % 41]!)}`);
    await Promise.all(crowd.map((url) => hashDownload(url)));
  }
  const footprint = () => footprintOf(serve.child.pid!);
  const held = await memoryHeld(serve);
  const { rssBytes } = await footprint();
  const isBack = async (t: Test) => {
    const heldNow = await memoryHeld(serve);
    const rssNow = (await footprint()).rssBytes;
    t.comment(JSON.stringify({ heldBefore: held, heldNow, rssBefore: rssBytes, rssNow }));
    t.ok(heldNow <= held + 8 * MiB, `it reaches ${heldNow} bytes, ${held} before`);
    t.ok(rssNow <= rssBytes + 32 * MiB, `it has ${rssNow} bytes of the machine, ${rssBytes} before`);
  };
  const afterwards = async (fresh: Footprint, tolerance: number) => {
    await settled(serve.child.pid!, fresh, tolerance);
    await memoryHeld(serve);
    return footprint();
  };
  return { serve, store, port, large: large!, small, unseen, footprint, afterwards, isBack };
}

/** Whoever still wants something gets it whole. */
async function isServing(t: Test, { serve }: Stage, blobs: readonly Content[]): Promise<void> {
  for (const { digest } of blobs) {
    const got = await hashDownload(`${serve.url}/v2/up/team/x/blobs/${digest}`);
    t.same({ status: got.status, digest: got.digest }, { status: 200, digest });
  }
}

/** Asks, and leaves: at once, with the first bytes, or after so many; with a FIN or with a RST. */
function leave(port: number, path: string, afterBytes: number, how: 'fin' | 'rst'): Promise<void> {
  return new Promise((resolve) => {
    let received = 0;
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n`);
      if (afterBytes === 0) go();
    });
    const go = () => (how === 'rst' ? socket.resetAndDestroy() : socket.destroy());
    socket.on('data', (chunk) => {
      if ((received += chunk.length) >= afterBytes) go();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve());
  });
}

function pathOf({ digest }: Content): string {
  return `/v2/up/team/x/blobs/${digest}`;
}

/** So many of them, a hundred at once; what each does follows from its number. */
async function leaveAll({ port, large, small, unseen }: Stage, from: number, to: number): Promise<void> {
  const asks = [
    (at: number) => pathOf(unseen[((at / 4) % unseen.length) | 0]!),
    (at: number) => pathOf(small[at % small.length]!),
    () => pathOf(large),
    () => '/v2/up/team/x/manifests/1',
  ];
  let next = from;
  const one = async () => {
    for (let at = next++; at < to; at = next++) {
      const afterBytes = [0, 1, 5000, 20_000, 200_000][at % 5]!;
      const path = asks[at % asks.length]!(at);
      // A manifest is not as long as that.
      await leave(
        port,
        path,
        path.includes('manifests') ? Math.min(afterBytes, 1) : Math.min(afterBytes, 20_000),
        at % 3 ? 'fin' : 'rst',
      );
    }
  };
  await Promise.all(Array.from({ length: 100 }, one));
}

void t.test('13. 15,000 clients and more that leave in the middle: nothing of them stays', { skip }, async (t) => {
  const stage = await start(t);
  const fresh = await stage.footprint();
  let from = 0;
  const round = async () => {
    await leaveAll(stage, from, from + 5000);
    from += 5000;
    return stage.afterwards(fresh, 8);
  };
  const levels = await untilLevel(round, 10);
  t.comment(JSON.stringify({ fresh, levels }));
  t.ok(from >= 10_000, `${from} have left`);
  t.ok(levels.at(-1)! <= Math.max(...levels.slice(0, -1)), `the same again takes no more: ${levels.join(', ')} bytes`);
  await isServing(t, stage, [stage.large, ...stage.small, ...stage.unseen.slice(0, 100)]);
  t.same((await filesOf(stage.store)).unfinished, []);
  await stage.isBack(t);
});

/** Sockets that ask for something and then do nothing more. */
async function openAll(t: Test, port: number, count: number, text: (at: number) => string): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, (_, at) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text(at)));
    socket.on('error', () => undefined);
    return socket;
  });
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
  return sockets;
}

void t.test('42. 1,000 clients that read nothing: others are served, and they are let go', { skip }, async (t) => {
  const stage = await start(t);
  const { port, large, serve } = stage;
  const fresh = await stage.footprint();
  const round = async () => {
    const sockets = await openAll(t, port, 1000, () => `GET ${pathOf(large)} HTTP/1.1\r\nhost: x\r\n\r\n`);
    const during = await awaitFootprint(serve.child.pid!, (now) => now.sockets > fresh.sockets + 900);
    t.ok(during.rssBytes < fresh.rssBytes + 300 * MiB, `${fresh.rssBytes} to ${during.rssBytes} bytes`);
    await isServing(t, stage, stage.small);
    const after = await stage.afterwards(fresh, 4);
    for (const socket of sockets) socket.destroy();
    return after;
  };
  const levels = await untilLevel(round, 10);
  t.comment(JSON.stringify({ fresh, levels }));
  t.ok(levels.at(-1)! <= Math.max(...levels.slice(0, -1)), `the same again takes no more: ${levels.join(', ')} bytes`);
  await isServing(t, stage, [large]);
  await stage.isBack(t);
});

const head = (at: number) => `GET /v2/up/team/x/manifests/1 HTTP/1.1\r\nhost: x\r\nx-slow-${at}: `;

void t.test('42. 200 clients that write slowly: others push and pull, and they are let go', { skip }, async (t) => {
  const stage = await start(t);
  const { port, serve } = stage;
  const before = await stage.footprint();
  const agent = new Agent();
  t.teardown(() => agent.destroy());
  const ask = (method: 'POST' | 'GET', path: string, body?: Buffer) =>
    fetchAnswer(serve.url + path, { method, dispatcher: agent, ...(body && { body }) });
  const begun = await Promise.all(Array.from({ length: 100 }, () => ask('POST', '/v2/here/slow/blobs/uploads/')));
  const locations = begun.map(({ headers }) => headers['location']!);
  const upload = (at: number) => `PATCH ${locations[at]} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbegin`;
  const sockets = await openAll(t, port, 200, (at) => (at < 100 ? upload(at) : head(at)));
  const drip = setInterval(() => sockets.slice(100).forEach((socket) => socket.writable && socket.write('a')), 200);
  t.teardown(() => clearInterval(drip));
  for (let at = 0; at < 20; at++) {
    const bytes = noise(`pushed ${at}`, 1000);
    const pushed = await ask('POST', `/v2/here/fast/blobs/uploads/?digest=${digestOf(bytes)}`, bytes);
    t.equal(pushed.status, 201);
  }
  await isServing(t, stage, stage.small);
  const after = await settled(serve.child.pid!, before, 4);
  t.comment(JSON.stringify({ before, after }));
  t.ok(after.rssBytes < before.rssBytes + 60 * MiB, `${before.rssBytes} to ${after.rssBytes} bytes`);
  const status = await ask('GET', locations[0]!);
  t.equal(status.status, 204, 'an upload that was cut can be gone on with');
  await stage.isBack(t);
});
