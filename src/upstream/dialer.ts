import { lookup } from 'node:dns';
import type { LookupAddress, LookupOptions } from 'node:dns';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { getCACertificates } from 'node:tls';
import { buildConnector } from 'undici';
import type { ReceiveBuffers } from './receiving.ts';

export interface DialerOptions {
  /** PEM certificates that are trusted beside the system's. */
  readonly ca?: string | undefined;
  /** Is shown to the registry itself, and to nobody that it points to. */
  readonly own?: OwnCertificate | undefined;
  readonly connectTimeoutMs: number;
  /** What connections receive into that are not encrypted; undefined for memory of the runtime's. */
  readonly receiveBuffers?: ReceiveBuffers | undefined;
  /** Hosts that the operator named: they may be at any address. */
  isTrusted(host: string, port: number): boolean;
}

/** A certificate that says who we are, PEM. */
export interface OwnCertificate {
  readonly cert: string;
  readonly key: string;
  readonly host: string;
  readonly port: number;
}

/**
 * Opens connections to where an upstream points. Hosts that the configuration does not name must have a public
 * address: otherwise a registry could have us ask the cloud's metadata service, or a neighbour behind the firewall.
 * The check is in the name look-up of the very connection, so that a name which answers differently the second time
 * gains nothing.
 */
export function createDialer({
  ca,
  own,
  connectTimeoutMs,
  receiveBuffers,
  isTrusted,
}: DialerOptions): buildConnector.connector {
  const common = { timeout: connectTimeoutMs, allowH2: false, ...(ca && { ca: withSystem(ca) }) };
  const free = connectorOf(common, receiveBuffers);
  const known = own && buildConnector({ ...common, cert: own.cert, key: own.key });
  // undici hands on what it does not know to net.connect, which takes a look-up of its own.
  const guarded = connectorOf({ ...common, lookup: publicLookup }, receiveBuffers);
  return (options, callback) => {
    const host = options.hostname.replace(/^\[|\]$/g, '');
    const port = Number(options.port || (options.protocol === 'https:' ? 443 : 80));
    if (known && own.host === host && own.port === port) return known(options, callback);
    if (isTrusted(host, port)) return free(options, callback);
    if (isIP(host) && !isPublic(host)) return callback(refusal(host), null);
    return guarded(options, callback);
  };
}

/**
 * What is encrypted comes in records of 16 KiB, which the runtime has memory for of its own; and so do those who show a
 * certificate. `onread` is of one connection, so each has a connector.
 */
function connectorOf(
  options: buildConnector.BuildOptions,
  receiveBuffers: ReceiveBuffers | undefined,
): buildConnector.connector {
  const usual = buildConnector(options);
  if (!receiveBuffers) return usual;
  return (target, callback) => {
    if (target.protocol === 'https:') return usual(target, callback);
    const receiver = receiveBuffers.receiver();
    buildConnector({ ...options, onread: receiver.onread })(target, (...outcome) => {
      if (outcome[1]) receiver.attach(outcome[1]);
      callback(...outcome);
    });
  };
}

/** An authority of one's own stands beside those of the system, not in their place. */
export function withSystem(ca: string): string[] {
  return [...getCACertificates(), ca];
}

type LookupCallback = (error: Error | null, address: string | LookupAddress[], family?: number) => void;

function publicLookup(hostname: string, options: LookupOptions, callback: LookupCallback): void {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, '');
    const allowed = addresses.filter(({ address }) => isPublic(address));
    const first = allowed[0];
    if (!first) return callback(refusal(hostname), '');
    return options.all ? callback(null, allowed) : callback(null, first.address, first.family);
  });
}

function refusal(host: string): Error {
  return Object.assign(
    new Error(`${host} is not a public address, and not one of this upstream's trustedHosts: it is not dialled`),
    { code: 'ENARROWS_ADDRESS' },
  );
}

const reserved = new BlockList();
// The special-purpose registries of IANA (RFC 6890 and its successors), addresses that embed others included.
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
  // Azure's WireServer: a public address that leads into the host of every virtual machine there
  // (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
  ['168.63.129.16', 32],
] as const) {
  reserved.addSubnet(network, prefix, 'ipv4');
}
for (const [network, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const) {
  reserved.addSubnet(network, prefix, 'ipv6');
}

/** All of IPv6 that is used on the open internet. */
const outside = new BlockList();
outside.addSubnet('2000::', 3, 'ipv6');
// IPv4 in IPv6 clothes: the rules of IPv4 are applied to what it wears.
outside.addSubnet('::ffff:0:0', 96, 'ipv6');

/** Is this an address of the open internet? An IPv4 address in IPv6 clothes is judged as what it is. */
export function isPublic(address: string): boolean {
  const plain = address.split('%', 1)[0] ?? '';
  if (!isIP(plain)) return false;
  if (!isIPv6(plain)) return !reserved.check(plain, 'ipv4');
  return outside.check(plain, 'ipv6') && !reserved.check(plain, 'ipv6');
}

/** As far as a name alone can tell, for where a proxy looks it up: no address of the inside, and no name for one. */
export function looksPublic(host: string): boolean {
  return isIP(host) ? isPublic(host) : host.includes('.') && !/\.?(?:localhost|local|internal)\.?$/i.test(host);
}
