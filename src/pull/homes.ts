import { contentKey } from '../cache/records.ts';
import type { Digest } from '../oci/digest.ts';
import type { Descriptor } from '../oci/manifest.ts';
import type { Source } from '../upstream/registries.ts';
import type { Overlay, PullParts } from './parts.ts';

/** Where content lives that one repository shows and another one supplies. */
export interface Homes {
  /** The repository that supplies a digest to `source`: itself, but for what an overlay brought. */
  of(source: Source, digest: Digest): Promise<Source>;
  /** False where it cannot be written down: then nobody may be told of it. */
  bring(source: Source, home: Source, digests: readonly Digest[]): Promise<boolean>;
  /** What an image consists of comes from where the image does. */
  bringParts(source: Source, home: Source, parts: readonly Pick<Descriptor, 'digest'>[]): Promise<void>;
  sourceOf(overlay: Overlay): Source;
}

export function createHomes({
  records,
  rules,
  registries,
}: Pick<PullParts, 'records' | 'rules' | 'registries'>): Homes {
  const sourceOf = ({ from }: Overlay) => registries.find(from, undefined, undefined);

  return {
    sourceOf,

    async of(source, digest) {
      const overlays = rules.overlaysOf(source.key);
      if (overlays.length === 0) return source;
      const origin = await records.origins.get(contentKey(source, digest));
      if (!origin) return source;
      // An overlay that the configuration does not have any more supplies nothing.
      return overlays.map(sourceOf).find(({ key }) => key === origin.from) ?? source;
    },

    async bring(source, home, digests) {
      const all = digests.map((digest) => records.origins.set(contentKey(source, digest), { from: home.key }));
      return (await Promise.all(all)).every(Boolean);
    },

    async bringParts(source, home, parts) {
      const entries = parts.map(({ digest }) => ({ key: contentKey(source, digest), value: { from: home.key } }));
      await records.origins.setMany(entries);
    },
  };
}
