import { styleText } from 'node:util';
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;

/** Where lines go; a terminal gets them for people to read, everything else gets JSON. */
export interface LogTarget {
  readonly isTerminal: boolean;
  write(text: string): void;
}

/** @param level a level of pino, such as `info`; `silent` for none */
export function createLog(level: string, target: LogTarget): Log {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: describe },
  };
  const write = target.isTerminal
    ? (line: string) => target.write(humanLine(line))
    : (line: string) => target.write(line);
  return pino(options, { write });
}

/** An error and its causes as text: their other fields may hold requests, and with them secrets. */
function describe(error: unknown): string {
  const messages: string[] = [];
  for (let at = error; at instanceof Error && messages.length < 5; at = at.cause)
    messages.push((at.message || at.name).replace(/\.$/, ''));
  return messages.length > 0 ? messages.join(': ') : String(error);
}

const colours = { debug: 'gray', trace: 'gray', info: 'green', warn: 'yellow', error: 'red', fatal: 'red' } as const;

/** Text from outside must not steer a terminal, or look like a line of its own. */
export function plain(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  // JSON leaves those beyond ASCII as they are, and one of them begins what terminals obey.
  return text.replaceAll(/\p{Cc}/gu, (one) =>
    one < '\u007F' ? JSON.stringify(one).slice(1, -1) : `\\u00${one.codePointAt(0)!.toString(16)}`,
  );
}

/** The access log as people read it: what was answered to what, and only what is worth a look besides. */
function shortRequest(said: Record<string, unknown>): Record<string, unknown> {
  const { msg, status, method, url, ms, isWhole, ...rest } = said;
  delete rest['id'];
  const head = `${plain(status)} ${plain(method)} ${plain(url)} ${plain(ms)}ms`;
  return { msg: msg === 'request' ? head : `${head} ${plain(msg)}`, ...rest, ...(isWhole === false && { isWhole }) };
}

function humanLine(line: string): string {
  const { level, time, ...said } = JSON.parse(line) as Record<string, unknown>;
  const { msg, ...rest } = said['method'] === undefined ? said : shortRequest(said);
  const colour = colours[level as keyof typeof colours] ?? 'green';
  const clock = String(time).slice(11, 19);
  const fields = Object.entries(rest).map(([key, value]) => styleText('gray', `${key}=`) + plain(value));
  return `${styleText('gray', clock)} ${styleText(colour, String(level).padEnd(5))} ${[plain(msg), ...fields].join(' ')}\n`;
}
