import { styleText } from 'node:util';

/** What the demo prints with: colours and moving bars on a terminal, plain lines elsewhere. */
export interface Screen {
  readonly isTerminal: boolean;
  write(text: string): void;
}

export function bytesText(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ['KiB', 'MiB', 'GiB'];
  const step = Math.min(Math.floor(Math.log2(bytes) / 10), units.length);
  return `${(bytes / 2 ** (10 * step)).toFixed(1)} ${units[step - 1]}`;
}

export function bar(share: number, width: number): string {
  const filled = share <= 0 ? 0 : Math.max(1, Math.round(share * width));
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}

export interface Progress {
  update(done: number, total: number): void;
  /** Leaves a last line behind. */
  end(text: string): void;
}

/** One line that moves on a terminal; elsewhere only its end is printed. */
export function startProgress(screen: Screen, label: string): Progress {
  return {
    update(done, total) {
      if (!screen.isTerminal || total === 0) return;
      screen.write(`\r  ${label}  ${bar(done / total, 24)} ${bytesText(done)} of ${bytesText(total)}\u001b[K`);
    },
    end(text) {
      screen.write(`${screen.isTerminal ? '\r\u001b[K' : ''}  ${label}  ${text}\n`);
    },
  };
}

export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row, index) => {
    const line = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
    );
    const text = `  ${line.join('   ')}`.trimEnd();
    return index === 0 ? styleText('bold', text) : text;
  });
  return `${lines.join('\n')}\n`;
}

export function heading(text: string): string {
  return `\n${styleText('bold', text)}\n`;
}
