import cluster from 'node:cluster';
import type { Worker } from 'node:cluster';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { CoordinatorLink } from '../fleet/worker-fleet.ts';
import type { ProcessReport } from '../wiring/live.ts';
import type { Io } from './io.ts';

/** What workers say to the process that started them. */
export type FromWorker =
  | { readonly kind: 'join'; readonly id: number; readonly key: string; readonly place: string }
  | { readonly kind: 'leave'; readonly key: string }
  | { readonly kind: 'dispute'; readonly key: string; readonly place: string }
  | { readonly kind: 'serving'; readonly ports: readonly number[] }
  /** It cannot start, and waits for its stop: whoever started it tells why, once for all. */
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'report'; readonly id: number; readonly report: ProcessReport };

export type ToWorker =
  /** `place` is the socket of who leads; absent for whoever asked. */
  | { readonly kind: 'seat'; readonly id: number; readonly place: string | undefined }
  | { readonly kind: 'report'; readonly id: number }
  /** How much it logs from now on. */
  | { readonly kind: 'level'; readonly level: string }
  | { readonly kind: 'stop' };

/** A worker's side of it. */
export interface WorkerLink {
  /** Where the other workers find this one. */
  readonly place: string;
  readonly coordinator: CoordinatorLink;
  serving(ports: readonly number[]): void;
  failed(reason: string): void;
  onStop(callback: () => void): void;
  onLevel(callback: (level: string) => void): void;
  onReport(answer: () => Promise<ProcessReport>): void;
}

/** Tells a worker the folder of the workers' sockets. */
export const workerVariable = 'WORKER_OF_NARROWS';

/** @returns undefined in a process that is no worker */
export function connectWorker(env: Io['env']): WorkerLink | undefined {
  const { worker } = cluster;
  const folder = env[workerVariable];
  return worker && folder !== undefined ? linkOf(worker, join(folder, randomUUID().slice(0, 8))) : undefined;
}

/** What a pull waits for a word of the coordinating process at most; then it goes on alone. */
const maxSeatWaitMs = 1000;

function linkOf(worker: Worker, place: string): WorkerLink {
  const seats = new Map<number, (place: string | undefined) => void>();
  let questions = 0;
  let stop: (() => void) | undefined;
  let setLevel: ((level: string) => void) | undefined;
  let report: (() => Promise<ProcessReport>) | undefined;
  const tell = (message: FromWorker) => void (worker.isConnected() && worker.send(message));

  worker.on('message', (message: ToWorker) => {
    if (message.kind === 'seat') seats.get(message.id)?.(message.place);
    else if (message.kind === 'stop') stop?.();
    else if (message.kind === 'level') setLevel?.(message.level);
    else if (message.kind === 'report') {
      const { id } = message;
      void report?.().then((found) => tell({ kind: 'report', id, report: found }));
    }
  });
  // Without those who coordinate there is no one machine any more.
  worker.on('disconnect', () => stop?.());

  return {
    place,
    coordinator: {
      join: (key) =>
        new Promise((resolve, reject) => {
          const id = questions++;
          const giveUp = () => {
            // A seat that is offered later nobody takes any more.
            seats.set(id, (found) => {
              seats.delete(id);
              if (found === undefined) tell({ kind: 'leave', key });
            });
            reject(new Error('the process that coordinates the workers does not answer'));
          };
          const timer = setTimeout(giveUp, maxSeatWaitMs);
          seats.set(id, (found) => {
            clearTimeout(timer);
            seats.delete(id);
            resolve(found);
          });
          tell({ kind: 'join', id, key, place });
        }),
      leave: (key) => tell({ kind: 'leave', key }),
      dispute: (key, there) => tell({ kind: 'dispute', key, place: there }),
    },
    serving: (ports) => tell({ kind: 'serving', ports }),
    failed: (reason) => tell({ kind: 'failed', reason }),
    onStop: (callback) => void (stop = callback),
    onLevel: (callback) => void (setLevel = callback),
    onReport: (answer) => void (report = answer),
  };
}
