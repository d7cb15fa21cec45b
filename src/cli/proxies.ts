import { BlockList, isIP, isIPv6 } from 'node:net';

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The proxy that the environment names for a URL, as curl, containerd and Docker read it: `HTTPS_PROXY` or `HTTP_PROXY`
 * by the URL's scheme, unless `NO_PROXY` lists the host. What is at this machine never goes through one
 * (Go's golang.org/x/net/http/httpproxy). Lower-case names are read first.
 */
export function proxyFor(url: URL, env: Environment): string | undefined {
  const said = (name: string) => env[name.toLowerCase()] || env[name] || undefined;
  const proxy = said(proxyVariable(url));
  if (proxy === undefined || isExempt(url, said('NO_PROXY') ?? '')) return undefined;
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
}

export function proxyVariable(url: URL): 'HTTPS_PROXY' | 'HTTP_PROXY' {
  return url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
}

function isExempt(url: URL, list: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || loopback.check(host, familyOf(host))) return true;
  const entries = list
    .toLowerCase()
    .split(',')
    .map((entry) => entry.trim());
  return entries.some((entry) => entry === '*' || (entry !== '' && covers(entry, host, port)));
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8);
loopback.addAddress('::1', 'ipv6');

function covers(entry: string, host: string, port: string): boolean {
  const network = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry);
  if (network) return isIP(host) > 0 && isWithin(host, network[1]!, Number(network[2]));
  const [, bracketed, plain = entry, itsPort] = /^(?:\[([^\]]+)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? [];
  if (itsPort !== undefined && itsPort !== port) return false;
  const name = (bracketed ?? plain).replace(/^\*(?=\.)/, '').replace(/\.$/, '');
  // A dot before it leaves the name itself out.
  return name.startsWith('.') ? host.endsWith(name) : host === name || (!isIP(host) && host.endsWith(`.${name}`));
}

function isWithin(host: string, network: string, bits: number): boolean {
  if (!isIP(network) || isIPv6(network) !== isIPv6(host) || bits > (isIPv6(network) ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, familyOf(network));
  return list.check(host, familyOf(host));
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIPv6(address) ? 'ipv6' : 'ipv4';
}
