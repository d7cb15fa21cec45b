import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';

/** What was not fetched because nobody asked for it, as far as it can be told without fetching it. */
export interface Savings {
  /** An index was narrowed: these are the images of its platforms. */
  narrowed(repositoryKey: string, index: Digest, children: readonly Digest[]): void;
  /** An image was fetched, of so many bytes with all that it lists. */
  fetched(repositoryKey: string, image: Digest, bytes: number): void;
}

interface Counted {
  readonly children: readonly Digest[];
  readonly fetched: Map<Digest, number>;
  sparedBytes: number;
}

const maxIndexes = 10_000;

/**
 * A mirror that knows no platforms fetches all of an image for the first who asks. Of the platforms that nobody asks
 * for here, the sizes are in documents that were not fetched: each counts like the mean of those that were.
 *
 * @param onSpared told how much more, or less, that is now
 */
export function createSavings(onSpared: (bytes: number) => void): Savings {
  const indexes = new LRUCache<string, Counted>({ max: maxIndexes });
  // Each is one of that size: by `max` room for all of them would be made at each start.
  const indexOf = new LRUCache<string, string>({ maxSize: 4 * maxIndexes, sizeCalculation: () => 1 });

  return {
    narrowed(repositoryKey, index, children) {
      const key = `${repositoryKey} ${index}`;
      if (indexes.get(key)) return;
      indexes.set(key, { children, fetched: new Map(), sparedBytes: 0 });
      for (const child of children) indexOf.set(`${repositoryKey} ${child}`, key);
    },

    fetched(repositoryKey, image, bytes) {
      const counted = indexes.get(indexOf.get(`${repositoryKey} ${image}`) ?? '');
      if (!counted || counted.fetched.has(image)) return;
      const { children, fetched } = counted;
      fetched.set(image, bytes);
      const mean = [...fetched.values()].reduce((sum, one) => sum + one, 0) / fetched.size;
      const sparedBytes = Math.round((children.length - fetched.size) * mean);
      onSpared(sparedBytes - counted.sparedBytes);
      counted.sparedBytes = sparedBytes;
    },
  };
}
