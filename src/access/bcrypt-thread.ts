import { parentPort } from 'node:worker_threads';
import { compareSync } from 'bcryptjs';

/** A comparison takes a twentieth of a second and more: this thread does nothing else. */
export interface Comparison {
  readonly id: number;
  readonly password: string;
  readonly hash: string;
}

export interface Compared {
  readonly id: number;
  readonly fits: boolean;
}

parentPort?.on('message', ({ id, password, hash }: Comparison) => {
  let fits = false;
  try {
    fits = compareSync(password, hash);
  } catch {
    // What is no hash fits nothing.
  }
  parentPort?.postMessage({ id, fits } satisfies Compared);
});
