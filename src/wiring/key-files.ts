import { readFile } from 'node:fs/promises';

/** What is shorter can be found by trying (RFC 7518, 3.2). */
export const minKeyBytes = 32;

/** Secrets out of files, in their order. @throws Error for one that is too short */
export function readKeys(paths: readonly string[]): Promise<Buffer[]> {
  return Promise.all(
    paths.map(async (path) => {
      const key = await readFile(path);
      if (key.length >= minKeyBytes) return key;
      throw new Error(`${path} has fewer than ${minKeyBytes} bytes, and could be guessed`);
    }),
  );
}
