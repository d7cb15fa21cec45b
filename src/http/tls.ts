import { createSecureContext } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';

/** PEM, as the files have it. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** The authorities whose certificates say who a client is. */
  readonly clientCa?: string | undefined;
}

/** What a listener says with TLS; another one can take its place while it serves. */
export interface Tls {
  readonly files: TlsFiles;
  /** Is told of each later one that fits together. */
  onRenewed(take: (files: TlsFiles) => void): void;
}

/** What a client's certificate says: a name that an authority vouches for, or nothing that counts. */
export type Certificate = { readonly user: string } | 'untrusted';

/** A handshake that is not done by then holds a connection for nothing. */
export function tlsOptions({ files, handshakeTimeoutMs }: { files: TlsFiles; handshakeTimeoutMs: number }) {
  return {
    ...contextOf(files),
    handshakeTimeout: handshakeTimeoutMs,
    // Whoever shows none is nobody, and may read what everyone may; a wrong one is refused with the reason, later.
    requestCert: files.clientCa !== undefined,
    rejectUnauthorized: false,
  };
}

/** @throws Error where the key is not the certificate's, or any of it is no PEM */
export function contextOf({ cert, key, clientCa }: TlsFiles): { cert: string; key: string; ca?: string } {
  const options = { cert, key, ...(clientCa !== undefined && { ca: clientCa }) };
  createSecureContext(options);
  return options;
}

const seen = new WeakMap<Socket, Certificate | undefined>();

/** Who the connection's certificate says it is, by its common name; undefined where none was shown. */
export function certificateOf(socket: Socket): Certificate | undefined {
  if (!('authorized' in socket)) return undefined;
  // Taking a certificate apart costs more than many an answer, and it is the same as long as the connection is.
  if (!seen.has(socket)) seen.set(socket, read(socket as TLSSocket));
  return seen.get(socket);
}

function read(socket: TLSSocket): Certificate | undefined {
  const { subject } = socket.getPeerCertificate() as { subject?: { CN?: string | string[] } };
  if (subject === undefined) return undefined;
  const { CN: name } = subject;
  // Several names are none: which of them the authority meant nobody can say.
  return socket.authorized && typeof name === 'string' && name !== '' ? { user: name } : 'untrusted';
}
