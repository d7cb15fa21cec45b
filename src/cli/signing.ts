import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { BundleError } from '../airgap/tar.ts';
import { CommandError } from './io.ts';

/** Signs with a private key in PEM: Ed25519, ECDSA or RSA, the latter two over SHA-256. @throws CommandError */
export async function readSigner(path: string): Promise<(bytes: Buffer) => Buffer> {
  const key = await readKey(path, createPrivateKey, 'private');
  return (bytes) => sign(hashOf(key), bytes, key);
}

/**
 * Holds a bundle to its signature.
 *
 * @param path of a public key in PEM; undefined takes what is not signed, and what somebody signed, as it is
 * @throws CommandError for a key that cannot be read
 */
export async function readVerifier(path: string | undefined) {
  const key = path === undefined ? undefined : await readKey(path, createPublicKey, 'public');
  /** @throws BundleError */
  return (contents: Buffer | undefined, signature: Buffer | undefined): void => {
    if (!key) return;
    if (!contents || !signature)
      throw new BundleError('the bundle', 'is not signed, and --verify-key says that it has to be');
    if (!verify(hashOf(key), contents, key, signature))
      throw new BundleError('the bundle', 'is signed by another key than that of --verify-key');
  };
}

/** Others agree on secrets, and sign nothing. */
const signing = ['ed25519', 'ed448', 'ec', 'rsa', 'rsa-pss'];

/** Ed25519 hashes for itself. */
function hashOf({ asymmetricKeyType }: KeyObject): 'sha256' | null {
  return asymmetricKeyType === 'ed25519' || asymmetricKeyType === 'ed448' ? null : 'sha256';
}

async function readKey(path: string, read: (pem: Buffer) => KeyObject, what: string): Promise<KeyObject> {
  try {
    const key = read(await readFile(path));
    if (!signing.includes(key.asymmetricKeyType ?? '')) throw new Error(`${key.asymmetricKeyType} does not sign`);
    return key;
  } catch (error) {
    throw new CommandError(2, `${path} is no ${what} key in PEM (openssl genpkey -algorithm ed25519 makes one).`, {
      cause: error,
    });
  }
}
