#!/usr/bin/env node
import { run } from './cli/program.ts';

// The one place that touches the process: everything else is given what it needs.
process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  isTerminal: process.stdout.isTTY,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  onStop(callback) {
    process.on('SIGINT', callback);
    process.on('SIGTERM', callback);
  },
});
// A second request to stop leaves work behind that would keep the process alive.
process.exit();
