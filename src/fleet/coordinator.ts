/** Who of the workers of one machine leads which download; kept by the process that started them. */
export interface Coordinator {
  /** @returns where the leader is found; undefined when the asker leads from now on */
  join(worker: number, place: string, key: string): string | undefined;
  leave(worker: number, key: string): void;
  /** The leader at `place` is there and brings nothing: whoever asks next leads. */
  dispute(key: string, place: string): void;
  /** A worker has ended, and with it all that it led. */
  gone(worker: number): void;
}

export function createCoordinator(): Coordinator {
  const leaders = new Map<string, { readonly worker: number; readonly place: string }>();
  return {
    join(worker, place, key) {
      const leader = leaders.get(key);
      if (leader && leader.worker !== worker) return leader.place;
      leaders.set(key, { worker, place });
      return undefined;
    },
    leave(worker, key) {
      if (leaders.get(key)?.worker === worker) leaders.delete(key);
    },
    // Of those who follow it, the first has taken its place before the others say the same of it.
    dispute(key, place) {
      if (leaders.get(key)?.place === place) leaders.delete(key);
    },
    gone(worker) {
      for (const [key, leader] of leaders) if (leader.worker === worker) leaders.delete(key);
    },
  };
}
