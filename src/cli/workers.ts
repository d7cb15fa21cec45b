import cluster from 'node:cluster';
import type { Worker } from 'node:cluster';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startAdmin } from '../admin/server.ts';
import { parseAddress } from '../config-values.ts';
import { ConfigError } from '../config.ts';
import type { Config } from '../config.ts';
import { createCoordinator } from '../fleet/coordinator.ts';
import type { Log } from '../log.ts';
import { createMetrics, joinMetrics, joinMetricsJson } from '../metrics/metrics.ts';
import { openAdminActions } from '../wiring/admin-actions.ts';
import { adminTrouble, createAdminApi } from '../wiring/admin-api.ts';
import { createGenerations } from '../wiring/generations.ts';
import { canonicalName } from '../oci/host.ts';
import { liveOf, processReport } from '../wiring/live.ts';
import type { ProcessReport } from '../wiring/live.ts';
import { CommandError } from './io.ts';
import { workerVariable } from './worker-link.ts';
import type { FromWorker, ToWorker } from './worker-link.ts';

/** Several processes that serve as one. */
export interface Workers {
  readonly ports: readonly number[];
  readonly adminPort: number | undefined;
  /** Rejects when workers cannot be kept alive. */
  readonly failed: Promise<never>;
  /** Worker by worker, those that begin go by the new configuration. @throws ConfigError, as `Mirror.reload` */
  reload(config: Config): Promise<void>;
  stop(): Promise<void>;
}

/** A worker that dies is replaced, but not for ever one that dies at once. */
const maxDeathsPerMinute = 20;
const tooManyDeaths = `More than ${maxDeathsPerMinute} workers have ended within a minute; the lines before say when.`;

/** What a worker may take for its end, beyond the grace for its answers. */
const spareMs = 5000;

