/** Who waits for word of something, by its name. */
export interface News {
  /** There is something new about `name`. */
  told(name: string): void;
  /** Resolves with the next word of it, or after a while without any: words get lost. */
  next(name: string): Promise<void>;
}

export function createNews(patienceMs: number): News {
  const waiting = new Map<string, Set<() => void>>();
  return {
    told(name) {
      const listeners = waiting.get(name);
      waiting.delete(name);
      for (const listener of listeners ?? []) listener();
    },
    next(name) {
      return new Promise((resolve) => {
        const listeners = waiting.get(name) ?? new Set();
        waiting.set(name, listeners);
        const done = () => {
          clearTimeout(timer);
          listeners.delete(done);
          if (listeners.size === 0 && waiting.get(name) === listeners) waiting.delete(name);
          resolve();
        };
        const timer = setTimeout(done, patienceMs);
        listeners.add(done);
      });
    },
  };
}
