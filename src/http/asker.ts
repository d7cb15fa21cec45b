import type { IncomingMessage } from 'node:http';
import type { Asker } from '../access/access.ts';
import { certificateOf } from './tls.ts';

/** What a request says about who makes it. Headers that proxies add are not looked at: anyone can send them. */
export function askerOf({ headers, socket }: IncomingMessage, isSecure: boolean): Asker {
  const { host = '' } = headers;
  return {
    authorization: headers.authorization,
    address: socket.remoteAddress,
    certificate: certificateOf(socket),
    // It is said back to this client alone.
    origin: /^[\w.:[\]-]{1,255}$/.test(host) ? `${isSecure ? 'https' : 'http'}://${host}` : undefined,
  };
}
