/** Whom the operator named: credentials may go there, and private addresses may be behind it. */
export interface Trusting {
  readonly url: URL;
  /** Hosts, with or without a port. */
  readonly trustedHosts: readonly string[];
}

/** The registry itself, or a host that the operator named; never from https down to http, never with a login in it. */
export function isTrustedRealm(realm: URL, { url, trustedHosts }: Trusting): boolean {
  if (realm.username || realm.password) return false;
  if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && url.protocol === 'http:')) return false;
  if (realm.origin === url.origin) return true;
  return trustedHosts.some((entry) => isHost(entry, bareHost(realm), portOf(realm)));
}

export function isTrusted(host: string, port: number, { url, trustedHosts }: Trusting): boolean {
  return (host === bareHost(url) && port === portOf(url)) || trustedHosts.some((entry) => isHost(entry, host, port));
}

export function isTrustedHost(at: URL, options: Trusting): boolean {
  return isTrusted(bareHost(at), portOf(at), options);
}

function isHost(entry: string, host: string, port: number): boolean {
  return entry === host || entry === `${host}:${port}` || entry === `[${host}]:${port}`;
}

export function bareHost(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '');
}

export function portOf(url: URL): number {
  return Number(url.port || (url.protocol === 'https:' ? 443 : 80));
}
