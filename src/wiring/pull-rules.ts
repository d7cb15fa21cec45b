import { resolveSet } from '../config.ts';
import type { Config } from '../config.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { addressRule } from '../pull/choose-platform.ts';
import type { PullRules } from '../pull/parts.ts';

/** What the configuration says about pulls, in the words of `pull`. */
export function pullRules(config: Config, sets: ReadonlyMap<string, PlatformSet>): PullRules {
  const { limits, platforms, tags } = config;
  const primaries = new Map(config.repositories.map(({ name, primary }) => [name, parsePlatform(primary)!]));
  const rules = tags.rules.map((rule) => ({
    matches: globOf(rule.pattern),
    freshMs: rule.fresh ?? Number.MAX_SAFE_INTEGER,
  }));
  return {
    platforms: {
      sets,
      hosts: new Map(Object.entries(platforms.hosts).map(([host, set]) => [host.toLowerCase(), resolveSet(set, sets)])),
      addresses: Object.entries(platforms.addresses).map(([cidr, set]) => addressRule(cidr, resolveSet(set, sets))),
      trustUserAgent: platforms.trustUserAgent,
    },
    onMissing: platforms.onMissing,
    freshMs: (key, tag) => rules.find(({ matches }) => matches.test(`${key}:${tag}`))?.freshMs ?? tags.fresh,
    missingMs: tags.missing,
    staleMs: tags.stale,
    primaryOf: (key) => primaries.get(key) ?? parsePlatform(platforms.primary)!,
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

/** `*` is any text; everything else is itself. */
function globOf(pattern: string): RegExp {
  const parts = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join('.*')}$`);
}

/** What may be kept. */
export function keptPlatforms({ cache }: Config, sets: ReadonlyMap<string, PlatformSet>): PlatformSet {
  return resolveSet(cache.platforms === 'all' ? 'any' : cache.platforms, sets);
}
