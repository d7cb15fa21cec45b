import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { BundleError } from '../airgap/tar.ts';
import type { ByteSource, TarEntry } from '../airgap/tar-reader.ts';
import { filesBelow } from './files-below.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';

/** A bundle that is being read. */
export interface OpenBundle {
  readonly source: ByteSource;
  /** Of all its parts; undefined for what comes through a pipe. */
  readonly bytes: number | undefined;
  close(): Promise<void>;
}

const pieceBytes = 1024 * 1024;

/** `bundle.tar`, or its parts `bundle.tar.001`, `bundle.tar.002`, …, or `-` for standard input. @throws CommandError */
export async function openBundle(paths: readonly string[], io: Io): Promise<OpenBundle> {
  if (paths.length === 1 && paths[0] === '-') {
    return { source: sourceOfStream(io.input()), bytes: undefined, close: () => Promise.resolve() };
  }
  const files: FileHandle[] = [];
  const close = async () => {
    for (const file of files) await file.close();
  };
  try {
    for (const path of paths.length === 1 ? await partsOf(paths[0]!) : paths) files.push(await open(path));
    const sizes = await Promise.all(files.map(async (file) => (await file.stat()).size));
    const bytes = sizes.reduce((total, size) => total + size, 0);
    return { source: await rejectCompressed(sourceOfFiles(files), files[0]!), bytes, close };
  } catch (error) {
    await close();
    if (error instanceof CommandError) throw error;
    throw new CommandError(2, `${paths.join(', ')} cannot be read (${(error as NodeJS.ErrnoException).code}).`, {
      cause: error,
    });
  }
}

/** All parts of a bundle that lie beside one another. */
export async function partsOf(path: string): Promise<string[]> {
  const stem = path.replace(/\.001$/, '');
  if (stem === path && ((await isThere(path)) || !(await isThere(`${stem}.001`)))) return [path];
  const parts: string[] = [];
  for (let number = 1; await isThere(partName(stem, number)); number++) parts.push(partName(stem, number));
  return parts.length > 0 ? parts : [path];
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function partName(stem: string, number: number): string {
  return `${stem}.${String(number).padStart(3, '0')}`;
}

/** What a layout is packed in is somebody else's affair, and a way to send very much in very little. */
async function rejectCompressed(source: ByteSource, first: FileHandle): Promise<ByteSource> {
  const { buffer } = await first.read(Buffer.alloc(4), 0, 4, 0);
  const magic = buffer.toString('hex');
  const unpack = magic.startsWith('1f8b')
    ? 'gunzip -c'
    : magic === '28b52ffd'
      ? 'zstd -dc'
      : magic.startsWith('fd377a58')
        ? 'xz -dc'
        : undefined;
  if (unpack) throw new CommandError(2, `This is compressed: ${unpack} FILE | narrows import -`);
  return source;
}

function sourceOfFiles(files: readonly FileHandle[]): ByteSource {
  const buffer = Buffer.allocUnsafeSlow(pieceBytes);
  let current = 0;
  let position = 0;
  return {
    async read(maxBytes) {
      while (current < files.length) {
        const { bytesRead } = await files[current]!.read(buffer, 0, Math.min(maxBytes, pieceBytes), position);
        position += bytesRead;
        if (bytesRead > 0) return buffer.subarray(0, bytesRead);
        current++;
        position = 0;
      }
      return Buffer.alloc(0);
    },
    async skip(bytes) {
      let left = bytes;
      while (current < files.length && left > 0) {
        const { size } = await files[current]!.stat();
        const step = Math.min(left, Math.max(0, size - position));
        position += step;
        left -= step;
        if (left === 0) break;
        current++;
        position = 0;
      }
      return bytes - left;
    },
  };
}

function sourceOfStream(stream: AsyncIterable<Buffer>): ByteSource {
  const iterator = stream[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  async function read(maxBytes: number): Promise<Buffer> {
    while (rest.length === 0) {
      const next = await iterator.next();
      if (next.done) return Buffer.alloc(0);
      rest = next.value;
    }
    const piece = rest.subarray(0, maxBytes);
    rest = rest.subarray(piece.length);
    return piece;
  }
  return {
    read,
    async skip(bytes) {
      let left = bytes;
      for (let piece; left > 0 && (piece = await read(left)).length > 0;) left -= piece.length;
      return bytes - left;
    },
  };
}

/**
 * The files of an OCI image layout that lies in a folder, as an archive would have them.
 *
 * @throws BundleError for a link, a pipe or whatever else is no file
 */
export async function* folderEntries(folder: string): AsyncGenerator<TarEntry> {
  for (const { path: file, isFile } of await filesBelow(folder)) {
    const path = file.slice(join(folder, '/').length);
    if (!isFile) throw new BundleError(path, 'is a link or something else that is no file');
    const about = await lstat(file);
    yield {
      path,
      bytes: about.size,
      isPlain: false,
      content: () => fileContent(file, about.size),
      skip: () => Promise.resolve(),
    };
  }
}

async function* fileContent(path: string, bytes: number): AsyncGenerator<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const buffer = Buffer.allocUnsafeSlow(Math.max(1, Math.min(bytes, pieceBytes)));
    for (let position = 0; position < bytes;) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, bytes - position), position);
      if (bytesRead === 0) return;
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** Where a bundle is written: nothing has its name before all of it is there. */
export interface BundleWriter {
  write(bytes: Buffer): Promise<void>;
  /** Gives the files their names. @returns them */
  finish(): Promise<string[]>;
  abandon(): Promise<void>;
}

