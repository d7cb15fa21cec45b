/** Runs one action for each key at a time; whoever asks meanwhile waits for the same outcome, error included. */
export interface Once<T> {
  run(key: string, action: () => Promise<T>): Promise<{ value: T; joined: boolean }>;
}

export function createOnce<T>(): Once<T> {
  const running = new Map<string, Promise<T>>();
  return {
    async run(key, action) {
      const current = running.get(key);
      if (current) return { value: await current, joined: true };
      const started = action().finally(() => running.delete(key));
      running.set(key, started);
      return { value: await started, joined: false };
    },
  };
}
