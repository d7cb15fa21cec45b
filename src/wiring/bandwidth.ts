import { isWithin, parseHours } from '../airgap/schedule.ts';
import type { Config } from '../config.ts';
import { fit, parsePlatform } from '../oci/platform.ts';
import type { Platform } from '../oci/platform.ts';
import type { Graph } from '../pull/keeping.ts';
import { createPace, createPaced, together } from '../upstream/paced.ts';
import type { Pace } from '../upstream/paced.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Context } from './context.ts';

/** Registries whose blobs come as fast as the configuration lets them. */
export function limitBandwidth(
  { config, now, closers }: Context,
  graph: Pick<Graph, 'served'>,
): (upstream: Upstream) => Upstream {
  const ending = new AbortController();
  closers.push(() => ending.abort());
  const rules = config.bandwidth.map((rule) => ruleOf(rule, ending.signal, now));
  return (upstream) => {
    const own = rules.filter(({ upstream: name }) => name === undefined || name === upstream.name);
    if (own.length === 0) return upstream;
    return createPaced(upstream, (digest) => {
      const { platforms } = graph.served(digest);
      return together(own.filter(({ platform }) => isFor(platform, platforms)).map(({ pace }) => pace));
    });
  };
}

interface Rule {
  readonly upstream: string | undefined;
  readonly platform: Platform | undefined;
  readonly pace: Pace;
}

function ruleOf(
  { rate, hours = [], upstream, platform }: Config['bandwidth'][number],
  signal: AbortSignal,
  now: () => number,
): Rule {
  const pace = createPace(rate, signal);
  const windows = hours.map(parseHours);
  return {
    upstream,
    platform: platform === undefined ? undefined : parsePlatform(platform),
    // Looked at for each piece: a download that is long sees the hours change.
    pace: { pass: async (bytes) => (isWithin(now(), windows) ? pace.pass(bytes) : undefined) },
  };
}

/** A platform's limit is for what serves no other. */
function isFor(platform: Platform | undefined, served: readonly string[]): boolean {
  if (!platform) return true;
  const offered = served.map(parsePlatform);
  return offered.length > 0 && offered.every((one) => one !== undefined && fit(platform, one) !== undefined);
}
