import type { FileHandle } from 'node:fs/promises';
import type { PartialReader } from './tier.ts';

export interface FileReaders {
  open(file: FileHandle): PartialReader;
}

const minBufferBytes = 16 * 1024;
const maxBufferBytes = 1024 * 1024;

/** Readers whose buffers come out of one budget: a few read in large strides, a thousand in small ones. */
export function createFileReaders(budgetBytes: number): FileReaders {
  let reading = 0;

  function strideBytes(): number {
    // Two for each reader; whole pages of the file system.
    const share = Math.floor(budgetBytes / (2 * reading) / minBufferBytes) * minBufferBytes;
    return Math.max(minBufferBytes, Math.min(maxBufferBytes, share));
  }

  return {
    open(file) {
      const buffers: (Buffer | undefined)[] = [];
      let turn = 0;
      let isReading = false;
      let isClosed = false;
      return {
        /** Two buffers by turns: while one is being sent, the other fills. */
        async read(position, maxBytes) {
          if (isClosed) throw new Error('the reader is closed');
          if (!isReading) reading++;
          isReading = true;
          turn = 1 - turn;
          const length = Math.min(maxBytes, strideBytes());
          const held = buffers[turn];
          // Grown when needed, and shrunk when many have come since.
          const fits = held !== undefined && held.length >= length && held.length <= 2 * strideBytes();
          const buffer = fits ? held : Buffer.allocUnsafeSlow(length);
          buffers[turn] = buffer;
          const { bytesRead } = await file.read(buffer, 0, length, position);
          if (bytesRead === 0) throw new Error(`the file ends at ${position}, before its blob does`);
          return buffer.subarray(0, bytesRead);
        },
        close() {
          if (isReading) reading--;
          isReading = false;
          isClosed = true;
          buffers.length = 0;
        },
      };
    },
  };
}
