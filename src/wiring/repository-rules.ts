import type { Config } from '../config.ts';
import { parsePlatform } from '../oci/platform.ts';
import { parseRepositoryName, parseTag } from '../oci/reference.ts';
import type { Overlay } from '../pull/parts.ts';
import type { HostedRules } from '../push/parts.ts';

/** What a configuration says about single repositories, by their keys. */
export interface RepositoryRules {
  settingsOf(key: string): RepositorySettings | undefined;
  hostedOf(key: string): HostedRules | undefined;
  pullersOf(key: string): readonly string[];
}

export interface RepositorySettings {
  readonly primary: string | undefined;
  readonly overlays: readonly Overlay[];
}

/** The first entry that fits a name is the one that counts. */
export function repositoryRules({ repositories, access, hosting }: Config): RepositoryRules {
  const entries = repositories.map((entry) => ({
    matches: globOf(entry.name),
    pull: entry.pull,
    settings: {
      primary: entry.primary,
      overlays: (entry.overlays ?? []).map(({ platform, from, tag, override = false }) => ({
        platform: parsePlatform(platform)!,
        from: parseRepositoryName(from),
        tag: tag === undefined ? undefined : parseTag(tag),
        override,
      })),
    },
    hosted: entry.hosted && {
      isComposed: entry.compose ?? false,
      push: entry.push ?? [],
      owners: entry.owners && Object.entries(entry.owners).map(([pattern, owners]) => ({ pattern, owners })),
      maxSteps: hosting.history,
    },
  }));
  const found = (key: string) => entries.find(({ matches }) => matches.test(key));
  return {
    settingsOf: (key) => found(key)?.settings,
    hostedOf: (key) => found(key)?.hosted || undefined,
    pullersOf(key) {
      // Where the upstream says who may read, nothing is said here.
      if (access.mode === 'none' || access.mode === 'upstream') return ['anonymous'];
      const { pull = access.pull, hosted } = found(key) ?? {};
      // Who pushes asks what is there already.
      return hosted ? [...pull, ...hosted.push, ...(hosted.owners ?? []).flatMap(({ owners }) => owners)] : pull;
    },
  };
}

export function isHosting({ repositories }: Config): boolean {
  return repositories.some(({ hosted }) => hosted);
}

/** `*` is any text; everything else is itself. */
export function globOf(pattern: string): RegExp {
  const parts = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join('.*')}$`);
}
