#!/usr/bin/env node
import { enableCompileCache, flushCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

// Half of a start is reading the program's own text. The folder is the user's own: what lies there is run.
try {
  const { NODE_COMPILE_CACHE: given = '', XDG_CACHE_HOME: caches = '' } = process.env;
  const folder = isAbsolute(given) ? given : join(isAbsolute(caches) ? caches : join(homedir(), '.cache'), 'narrows');
  enableCompileCache(folder);
} catch {
  // A user without a home does without.
}
// A server that is killed one day has written it down long before.
setTimeout(flushCompileCache, 5000).unref();
const { run } = await import('./cli/program.ts');

// A promise that nobody waits for is a mistake to be mended, and none that the pulls of others should pay for.
process.on('unhandledRejection', (reason) => {
  process.stderr.write(`${reason instanceof Error ? (reason.stack ?? reason.message) : String(reason)}\n`);
});

// The one place that touches the process: everything else is given what it needs.
process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  isTerminal: process.stdout.isTTY,
  get columns() {
    return process.stdout.columns;
  },
  input: () => process.stdin as AsyncIterable<Buffer>,
  write: (bytes) =>
    new Promise((resolve, reject) => process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()))),
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  onStop(callback) {
    process.on('SIGINT', callback);
    process.on('SIGTERM', callback);
  },
  onReload: (callback) => void process.on('SIGHUP', callback),
});
// A second request to stop leaves work behind that would keep the process alive.
process.exit();
