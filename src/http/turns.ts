/** Who wants to send, in the order in which they came. */
export interface Turns {
  /** Resolves, or returns, when so many bytes may go out. */
  take(bytes: number): Promise<void> | undefined;
}

interface Waiting {
  readonly bytes: number;
  go(): void;
}

/**
 * Shares out the turns of the event loop. A loop takes one new connection each time it comes round: where it first had
 * to send megabytes to a thousand clients each time, the last of a thousand new ones would wait for many seconds.
 */
export function createTurns(maxBytes: number): Turns {
  const waiting: Waiting[] = [];
  let takenBytes = 0;
  let isUnderWay = false;

  /** Others have been heard since the last one. */
  function next(): void {
    isUnderWay = false;
    takenBytes = 0;
    while (waiting.length > 0 && takenBytes < maxBytes) {
      const { bytes, go } = waiting.shift()!;
      takenBytes += bytes;
      go();
    }
    if (takenBytes > 0) begin();
  }

  function begin(): void {
    if (isUnderWay) return;
    isUnderWay = true;
    setImmediate(next);
  }

  return {
    take(bytes) {
      begin();
      if (waiting.length > 0 || takenBytes >= maxBytes) {
        return new Promise((resolve) => waiting.push({ bytes, go: resolve }));
      }
      takenBytes += bytes;
      return undefined;
    },
  };
}
