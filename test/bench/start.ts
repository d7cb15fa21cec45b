import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { openCatalog } from '../../src/cache/catalog.ts';
import { footprintOf } from '../fixtures/footprint.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import { startServe } from '../fixtures/process.ts';
import { within } from './stage.ts';

export interface StartFigures {
  readonly blobs: number;
  /** From the start of the process until it serves, the first time (which writes down what it compiled) and later. */
  readonly firstMs: number;
  readonly medianMs: number;
  readonly residentBytes: number;
}

const counts = [0, 100_000, 1_000_000];

/** How long a start takes with more and more in the store. */
export async function benchStart(rounds: number, onStep: (text: string) => void): Promise<StartFigures[]> {
  const figures: StartFigures[] = [];
  for (const blobs of counts) {
    onStep(`A store of ${blobs} blobs …`);
    await within(async (stage) => {
      const store = await temporaryFolder(stage);
      fill(store, blobs);
      figures.push(await measure(store, blobs, rounds));
    });
  }
  return figures;
}

/** Names and books: at a start nothing is read of the content. */
function fill(store: string, blobs: number): void {
  const folder = join(store, 'blobs', 'sha256');
  mkdirSync(folder, { recursive: true });
  const path = join(store, 'catalog.sqlite');
  openCatalog(path, Date.now).close();
  const database = new DatabaseSync(path);
  database.exec('BEGIN');
  const add = database.prepare('INSERT INTO content VALUES (?, 0, ?)');
  for (let at = 0; at < blobs; at++) {
    const hex = createHash('sha256').update(`blob ${at}`).digest('hex');
    closeSync(openSync(join(folder, hex), 'w'));
    add.run(`sha256:${hex}`, at);
  }
  database.exec('COMMIT');
  database.close();
}

async function measure(store: string, blobs: number, rounds: number): Promise<StartFigures> {
  const took: number[] = [];
  let residentBytes = 0;
  for (let round = 0; round <= rounds; round++) {
    await within(async (stage) => {
      const started = performance.now();
      const serve = await startServe(stage, { args: ['--store', store] });
      took.push(performance.now() - started);
      residentBytes = Math.max(residentBytes, (await footprintOf(serve.child.pid!)).rssBytes);
      serve.child.kill('SIGTERM');
      await serve.exit;
    });
  }
  const [firstMs = 0, ...others] = took;
  return { blobs, firstMs, medianMs: others.toSorted((a, b) => a - b)[Math.floor(others.length / 2)]!, residentBytes };
}
