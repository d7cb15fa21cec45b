import type { FileHandle } from 'node:fs/promises';
import type { Digest } from '../oci/digest.ts';
import type { Partial, PartialReader } from './tier.ts';

export interface PartialFileOptions {
  /** What is in the file already. */
  readonly startBytes: number;
  reader(): PartialReader;
  /** There is no room left on the device. */
  onFull(): void;
  /** The bytes are on the disk: gives them their name. */
  publish(digest: Digest): Promise<void>;
  /** Nobody has committed it. */
  drop(isForLater: boolean): Promise<void>;
}

/** A blob that grows in a file. */
export function partialFile(
  file: FileHandle,
  { startBytes, reader, onFull, publish, drop }: PartialFileOptions,
): Partial {
  let end = startBytes;
  let committed = false;
  return {
    startBytes,
    async append(chunks) {
      const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      const { bytesWritten } = await file.writev(chunks as Buffer[], end).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOSPC' || error.code === 'EDQUOT') onFull();
        throw error;
      });
      if (bytesWritten !== length) {
        // What still fitted was written; only a next write would be told that there is no room.
        onFull();
        throw new Error(`wrote ${bytesWritten} of ${length} bytes`);
      }
      end += length;
    },
    reader,
    async commit(digest) {
      await file.sync();
      await publish(digest);
      committed = true;
    },
    async close({ isForLater } = { isForLater: false }) {
      await file.close();
      if (!committed) await drop(isForLater);
    },
  };
}
