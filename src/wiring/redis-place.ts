import type { RedisPlace } from '../cache/redis.ts';
import { parseAddress } from '../config-values.ts';
import type { Config } from '../config.ts';

type Places = Pick<Config['cache']['redis'], 'url' | 'cluster' | 'sentinels' | 'master'>;

/** Where Redis is to be found, as the configuration says; undefined where it names none. */
export function placeOf({ url, cluster, sentinels, master }: Places): RedisPlace | undefined {
  if (url !== null) return { kind: 'single', url: new URL(url) };
  if (cluster.length > 0) return { kind: 'cluster', nodes: cluster.map((node) => parseAddress(node)!) };
  if (sentinels.length > 0) return { kind: 'sentinel', master, nodes: sentinels.map((node) => parseAddress(node)!) };
  return undefined;
}

/** As it is told of in the log and in sentences: without credentials. */
export function nameOf(place: RedisPlace): string {
  if (place.kind === 'single') return place.url.host;
  return place.nodes.map(({ host, port }) => `${host}:${port}`).join(', ');
}
