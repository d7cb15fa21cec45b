/** A stretch of a body: first and last byte, both in it. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Which part of a body of `size` bytes does a Range header ask for (RFC 9110, 14.2)? Undefined means all of it: there
 * is no header, it is not understood, or it asks for several parts, which a server may answer with the whole.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'unsatisfiable' | undefined {
  const match = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '') || size === 0) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '') {
    const length = Number(last);
    return length === 0 ? 'unsatisfiable' : { start: Math.max(0, size - length), end: size - 1 };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= size) return 'unsatisfiable';
  return { start, end: last === '' ? size - 1 : Math.min(Number(last), size - 1) };
}
