import { readFile } from 'node:fs/promises';
import type { Config } from '../config.ts';
import { createCredentials, dockerConfigSource } from '../upstream/credentials.ts';
import type { CredentialSource } from '../upstream/credentials.ts';
import { createOfflineRegistry } from '../upstream/offline.ts';
import { createRegistry } from '../upstream/registry.ts';
import type { Registry } from '../upstream/registry.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Context } from './context.ts';

/** All registries that the configuration names, by their names; offline, they have no sockets to open. */
export async function openUpstreams(context: Context): Promise<Map<string, Upstream>> {
  const { config, closers } = context;
  const upstreams = new Map<string, Upstream>();
  for (const name of Object.keys(config.upstreams)) {
    if (config.offline) {
      upstreams.set(name, createOfflineRegistry(name));
      continue;
    }
    const registry = await openRegistry(name, context);
    closers.push(() => registry.close());
    upstreams.set(name, registry);
  }
  return upstreams;
}

async function openRegistry(name: string, { config, now, metrics, pseudonym }: Context): Promise<Registry> {
  const { limits } = config;
  const settings = config.upstreams[name]!;
  const url = new URL(settings.url);
  return createRegistry({
    name,
    url,
    credentials: createCredentials(credentialSource(settings, config.dockerConfig, url), now),
    ca: settings.ca === undefined ? undefined : await readFile(settings.ca, 'utf8'),
    clientCertificate: settings.clientCertificate && (await readPair(settings.clientCertificate)),
    proxy: settings.proxy === undefined || settings.proxy === 'none' ? undefined : new URL(settings.proxy),
    trustedHosts: settings.trustedHosts ?? [],
    maxManifestBytes: limits.manifestSize,
    limits: {
      maxConnections: limits.upstreamConnections,
      maxRequests: limits.upstreamRequests,
      connectTimeoutMs: limits.upstreamConnect,
      headersTimeoutMs: limits.upstreamHeaders,
      stallTimeoutMs: limits.upstreamStall,
      maxTokens: limits.upstreamTokens,
    },
    pseudonym,
    now,
    onAnswer: metrics.upstreamAnswered,
    onBytes: metrics.upstreamSent,
  });
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
