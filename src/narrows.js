#!/usr/bin/env node
import { enableCompileCache, flushCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

// The engine forgets what has not run for a few collections, and each large download brings some of those: the first
// who asks after a pause would wait 15 ms for the program to be compiled again.
setFlagsFromString('--no-flush-bytecode');
// Where a crowd waits for its first bytes, all that is made for each lives long, and the engine concludes that what
// those places make always does: from then on the leavings of each piece sent are old from the start, and stay, 75 MiB.
setFlagsFromString('--no-allocation-site-pretenuring');

// Half of a start is reading the program's own text. The folder is the user's own: what lies there is run. This file is
// no TypeScript so that it comes before the first that is: else the compiler of types stays in memory, 20 MiB of it.
try {
  const { NODE_COMPILE_CACHE: given = '', XDG_CACHE_HOME: caches = '' } = process.env;
  const folder = isAbsolute(given) ? given : join(isAbsolute(caches) ? caches : join(homedir(), '.cache'), 'narrows');
  // An empty HOME would lead to where it was started, which others may be able to write to.
  if (isAbsolute(folder)) enableCompileCache(folder);
} catch {
  // A user without a home does without.
}
// A server that is killed one day has written it down long before.
setTimeout(flushCompileCache, 5000).unref();
await import('./main.ts');