/** @param partBytes how large a part may be; undefined for one file */
export function createBundleWriter(path: string, partBytes: number | undefined): BundleWriter {
  const parts: { name: string; sum: string }[] = [];
  let file: FileHandle | undefined;
  let running = createHash('sha256');
  let length = 0;

  const nameOf = (number: number) => (partBytes === undefined ? path : partName(path, number));

  async function closePart(): Promise<void> {
    if (!file) return;
    await file.sync();
    await file.close();
    parts.push({ name: nameOf(parts.length + 1), sum: running.digest('hex') });
    file = undefined;
  }

  async function openPart(): Promise<FileHandle> {
    running = createHash('sha256');
    length = 0;
    return open(unfinished(nameOf(parts.length + 1)), 'w');
  }

  return {
    async write(bytes) {
      for (let rest = bytes; rest.length > 0;) {
        file ??= await openPart();
        const piece = rest.subarray(0, Math.min(rest.length, (partBytes ?? Infinity) - length));
        running.update(piece);
        await writeAll(file, piece);
        length += piece.length;
        rest = rest.subarray(piece.length);
        if (length === partBytes) await closePart();
      }
    },

    async finish() {
      await closePart();
      for (const { name } of parts) await rename(unfinished(name), name);
      const names = parts.map(({ name }) => name);
      await removeOlder(path, names);
      // For `sha256sum -c` on the way: a medium that has gone bad is better found before the gap.
      await writeFile(`${path}.sha256`, parts.map(({ name, sum }) => `${sum}  ${basename(name)}\n`).join(''));
      await syncFolder(dirname(path));
      return names;
    },

    async abandon() {
      await file?.close().catch(() => undefined);
      for (let number = 1; number <= parts.length + 1; number++) await rm(unfinished(nameOf(number)), { force: true });
    },
  };
}

/** A medium that is full writes what still fits, and says so the next time. */
async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten;
}

function unfinished(name: string): string {
  return `${name}.partial`;
}

/** Parts of an earlier bundle of the same name would be read as parts of this one. */
async function removeOlder(path: string, names: readonly string[]): Promise<void> {
  const own = new Set(names);
  if (!own.has(path)) await rm(path, { force: true });
  for (let number = own.has(path) ? 1 : names.length + 1; await isThere(partName(path, number)); number++) {
    await rm(partName(path, number));
  }
  // What an export left that was killed.
  const stem = basename(path);
  for (const name of await readdir(dirname(path))) {
    const isLeft = name.startsWith(stem) && /^(?:\.\d{3,4})?\.partial$/.test(name.slice(stem.length));
    if (isLeft) await rm(join(dirname(path), name), { force: true });
  }
}

/** A medium is pulled out as soon as the prompt is back. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
