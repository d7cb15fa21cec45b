/** What a command may use of the process it runs in. `main` is the only place that knows the real one. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly isTerminal: boolean;
  /** How wide the terminal is. */
  readonly columns?: number | undefined;
  /** Standard input. */
  input(): AsyncIterable<Buffer>;
  /** Bytes to standard output, no faster than they are taken. */
  write(bytes: Buffer): Promise<void>;
  /** To standard output. */
  out(text: string): void;
  /** To standard error. */
  err(text: string): void;
  /** Calls back for each request to stop: SIGINT or SIGTERM. */
  onStop(callback: () => void): void;
  /** Calls back for each request to read the configuration again: SIGHUP, which ends who does not ask for this. */
  onReload(callback: () => void): void;
}

/** Ends a command with a message and a code: 1 when something did not hold, 2 for wrong use. */
export class CommandError extends Error {
  readonly exitCode: 1 | 2;

  constructor(exitCode: 1 | 2, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}
