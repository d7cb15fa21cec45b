import { domainToASCII } from 'node:url';

/**
 * A host, with its port where it has one, in the one form that others are compared with: lower case, IDN as ASCII, the
 * shortest spelling of an IPv6 address in its brackets and without a zone, no dot at the end. Undefined for what is none.
 */
export function canonicalHost(text: string): { readonly host: string; readonly port: string } | undefined {
  const [, name = '', port = ''] = /^(\[[^\]]+\]|[^\s/@:?#\\[\]%]+?)\.?(:\d{1,5})?$/.exec(text) ?? [];
  if (!name.startsWith('[')) {
    const host = domainToASCII(name);
    return host === '' || host.endsWith('.') ? undefined : { host, port };
  }
  const plain = URL.parse(`http://${name.replace(/%[^\]]*/, '')}`);
  return plain ? { host: plain.hostname, port } : undefined;
}

/** The same as text, with its port; what is no host is left as it is. */
export function canonicalName(text: string): string {
  const found = canonicalHost(text);
  return found ? found.host + found.port : text;
}
