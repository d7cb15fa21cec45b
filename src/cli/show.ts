import { styleText } from 'node:util';
import { plain } from '../log.ts';
import type { Io } from './io.ts';

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `3.2 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // From here on it would be shown as 1024.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/** `1 blob`, `2 blobs`. */
export function formatCount(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

/** `45s`, `3m 20s`, `2h 5m`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
}

/** `12`, `3.2 MiB`, or `-` for none. */
function isNumber(text: string): boolean {
  return /^[\d.]+(?: [KMGT]?i?B)?$|^-$/.test(text);
}

/** Columns as wide as their widest cell; numbers stand right. */
export function formatTable(head: readonly string[], cells: readonly (readonly string[])[]): string {
  const rows = cells.map((row) => row.map(plain));
  const widths = head.map((name, at) => Math.max(name.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (row: readonly string[], isHead: boolean) =>
    row
      .map((cell, at) => {
        const right = isHead ? rows.length > 0 && rows.every((one) => isNumber(one[at] ?? '')) : isNumber(cell);
        return right ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!);
      })
      .join('  ')
      .trimEnd();
  return [line(head, true), ...rows.map((one) => line(one, false))].map((text) => `${text}\n`).join('');
}

/** Sentences that name what others wrote, for a terminal that would obey it. */
export function printable(text: string): string {
  return text.split('\n').map(plain).join('\n');
}

export interface Progress {
  add(bytes: number): void;
  end(): void;
}

const width = 30;
const everyMs = 100;

/** A bar that redraws itself on a terminal; elsewhere nothing, for a log is no place for it. */
export function showProgress(io: Io, label: string, totalBytes: number): Progress {
  const started = performance.now();
  let done = 0;
  let drawnMs = -Infinity;

  function draw(): void {
    const share = totalBytes > 0 ? Math.min(1, done / totalBytes) : 1;
    const filled = Math.round(share * width);
    const perSecond = done / Math.max(0.001, (performance.now() - started) / 1000);
    // More may have come meanwhile than there was to begin with.
    const left = perSecond > 0 ? Math.ceil(Math.max(0, totalBytes - done) / perSecond) : 0;
    const bar = styleText('green', '━'.repeat(filled)) + styleText('gray', '━'.repeat(width - filled));
    const text = `${formatBytes(done)} of ${formatBytes(totalBytes)}, ${formatBytes(perSecond)}/s, ${left}s left`;
    io.err(`\r\u001B[K${label} ${bar} ${text}`);
  }

  return {
    add(bytes) {
      done += bytes;
      if (!io.isTerminal || performance.now() - drawnMs < everyMs) return;
      drawnMs = performance.now();
      draw();
    },
    end() {
      if (io.isTerminal && drawnMs > -Infinity) io.err('\r\u001B[K');
    },
  };
}
