import { readFile } from 'node:fs/promises';
import type { Login } from '../access/identity.ts';
import type { Config } from '../config.ts';
import { formatPlatformSet } from '../oci/platform.ts';
import { createCredentials, dockerConfigSource } from '../upstream/credentials.ts';
import type { CredentialSource } from '../upstream/credentials.ts';
import { createOfflineRegistry } from '../upstream/offline.ts';
import { createRegistry } from '../upstream/registry.ts';
import { createReceiveBuffers } from '../upstream/receiving.ts';
import type { ReceiveBuffers } from '../upstream/receiving.ts';
import type { RegistryOptions } from '../upstream/registry.ts';
import type { CallersUpstream, Upstream } from '../upstream/upstream.ts';
import type { Context } from './context.ts';
import { keptPlatforms, namedSets } from './pull-rules.ts';

export interface Upstreams {
  /** All registries that the configuration names, by their names; offline, they have no sockets to open. */
  readonly all: ReadonlyMap<string, Upstream>;
  /** One of them as it is to a caller, with nothing that is this mirror's own. */
  asCaller(name: string, login: Login | undefined): CallersUpstream;
}

export async function openUpstreams(context: Context): Promise<Upstreams> {
  const { config, closers, now } = context;
  const all = new Map<string, Upstream>();
  const opened = new Map<string, RegistryOptions>();
  const receiveBuffers = createReceiveBuffers(config.limits.receiveBuffers);
  for (const name of Object.keys(config.upstreams)) {
    if (config.offline) {
      all.set(name, createOfflineRegistry(name));
      continue;
    }
    const options = await registryOptions(name, context, receiveBuffers);
    const registry = createRegistry(options);
    closers.push(() => registry.close());
    opened.set(name, options);
    all.set(name, registry);
  }
  return {
    all,
    asCaller(name, login) {
      const { clientCertificate: _ours, limits, ...options } = opened.get(name)!;
      const credential: CredentialSource = () => Promise.resolve(login && { kind: 'password', ...login });
      const callers = { maxConnections: 2, maxRequests: 2, maxTokens: 2 };
      return createRegistry({
        ...options,
        credentials: createCredentials(credential, now),
        limits: { ...limits, ...callers },
      });
    },
  };
}

async function registryOptions(
  name: string,
  { config, now, metrics, pseudonym }: Context,
  receiveBuffers: ReceiveBuffers,
): Promise<RegistryOptions> {
  const { limits } = config;
  const settings = config.upstreams[name]!;
  const url = new URL(settings.url);
  return {
    name,
    url,
    credentials: createCredentials(credentialSource(settings, config.dockerConfig, url), now),
    ca: settings.ca === undefined ? undefined : await readFile(settings.ca, 'utf8'),
    clientCertificate: settings.clientCertificate && (await readPair(settings.clientCertificate)),
    proxy: settings.proxy === undefined || settings.proxy === 'none' ? undefined : new URL(settings.proxy),
    trustedHosts: settings.trustedHosts ?? [],
    maxManifestBytes: limits.manifestSize,
    isTraced: settings.hub,
    hub: settings.hub ? { platforms: keptAs(config) } : undefined,
    limits: {
      maxConnections: limits.upstreamConnections,
      maxRequests: limits.upstreamRequests,
      connectTimeoutMs: limits.upstreamConnect,
      headersTimeoutMs: limits.upstreamHeaders,
      stallTimeoutMs: limits.upstreamStall,
      maxTokens: limits.upstreamTokens,
    },
    receiveBuffers,
    pseudonym,
    now,
    onAnswer: metrics.upstreamAnswered,
    onBytes: metrics.upstreamSent,
  };
}

/** What is kept here, in the words of the header that a client would send. */
function keptAs(config: Config): string | undefined {
  const kept = keptPlatforms(config, namedSets(config));
  return kept === 'any' ? undefined : formatPlatformSet(kept);
}

async function readPair({ cert, key }: { cert: string; key: string }): Promise<{ cert: string; key: string }> {
  const [certificate, secret] = await Promise.all([readFile(cert, 'utf8'), readFile(key, 'utf8')]);
  return { cert: certificate, key: secret };
}

/** A password in a file is read each time it is asked for, so that a rotated secret takes effect. */
function credentialSource(
  { credentials }: Config['upstreams'][string],
  dockerConfig: string | null,
  url: URL,
): CredentialSource {
  if (!credentials)
    return dockerConfig === null ? () => Promise.resolve(undefined) : dockerConfigSource(dockerConfig, url.host);
  const { username, password, passwordFile } = credentials;
  return async () => {
    const secret = passwordFile === undefined ? (password ?? '') : (await readFile(passwordFile, 'utf8')).trimEnd();
    return { kind: 'password', username, password: secret };
  };
}
