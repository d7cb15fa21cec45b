import { BlockList, isIPv6 } from 'node:net';
import { isAmong } from '../access/identity.ts';
import type { Identity } from '../access/identity.ts';
import { NarrowsError } from '../errors.ts';
import { parsePlatform, parsePlatformSet } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';

/** What of a request can tell which platforms its caller runs. */
export interface Caller {
  /** The set in the path, as written: `linux-arm64`, `linux-amd64_linux-arm64`, a named set, `any`. */
  readonly pathSet?: string | undefined;
  /** The host name asked for, without its port, lower case. */
  readonly host?: string | undefined;
  /** What the listener that took the request is bound to. */
  readonly listenerSet?: PlatformSet | undefined;
  /** The `Narrows-Platform` header. */
  readonly header?: string | undefined;
  readonly address?: string | undefined;
  readonly userAgent?: string | undefined;
}

export interface PlatformRules {
  readonly sets: ReadonlyMap<string, PlatformSet>;
  readonly hosts: ReadonlyMap<string, PlatformSet>;
  /** Users and groups; the first that fits. */
  readonly users: readonly { readonly name: string; readonly set: PlatformSet }[];
  readonly addresses: readonly AddressRule[];
  readonly trustUserAgent: boolean;
}

export interface AddressRule {
  readonly network: BlockList;
  readonly prefix: number;
  readonly set: PlatformSet;
}

/** @param cidr a network as in `10.1.0.0/16`, already known to be one */
export function addressRule(cidr: string, set: PlatformSet): AddressRule {
  const [address = '', prefix = ''] = cidr.split('/');
  const network = new BlockList();
  network.addSubnet(address, Number(prefix), familyOf(address));
  return { network, prefix: Number(prefix), set };
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIPv6(address) ? 'ipv6' : 'ipv4';
}

export type Via = 'path' | 'host' | 'listener' | 'header' | 'user' | 'address' | 'user-agent';

export interface CallerPlatforms {
  readonly set: PlatformSet;
  readonly via: Via;
}

/**
 * Which platforms does this caller run? The first channel that speaks wins, the most deliberate first. Undefined when
 * none does: then nothing is narrowed.
 *
 * @throws NarrowsError platformInvalid, nameUnknown where a channel speaks and cannot be understood: a guess would
 *   hand out another machine's platform in silence
 */
export function choosePlatforms(caller: Caller, rules: PlatformRules, by: Identity): CallerPlatforms | undefined {
  if (caller.pathSet !== undefined) return { set: fromPath(caller.pathSet, rules), via: 'path' };
  const byHost = caller.host === undefined ? undefined : rules.hosts.get(caller.host);
  if (byHost) return { set: byHost, via: 'host' };
  if (caller.listenerSet) return { set: caller.listenerSet, via: 'listener' };
  if (caller.header !== undefined) return { set: fromHeader(caller.header, rules), via: 'header' };
  const byUser = rules.users.find(({ name }) => isAmong(by, [name]));
  if (byUser) return { set: byUser.set, via: 'user' };
  const byAddress = caller.address === undefined ? undefined : fromAddress(caller.address, rules.addresses);
  if (byAddress) return { set: byAddress, via: 'address' };
  const byAgent = rules.trustUserAgent ? fromUserAgent(caller.userAgent) : undefined;
  return byAgent && { set: byAgent, via: 'user-agent' };
}

function fromPath(text: string, rules: PlatformRules): PlatformSet {
  const set = parsePlatformSet(text, rules.sets, 'path');
  if (set) return set;
  throw new NarrowsError(
    'nameUnknown',
    `${JSON.stringify(text)} in the path is no platform such as linux-arm64, no list such as linux-amd64_linux-arm64, not any, and no set of this mirror's configuration.`,
  );
}

function fromHeader(text: string, rules: PlatformRules): PlatformSet {
  const set = parsePlatformSet(text, rules.sets, 'header');
  if (set) return set;
  throw new NarrowsError(
    'platformInvalid',
    `Narrows-Platform: ${JSON.stringify(text.slice(0, 80))} is no platform such as linux/arm64, no comma list of them, not any, and no set of this mirror's configuration.`,
  );
}

/** The narrowest network that holds the address, so that an exception inside a larger network works in any order. */
function fromAddress(address: string, rules: readonly AddressRule[]): PlatformSet | undefined {
  const plain = address.replace(/^::ffff:(?=[0-9.]+$)/i, '');
  const holding = rules.filter((rule) => rule.network.check(plain, familyOf(plain)));
  return holding.toSorted((a, b) => b.prefix - a.prefix)[0]?.set;
}

/**
 * `os/linux arch/arm64`, as the daemons of Docker and CRI-O write it. Only what stands before `UpstreamClient(` is
 * the daemon's own: inside is the command line's system (moby `dockerversion/useragent.go`).
 */
function fromUserAgent(userAgent: string | undefined): PlatformSet | undefined {
  const daemon = userAgent?.split(' UpstreamClient(', 1)[0] ?? '';
  const match = /(?:^| )os\/([A-Za-z0-9_.-]+) arch\/([A-Za-z0-9_.-]+)/.exec(daemon);
  // It has no variant: to take `arm` for v7 would hand a v6 machine what it cannot run.
  const platform = match && match[2] !== 'arm' ? parsePlatform(`${match[1]}/${match[2]}`) : undefined;
  return platform ? [platform] : undefined;
}
