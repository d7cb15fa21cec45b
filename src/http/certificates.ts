import { readFile } from 'node:fs/promises';
import type { Tls, TlsFiles } from './tls.ts';
import { contextOf } from './tls.ts';

/** Where they are. */
export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
  readonly clientCa?: string | undefined;
}

export interface CertificateOptions {
  readonly paths: TlsPaths;
  readonly everyMs: number;
  onRenewed(): void;
  /** What keeps new files from being used; the same is said once. */
  onTrouble(error: Error): void;
}

/**
 * A listener's certificate, looked at again and again: authorities that renew by themselves replace files, often
 * through links, of which the kernel's notices say little.
 *
 * @throws Error what is wrong with the files at the start
 */
export async function openCertificate(options: CertificateOptions): Promise<Tls & { close(): void }> {
  const { paths, everyMs, onRenewed, onTrouble } = options;
  let files = await readTls(paths);
  try {
    contextOf(files);
  } catch (cause) {
    throw unfit(paths, cause);
  }
  let said = '';
  let take: ((files: TlsFiles) => void) | undefined;

  async function look(): Promise<void> {
    try {
      const next = await readTls(paths);
      if (next.cert === files.cert && next.key === files.key && next.clientCa === files.clientCa) return;
      // A certificate whose key is not there yet is the first half of a renewal: what was read last stays in use.
      contextOf(next);
      take?.(next);
      files = next;
      said = '';
      onRenewed();
    } catch (cause) {
      const error = unfit(paths, cause);
      if (error.message !== said) onTrouble(error);
      said = error.message;
    }
  }

  let looking = Promise.resolve();
  const timer = setInterval(() => void (looking = looking.then(look)), everyMs).unref();
  return {
    get files() {
      return files;
    },
    onRenewed: (taker) => (take = taker),
    close: () => clearInterval(timer),
  };
}

function unfit({ cert, key }: TlsPaths, cause: unknown): Error {
  return new Error(`The certificate ${cert} and the key ${key} cannot be used: ${(cause as Error).message}`, { cause });
}

async function readTls({ cert, key, clientCa }: TlsPaths): Promise<TlsFiles> {
  const [certificate, secret, authority] = await Promise.all([
    readFile(cert, 'utf8'),
    readFile(key, 'utf8'),
    clientCa === undefined ? undefined : readFile(clientCa, 'utf8'),
  ]);
  return { cert: certificate, key: secret, clientCa: authority };
}
