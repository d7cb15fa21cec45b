import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';

export type Credential =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token of the registry's token service (`identitytoken` in a Docker configuration). */
  | { readonly kind: 'identity'; readonly token: string };

/** Where the credential of one upstream comes from; asked again after `forget`, so that a new secret takes effect. */
export interface Credentials {
  get(): Promise<Credential | undefined>;
  forget(): void;
}

export type CredentialSource = () => Promise<Credential | undefined>;

/** Helpers start a program and files are mounted by others: neither is asked for every token. */
const keepMs = 5 * 60_000;

export function createCredentials(source: CredentialSource, now: () => number): Credentials {
  let kept: { value: Promise<Credential | undefined>; untilMs: number } | undefined;
  return {
    get() {
      if (!kept || kept.untilMs <= now()) {
        const value = source();
        kept = { value, untilMs: now() + keepMs };
        value.catch(() => (kept = undefined));
      }
      return kept.value;
    },
    forget() {
      kept = undefined;
    },
  };
}

/** @param host the registry's host as in its URL, with its port */
export function dockerConfigSource(path: string, host: string): CredentialSource {
  return async () => {
    const config = parseJson<DockerConfig>(await readFile(path, 'utf8'), path);
    const helper = helperFor(config, host);
    return helper ? askHelper(helper, host) : readAuth(config, host);
  };
}

/** The parts of Docker's `config.json` that hold credentials. */
interface DockerConfig {
  auths?: Record<string, { auth?: string; username?: string; password?: string; identitytoken?: string }>;
  credHelpers?: Record<string, string>;
  credsStore?: string;
}

/** Docker files the credentials of docker.io under the address of its first index. */
function namesOf(host: string): string[] {
  return host === 'registry-1.docker.io' ? ['index.docker.io', 'docker.io', host] : [host];
}

/** `https://index.docker.io/v1/` and `index.docker.io` are one host. Hosts are compared whole: a part would leak. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, '').replace(/\/(?:v[12]\/?)?$/, '');
}

function lookUp<T>(entries: Record<string, T> | undefined, host: string): [key: string, value: T] | undefined {
  const names = namesOf(host);
  return Object.entries(entries ?? {}).find(([key]) => names.includes(hostOf(key)));
}

/** Without the parser's own message, which quotes what it stumbled over: here that is a secret. */
function parseJson<T>(text: string, what: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new Error(`${what} gives no JSON`);
  }
}

function readAuth(config: DockerConfig, host: string): Credential | undefined {
  const entry = lookUp(config.auths, host)?.[1];
  if (!entry) return undefined;
  if (entry.identitytoken) return { kind: 'identity', token: entry.identitytoken };
  if (!entry.auth && !entry.password) return undefined;
  const plain = entry.auth ? Buffer.from(entry.auth, 'base64').toString() : `${entry.username}:${entry.password}`;
  const colon = plain.indexOf(':');
  if (colon <= 0) return undefined;
  return { kind: 'password', username: plain.slice(0, colon), password: plain.slice(colon + 1) };
}

function helperFor(config: DockerConfig, host: string): string | undefined {
  const helper = lookUp(config.credHelpers, host)?.[1] ?? config.credsStore;
  // It becomes the name of a program.
  return helper && /^[A-Za-z0-9_.-]+$/.test(helper) ? helper : undefined;
}

const helperTimeoutMs = 10_000;
const maxHelperBytes = 64 * 1024;

/** The protocol of docker-credential-helpers: the server on stdin, JSON on stdout. */
async function askHelper(helper: string, host: string): Promise<Credential | undefined> {
  const server = host === 'registry-1.docker.io' ? 'https://index.docker.io/v1/' : host;
  const program = `docker-credential-${helper}`;
  const output = await new Promise<string>((resolve, reject) => {
    const options = { timeout: helperTimeoutMs, maxBuffer: maxHelperBytes };
    const child = execFile(program, ['get'], options, (error, stdout) => {
      // Helpers say on stdout that they know no such server; what else they print may hold secrets.
      if (!error || stdout.includes('credentials not found')) resolve(stdout);
      else reject(new Error(`${program} failed (${error.code ?? error.signal ?? 'no code'})`));
    });
    child.stdin?.on('error', () => undefined).end(server);
  });
  if (output.includes('credentials not found')) return undefined;
  const { Username, Secret } = parseJson<{ Username?: string; Secret?: string }>(output, program);
  if (!Secret) return undefined;
  if (Username === '<token>') return { kind: 'identity', token: Secret };
  return { kind: 'password', username: Username ?? '', password: Secret };
}
