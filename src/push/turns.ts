/** One after the other, by key: those who would only get in each other's way. */
export interface Turns {
  <T>(key: string, action: () => Promise<T>): Promise<T>;
}

export function createTurns(): Turns {
  const last = new Map<string, Promise<unknown>>();
  return async (key, action) => {
    const before = last.get(key);
    const turn = (before ?? Promise.resolve()).then(action, action);
    const settled = turn
      .catch(() => undefined)
      .finally(() => {
        if (last.get(key) === settled) last.delete(key);
      });
    last.set(key, settled);
    return turn;
  };
}
