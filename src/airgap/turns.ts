/** So many at a time; the others wait for their turn, in order. */
export interface Turns {
  run<T>(action: () => Promise<T>): Promise<T>;
}

export function createTurns(atOnce: number): Turns {
  const waiting: (() => void)[] = [];
  let running = 0;
  return {
    async run(action) {
      if (running >= atOnce) await new Promise<void>((resolve) => waiting.push(resolve));
      else running++;
      try {
        return await action();
      } finally {
        // Whoever is next takes over this one's place.
        const next = waiting.shift();
        if (next) next();
        else running--;
      }
    },
  };
}
