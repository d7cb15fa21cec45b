import { BundleError, blockBytes, paddingOf, readExtended, readHeader, writeHeader } from './tar.ts';
import type { TarHeader } from './tar.ts';

/** Bytes one after another, from a file, from several, or from a pipe. */
export interface ByteSource {
  /** At least one and at most `maxBytes`; empty at the end. The buffer is the caller's until the next call. */
  read(maxBytes: number): Promise<Buffer>;
  /** Passes over so many, as fast as it can. @returns how many there were */
  skip(bytes: number): Promise<number>;
}

/** A file of an archive. Its bytes are read, or passed over, before the next one. */
export interface TarEntry {
  readonly path: string;
  readonly bytes: number;
  /** Everything about it is as `writeHeader` writes it. */
  readonly isPlain: boolean;
  /** @throws BundleError where the archive ends within it */
  content(): AsyncIterable<Buffer>;
  /** Nobody needs its bytes. */
  skip(): Promise<void>;
}

const pieceBytes = 1024 * 1024;
const maxExtendedBytes = 64 * 1024;
const maxExtended = 16;
/** A bundle of a thousand images has some ten thousand. */
const maxEntries = 1_000_000;

/**
 * The files of an archive, in its order. Nothing is done by the names in it.
 *
 * @param isStrict every byte must be as `export` writes it: known once the first entries are seen, so it is asked anew
 * @throws BundleError at the entry that is not right
 */
export async function* readTar(source: ByteSource, isStrict: () => boolean): AsyncGenerator<TarEntry> {
  let position = 0;
  for (let count = 1; ; count++) {
    const where = `entry ${count} at byte ${position}`;
    if (count > maxEntries) throw new BundleError(where, `is one more than ${maxEntries}`);
    const read = await readOne(source, where);
    if (!read) return await readEnd(source, isStrict());
    const { path, bytes, kind, raw } = read;
    const isPlain = kind === 'file' && raw.equals(writeHeader(path, bytes));
    if (!isPlain && isStrict()) throw new BundleError(path, 'has a header that no bundle of narrows has');
    if (kind === 'folder' && bytes > 0) throw new BundleError(path, 'is a folder with content');
    position += raw.length + bytes + paddingOf(bytes);
    if (kind === 'folder') continue;
    let isRead = false;
    const content = async function* () {
      isRead = true;
      yield* readContent(source, { path, bytes }, isStrict);
    };
    const skip = async () => {
      isRead = true;
      const length = bytes + paddingOf(bytes);
      if ((await source.skip(length)) < length) throw cutOff(path);
    };
    yield { path, bytes, isPlain, content, skip };
    if (!isRead) await skip();
  }
}

/** A header, with what extended records before it say of it; `raw` is all of that as it stands there. */
async function readOne(source: ByteSource, where: string): Promise<(TarHeader & { raw: Buffer }) | undefined> {
  const raw: Buffer[] = [];
  for (let said: { path?: string; bytes?: number } = {}; ;) {
    const block = await exactly(source, blockBytes, where);
    const header = block && readHeader(block, where);
    if (!block) throw new BundleError(where, 'the archive ends here, without the mark of its end');
    if (!header && raw.length > 0) throw new BundleError(where, 'has extended records, and is no entry');
    if (!header) return undefined;
    raw.push(block);
    if (header.kind !== 'extended') return { ...header, ...said, raw: Buffer.concat(raw) };
    if (header.bytes > maxExtendedBytes || raw.length > maxExtended) {
      throw new BundleError(header.path, 'has more extended records than any layout needs');
    }
    const records = await exactly(source, header.bytes + paddingOf(header.bytes), where);
    if (!records) throw cutOff(header.path);
    said = { ...said, ...readExtended(records.subarray(0, header.bytes), header.path) };
    raw.push(records);
  }
}

async function* readContent(
  source: ByteSource,
  { path, bytes }: Pick<TarHeader, 'path' | 'bytes'>,
  isStrict: () => boolean,
): AsyncGenerator<Buffer> {
  for (let left = bytes; left > 0;) {
    const piece = await source.read(Math.min(left, pieceBytes));
    if (piece.length === 0) throw cutOff(path);
    left -= piece.length;
    yield piece;
  }
  const padding = await exactly(source, paddingOf(bytes), path);
  if (!padding) throw cutOff(path);
  if (isStrict() && padding.some((byte) => byte !== 0))
    throw new BundleError(path, 'is followed by bytes that belong to nothing');
}

/** One block of nothing has been read. Others may write more of them, to fill a tape's record; nothing else may follow. */
async function readEnd(source: ByteSource, isStrict: boolean): Promise<void> {
  let length = 0;
  for (let piece; (piece = await source.read(pieceBytes)).length > 0;) {
    length += piece.length;
    if (piece.some((byte) => byte !== 0)) throw new BundleError('the end of the archive', 'is followed by more');
    if (isStrict && length > blockBytes)
      throw new BundleError('the end of the archive', 'is longer than it was written');
  }
  if (isStrict && length < blockBytes) throw new BundleError('the end of the archive', 'is cut off');
}

/** Undefined where there is less. */
async function exactly(source: ByteSource, bytes: number, where: string): Promise<Buffer | undefined> {
  const whole = Buffer.allocUnsafe(bytes);
  let filled = 0;
  while (filled < bytes) {
    const piece = await source.read(bytes - filled);
    if (piece.length === 0) {
      if (filled === 0) return undefined;
      throw new BundleError(where, 'the archive ends in the middle of it');
    }
    filled += piece.copy(whole, filled);
  }
  return whole;
}

function cutOff(path: string): BundleError {
  return new BundleError(path, 'the archive ends in the middle of it; a part of it may be missing');
}
