import type { FlightAnswer } from './flight-options.ts';

/** As connections receive them that are not among the fastest: of these any number of readers may hold two. */
const minPieceBytes = 128 * 1024;

/**
 * The answer in pieces that readers can hold on to. Each may have two in its hands for as long as it is slow, and keeps
 * the whole memory of both: large pieces are for few readers. What is cut is copied once, however many read it.
 *
 * @param shareBytes what of the window each reader would have for itself now
 */
export function fitted(answer: FlightAnswer | undefined, shareBytes: () => number): FlightAnswer | undefined {
  async function* body({ body: pieces, recycle }: FlightAnswer) {
    for await (const piece of pieces) {
      const maxBytes = Math.max(minPieceBytes, shareBytes() / 4);
      if (piece.length <= maxBytes) {
        yield piece;
        continue;
      }
      const parts = cut(piece, minPieceBytes);
      recycle?.(piece);
      yield* parts;
    }
  }
  return answer && { ...answer, body: body(answer) };
}

function cut(piece: Buffer, partBytes: number): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at < piece.length; at += partBytes) {
    const part = Buffer.allocUnsafeSlow(Math.min(partBytes, piece.length - at));
    piece.copy(part, 0, at);
    parts.push(part);
  }
  return parts;
}
