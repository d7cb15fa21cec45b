import { styleText } from 'node:util';
import type { WarmedImage } from '../airgap/warm.ts';
import type { Io } from './io.ts';
import { formatBytes, formatCount, formatDuration, printable } from './show.ts';
import { plain } from '../log.ts';

/** What long work on many images looks like while it goes on. */
export interface Board {
  planned(image: string, bytes: number, missingBytes: number): void;
  received(image: string, bytes: number): void;
  finished(report: WarmedImage): void;
  /** Something that people should know now. */
  say(text: string): void;
  end(): void;
}

interface Line {
  done: number;
  total: number;
}

const everyMs = 100;
const barWidth = 24;
const minNameWidth = 12;
const defaultColumns = 80;

/** Bars that redraw themselves on a terminal, a line for each event elsewhere. Both to standard error. */
export function createBoard(io: Io, imageCount: number): Board {
  const running = new Map<string, Line>();
  const started = performance.now();
  let finished = 0;
  let doneBytes = 0;
  let totalBytes = 0;
  let drawnLines = 0;
  let drawnMs = -Infinity;

  function clear(): void {
    if (drawnLines > 0) io.err(`\u001B[${drawnLines}A\u001B[J`);
    drawnLines = 0;
  }

  function draw(isDue = performance.now() - drawnMs >= everyMs): void {
    if (!io.isTerminal || !isDue) return;
    drawnMs = performance.now();
    const columns = io.columns ?? defaultColumns;
    const lines = [...running].map(([image, line]) => barOf(image, line, columns));
    clear();
    io.err([...lines, totalOf().slice(0, columns - 1), ''].join('\n'));
    drawnLines = lines.length + 1;
  }

  function totalOf(): string {
    const seconds = Math.max(0.001, (performance.now() - started) / 1000);
    const perSecond = doneBytes / seconds;
    const left = perSecond > 0 ? `, ${formatDuration((totalBytes - doneBytes) / perSecond)} left` : '';
    return `${finished} of ${formatCount(imageCount, 'image')}, ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}, ${formatBytes(perSecond)}/s${left}`;
  }

  function say(text: string): void {
    clear();
    io.err(`${text}\n`);
    draw(true);
  }

  return {
    planned(image, bytes, missingBytes) {
      running.set(image, { done: 0, total: missingBytes });
      totalBytes += missingBytes;
      if (!io.isTerminal) say(`${plain(image)}: ${formatBytes(bytes)}, ${formatBytes(missingBytes)} of it to fetch`);
      draw();
    },
    received(image, bytes) {
      doneBytes += bytes;
      const line = running.get(image);
      if (line) line.done += bytes;
      draw();
    },
    finished(report) {
      running.delete(report.image);
      finished++;
      say(sentenceOf(report));
    },
    say: (text) => say(printable(text)),
    end: clear,
  };
}

/** As wide as the terminal at most: what wraps cannot be drawn over. */
function barOf(image: string, { done, total }: Line, columns: number): string {
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const numbers = `${formatBytes(done)} of ${formatBytes(total)}`;
  const width = columns - numbers.length - barWidth - 3 >= minNameWidth ? barWidth : 0;
  const room = columns - numbers.length - width - 3;
  if (room < minNameWidth) return image.slice(0, columns - 1);
  const filled = Math.round(share * width);
  const bar = styleText('green', '━'.repeat(filled)) + styleText('gray', '─'.repeat(width - filled));
  const name = image.length > room ? `…${image.slice(1 - room)}` : image.padEnd(room);
  return `${name} ${width > 0 ? `${bar} ` : ''}${numbers}`;
}

function sentenceOf({ image, status, bytes, fetchedBytes, problems }: WarmedImage): string {
  const fetched = fetchedBytes > 0 ? `${formatBytes(fetchedBytes)} fetched` : 'nothing to fetch';
  if (status === 'complete') return `${styleText('green', '✔')} ${plain(image)}: ${formatBytes(bytes)}, ${fetched}`;
  return `${styleText('red', '✘')} ${plain(image)}: ${plain(problems[0] ?? status)}`;
}
