import type { FileHandle } from 'node:fs/promises';

/** A file that is whole, as one look at it found it. */
export interface WholeFile {
  /** Differs as soon as the file is another one, or was written to. */
  readonly identity: string;
  readonly size: number;
}

export async function wholeOf(file: FileHandle): Promise<WholeFile> {
  const { ino, size, mtimeNs } = await file.stat({ bigint: true });
  return { size: Number(size), identity: `${ino} ${size} ${mtimeNs}` };
}
