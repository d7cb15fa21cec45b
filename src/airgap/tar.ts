/** A bundle that is not what it should be, and at which of its entries. */
export class BundleError extends Error {
  /** @param entry as the bundle calls it, or where in it */
  constructor(entry: string, reason: string, options?: ErrorOptions) {
    super(`${entry}: ${reason}`, options);
    this.name = 'BundleError';
  }
}

/** What stands before an entry's bytes. */
export interface TarHeader {
  readonly path: string;
  readonly bytes: number;
  /** `extended`: records about the next entry (POSIX pax). */
  readonly kind: 'file' | 'folder' | 'extended';
}

export const blockBytes = 512;

/** Of a number in octal digits, in its twelve places; what is larger is written as GNU tar does. */
const maxOctal = 8 ** 11 - 1;

/** The longest name that a header has room for. */
const maxPathBytes = 100;

/**
 * What stands before a file's bytes, as POSIX 1003.1 has it, the same each time: nobody's, of no time, readable by all.
 * A name that a header has no room for (that of a blob by sha512) is in a record before it.
 *
 * @param path printable ASCII
 */
export function writeHeader(path: string, bytes: number): Buffer {
  const header = writeBlock(path.slice(0, maxPathBytes), bytes, '0');
  if (path.length <= maxPathBytes) return header;
  const record = paxRecord('path', path);
  const padding = Buffer.alloc(paddingOf(record.length));
  return Buffer.concat([writeBlock('pax', record.length, 'x'), record, padding, header]);
}

/** Its length in digits is part of what it is the length of. */
function paxRecord(key: string, value: string): Buffer {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length++;
  return Buffer.from(`${length}${rest}`, 'latin1');
}

function writeBlock(path: string, bytes: number, kind: '0' | 'x'): Buffer {
  const header = Buffer.alloc(blockBytes);
  header.write(path, 0, maxPathBytes, 'latin1');
  header.write('0000644\0', 100, 'latin1');
  header.write('0000000\0', 108, 'latin1');
  header.write('0000000\0', 116, 'latin1');
  if (bytes <= maxOctal) {
    header.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  } else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(bytes), 128);
  }
  header.write('00000000000\0', 136, 'latin1');
  header.write(kind, 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** What fills an entry's last block. */
export function paddingOf(bytes: number): number {
  return (blockBytes - (bytes % blockBytes)) % blockBytes;
}

/** Two blocks of nothing end an archive. */
export const endOfArchive = Buffer.alloc(2 * blockBytes);

/**
 * Reads a header. Of all that tar can be, a layout needs files and folders: links, devices and the rest have been ways
 * out of the folder that a reader meant to stay in (CVE-2026-23745 and its kin), and there is no folder here to leave.
 *
 * @returns undefined for a block of nothing
 * @throws BundleError
 */
export function readHeader(block: Buffer, where: string): TarHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  if (numberIn(block, 148, 8) !== checksumOf(block))
    throw new BundleError(where, 'is no entry of a tar: its checksum is wrong');
  const path = pathOf(block);
  const bytes = sizeIn(block);
  if (path === undefined) throw new BundleError(where, 'has a name that is no plain text');
  if (bytes === undefined) throw new BundleError(path, 'has no size that can be read');
  const kind = kindOf(String.fromCharCode(block[156] ?? 0));
  if (!kind) throw new BundleError(path, 'is a link, a device or something else that no layout has');
  if (kind === 'folder' && bytes > 0) throw new BundleError(path, 'is a folder with content');
  return { path, bytes, kind };
}

function kindOf(flag: string): TarHeader['kind'] | undefined {
  if (flag === '0' || flag === '\0') return 'file';
  if (flag === '5') return 'folder';
  return flag === 'x' || flag === 'g' ? 'extended' : undefined;
}

function pathOf(block: Buffer): string | undefined {
  const name = textIn(block, 0, 100);
  // Only POSIX headers have a prefix; older ones have anything there.
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? textIn(block, 345, 155) : '';
  if (name === undefined || prefix === undefined) return undefined;
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** Up to the first NUL; undefined for what is no printable ASCII: every name of a layout is. */
function textIn(block: Buffer, at: number, length: number): string | undefined {
  const [text = ''] = block.toString('latin1', at, at + length).split('\0', 1);
  return /^[\x20-\x7e]*$/.test(text) ? text : undefined;
}

function sizeIn(block: Buffer): number | undefined {
  if (((block[124] ?? 0) & 0x80) === 0) return numberIn(block, 124, 12);
  const isSmall = block.subarray(125, 128).every((byte) => byte === 0) && block[124] === 0x80;
  const bytes = block.readBigUInt64BE(128);
  return isSmall && bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : undefined;
}

function numberIn(block: Buffer, at: number, length: number): number | undefined {
  const text = block.toString('latin1', at, at + length);
  const [, digits] = /^ *([0-7]+)[ \0]*$/.exec(text) ?? [];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

/** The sum of all bytes, the eight of the sum itself counted as blanks. */
function checksumOf(block: Buffer): number {
  let total = 8 * 0x20;
  for (const [at, byte] of block.entries()) if (at < 148 || at >= 156) total += byte;
  return total;
}

/**
 * What a pax record says of the next entry: `path` and `size` alone matter to a layout.
 *
 * @throws BundleError
 */
export function readExtended(bytes: Buffer, where: string): { path?: string; bytes?: number } {
  const found: { path?: string; bytes?: number } = {};
  for (let at = 0; at < bytes.length;) {
    const [head = '', digits = ''] = /^(\d{1,7}) /.exec(bytes.toString('latin1', at, at + 8)) ?? [];
    const end = at + Number(digits);
    const record = bytes.toString('latin1', at + head.length, end - 1);
    const split = record.indexOf('=');
    const isWhole = digits !== '' && end <= bytes.length && bytes[end - 1] === 0x0a && split > 0;
    if (!isWhole) throw new BundleError(where, 'has extended records that cannot be read');
    const [key, value] = [record.slice(0, split), record.slice(split + 1)];
    if (key === 'path' && /^[\x20-\x7e]+$/.test(value)) found.path = value;
    else if (key === 'path') throw new BundleError(where, 'has a name that is no plain text');
    if (key === 'size' && /^\d{1,15}$/.test(value)) found.bytes = Number(value);
    else if (key === 'size') throw new BundleError(where, 'has no size that can be read');
    if (key.startsWith('GNU.sparse')) throw new BundleError(where, 'is a sparse file, which no layout has');
    at = end;
  }
  return found;
}