/** Starts `count` processes with the same command line on the same addresses and the same store. */
export async function startWorkers(count: number, first: Config, log: Log): Promise<Workers> {
  let config = first;
  const coordinator = createCoordinator();
  const folder = await mkdtemp(join(tmpdir(), 'narrows-workers-')).catch((cause: NodeJS.ErrnoException) => {
    const message = `The workers need a folder for their sockets, and ${tmpdir()} cannot be written to (${cause.code}); set TMPDIR to one that can.`;
    throw new CommandError(1, message, { cause });
  });
  const serving = new Map<number, readonly number[]>();
  /** Those that were told to end, while others go on. */
  const leaving = new Set<number>();
  const starting = new Map<number, PromiseWithResolvers<void>>();
  const asked = new Map<number, (report: ProcessReport) => void>();
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  failed.catch(() => undefined);
  const ready = Promise.withResolvers<readonly number[]>();
  let deaths: number[] = [];
  /** All have served: from then on, one that dies at its start is replaced like any other. */
  let isUp = false;
  let isStopping = false;
  let questions = 0;
  const closers: (() => unknown)[] = [];
  /** Of this process, which asks upstreams too: for the admin API. */
  const own = createMetrics();

  function startOne(): Worker {
    const worker = cluster.fork({ [workerVariable]: folder });
    worker.on('message', (message: FromWorker) => onMessage(worker, message));
    worker.on('exit', () => onExit(worker));
    // One that has just died cannot be told anything; its exit is what counts.
    worker.on('error', () => undefined);
    return worker;
  }

  function onMessage(worker: Worker, message: FromWorker): void {
    const tell = (answer: ToWorker) => worker.isConnected() && worker.send(answer);
    switch (message.kind) {
      case 'join':
        // Its last words may come after its exit: it leads nothing any more.
        if (worker.isDead()) return;
        return void tell({
          kind: 'seat',
          id: message.id,
          place: coordinator.join(worker.id, message.place, message.key),
        });
      case 'leave':
        return coordinator.leave(worker.id, message.key);
      case 'dispute':
        return coordinator.dispute(message.key, message.place);
      case 'serving':
        // A stop that came while it started it has not heard.
        if (isStopping) return void tell({ kind: 'stop' });
        serving.set(worker.id, message.ports);
        starting.get(worker.id)?.resolve();
        if (serving.size === count) ready.resolve(message.ports);
        return;
      case 'failed':
        tell({ kind: 'stop' });
        if (starting.has(worker.id)) return starting.get(worker.id)!.reject(new Error(message.reason));
        if (!isUp) return giveUp(new CommandError(1, message.reason));
        return log.error({ worker: worker.id, err: message.reason }, 'a worker could not start');
      case 'report':
        return asked.get(message.id)?.(message.report);
      default:
        // Messages of the runtime itself.
        return message satisfies never;
    }
  }

  function onExit(worker: Worker): void {
    coordinator.gone(worker.id);
    const hasServed = serving.delete(worker.id);
    if (isStopping || leaving.delete(worker.id)) return;
    if (starting.has(worker.id)) return starting.get(worker.id)!.reject(new Error('a worker ended before it served'));
    const now = Date.now();
    deaths = [...deaths.filter((at) => now - at < 60_000), now];
    if (!hasServed && !isUp) return giveUp(new CommandError(1, 'A worker ended before it served.'));
    if (deaths.length > maxDeathsPerMinute) return giveUp(new CommandError(1, tooManyDeaths));
    log.error({ worker: worker.id }, 'a worker has ended; another one takes its place');
    startOne();
  }

  function giveUp(error: Error): void {
    ready.reject(error);
    fail(error);
  }

  async function reports(): Promise<ProcessReport[]> {
    const answers = living().map((worker) => {
      const id = questions++;
      return new Promise<ProcessReport | undefined>((resolve) => {
        // One that hangs must not hide the others.
        const timer = setTimeout(resolve, 1000, undefined);
        asked.set(id, (answer) => {
          clearTimeout(timer);
          resolve(answer);
        });
        if (worker.isConnected()) worker.send({ kind: 'report', id } satisfies ToWorker);
      }).finally(() => asked.delete(id));
    });
    return (await Promise.all(answers)).filter((one) => one !== undefined);
  }

  async function end(worker: Worker): Promise<void> {
    if (worker.isDead()) return;
    const exit = new Promise((resolve) => worker.once('exit', resolve));
    if (worker.isConnected()) worker.send({ kind: 'stop' } satisfies ToWorker);
    // One that hangs never ends by itself.
    const timer = setTimeout(() => worker.process.kill('SIGKILL'), config.limits.stopGrace + spareMs);
    await exit;
    clearTimeout(timer);
  }

  /** The next one serves before the one before ends. */
  async function replaceOne(before: Worker): Promise<void> {
    const next = startOne();
    const started = Promise.withResolvers<void>();
    starting.set(next.id, started);
    try {
      await started.promise;
    } catch (error) {
      leaving.add(next.id);
      throw new ConfigError([{ path: 'configuration', message: (error as Error).message }]);
    } finally {
      starting.delete(next.id);
    }
    leaving.add(before.id);
    serving.delete(before.id);
    void end(before);
  }

  async function stop(): Promise<void> {
    isStopping = true;
    await Promise.all(living().map(end));
    for (const close of closers.splice(0).toReversed()) await close();
    await rm(folder, { recursive: true, force: true });
  }

  for (let at = 0; at < count; at++) startOne();
  try {
    const ports = await ready.promise;
    isUp = true;
    const address = config.admin.address === null ? undefined : parseAddress(config.admin.address);
    const isReady = () => !isStopping && serving.size > 0;
    const generations = await createGenerations({ config, log, metrics: own, now: Date.now, closers });
    closers.push(() => generations.close());
    const work = () => generations.now().work;
    const all = async () => [...(await reports()), await processReport(own, work())];
    const startedAtMs = Date.now();
    const live = async () => {
      const found = await all();
      const joined = await joinMetricsJson(found.map(({ metrics }) => metrics));
      const downloads = found.flatMap((one) => one.downloads);
      const mayAct = config.admin.act.length > 0;
      return liveOf(joined, downloads, { nowMs: Date.now(), startedAtMs, isOffline: config.offline, mayAct });
    };
    const setLevel = (level: string) => {
      log.level = level;
      for (const worker of living()) worker.send({ kind: 'level', level } satisfies ToWorker);
    };
    const admin =
      address &&
      (await startAdmin({
        ...address,
        hosts: config.admin.hosts.map(canonicalName),
        isReady,
        isOffline: () => config.offline,
        metrics: async () => joinMetrics((await all()).map(({ metrics }) => metrics)),
        api: createAdminApi(work, live),
        actions: openAdminActions({ log, now: Date.now, closers }, generations, undefined, setLevel),
        onTrouble: adminTrouble(log),
      }));
    if (admin) closers.push(admin.stop);
    const reload = async (next: Config) => {
      await generations.replace(next);
      config = next;
      for (const worker of living().filter(({ id }) => serving.has(id))) await replaceOne(worker);
    };
    return { ports, adminPort: admin?.port, failed, reload, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function living(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined);
}
