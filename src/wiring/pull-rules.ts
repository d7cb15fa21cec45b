import { resolveSet } from '../config.ts';
import type { Config } from '../config.ts';
import { canonicalName } from '../oci/host.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { globOf, repositoryRules } from './repository-rules.ts';
import { addressRule } from '../pull/choose-platform.ts';
import type { PullRules } from '../pull/parts.ts';

const never = Number.MAX_SAFE_INTEGER;

/** What the configuration says about pulls, in the words of `pull`. */
export function pullRules(config: Config, sets: ReadonlyMap<string, PlatformSet>): PullRules {
  const { limits, platforms, tags } = config;
  const { settingsOf, pullersOf } = repositoryRules(config);
  const rules = tags.rules.map((rule) => ({
    matches: globOf(rule.pattern),
    freshMs: rule.fresh ?? never,
  }));
  return {
    platforms: {
      sets,
      hosts: new Map(
        Object.entries(platforms.hosts).map(([host, set]) => [canonicalName(host), resolveSet(set, sets)]),
      ),
      users: Object.entries(platforms.users).map(([name, set]) => ({ name, set: resolveSet(set, sets) })),
      addresses: Object.entries(platforms.addresses).map(([cidr, set]) => addressRule(cidr, resolveSet(set, sets))),
      trustUserAgent: platforms.trustUserAgent,
    },
    onMissing: platforms.onMissing,
    // Offline, what a tag last meant is what it means.
    freshMs: (key, tag) =>
      config.offline ? never : (rules.find(({ matches }) => matches.test(`${key}:${tag}`))?.freshMs ?? tags.fresh),
    missingMs: config.offline ? 0 : tags.missing,
    staleMs: tags.stale,
    spare: tags.spare / 100,
    primaryOf: (key) => parsePlatform(settingsOf(key)?.primary ?? platforms.primary)!,
    overlaysOf: (key) => settingsOf(key)?.overlays ?? [],
    pullersOf,
    maxManifestBytes: limits.manifestSize,
    maxFlights: limits.downloads,
    maxWindowBytes: limits.downloadWindows,
    keep: { platforms: keptPlatforms(config, sets), onOther: config.cache.onOther },
    flight: {
      maxResumes: limits.downloadResumes,
      resumeDelayMs: limits.downloadResumeDelay,
      maxUnreadBytes: limits.unreadDownload,
    },
  };
}

/** What may be kept. */
export function keptPlatforms({ cache }: Config, sets: ReadonlyMap<string, PlatformSet>): PlatformSet {
  return resolveSet(cache.platforms === 'all' ? 'any' : cache.platforms, sets);
}

export function namedSets(config: Config): Map<string, PlatformSet> {
  return new Map(Object.entries(config.platforms.sets).map(([name, set]) => [name, resolveSet(set, new Map())]));
}
