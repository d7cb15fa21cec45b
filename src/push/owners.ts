import { isAmong } from '../access/identity.ts';
import type { Identity } from '../access/identity.ts';
import { NarrowsError } from '../errors.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { Platform } from '../oci/platform.ts';
import { buildOf } from './entries.ts';
import type { Entry } from './entries.ts';

/** Who may push a platform. */
export interface OwnerRule {
  /** As `linux/arm64`; `*` for everything. */
  readonly pattern: string;
  readonly owners: readonly string[];
}

/**
 * Who may change a platform: those that are named for it, and those that are named for everything. A pattern without
 * a variant is for all of them, so that `linux/amd64/v3` belongs to nobody but the owners of `linux/amd64`.
 */
export function ownersOf(rules: readonly OwnerRule[], platform: Platform | undefined): string[] {
  const holding = rules.filter(({ pattern }) => pattern === '*' || (platform && covers(pattern, platform)));
  return [...new Set(holding.flatMap(({ owners }) => owners))];
}

function covers(pattern: string, platform: Platform): boolean {
  const named = parsePlatform(pattern);
  if (!named || named.os !== platform.os || named.architecture !== platform.architecture) return false;
  if (named.osVersion && buildOf(named) !== buildOf(platform)) return false;
  const [, spelled, third] = pattern.split('/');
  // Some names of an architecture imply one, such as armhf.
  const isAlias = spelled !== named.architecture && named.variant !== undefined;
  const saysVariant = third !== undefined || isAlias;
  return !saysVariant || named.variant === platform.variant;
}

/** @throws NarrowsError denied, naming the first platform that is someone else's, and whose it is */
export function checkOwners(rules: readonly OwnerRule[] | undefined, by: Identity, changed: readonly Entry[]): void {
  if (!rules) return;
  for (const { name, platform } of changed) {
    const owners = ownersOf(rules, platform);
    if (isAmong(by, owners)) continue;
    const what = platform ? name : 'what is of no platform';
    const whose =
      owners.length > 0 ? `belongs to ${owners.join(', ')}` : 'belongs to nobody that the configuration names';
    throw new NarrowsError('denied', `You may not change ${what} here: it ${whose}.`, {
      detail: { platform: name, owners },
    });
  }
}
