type SystemError = NodeJS.ErrnoException & { address?: string; port?: number };

/** What to do about it, in one sentence. */
export function startFailure(error: Error, store: string): string {
  const { code, syscall, address, port, message } = error as SystemError;
  if (port !== undefined && port < 0) {
    return `The workers cannot listen at ${address} (${code}); set TMPDIR to a shorter path that can be written to.`;
  }
  // A worker says `bind`: the process that started it listens in its place.
  if (port !== undefined && (syscall === 'listen' || syscall === 'bind')) {
    const reason = code === 'EADDRINUSE' ? 'is taken' : `cannot be listened at (${code})`;
    return `${address}:${port} ${reason}; choose another address with --listen or --admin.`;
  }
  if (syscall !== undefined || code === 'ERR_SQLITE_ERROR') {
    return `The store ${store} cannot be used (${code === 'ERR_SQLITE_ERROR' ? message : (code ?? message)}); choose another folder with --store or cache.disk.path.`;
  }
  return `Cannot start: ${message}`;
}
