/** Who wants to send, in the order in which they came. */
export interface Turns {
  /** Resolves, or returns, when so many bytes may go out. @param isFirst they are the first ones of their answer */
  take(bytes: number, isFirst?: boolean): Promise<void> | undefined;
}

interface Waiting {
  readonly bytes: number;
  go(): void;
}

/** With this the last of a thousand has its first byte in half the time that full turns take. */
const crowdDivisor = 8;

/**
 * Shares out the turns of the event loop. A loop takes one new connection each time it comes round: where it first had
 * to send megabytes to a thousand clients each time, the last of a thousand new ones would wait for many seconds. Where
 * one has just come, others are likely to be waiting: the share is small until nobody has come within a turn.
 */
export function createTurns(maxBytes: number): Turns {
  const waiting: Waiting[] = [];
  let takenBytes = 0;
  let shareBytes = maxBytes;
  let hasNewcomer = false;
  let isUnderWay = false;

  /** Others have been heard since the last one. */
  function next(): void {
    isUnderWay = false;
    takenBytes = 0;
    shareBytes = hasNewcomer ? maxBytes / crowdDivisor : maxBytes;
    hasNewcomer = false;
    while (waiting.length > 0 && takenBytes < shareBytes) {
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
    take(bytes, isFirst = false) {
      begin();
      hasNewcomer ||= isFirst;
      if (waiting.length > 0 || takenBytes >= shareBytes) {
        return new Promise((resolve) => waiting.push({ bytes, go: resolve }));
      }
      takenBytes += bytes;
      return undefined;
    },
  };
}
