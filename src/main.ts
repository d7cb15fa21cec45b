import { run } from './cli/program.ts';

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
